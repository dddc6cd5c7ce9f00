from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dr.broker.job import LEGAL_MOVES, Job, State
from dr.errors import Impossible
from dr.protocol.messages import BucketWork

A, B, C, D = b"a", b"b", b"c", b"d"


def make_job(count: int = 4) -> Job:
    return Job(BucketWork(index, 16 * index, 0, 16, 16, 0, 16) for index in range(count))


def states(job: Job) -> list[State]:
    return [entry.state for entry in job.entries]


def test_buckets_go_from_the_queue_to_a_server_to_the_picture() -> None:
    job = make_job(2)
    assert job.next_todo() == 0
    job.assign(0, A)
    assert job.next_todo() == 1
    assert job.finish(0) == (A,)
    job.assign(1, B)
    assert job.finish(1) == (B,)
    assert job.is_over
    assert (job.samples, job.samples_done) == (2 * 16 * 16 * 16, 2 * 16 * 16 * 16)


def test_a_released_bucket_is_next() -> None:
    job = make_job()
    job.assign(0, A)
    job.assign(1, A)
    job.release(1, A)
    job.release(0, A)
    assert list(job.todo) == [0, 1, 2, 3]


def test_a_suspect_waits_apart() -> None:
    job = make_job(2)
    job.assign(0, A)
    job.release(0, A, suspect=True)
    assert (job.next_todo(), job.next_suspect(B, frozenset({B}))) == (1, 0)
    assert states(job) == [State.SUSPECT, State.TODO]


def test_the_first_of_two_racers_wins_and_the_other_is_named() -> None:
    job = make_job(1)
    job.assign(0, A)
    job.assign(0, B)
    assert job.finish(0) == (A, B)
    assert job.finish(0) is None


def test_a_racer_that_is_lost_leaves_the_bucket_to_the_other() -> None:
    job = make_job(1)
    job.assign(0, A)
    job.assign(0, B)
    job.release(0, A, suspect=True)
    assert states(job) == [State.ASSIGNED]
    job.release(0, B)
    assert states(job) == [State.SUSPECT]


def test_three_servers_never_race_one_bucket() -> None:
    job = make_job(1)
    job.assign(0, A)
    job.assign(0, B)
    with pytest.raises(Impossible, match="held by 2 servers"):
        job.assign(0, C)


def test_a_tile_counts_though_its_bucket_went_back_to_the_queue() -> None:
    job = make_job(1)
    job.assign(0, A)
    job.release(0, A)
    assert job.finish(0) == ()
    assert job.next_todo() is None
    assert job.is_over


@pytest.mark.parametrize(
    ("seen", "servers", "poisoned"),
    [
        (1, [A], [True]),
        (2, [A, B], [False, True]),
        (2, [A, A, A], [False, False, True]),
        (9, [A, B, C], [False, False, True]),
        (9, [A, A, B], [False, False, True]),
    ],
)
def test_a_bucket_is_poisoned_by_three_failures_or_by_every_server(
    seen: int, servers: list[bytes], poisoned: list[bool]
) -> None:
    job = make_job(1)
    verdicts = []
    for server in servers:
        job.assign(0, server)
        verdicts.append(job.fail(0, server, "kernel raised", seen))
    assert verdicts == poisoned
    assert job.is_over
    assert [(entry.work.id, entry.error) for entry in job.poisoned()] == [(0, "kernel raised")]


def test_a_failure_never_poisons_a_bucket_that_another_server_renders() -> None:
    job = make_job(1)
    job.assign(0, A)
    job.assign(0, B)
    assert not job.fail(0, A, "kernel raised", servers_seen=1)
    assert job.finish(0) == (B,)


def test_a_suspect_goes_where_it_has_not_failed_while_there_is_such_a_server() -> None:
    job = make_job(1)
    job.assign(0, A)
    job.fail(0, A, "kernel raised", servers_seen=2)
    assert job.next_suspect(A, frozenset({A, B})) is None
    assert job.next_suspect(B, frozenset({A, B})) == 0
    assert job.next_suspect(A, frozenset({A})) == 0


def test_no_move_leads_out_of_done_or_poisoned() -> None:
    assert not LEGAL_MOVES[State.DONE]
    assert not LEGAL_MOVES[State.POISONED]
    job = make_job(1)
    job.assign(0, A)
    job.finish(0)
    with pytest.raises(Impossible, match="illegal move from done to assigned"):
        job.assign(0, A)


def test_only_a_bucket_that_was_handed_out_is_recognised() -> None:
    job = make_job(2)
    job.assign(0, A)
    work = job.entries[0].work
    assert job.was_assigned(work)
    assert not job.was_assigned(job.entries[1].work)
    assert not job.was_assigned(BucketWork(0, work.x + 1, work.y, work.width, work.height, 0, 16))
    assert not job.was_assigned(BucketWork(99, 0, 0, 1, 1, 0, 16))


def test_ids_must_count_from_zero() -> None:
    with pytest.raises(Impossible, match="count from 0"):
        Job([BucketWork(3, 0, 0, 1, 1, 0, 1)])


BREAKAGES: dict[str, Callable[[Job], object]] = {
    "a lost bucket": lambda job: job.todo.remove(2),
    "a doubled bucket": lambda job: job.todo.append(3),
    "a server that nobody knows": lambda job: setattr(job.entries[0], "servers", (A, D)),
    "a bucket without its server": lambda job: setattr(job.entries[0], "servers", ()),
    "a wrong state": lambda job: setattr(job.entries[2], "state", State.DONE),
    "a wrong count": lambda job: job.counts.update({State.DONE: 1}),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_the_check_finds(name: str) -> None:
    job = make_job()
    job.assign(0, A)
    job.assign(1, B)
    job.check({A: [0], B: [1]})
    BREAKAGES[name](job)
    with pytest.raises(Impossible):
        job.check({A: [0], B: [1]})


class LedgerMachine(RuleBasedStateMachine):
    """The ledger against a twin that is one dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.job = make_job(5)
        self.holders: dict[int, set[bytes]] = {bucket: set() for bucket in range(5)}
        self.over: set[int] = set()

    @rule(server=st.sampled_from([A, B, C]))
    def take(self, server: bytes) -> None:
        bucket = self.job.next_todo()
        if bucket is None:
            bucket = self.job.next_suspect(server, frozenset({A, B, C}))
        if bucket is not None:
            self.job.assign(bucket, server)
            self.holders[bucket].add(server)

    @rule(bucket=st.integers(0, 4), server=st.sampled_from([A, B, C]))
    def race(self, bucket: int, server: bytes) -> None:
        if len(self.holders[bucket]) == 1 and server not in self.holders[bucket]:
            self.job.assign(bucket, server)
            self.holders[bucket].add(server)

    @rule(bucket=st.integers(0, 4))
    def finish(self, bucket: int) -> None:
        if self.job.entries[bucket].attempts:
            late = bucket in self.over
            assert (self.job.finish(bucket) is None) == late
            self.over.add(bucket)
            self.holders[bucket].clear()

    @rule(bucket=st.integers(0, 4), suspect=st.booleans())
    def release(self, bucket: int, suspect: bool) -> None:
        if self.holders[bucket]:
            self.job.release(bucket, self.holders[bucket].pop(), suspect=suspect)

    @rule(bucket=st.integers(0, 4), seen=st.integers(1, 4))
    def fail(self, bucket: int, seen: int) -> None:
        if self.holders[bucket] and self.job.fail(bucket, self.holders[bucket].pop(), "failed", seen):
            self.over.add(bucket)

    @invariant()
    def books_balance(self) -> None:
        self.job.check({s: [b for b, held in self.holders.items() if s in held] for s in (A, B, C)})
        assert self.job.is_over == (len(self.over) == 5)


class TestLedger(LedgerMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)
