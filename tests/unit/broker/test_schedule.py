from __future__ import annotations

import pytest

from dr.broker.job import Job
from dr.broker.schedule import (
    MAX_WINDOW,
    Claim,
    Hand,
    Idler,
    choose_bucket,
    choose_races,
    count_credit,
    expect_queued,
    expect_running,
)
from dr.protocol.messages import BucketWork

A, B, C = b"a", b"b", b"c"
READY = frozenset({A, B})


def make_job(count: int, suspects: int = 0) -> Job:
    job = Job(BucketWork(index, index, 0, 1, 1, 0, 16) for index in range(count))
    for bucket in range(suspects):
        job.assign(bucket, C)
    for bucket in range(suspects):
        job.release(bucket, C, suspect=True)
    return job


@pytest.mark.parametrize(
    ("rtt_s", "bucket_s", "window"),
    [
        (0.5, 0.0, 2),
        (0.0001, 0.02, 2),
        (0.05, 0.02, 4),
        (0.05, 0.05, 2),
        (0.06, 0.05, 3),
        (9.0, 0.01, MAX_WINDOW),
        (9.0, 5e-324, MAX_WINDOW),
    ],
)
def test_credit_covers_the_way_to_the_server_and_back(rtt_s: float, bucket_s: float, window: int) -> None:
    assert count_credit(3, rtt_s, bucket_s) == 3 * window


def test_a_server_takes_the_front_of_the_queue_while_it_has_credit() -> None:
    job = make_job(3)
    assert choose_bucket(job, Hand(A, held=0, credit=2), READY) == 0
    assert choose_bucket(job, Hand(A, held=2, credit=2), READY) is None


def test_suspects_come_last_and_alone() -> None:
    job = make_job(2, suspects=1)
    assert choose_bucket(job, Hand(A, held=0, credit=2), READY) == 1
    job.assign(1, A)
    assert choose_bucket(job, Hand(A, held=1, credit=2), READY) is None
    assert choose_bucket(job, Hand(B, held=0, credit=2), READY) == 0
    assert choose_bucket(make_job(3), Hand(A, held=1, credit=2, alone=True), READY) is None


def test_an_expected_finish_lies_after_what_is_left_to_do() -> None:
    assert expect_running(now=10.0, since=9.5, bucket_s=2.0) == 11.5
    assert [expect_queued(10.0, position, threads=2, bucket_s=2.0) for position in range(4)] == [13.0, 13.0, 15.0, 15.0]


def test_a_late_bucket_is_expected_ever_later() -> None:
    assert expect_running(now=14.0, since=10.0, bucket_s=2.0) == 16.0
    assert expect_running(now=18.0, since=10.0, bucket_s=2.0) == 24.0


def test_the_latest_bucket_is_raced_on_the_fastest_idle_server() -> None:
    claims = [Claim(1, A, 12.0), Claim(2, A, 19.0), Claim(3, A, 15.0)]
    idlers = [Idler(B, 1, 2.0), Idler(C, 1, 1.0)]
    assert choose_races(claims, idlers, now=10.0) == [(2, C), (3, B)]


def test_no_race_is_started_that_would_be_lost() -> None:
    assert choose_races([Claim(1, A, 12.0)], [Idler(B, 4, 2.0)], now=10.0) == []


def test_a_server_never_races_itself() -> None:
    assert choose_races([Claim(1, A, 99.0)], [Idler(A, 4, 1.0)], now=10.0) == []
    assert choose_races([Claim(1, A, 99.0)], [Idler(A, 4, 1.0), Idler(B, 1, 5.0)], now=10.0) == [(1, B)]


def test_an_idle_server_races_no_more_buckets_than_it_has_idle_threads() -> None:
    claims = [Claim(bucket, A, 50.0) for bucket in range(5)]
    assert choose_races(claims, [Idler(B, 2, 1.0)], now=0.0) == [(0, B), (1, B)]
