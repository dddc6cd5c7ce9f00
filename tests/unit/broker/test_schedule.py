from __future__ import annotations

from math import inf

import pytest

from dr.broker.schedule import (
    MAX_WINDOW,
    Claim,
    Idler,
    choose_races,
    count_credit,
    expect_finish,
    is_overdue,
)

A, B, C = b"a", b"b", b"c"
EPOCH = 7


def idler(boot: bytes, threads: int, rate: float) -> Idler:
    return Idler(boot, threads, rate, frozenset({EPOCH}))


def claim(bucket: int, finish: float, boot: bytes = A) -> Claim:
    return Claim((EPOCH, bucket), (boot,), 100, finish)


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


def test_an_expected_finish_lies_after_what_is_left_to_do() -> None:
    assert expect_finish(now=10.0, began=9.5, bucket_s=2.0) == 11.5


def test_a_late_bucket_is_expected_ever_later() -> None:
    assert expect_finish(now=14.0, began=10.0, bucket_s=2.0) == 16.0
    assert expect_finish(now=18.0, began=10.0, bucket_s=2.0) == 24.0


def test_the_latest_bucket_is_raced_on_the_fastest_idle_server() -> None:
    claims = [claim(1, 12.0), claim(2, 19.0), claim(3, 15.0)]
    idlers = [idler(B, 1, 50.0), idler(C, 1, 100.0)]
    assert choose_races(claims, idlers, now=10.0) == [(claims[1], C), (claims[2], B)]


def test_no_race_is_started_that_would_be_lost() -> None:
    assert choose_races([claim(1, 12.0)], [idler(B, 4, 50.0)], now=10.0) == []


def test_a_server_never_races_itself() -> None:
    late = claim(1, 99.0)
    assert choose_races([late], [idler(A, 4, 100.0)], now=10.0) == []
    assert choose_races([late], [idler(A, 4, 100.0), idler(B, 1, 20.0)], now=10.0) == [(late, B)]


def test_an_idle_server_races_no_more_buckets_than_it_has_idle_threads() -> None:
    claims = [claim(bucket, 50.0) for bucket in range(5)]
    assert choose_races(claims, [idler(B, 2, 100.0)], now=0.0) == [(claims[0], B), (claims[1], B)]


def test_a_server_that_has_other_work_races_only_by_a_clear_margin() -> None:
    busy = Idler(B, 1, 100.0, frozenset({EPOCH}), wait_s=1.0, holds_nothing=False)
    assert choose_races([claim(1, 14.0)], [busy], now=10.0) == []  # 2 s there, 4 s here
    assert choose_races([claim(1, 14.2)], [busy], now=10.0) == [(claim(1, 14.2), B)]


def test_a_suspect_is_raced_alone_on_a_server_that_holds_nothing() -> None:
    suspect = Claim((EPOCH, 1), (A,), 100, inf, alone=True)
    other = claim(2, 90.0)
    working = Idler(B, 3, 100.0, frozenset({EPOCH}), holds_nothing=False)
    assert choose_races([suspect, other], [working, idler(C, 2, 50.0)], now=0.0) == [(suspect, C), (other, B)]
    assert choose_races([suspect, other], [idler(C, 2, 50.0)], now=0.0) == [(suspect, C)]


def test_a_server_races_no_bucket_of_a_frame_that_it_is_not_ready_for() -> None:
    assert choose_races([Claim((8, 1), (A,), 100, inf)], [idler(B, 1, 100.0)], now=0.0) == []


def test_a_thread_may_hang_when_it_takes_ten_times_as_long_and_more_than_some_seconds() -> None:
    assert not is_overdue(now=5.0, since=0.0, expected_s=0.1)
    assert is_overdue(now=5.1, since=0.0, expected_s=0.1)
    assert not is_overdue(now=10.0, since=0.0, expected_s=1.0)
    assert is_overdue(now=10.1, since=0.0, expected_s=1.0)
