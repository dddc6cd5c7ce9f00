"""How long a frame takes on farms of every kind, on a simulated clock: the promises of farm.md and protocol.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dr.broker.commands import Status, Topic
from dr.broker.job import Frame
from dr.protocol.messages import BucketWork
from tests.support.simulated_farm import SimulatedServer, make_frame
from tests.support.timed_farm import TimedFarm


def servers(count: int, threads: int) -> list[SimulatedServer]:
    return [SimulatedServer(f"tcp://server-{index:03d}", threads) for index in range(count)]


def frame_of(buckets: int) -> Frame:
    return make_frame(width=16 * buckets, height=16, size=16)


def share(work: BucketWork) -> float:
    """Of a whole bucket, because the last ones are split."""
    return work.width * work.height / (16 * 16)


def same_for_all(seconds: float) -> Callable[[str, BucketWork], float]:
    return lambda endpoint, work: seconds * share(work)


@pytest.mark.parametrize("threads", [1, 4, 64])
@pytest.mark.parametrize("latency_s", [0.0001, 0.01, 0.025])
def test_threads_are_busy_95_percent_of_the_time_however_far_away(latency_s: float, threads: int) -> None:
    farm = TimedFarm(same_for_all(0.02), latency_s)
    buckets = 200 * 2 * threads
    seconds = farm.render(frame_of(buckets), servers(2, threads))
    ideal = buckets * 0.02 / (2 * threads)
    assert ideal / seconds >= 0.95


def test_a_server_that_is_ten_times_slower_costs_at_most_3_percent() -> None:
    def bucket_s(endpoint: str, work: BucketWork) -> float:
        return (1.0 if endpoint.endswith("003") else 0.1) * share(work)

    without = TimedFarm(bucket_s).render(frame_of(2400), servers(3, threads=2))
    beside = TimedFarm(bucket_s).render(frame_of(2400), servers(4, threads=2))
    assert beside <= 1.03 * without


def test_a_thread_that_never_ends_is_raced() -> None:
    def bucket_s(endpoint: str, work: BucketWork) -> float:
        hangs = endpoint.endswith("001") and work.x // 16 % 50 == 7
        return 5000.0 if hangs else 0.1 * share(work)

    farm = TimedFarm(bucket_s)
    seconds = farm.render(frame_of(400), servers(2, threads=4))
    assert farm.finished.status is Status.COMPLETE
    # 8 threads, of which those of one server may all hang in the end: half of the farm, and one race
    assert seconds <= 400 * 0.1 / 4 + 1.0


def test_buckets_of_very_different_cost_leave_no_thread_idle_for_long() -> None:
    costs = np.random.default_rng(5).lognormal(mean=-2.0, sigma=1.0, size=600)
    farm = TimedFarm(lambda endpoint, work: float(costs[work.x // 16]) * share(work))
    seconds = farm.render(frame_of(600), servers(4, threads=4))
    assert seconds <= costs.sum() / 16 + 1.5 * costs.max()


def test_a_late_joiner_takes_its_share() -> None:
    farm = TimedFarm(same_for_all(0.1))
    first, late = servers(2, threads=4)
    farm.after(4.0, lambda: farm.add(late))
    seconds = farm.render(frame_of(400), [first])
    assert seconds == pytest.approx(7.0, abs=0.3)  # 160 of 400 buckets in 4 s, the others twice as fast
    shares = [sum(share(t.bucket) for t in farm.merged.values() if t.server == s.endpoint) for s in (first, late)]
    assert abs(shares[0] - 280) <= 12


@pytest.mark.parametrize("way", ["kill", "cut_off"])
def test_a_server_lost_in_the_middle_costs_its_share_and_the_time_to_notice(way: str) -> None:
    farm = TimedFarm(same_for_all(0.1))
    lost, *others = servers(4, threads=2)
    farm.after(5.0, lambda: getattr(farm, way)(lost.endpoint))
    seconds = farm.render(frame_of(800), [lost, *others])
    assert farm.finished.status is Status.COMPLETE
    assert [notice.endpoint for notice in farm.notices if notice.topic is Topic.LOST] == [lost.endpoint]
    # 8 threads for 5 s, then 6; suspects come alone in the end, one on a server at a time
    assert seconds == pytest.approx(5.0 + (800 - 400) * 0.1 / 6, abs=0.5)


@pytest.mark.slow
def test_a_thousand_servers_render_a_frame() -> None:
    farm = TimedFarm(same_for_all(1.0))
    seconds = farm.render(frame_of(4000), servers(1000, threads=1))
    assert seconds == pytest.approx(4.0, abs=0.1)
