"""The end of a frame on farms of unlike servers: nobody waits for the slow, the hung or the far away."""

from __future__ import annotations

import pytest

from dr.broker.commands import Status, Topic
from tests.support.uneven_farm import UnevenFarm

SEEDS = (1, 2, 3)
FRAME_S = 30.0


def speeds(slow: float, count: int = 4) -> dict[str, float]:
    """One of them is so many times slower."""
    return {f"tcp://server-{index:03d}": 1.0 if index else 1 / slow for index in range(count)}


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("latency_s", [0.0005, 0.025])
@pytest.mark.parametrize("slow", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("threads", [1, 4, 20])
def test_a_slow_server_costs_at_most_3_percent_of_the_frame(
    threads: int, slow: float, latency_s: float, adaptive: bool
) -> None:
    """Against the ideal, in which no thread of the same farm ever waits; buckets cost up to ten times as much."""
    for seed in SEEDS if threads < 20 else SEEDS[:1]:
        farm = UnevenFarm(seed, speeds(slow), threads, frame_s=FRAME_S, latency_s=latency_s)
        assert farm.render_all(adaptive) <= 1.03 * FRAME_S
        assert sum(tile.bucket.width * tile.bucket.height for tile in farm.merged.values()) == 1280 * 720
        if not adaptive:
            assert len(farm.merged) <= 2 * farm.sizes[0]


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("threads", [1, 4, 20])
def test_equal_servers_end_together(threads: int, adaptive: bool) -> None:
    farm = UnevenFarm(7, speeds(1.0), threads, frame_s=FRAME_S)
    assert farm.render_all(adaptive) <= 1.01 * FRAME_S


@pytest.mark.parametrize("slow", [1.0, 10.0])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("threads", [1, 20])
def test_servers_are_not_idle_between_the_frames_of_an_animation(threads: int, adaptive: bool, slow: float) -> None:
    farm = UnevenFarm(1, speeds(slow), threads, frame_s=2.0, frames=20)
    assert 20 * 2.0 / farm.render_all(adaptive) >= 0.98
    assert [each.frame for each in farm.frames_finished] == list(range(20))


def test_a_frame_of_an_animation_does_not_wait_for_a_slow_server() -> None:
    """While the next frame has work nobody is idle: what is late is raced all the same."""
    farm = UnevenFarm(1, speeds(100.0), 4, frame_s=2.0, frames=3)
    ends: list[float] = []
    tell = farm.tell

    def note(event: object) -> None:
        tell(event)  # type: ignore[arg-type]
        if len(ends) < len(farm.frames_finished):
            ends.append(farm.now)

    farm.tell = note  # type: ignore[method-assign]
    farm.render_all(adaptive=True)
    assert max(later - earlier for earlier, later in zip([0.0, *ends], ends, strict=False)) <= 4.0


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("threads", [1, 4, 20])
@pytest.mark.parametrize("hung", [1, 3])
def test_a_server_whose_threads_all_hang_is_set_aside_and_costs_its_share(
    threads: int, hung: int, adaptive: bool
) -> None:
    farm = UnevenFarm(1, speeds(1.0), threads, frame_s=20.0)
    sick = set(list(farm.speeds)[:hung])
    farm.hangs = lambda endpoint, now: endpoint in sick and now > 5.0
    seconds = farm.render_all(adaptive)
    assert farm.finished is not None
    assert farm.finished.status is Status.COMPLETE
    assert {(n.endpoint, n.text) for n in farm.notices if n.topic is Topic.REFUSED} == {
        (endpoint, "its render threads hang") for endpoint in sick
    }
    assert seconds <= 1.05 * (5.0 + 15.0 * 4 / (4 - hung)) + 1.0


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_that_hang_here_and_there_cost_a_race_each(threads: int) -> None:
    farm, begun = UnevenFarm(1, speeds(1.0), threads, frame_s=20.0), iter(range(1, 1 << 30))
    farm.hangs = lambda endpoint, now: not endpoint.endswith("001") and next(begun) % 50 == 0
    farm.render_all(adaptive=True)
    assert farm.finished is not None
    assert farm.finished.status is Status.COMPLETE


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("said_s", [0.0, 1e9])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_slow_server_that_lies_about_its_speed_costs_hardly_more(threads: int, said_s: float, adaptive: bool) -> None:
    farm = UnevenFarm(2, speeds(10.0), threads, frame_s=FRAME_S)
    farm.lies = {next(iter(farm.speeds)): said_s}
    assert farm.render_all(adaptive) <= 1.04 * FRAME_S


@pytest.mark.parametrize("said_s", [0.0, 1e9])
def test_a_lie_about_speed_ends_the_render_of_no_server_alone(said_s: float) -> None:
    farm = UnevenFarm(2, speeds(1.0, count=1), 4, frame_s=FRAME_S)
    farm.lies = dict.fromkeys(farm.speeds, said_s)
    assert farm.render_all(adaptive=True) <= 1.03 * FRAME_S


def test_a_suspect_whose_server_hangs_is_raced_on_a_server_that_holds_nothing_else() -> None:
    farm = UnevenFarm(1, speeds(1.0, count=3), 2, frame_s=20.0)
    victim, sick, _ = farm.speeds
    farm.after(3.0, lambda: farm.kill(victim))
    farm.hangs = lambda endpoint, now: endpoint == sick and now > 20.0
    farm.render_all(adaptive=False)
    assert farm.finished is not None
    assert farm.finished.status is Status.COMPLETE
    assert farm.now <= 60.0
