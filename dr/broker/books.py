"""Keeps the ledger of each live frame and what servers hold in step. Decides nothing.

Whatever moves in the one moves in the other within the same method, and the server is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from dr.broker.fleet import Fleet, Server
from dr.broker.frames import Frames, LiveFrame
from dr.broker.outbox import Outbox
from dr.broker.speed import Speed
from dr.broker.worker import Assignment, Ticket
from dr.errors import Impossible
from dr.protocol.messages import Bucket, Cancel

BATCH = 512  # buckets of one message, far below the header's limit


class Books:
    """Who holds what, and how fast everybody is."""

    def __init__(self, fleet: Fleet, outbox: Outbox, frames: Frames) -> None:
        self.fleet = fleet
        self.outbox = outbox
        self.frames = frames
        self.speed = Speed()
        self.samples_held = 0  # by all servers, those of a race counted twice

    def live_of(self, ticket: Ticket) -> LiveFrame:
        """The frame of a bucket that a server holds."""
        live = self.frames.find(ticket[0])
        if live is None:
            raise Impossible(f"bucket {ticket[1]} of epoch {ticket[0]} is held, and that frame is finished")
        return live

    def assign(self, live: LiveFrame, bucket: int, server: Server, now: float) -> None:
        samples = live.job.entries[bucket].samples
        live.job.assign(bucket, server.boot)
        server.take((live.epoch, bucket), samples, now)
        self.samples_held += samples

    def let_go(self, server: Server, ticket: Ticket, now: float) -> Assignment:
        """The server's side alone: the ledger knows already, or is told next."""
        assignment = server.let_go(ticket, now)
        self.samples_held -= assignment.samples
        return assignment

    def release(self, server: Server, ticket: Ticket, now: float, *, suspect: bool = False) -> None:
        self.let_go(server, ticket, now)
        self.live_of(ticket).job.release(ticket[1], server.boot, suspect=suspect)

    def send_work(self, live: LiveFrame, server: Server, buckets: Sequence[int]) -> None:
        for batch in _batches(buckets):
            works = [live.job.entries[bucket].work for bucket in batch]
            self.outbox.send(server, Bucket(lease=server.lease, epoch=live.epoch, buckets=works))

    def send_cancel(self, server: Server, tickets: Sequence[Ticket]) -> None:
        for epoch, group in groupby(sorted(tickets), key=lambda ticket: ticket[0]):
            for batch in _batches([bucket for _, bucket in group]):
                self.outbox.send(server, Cancel(lease=server.lease, epoch=epoch, buckets=list(batch)))

    def check(self) -> None:
        """Proves every frame's ledger against what servers hold. Raises Impossible."""
        held = {server.boot: server.buckets_held() for server in self.fleet if server.lease}
        for live in self.frames.live:
            live.job.check(
                {boot: [bucket for epoch, bucket in each if epoch == live.epoch] for boot, each in held.items()}
            )
        epochs = {live.epoch for live in self.frames.live}
        if strange := [ticket for tickets in held.values() for ticket in tickets if ticket[0] not in epochs]:
            raise Impossible(f"buckets of finished frames are held: {strange[:4]}")
        if self.samples_held != sum(server.samples_held for server in self.fleet):
            raise Impossible(f"servers do not hold {self.samples_held} samples")


def _batches(buckets: Sequence[int]) -> Iterator[Sequence[int]]:
    return (buckets[begin : begin + BATCH] for begin in range(0, len(buckets), BATCH))
