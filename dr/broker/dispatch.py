"""Hands buckets to ready servers and takes tiles, failures and losses back. Knows no connection and no dialling."""

from __future__ import annotations

from dr.broker.books import Books
from dr.broker.commands import FrameFinished, MergeTile, Topic
from dr.broker.doubt import MAX_FAILED, Doubts
from dr.broker.fleet import Fleet, Phase, Server
from dr.broker.frames import Frames, LiveFrame
from dr.broker.job import Entry, Frame
from dr.broker.outbox import Outbox
from dr.broker.races import Races
from dr.broker.schedule import OVERDUE, OVERDUE_S
from dr.broker.sizing import Sizing
from dr.broker.worker import Assignment, Ticket
from dr.errors import ProtocolError
from dr.protocol.envelope import Payload
from dr.protocol.messages import Setup, Tile


class Dispatch:
    """The buckets of all live frames on their way to servers and back."""

    def __init__(self, fleet: Fleet, outbox: Outbox, frames: Frames) -> None:
        self.fleet = fleet
        self.outbox = outbox
        self.frames = frames
        self.books = Books(fleet, outbox, frames)
        self.sizing = Sizing(self.books)
        self.races = Races(self.books)
        self.doubts = Doubts()
        self.hungry: dict[bytes, Server] = {}  # by boot: ready ones that may hold more than there was for them
        self.unfit: list[tuple[Server, str]] = []  # whom to set aside, and why

    # Frames

    def begin(self, frame: Frame) -> None:
        """A frame is live from now on: whoever is held prepares it."""
        self.frames.begin(frame, int.from_bytes(self.fleet.draw(6), "little"))
        for server in self.fleet:
            if server.phase in {Phase.LEASED, Phase.READY}:
                self._send_setup(server, self.frames.live[-1])

    def end_frame(self) -> FrameFinished | None:
        """The oldest frame, if nothing of it is left to do. Who was ready for nothing else prepares the next one."""
        finished = self.frames.end_first()
        if finished:
            for server in self.fleet.ready():
                if not any(server.boot in live.ready for live in self.frames.live):
                    self._leave(server)
                    self.fleet.move(server, Phase.LEASED)
        return finished

    def send_setup(self, server: Server) -> None:
        """Lets a server that is held now prepare what there is."""
        for live in self.frames.live:
            self._send_setup(server, live)

    def add_ready(self, server: Server, live: LiveFrame, now: float) -> None:
        """The server has prepared this frame and may be handed its buckets."""
        live.ready.add(server.boot)
        if server.phase is Phase.LEASED:
            self.fleet.move(server, Phase.READY)
            self.books.speed.count(server.boot, server)
        self.serve(server, now)

    # Out

    def serve(self, server: Server, now: float) -> None:
        """Gives a ready server as much as it may hold, of the oldest frame first."""
        if server.phase is not Phase.READY:
            return
        if self.doubts.rests(server, self.fleet):
            self.hungry[server.boot] = server
            return
        for live in self.frames.live:
            if server.boot in live.ready and not self._serve_from(live, server, now):
                break
        if server.idle_threads:
            self.hungry[server.boot] = server
            self.races.look_soon(now)
        else:
            self.hungry.pop(server.boot, None)
            if len(self.frames.live) > 1 and not self.frames.live[0].job.todo:
                self.races.look_soon(now)

    def serve_all(self, now: float) -> None:
        """Something came back: those who could hold more may have it."""
        for server in list(self.hungry.values()):
            self.serve(server, now)

    def start_races(self, now: float) -> None:
        """Lets idle servers race, or take over, what we expect last."""
        self.races.start([each for each in self.hungry.values() if not self.doubts.rests(each, self.fleet)], now)
        self.serve_all(now)

    # Back

    def take_tile(self, server: Server, tile: Tile, payload: Payload, now: float) -> bool:
        """A tile came. Returns whether it counts; ProtocolError when it is not one that we asked this farm for."""
        live, bucket = self.frames.find(tile.epoch), tile.bucket.id
        if live is None or not live.job.was_assigned(tile.bucket) or tuple(tile.channels) != live.frame.channels:
            raise ProtocolError(f"expected a tile of a bucket that was handed out, found {tile.bucket}")
        ticket = (tile.epoch, bucket)
        holders = live.job.finish(bucket)
        if holders is None:
            server.wasted_s = 0.0  # it lost, and it lives
            return False
        server.count_tile(ticket, tile.seconds, now)
        if server.phase is Phase.READY:
            self.books.speed.count(server.boot, server)
        attempts, frame = live.job.entries[bucket].attempts, live.frame
        self.outbox.add(
            MergeTile(
                tile.bucket,
                frame.channels,
                payload,
                server.name,
                server.endpoint,
                tile.seconds,
                attempts,
                frame.index,
            )
        )
        for holder in [self.fleet.holders[boot] for boot in holders]:
            assignment = self.books.let_go(holder, ticket, now)
            if holder is not server:
                self.books.send_cancel(holder, [ticket])
                self._blame_loser(holder, assignment, now)
            self.serve(holder, now)
        self._blame_failed(live.job.entries[bucket], server, ticket)
        self.doubts.count_tile(server)
        if self.doubts.may_wake(server):
            self.serve_all(now)
        return True

    def take_unfit(self) -> list[tuple[Server, str]]:
        """Servers that should take no part any more, with the reason, each named once."""
        unfit, self.unfit = self.unfit, []
        return unfit

    def take_failure(self, server: Server, ticket: Ticket, error: str, now: float) -> None:
        """The server said that it cannot render a bucket which it holds."""
        self.books.let_go(server, ticket, now)
        server.failed[ticket] = False
        self.doubts.count_failure(server)
        self._fail(server, ticket, error, now)
        self.serve(server, now)
        self.serve_all(now)

    def take_back(self, server: Server, reason: str, now: float, *, died: bool) -> None:
        """Takes everything from a server that is gone; with `died`, what ran there is suspect.

        The first death among many makes suspects; a death beside nothing else counts as the bucket's own failure.
        """
        held, running, alone = server.buckets_held(), set(server.running), server.alone
        self._leave(server)
        for ticket in reversed(held):
            if died and alone:
                self.books.let_go(server, ticket, now)
                self._fail(server, ticket, reason, now)
            else:
                self.books.release(server, ticket, now, suspect=died and ticket in running)

    def drain(self, server: Server, now: float) -> None:
        """Takes back what the server has not begun."""
        queued = list(server.queued)
        self._leave(server)
        for ticket in reversed(queued):
            self.books.release(server, ticket, now)
        self.books.send_cancel(server, queued)
        self.serve_all(now)

    def cancel(self, server: Server, now: float) -> None:
        """Takes everything from a server that stays connected, because the render is over."""
        self.books.send_cancel(server, server.buckets_held())
        self.take_back(server, "", now, died=False)

    def check(self) -> None:
        """Proves that ledgers, servers and who is ready for what agree. Raises Impossible."""
        self.books.check()

    def _send_setup(self, server: Server, live: LiveFrame) -> None:
        frame = live.frame
        message = Setup(
            lease=server.lease,
            epoch=live.epoch,
            manifest=frame.manifest,
            manifest_bytes=frame.assets[frame.manifest],
            settings=frame.settings,
            channels=list(frame.channels),
        )
        self.outbox.send(server, message)

    def _serve_from(self, live: LiveFrame, server: Server, now: float) -> bool:
        """Gives what this frame has for the server; returns whether the next frame may give more."""
        chosen = []
        is_doubtful = self.doubts.is_doubtful(server)
        while not (is_doubtful and server.held) and (bucket := self.sizing.next_bucket(live, server, now)) is not None:
            self.books.assign(live, bucket, server, now)
            chosen.append(bucket)
        self.books.send_work(live, server, chosen)
        return not live.job.todo and not self._keep_for_suspect(live, server, now)

    def _keep_for_suspect(self, live: LiveFrame, server: Server, now: float) -> bool:
        """Whether the server renders a suspect now, alone, or gets nothing more until it can.

        Suspects come last: only when nothing else of their frame is unassigned. No more servers wait than there are
        suspects, so that the others go on with the next frame.
        """
        job, boot = live.job, server.boot
        bucket = None if server.alone else job.next_suspect(boot, live.ready)
        if bucket is None:
            live.waiting.discard(boot)
            return server.alone
        if server.held:
            if len(live.waiting) < len(job.suspects):
                live.waiting.add(boot)
            return boot in live.waiting
        live.waiting.discard(boot)
        server.alone = True
        self.books.assign(live, bucket, server, now)
        self.books.send_work(live, server, [bucket])
        return True

    def _fail(self, server: Server, ticket: Ticket, error: str, now: float) -> None:
        job, bucket = self.books.live_of(ticket).job, ticket[1]
        entry = job.entries[bucket]
        others, work = [self.fleet.holders[boot] for boot in entry.servers if boot != server.boot], entry.work
        poisoned = job.fail(bucket, server.boot, error, self.fleet.seen)
        for other in others if poisoned else ():
            self.books.send_cancel(other, [ticket])
            self._blame_loser(other, self.books.let_go(other, ticket, now), now)
            if other.phase is Phase.READY:
                self.hungry[other.boot] = other
        what = "given up" if poisoned else "tried again, alone and last"
        topic = Topic.POISONED if poisoned else Topic.FAILED
        self.outbox.notify(topic, f"bucket {bucket} at {work.x},{work.y}: {error}; {what}", server)

    def _blame_loser(self, server: Server, lost: Assignment, now: float) -> None:
        """A race was lost. A server all of whose threads do nothing else, tile after tile of others, hangs."""
        if lost.began < now:
            server.wasted_s += now - lost.began
        expected_s = lost.samples / self.books.speed.of(server)
        if server.wasted_s > server.threads * max(OVERDUE_S, OVERDUE * expected_s):
            server.wasted_s = 0.0
            self.unfit.append((server, "its render threads hang"))

    def _blame_failed(self, entry: Entry, server: Server, ticket: Ticket) -> None:
        """A bucket was rendered that had failed before: what was it that failed, the bucket or its server?"""
        for boot in {boot for boot in entry.failures if boot != server.boot}:
            suspect = self.fleet.holders.get(boot)
            if suspect and suspect.boot == boot and ticket in suspect.failed:
                suspect.failed[ticket] = True
                if sum(suspect.failed.values()) == MAX_FAILED:
                    reason = f"failed {MAX_FAILED} buckets in a row that others rendered, at last: {entry.error}"
                    self.unfit.append((suspect, reason))

    def _leave(self, server: Server) -> None:
        """The server is handed nothing any more, of any frame."""
        self.hungry.pop(server.boot, None)
        self.books.speed.forget(server.boot)
        for live in self.frames.live:
            live.ready.discard(server.boot)
            live.waiting.discard(server.boot)
