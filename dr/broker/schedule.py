"""Expects when buckets will be done, and chooses those that are worth a race. Plain values in, a choice out.

Knows no clock and no connection: time comes in as `now` (seconds), servers as small records.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, inf

from msgspec import Struct

from dr.broker.worker import Ticket

MIN_WINDOW = 2
MAX_WINDOW = 32  # buckets per render thread that a server may hold, however far away it is
OVERDUE = 10.0  # times longer than expected, and
OVERDUE_S = 5.0  # longer than this: the thread may hang
MARGIN = 2.0  # a server that has other work races what would take so many times longer where it is, and
MARGIN_S = 0.1  # this besides


class Claim(Struct, frozen=True):
    """A bucket that may be raced, or taken back from a queue, with the time at which we expect its tile."""

    ticket: Ticket
    holders: tuple[bytes, ...]  # boots
    samples: int
    finish: float
    is_queued: bool = False
    alone: bool = False  # a suspect: it must be all that a server holds


class Idler(Struct, frozen=True):
    """A server that could race: how many threads are free, in how many seconds, and each one's samples a second."""

    boot: bytes
    threads: int
    rate: float
    epochs: frozenset[int]  # of the frames that it is ready for
    wait_s: float = 0.0
    holds_nothing: bool = True


def count_credit(threads: int, rtt_s: float, bucket_s: float) -> int:
    """How many buckets a server may hold, so that no thread waits for the wire while one is on its way."""
    window = 1 + ceil(min(rtt_s / bucket_s, MAX_WINDOW)) if bucket_s > 0 else MIN_WINDOW  # 0: nothing measured yet
    return threads * min(MAX_WINDOW, max(MIN_WINDOW, window))


def expect_finish(now: float, began: float, bucket_s: float) -> float:
    """When a bucket that has been rendered since `began` will be done.

    A bucket that is late is expected to stay late by as much again: a thread that hangs falls ever further behind.
    """
    return now + abs(bucket_s - (now - began))


def is_overdue(now: float, since: float, expected_s: float) -> bool:
    """Whether what was expected to take so long, since then, has not ended for so long that its thread may hang."""
    return now - since > max(OVERDUE * expected_s, OVERDUE_S)


def choose_races(claims: Iterable[Claim], idlers: Iterable[Idler], now: float) -> list[tuple[Claim, bytes]]:
    """Pairs of a claim and the boot of the server that gets it, too: the latest go to the fastest idle servers.

    A race is started only where that server should win it; one that has other work should win by a clear margin.
    """
    fastest_first = sorted(idlers, key=lambda idler: (idler.wait_s, -idler.rate))
    slots = [idler for idler in fastest_first for _ in range(idler.threads)]
    races: list[tuple[Claim, bytes]] = []
    for claim in sorted(claims, key=lambda claim: (-claim.finish, claim.ticket)):
        if not slots:
            break
        slot = next((slot for slot in slots if _may_race(slot, claim)), None)
        if slot is None or not _wins(slot, claim, now):
            continue  # nor would a slower one
        races.append((claim, slot.boot))
        slots.remove(slot)
        if claim.alone:
            slots = [other for other in slots if other.boot != slot.boot]
    return races


def _may_race(slot: Idler, claim: Claim) -> bool:
    if slot.boot in claim.holders or claim.ticket[0] not in slot.epochs:
        return False
    return slot.holds_nothing or not claim.alone


def _wins(slot: Idler, claim: Claim, now: float) -> bool:
    seconds = slot.wait_s + claim.samples / slot.rate
    if slot.wait_s > 0:
        seconds = MARGIN * seconds + MARGIN_S
    return claim.finish == inf or now + seconds < claim.finish
