"""What one server holds of our buckets, and how fast it renders them. Knows no connection, no frame and no pixel."""

from __future__ import annotations

from math import inf
from typing import TypeAlias

from msgspec import Struct, field

Ticket: TypeAlias = tuple[int, int]  # epoch and bucket id: what a server holds is named by it

MEMORY = 0.8  # weight of what was measured before, against the newest tile
SHORTEST_S = 1e-4  # nobody is believed to render a bucket faster


class Assignment(Struct, eq=False):
    """A server's dated claim on a bucket. Times are seconds of the broker's clock."""

    samples: int
    sent: float  # when it was handed out
    began: float = inf  # when we think that a thread began it; inf while it is queued


class Pace(Struct, eq=False):
    """How fast a render thread is: sums over the latest tiles, in which older ones count ever less."""

    tiles: float = 0.0
    samples: float = 0.0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Samples per second of one thread; 0: nothing measured."""
        return self.samples / self.seconds if self.seconds else 0.0

    @property
    def bucket_s(self) -> float:
        """Seconds of a thread for one of the latest buckets; 0: nothing measured."""
        return self.seconds / self.tiles if self.tiles else 0.0

    def measure(self, samples: int, seconds: float) -> None:
        self.tiles = MEMORY * self.tiles + 1.0
        self.samples = MEMORY * self.samples + samples
        self.seconds = MEMORY * self.seconds + seconds


class Worker(Struct, kw_only=True, eq=False):
    """The part of a server that renders. `running` and `queued` are our picture of its threads and its queue."""

    threads: int = 0
    running: dict[Ticket, Assignment] = field(default_factory=dict)
    queued: dict[Ticket, Assignment] = field(default_factory=dict)  # in the order of sending
    samples_held: int = 0
    samples_queued: int = 0  # of them
    alone: bool = False  # holds a suspect
    buckets: int = 0  # tiles that counted
    seconds: float = 0.0  # of render threads, for those
    pace: Pace = field(default_factory=Pace)
    wasted_s: float = 0.0  # of its threads since its last tile, on buckets that others finished first
    failed: dict[Ticket, bool] = field(default_factory=dict)  # since its last tile; whether another rendered it then
    rest_until: int = 0  # tiles of all servers: it gets nothing before

    @property
    def held(self) -> int:
        return len(self.running) + len(self.queued)

    @property
    def idle_threads(self) -> int:
        """How many threads have nothing to do and may be given something."""
        return 0 if self.alone else self.threads - len(self.running)

    def holds(self, ticket: Ticket) -> bool:
        return ticket in self.running or ticket in self.queued

    def buckets_held(self) -> list[Ticket]:
        """In the order of sending, as far as we know."""
        return [*self.running, *self.queued]

    def take(self, ticket: Ticket, samples: int, now: float) -> None:
        assignment = Assignment(samples, now)
        self.samples_held += samples
        if len(self.running) < self.threads:
            assignment.began = now
            self.running[ticket] = assignment
        else:
            self.queued[ticket] = assignment
            self.samples_queued += samples

    def let_go(self, ticket: Ticket, now: float) -> Assignment:
        """The server does not hold the bucket any more; the next of its queue begins now."""
        self.alone = False  # a suspect was all that it held
        if (assignment := self.queued.pop(ticket, None)) is None:
            assignment = self.running.pop(ticket)
            self._begin_next(now)
        else:
            self.samples_queued -= assignment.samples
        self.samples_held -= assignment.samples
        return assignment

    def count_tile(self, ticket: Ticket, seconds: float, now: float) -> None:
        """A tile that counts came. What the server says is believed within what we saw.

        It cannot have taken longer than since we sent the bucket. Nor much less than since it was first in line: half
        of that may have been the wire, which matters to short buckets alone, and ever less as its queue is filled.
        """
        self.buckets += 1
        self.seconds += seconds
        self.wasted_s = 0.0
        self.failed.clear()
        assignment = self.running.get(ticket) or self.queued.get(ticket)
        if assignment:
            seen = min(max(seconds, (now - assignment.began) / 2), now - assignment.sent)
            self.pace.measure(assignment.samples, max(seen, SHORTEST_S))

    def forget_failures(self) -> None:
        """It is another process now, or the user lists it again: what went wrong before says nothing."""
        self.failed.clear()
        self.wasted_s, self.rest_until = 0.0, 0

    def _begin_next(self, now: float) -> None:
        if self.queued:
            first = next(iter(self.queued))
            assignment = self.running[first] = self.queued.pop(first)
            assignment.began = now
            self.samples_queued -= assignment.samples
