"""Looks for buckets that would be done late, and gives them to servers that are idle. Knows no tile and no size.

What only waits in a server's queue is taken back; what is being rendered is raced, whole: the first result wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

from dr.broker.books import Books
from dr.broker.fleet import Server
from dr.broker.job import Job
from dr.broker.schedule import Claim, Idler, choose_races, expect_finish, is_overdue
from dr.broker.worker import Ticket

MANY = 1000  # claims; with more we look less often, so that looking costs the same


class Races:
    """When to look, and what to do about stragglers then."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.due = inf  # when to look
        self._looked = -inf
        self._pause_s = 0.0

    def look_soon(self, now: float) -> None:
        """Somebody is idle, or a frame has handed out its last bucket while the next one has work."""
        self.due = min(self.due, max(now, self._looked + self._pause_s))

    def start(self, idle: Iterable[Server], now: float) -> None:
        """Finds work for servers with idle threads: races, or buckets that are unassigned then, for whoever is free."""
        self.due, self._looked = inf, now
        claims = list(self._claims(now))
        self._pause_s = self.books.fleet.timers.race_s * max(1.0, len(claims) / MANY)
        if not claims:
            return
        idlers = [self._idler(server, server.idle_threads, 0.0) for server in idle if server.idle_threads]
        races = choose_races(claims, [*idlers, *self._busy()], now)
        late = [claim for claim, _ in races if claim.is_queued]
        if late:
            self._take_back(late, now)
        else:
            self._race(races, now)
        self.look_soon(now)

    def _idler(self, server: Server, threads: int, wait_s: float) -> Idler:
        epochs = frozenset(live.epoch for live in self.books.frames.live if server.boot in live.ready)
        return Idler(server.boot, threads, self.books.speed.of(server), epochs, wait_s, not server.held)

    def _busy(self) -> Iterator[Idler]:
        """While another frame has work nobody is idle: whoever is done with its queue soon may race for this one."""
        if len(self.books.frames.live) == 1 or not self.books.frames.live[-1].job.todo:
            return
        for server in self.books.fleet.ready():
            if server.held and not server.alone:
                yield self._idler(server, 1, server.samples_held / (server.threads * self.books.speed.of(server)))

    def _take_back(self, claims: Iterable[Claim], now: float) -> None:
        """What waits in a server's queue is unassigned again."""
        lost: dict[bytes, list[Ticket]] = {}
        for claim in claims:
            (boot,) = claim.holders
            self.books.release(self.books.fleet.holders[boot], claim.ticket, now)
            lost.setdefault(boot, []).append(claim.ticket)
        for boot, tickets in lost.items():
            self.books.send_cancel(self.books.fleet.holders[boot], tickets)

    def _race(self, races: Iterable[tuple[Claim, bytes]], now: float) -> None:
        sent: dict[tuple[int, bytes], list[int]] = {}
        for claim, boot in races:
            epoch, bucket = claim.ticket
            server = self.books.fleet.holders[boot]
            server.alone = claim.alone
            self.books.assign(self.books.live_of(claim.ticket), bucket, server, now)
            sent.setdefault((epoch, boot), []).append(bucket)
        for (epoch, boot), buckets in sent.items():
            self.books.send_work(self.books.live_of((epoch, buckets[0])), self.books.fleet.holders[boot], buckets)

    def _claims(self, now: float) -> Iterator[Claim]:
        """The buckets of frames that have nothing unassigned: held by one server, or by several that all hang."""
        spent = {live.epoch: live.job for live in self.books.frames.live if not live.job.todo}
        overdue: dict[Ticket, int] = {}
        for server in self.books.fleet if spent else ():
            if server.held:
                yield from self._claims_on(server, spent, overdue, now)

    def _claims_on(
        self, server: Server, spent: dict[int, Job], overdue: dict[Ticket, int], now: float
    ) -> Iterator[Claim]:
        rate = self.books.speed.of(server)
        begin, ahead = inf, 0.0
        for ticket, assignment in (*server.running.items(), *server.queued.items()):
            seconds, is_queued = assignment.samples / rate, assignment.began == inf
            if is_queued:
                since, finish = assignment.sent, max(begin, now + ahead / server.threads) + seconds
                ahead += seconds
                expected = finish - now
            else:
                since, finish = assignment.began, expect_finish(now, assignment.began, seconds)
                begin, ahead, expected = min(begin, finish), ahead + seconds / 2, seconds
            job = spent.get(ticket[0])
            if job is None:
                continue
            entry = job.entries[ticket[1]]
            if len(entry.servers) == 1 and not entry.suspect:
                yield Claim(ticket, entry.servers, assignment.samples, finish, is_queued)
            elif is_overdue(now, since, expected):
                overdue[ticket] = overdue.get(ticket, 0) + 1
                if overdue[ticket] == len(entry.servers):
                    yield Claim(ticket, entry.servers, assignment.samples, inf, alone=entry.suspect)
