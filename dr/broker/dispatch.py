"""Hands buckets to ready servers and takes tiles, failures and losses back. Knows no connection and no dialling.

It keeps the ledger (`job`) and the servers' hands (`Server.running`, `Server.queued`) in step: whatever moves in one
moves in the other within the same method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from dr.broker.commands import MergeTile, Topic
from dr.broker.fleet import Fleet, Phase, Server
from dr.broker.job import Frame, Job, State
from dr.broker.outbox import Outbox
from dr.broker.schedule import (
    UNKNOWN_BUCKET_S,
    Claim,
    Hand,
    Idler,
    choose_bucket,
    choose_races,
    count_credit,
    expect_queued,
    expect_running,
)
from dr.errors import ProtocolError
from dr.protocol.envelope import Payload
from dr.protocol.messages import Bucket, Cancel, Setup, Tile

BATCH = 512  # buckets of one message, far below the header's limit


class Dispatch:
    """The buckets of one frame on their way to servers and back."""

    def __init__(self, fleet: Fleet, outbox: Outbox, epoch: int) -> None:
        self.fleet = fleet
        self.outbox = outbox
        self.epoch = epoch
        self.frame: Frame | None = None
        self.job = Job(())
        self.race_at = inf  # when to look for races
        self._raced_at = -inf

    def begin(self, frame: Frame) -> None:
        self.frame = frame
        self.job = Job(frame.buckets)

    # Out

    def send_setup(self, server: Server) -> None:
        """Lets a server that is held prepare the frame, if there is one already."""
        if self.frame:
            message = Setup(
                lease=server.lease,
                epoch=self.epoch,
                manifest=self.frame.manifest,
                manifest_bytes=self.frame.assets[self.frame.manifest],
                settings=self.frame.settings,
                channels=list(self.frame.channels),
            )
            self.outbox.send(server, message)

    def serve(self, server: Server, now: float) -> None:
        """Gives a ready server as much as it may hold."""
        if server.phase is not Phase.READY:
            return
        chosen = []
        while (bucket := choose_bucket(self.job, self._hand(server), self._ready_boots())) is not None:
            server.alone = self.job.entries[bucket].state is State.SUSPECT
            self._assign(server, bucket, now)
            chosen.append(bucket)
        self._send_work(server, chosen)
        if server.idle_threads and self.job.is_running_out:
            self.race_at = min(self.race_at, max(now, self._raced_at + self.fleet.timers.race_s))

    def serve_all(self, now: float) -> None:
        for server in self.fleet.ready():
            self.serve(server, now)

    def start_races(self, now: float) -> None:
        """Lets idle servers race the buckets that we expect last."""
        self.race_at, self._raced_at = inf, now
        ready = self.fleet.ready()
        typical_s = self._typical_s(ready)
        idlers = [Idler(s.boot, s.idle_threads, s.bucket_s or typical_s) for s in ready if s.idle_threads]
        if not idlers or not self.job.is_running_out:
            return
        claims = list(self._claims(now, typical_s))
        races: dict[bytes, list[int]] = {}
        for bucket, boot in choose_races(claims, idlers, now):
            self._assign(self.fleet.holders[boot], bucket, now)
            races.setdefault(boot, []).append(bucket)
        for boot, buckets in races.items():
            self._send_work(self.fleet.holders[boot], buckets)
        if len(claims) > sum(map(len, races.values())) and {claim.boot for claim in claims} != {i.boot for i in idlers}:
            self.race_at = now + self.fleet.timers.race_s

    # Back

    def take_tile(self, server: Server, tile: Tile, payload: Payload, now: float) -> bool:
        """A tile came. Returns whether it counts; ProtocolError when it is not one that we asked this farm for."""
        frame, bucket = self.frame, tile.bucket.id
        if frame is None or not self.job.was_assigned(tile.bucket) or tuple(tile.channels) != frame.channels:
            raise ProtocolError(f"expected a tile of a bucket that was handed out, found {tile.bucket}")
        holders = self.job.finish(bucket)
        if holders is None:
            return False
        server.measure_tile(tile.seconds)
        attempts = self.job.entries[bucket].attempts
        self.outbox.add(
            MergeTile(tile.bucket, frame.channels, payload, server.name, server.endpoint, tile.seconds, attempts)
        )
        for holder in [self.fleet.holders[boot] for boot in holders]:
            holder.let_go(bucket, now)
            if holder is not server:
                self._send_cancel(holder, [bucket])
            self.serve(holder, now)
        return True

    def take_failure(self, server: Server, bucket: int, error: str, now: float) -> None:
        """The server said that it cannot render a bucket which it holds."""
        server.let_go(bucket, now)
        self._fail(server, bucket, error)
        self.serve_all(now)

    def take_back(self, server: Server, reason: str, now: float, *, died: bool) -> None:
        """Takes everything from a server that is gone; with `died`, what ran there is suspect.

        The first death among many makes suspects; a death beside nothing else counts as the bucket's own failure.
        """
        held, running, alone = server.buckets_held(), set(server.running), server.alone
        for bucket in reversed(held):
            server.let_go(bucket, now)
            if died and alone:
                self._fail(server, bucket, reason)
            else:
                self.job.release(bucket, server.boot, suspect=died and bucket in running)

    def drain(self, server: Server, now: float) -> None:
        """Takes back what the server has not begun."""
        queued = list(server.queued)
        for bucket in reversed(queued):
            server.let_go(bucket, now)
            self.job.release(bucket, server.boot)
        self._send_cancel(server, queued)
        self.serve_all(now)

    def cancel(self, server: Server, now: float) -> None:
        """Takes everything from a server that stays connected, because the frame is over."""
        self._send_cancel(server, server.buckets_held())
        self.take_back(server, "", now, died=False)

    def _fail(self, server: Server, bucket: int, error: str) -> None:
        poisoned = self.job.fail(bucket, server.boot, error, len(self.fleet.holders))
        work = self.job.entries[bucket].work
        what = "given up" if poisoned else "tried again, alone and last"
        topic = Topic.POISONED if poisoned else Topic.FAILED
        self.outbox.notify(topic, f"bucket {bucket} at {work.x},{work.y}: {error}; {what}", server)

    def _assign(self, server: Server, bucket: int, now: float) -> None:
        self.job.assign(bucket, server.boot)
        server.take(bucket, now)

    def _send_work(self, server: Server, buckets: Sequence[int]) -> None:
        for batch in _batches(buckets):
            works = [self.job.entries[bucket].work for bucket in batch]
            self.outbox.send(server, Bucket(lease=server.lease, epoch=self.epoch, buckets=works))

    def _send_cancel(self, server: Server, buckets: Sequence[int]) -> None:
        for batch in _batches(buckets):
            self.outbox.send(server, Cancel(lease=server.lease, epoch=self.epoch, buckets=list(batch)))

    # What the scheduler sees

    def _hand(self, server: Server) -> Hand:
        credit = count_credit(server.threads, server.rtt_s, server.bucket_s)
        return Hand(server.boot, server.held, credit, server.alone)

    def _ready_boots(self) -> frozenset[bytes]:
        if not self.job.suspects:
            return frozenset()
        return frozenset(server.boot for server in self.fleet.ready())

    def _typical_s(self, ready: Sequence[Server]) -> float:
        known = [server.bucket_s for server in ready if server.bucket_s]
        return sum(known) / len(known) if known else UNKNOWN_BUCKET_S

    def _claims(self, now: float, typical_s: float) -> Iterator[Claim]:
        """The buckets that may be raced: held by one server, and no suspects."""
        for server in self.fleet:
            bucket_s = server.bucket_s or typical_s
            for bucket, since in server.running.items():
                if self._may_be_raced(bucket):
                    yield Claim(bucket, server.boot, expect_running(now, since, bucket_s))
            for position, bucket in enumerate(server.queued):
                if self._may_be_raced(bucket):
                    yield Claim(bucket, server.boot, expect_queued(now, position, server.threads, bucket_s))

    def _may_be_raced(self, bucket: int) -> bool:
        entry = self.job.entries[bucket]
        return len(entry.servers) == 1 and not entry.suspect


def _batches(buckets: Sequence[int]) -> Iterator[Sequence[int]]:
    return (buckets[begin : begin + BATCH] for begin in range(0, len(buckets), BATCH))
