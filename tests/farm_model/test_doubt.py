"""Servers that fail bucket after bucket beside good ones, on a simulated clock."""

from __future__ import annotations

import pytest

from dr.broker.commands import Status, Topic
from dr.protocol.messages import BucketWork
from tests.support.simulated_farm import Held, SimulatedServer, make_frame
from tests.support.timed_farm import TimedFarm

GOOD, BAD = "tcp://10.0.0.1:20204", "tcp://10.0.0.1:20205"
BUCKET_S, FAILURE_S = 0.1, 0.001


class FailingFarm(TimedFarm):
    """Some servers fail, at once: what `fails` says of a server and a bucket."""

    def __init__(self, bad: dict[str, set[int] | None]) -> None:
        """`bad`: endpoints to the buckets that fail there; None: all of them."""
        super().__init__(lambda endpoint, work: BUCKET_S)
        self.bad = bad
        self.failures = 0

    def fails(self, endpoint: str, work: BucketWork) -> bool:
        buckets = self.bad.get(endpoint, set())
        return buckets is None or work.id in buckets

    def _begin(self, server: SimulatedServer, peer: bytes, held: Held) -> None:
        if not self.fails(server.endpoint, held.work):
            super()._begin(server, peer, held)
            return

        def fail() -> None:
            if held in server.works:
                self.failures += 1
                self._return(peer, server.fail(held))
                self._begin_all(server, peer)

        self.after(FAILURE_S, fail)


def render(farm: FailingFarm, *endpoints: str, threads: int = 2) -> float:
    return farm.render(make_frame(640, 480, 16), [SimulatedServer(endpoint, threads) for endpoint in endpoints])


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_a_server_that_fails_at_once_does_not_eat_the_queue(threads: int) -> None:
    farm = FailingFarm({BAD: None})
    seconds = render(farm, GOOD, BAD, threads=threads)
    assert farm.finished is not None
    assert farm.finished.status is Status.COMPLETE
    assert farm.failures <= 2 * threads + 16
    assert seconds <= 1.1 * 1200 / threads * BUCKET_S + 1.5 * farm.failures * BUCKET_S  # which are tried again alone
    assert [n.endpoint for n in farm.notices if n.topic is Topic.REFUSED] == [BAD]


def test_a_farm_of_bad_servers_alone_ends_at_once() -> None:
    farm = FailingFarm({GOOD: None, BAD: None})
    render(farm, GOOD, BAD)
    assert farm.finished is not None
    assert farm.finished.status is Status.INCOMPLETE
    assert len(farm.finished.poisoned) == 1200


def test_bad_buckets_do_not_cost_a_good_server() -> None:
    poison = {0, 1, 2, 3, 4, 5}
    farm = FailingFarm({GOOD: poison, BAD: poison})
    seconds = render(farm, GOOD, BAD)
    assert farm.finished is not None
    assert {each.bucket.id for each in farm.finished.poisoned} == poison
    assert seconds <= 1.15 * 1200 / 4 * BUCKET_S
    assert not [n for n in farm.notices if n.topic is Topic.REFUSED]
