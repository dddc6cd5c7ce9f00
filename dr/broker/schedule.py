"""Chooses which server renders which bucket, and which buckets are worth a race. Plain values in, a choice out.

Knows no clock and no connection: time comes in as `now` (seconds), servers as small records.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from math import ceil

from msgspec import Struct

from dr.broker.job import Job

MIN_WINDOW = 2
MAX_WINDOW = 32  # buckets per render thread that a server may hold, however far away it is
UNKNOWN_BUCKET_S = 1.0  # until the first tile says better


class Hand(Struct, frozen=True):
    """A server that could take a bucket: what it holds and may hold."""

    boot: bytes
    held: int
    credit: int
    alone: bool = False  # it holds a suspect, so it gets nothing beside it


class Claim(Struct, frozen=True):
    """A bucket that one server holds and that may be raced, with the time at which we expect its tile."""

    bucket: int
    boot: bytes
    finish: float


class Idler(Struct, frozen=True):
    """A server with idle render threads, and how long a bucket takes it."""

    boot: bytes
    threads: int
    bucket_s: float


def count_credit(threads: int, rtt_s: float, bucket_s: float) -> int:
    """How many buckets a server may hold, so that no thread waits for the wire while one is on its way."""
    window = 1 + ceil(min(rtt_s / bucket_s, MAX_WINDOW)) if bucket_s > 0 else MIN_WINDOW  # 0: nothing measured yet
    return threads * min(MAX_WINDOW, max(MIN_WINDOW, window))


def choose_bucket(job: Job, hand: Hand, ready: Set[bytes]) -> int | None:
    """The bucket that this server should take next. `ready` holds the boots of all servers that render.

    Suspects come last and alone: only when nothing else is unassigned, and only for a server that holds nothing. One
    that has failed on this server goes to another, while there is another.
    """
    if hand.alone or hand.held >= hand.credit:
        return None
    bucket = job.next_todo()
    if bucket is None and not hand.held:
        bucket = job.next_suspect(hand.boot, ready)
    return bucket


def expect_running(now: float, since: float, bucket_s: float) -> float:
    """When a bucket that has been rendered since `since` will be done.

    A bucket that is late is expected to stay late by as much again: a thread that hangs falls ever further behind.
    """
    return now + abs(bucket_s - (now - since))


def expect_queued(now: float, position: int, threads: int, bucket_s: float) -> float:
    """When the bucket at this position of a server's queue will be done; those before it are half done on average."""
    return now + bucket_s * (1.5 + position // threads)


def choose_races(claims: Iterable[Claim], idlers: Iterable[Idler], now: float) -> list[tuple[int, bytes]]:
    """Pairs (bucket, boot of the server that races it): the latest claims go to the fastest idle servers.

    A race is started only where the idle server should win it.
    """
    slots = [idler for idler in sorted(idlers, key=lambda idler: idler.bucket_s) for _ in range(idler.threads)]
    races = []
    for claim in sorted(claims, key=lambda claim: (-claim.finish, claim.bucket)):
        if not slots or now + slots[0].bucket_s >= claim.finish:
            break
        index = next((index for index, idler in enumerate(slots) if idler.boot != claim.boot), None)
        if index is not None and now + slots[index].bucket_s < claim.finish:
            races.append((claim.bucket, slots.pop(index).boot))
    return races
