"""Decides which bucket a server gets next, how large it is, and when it gets none. Knows no tile and no race.

Buckets of adaptive frames are split so that they take about as long as is aimed at, on each server. At the end of the
last live frame all buckets are: a server gets what it renders in a share of the time in which the whole farm would
render all that is unassigned (guided self-scheduling: Polychronopoulos and Kuck 1987; factoring: Hummel, Schonberg and
Flynn 1992), so that all servers end together, whatever their speed.
"""

from __future__ import annotations

from math import ceil, inf

from dr.broker.books import Books
from dr.broker.buckets import AIM_S, MAX_BUCKETS_PER_S, halve
from dr.broker.fleet import Server
from dr.broker.frames import LiveFrame
from dr.broker.schedule import MAX_WINDOW, count_credit

LONGEST_S = 2 * AIM_S  # of a bucket of an adaptive frame
LEAST_S = 0.05  # shorter ones cost more than they even out
SHARE = 0.25  # of the time that the farm still needs, for one bucket: half as much as usual, because costs are guesses
SLOW = 0.5  # a thread slower than so many typical ones may get nothing in the end
PATIENCE_S = 0.5  # at least, before what the fast servers did not take goes to the slow ones


class Sizing:
    """What each server gets next."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self._hope = inf  # by then the fast servers should have taken what a slow one was refused

    def next_bucket(self, live: LiveFrame, server: Server, now: float) -> int | None:
        """The bucket that this server should take next, split as is fit; None: it should not take any now."""
        job = live.job
        if server.alone or not job.todo:
            return None
        share_s = self._share_s(live)
        if live.frame.adaptive and not server.pace.tiles and server.held >= server.threads:
            return None  # nothing is queued where it may wait for ever
        if self._has_enough(server, share_s):
            return None
        speed = self.books.speed
        rate = speed.of(server)
        longest_s = self._longest_s(live, server, share_s)
        if longest_s < inf:
            self._split(live, max(longest_s * rate, speed.total / MAX_BUCKETS_PER_S))
        bucket = job.todo[0]
        if share_s < inf and rate < SLOW * speed.typical:
            return bucket if self._is_worth_it(live, job.entries[bucket].samples / rate, now) else None
        return bucket

    def _longest_s(self, live: LiveFrame, server: Server, share_s: float) -> float:
        """How long the server's next bucket may take. One whose speed is not known begins with very short ones."""
        if not live.frame.adaptive:
            return share_s
        return min(share_s, LONGEST_S if server.pace.tiles else LEAST_S)

    def _share_s(self, live: LiveFrame) -> float:
        """How long a bucket may take at most, so that all servers end together; inf while other work follows."""
        if live is not self.books.frames.live[-1]:
            return inf
        return max(LEAST_S, SHARE * live.job.samples_todo / self.books.speed.total)

    def _has_enough(self, server: Server, share_s: float) -> bool:
        """Whether its threads stay busy until it can hear of more; in the end nothing more than that waits there.

        Pieces left over from a split are so short that the number alone would not say it.
        """
        threads, bucket_s = server.threads, server.pace.bucket_s
        credit = count_credit(threads, server.rtt_s, bucket_s)
        if share_s < 2 * bucket_s:
            credit = min(credit, threads + ceil(threads * server.rtt_s / share_s - 0.1))
        if server.held < credit or server.held >= threads * MAX_WINDOW:
            return server.held >= credit
        return server.samples_queued >= threads * self.books.speed.of(server) * server.rtt_s

    def _split(self, live: LiveFrame, samples: float) -> None:
        """Splits the bucket at the front of the queue until it has no more samples than these, or cannot be split."""
        job = live.job
        while (entry := job.entries[job.todo[0]]).samples > samples and (parts := halve(entry.work)):
            job.split(entry.work.id, parts)

    def _is_worth_it(self, live: LiveFrame, seconds: float, now: float) -> bool:
        """Whether a slow server would be done with a bucket before the others are with everything.

        They may hang, all of them: what they do not take as soon as they should goes to the slow ones after all.
        """
        books = self.books
        rest_s = (live.job.samples_todo + books.samples_held) / books.speed.total
        if seconds <= max(rest_s, LEAST_S) or now >= self._hope:
            self._hope = inf
            return True
        self._hope = min(self._hope, now + max(PATIENCE_S, 2 * rest_s))
        return False
