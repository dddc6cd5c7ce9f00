from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dr.broker.buckets import halve
from dr.broker.job import LEGAL_MOVES, MAX_HOLDERS, Job, State
from dr.errors import Impossible
from dr.protocol.messages import BucketWork

A, B, C, D = b"a", b"b", b"c", b"d"


def make_job(count: int = 4) -> Job:
    return Job(BucketWork(index, 16 * index, 0, 16, 16, 0, 16) for index in range(count))


def states(job: Job) -> list[State]:
    return [entry.state for entry in job.entries]


def test_buckets_go_from_the_queue_to_a_server_to_the_picture() -> None:
    job = make_job(2)
    assert job.todo[0] == 0
    job.assign(0, A)
    assert job.todo[0] == 1
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
    assert (job.todo[0], job.next_suspect(B, frozenset({B}))) == (1, 0)
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


def test_a_bucket_is_held_once_by_each_server_and_never_by_more_than_a_few() -> None:
    job = make_job(1)
    for index in range(MAX_HOLDERS):
        job.assign(0, b"%d" % index)
    with pytest.raises(Impossible, match=f"held by {MAX_HOLDERS} servers"):
        job.assign(0, A)
    job.release(0, b"0")
    with pytest.raises(Impossible, match=f"assigned to {b'1'.hex()}"):
        job.assign(0, b"1")


def halves(job: Job, bucket: int) -> tuple[BucketWork, BucketWork]:
    parts = halve(job.entries[bucket].work)
    assert parts
    return parts


def test_the_parts_of_a_split_bucket_take_its_place_at_the_front_with_ids_that_go_on() -> None:
    job = make_job(3)
    job.assign(0, A)
    job.split(1, halves(job, 1))
    assert list(job.todo) == [3, 4, 2]
    assert states(job)[1] is State.SPLIT
    assert [job.entries[each].work for each in (3, 4)] == [
        BucketWork(3, 16, 0, 8, 16, 0, 16),
        BucketWork(4, 24, 0, 8, 16, 0, 16),
    ]
    assert (job.buckets, job.samples, job.samples_todo) == (4, 3 * 16**3, 2 * 16**3)
    for bucket in (3, 4, 2):
        job.assign(bucket, A)
    for bucket in (0, 2, 3, 4):
        assert job.finish(bucket) == (A,)
    assert job.is_over


def test_a_tile_of_a_bucket_that_was_split_meanwhile_comes_too_late() -> None:
    job = make_job(1)
    job.assign(0, A)
    job.release(0, A)
    job.split(0, halves(job, 0))
    assert job.was_assigned(job.entries[0].work)
    assert job.finish(0) is None


def test_only_what_waits_can_be_split_and_only_into_all_of_it() -> None:
    job = make_job(2)
    parts = halves(job, 0)
    with pytest.raises(Impossible, match="other pixels than the whole"):
        job.split(0, parts[:1])
    job.assign(0, A)
    with pytest.raises(Impossible, match="illegal move from assigned to split"):
        job.split(0, parts)


def test_a_tile_counts_though_its_bucket_went_back_to_the_queue() -> None:
    job = make_job(1)
    job.assign(0, A)
    job.release(0, A)
    assert job.finish(0) == ()
    assert not job.todo
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
    "wrong samples": lambda job: setattr(job, "samples_todo", 1),
    "a bucket too many that is left": lambda job: setattr(job, "_left", 9),
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


BUCKETS = st.integers(0, 12)


class LedgerMachine(RuleBasedStateMachine):
    """The ledger against a twin that is one dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.job = make_job(5)
        self.holders: dict[int, set[bytes]] = {bucket: set() for bucket in range(5)}
        self.over: set[int] = set()  # also those that were split

    @rule(server=st.sampled_from([A, B, C]))
    def take(self, server: bytes) -> None:
        bucket = self.job.todo[0] if self.job.todo else None
        if bucket is None:
            bucket = self.job.next_suspect(server, frozenset({A, B, C}))
        if bucket is not None:
            self.job.assign(bucket, server)
            self.holders[bucket].add(server)

    @rule()
    def split(self) -> None:
        bucket = self.job.todo[0] if self.job.todo else None
        if bucket is not None and (parts := halve(self.job.entries[bucket].work)):
            self.job.split(bucket, parts)
            self.over.add(bucket)
            self.holders.update({each: set() for each in range(len(self.holders), len(self.job.entries))})

    @rule(bucket=BUCKETS, server=st.sampled_from([A, B, C]))
    def race(self, bucket: int, server: bytes) -> None:
        if len(self.holders.get(bucket, ())) == 1 and server not in self.holders[bucket]:
            self.job.assign(bucket, server)
            self.holders[bucket].add(server)

    @rule(bucket=BUCKETS)
    def finish(self, bucket: int) -> None:
        if bucket in self.holders and self.job.entries[bucket].attempts:
            late = bucket in self.over
            assert (self.job.finish(bucket) is None) == late
            self.over.add(bucket)
            self.holders[bucket].clear()

    @rule(bucket=BUCKETS, suspect=st.booleans())
    def release(self, bucket: int, suspect: bool) -> None:
        if self.holders.get(bucket):
            self.job.release(bucket, self.holders[bucket].pop(), suspect=suspect)

    @rule(bucket=BUCKETS, seen=st.integers(1, 4))
    def fail(self, bucket: int, seen: int) -> None:
        if self.holders.get(bucket) and self.job.fail(bucket, self.holders[bucket].pop(), "failed", seen):
            self.over.add(bucket)

    @invariant()
    def books_balance(self) -> None:
        self.job.check({s: [b for b, held in self.holders.items() if s in held] for s in (A, B, C)})
        assert self.job.is_over == (len(self.over) == len(self.holders))
        covered = sum(
            self.job.entries[each].samples for each in self.holders if states(self.job)[each] is not State.SPLIT
        )
        assert covered == self.job.samples


class TestLedger(LedgerMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)


def test_a_bucket_that_fails_wherever_it_is_raced_is_given_up_though_its_first_server_hangs() -> None:
    job = make_job(1)
    job.assign(0, A)
    for is_last in (False, False, True):
        job.assign(0, B)
        assert job.fail(0, B, "kernel raised", servers_seen=3) == is_last
    assert job.is_over
    job.check({A: [], B: []})
