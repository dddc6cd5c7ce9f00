"""Decides who renders what, from the first dial to the last tile. Knows no clock, socket, file or dice.

`Broker.handle(event, now)` takes a fact and returns the commands to carry out; `next_deadline()` says when `tick(now)`
wants to be called; `check()` proves that nothing was lost or doubled. `now` is a monotonic clock in seconds. The same
seed and the same events give the same commands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, TypeAlias

from dr.broker import events as on
from dr.broker.commands import Command, Finished, Poisoned, ReadAsset, Status, Topic
from dr.broker.dispatch import Dispatch
from dr.broker.events import Event
from dr.broker.fleet import HEARING, Fleet, Phase, Server, Timers, Verdict
from dr.broker.job import State
from dr.broker.links import Links
from dr.broker.outbox import Outbox
from dr.broker.report import Report, make_report
from dr.errors import Impossible, ProtocolError
from dr.protocol import messages as say
from dr.protocol.version import PROTOCOL_VERSION

MAX_READS = 8  # assets that a server may have asked for at a time; it should stop at 4
STORY = 40  # events that an Impossible tells
FINAL_CODES = frozenset({"version", "kernels", "key", "refused"})  # of `error`: dialling again is no use

_Handler: TypeAlias = Callable[[Any, float], None]
_MessageHandler: TypeAlias = Callable[[Server, Any, float], None]


class Broker:
    """One render: add servers, request the frame, feed events until `Finished`."""

    def __init__(
        self,
        *,
        kernels: str,
        seed: bytes,
        client: str = "client",
        timers: Timers | None = None,
        restart_servers: bool = False,
    ) -> None:
        """`kernels` is the digest of the code that decides pixels; `seed`, 16 bytes, must never be used twice.

        With `restart_servers`, those that hold a lease at the end are asked to restart, all but our own children.
        """
        self.fleet = Fleet(seed, timers or Timers())
        self.outbox = Outbox()
        self.epoch = int.from_bytes(self.fleet.draw(6), "little")
        self.dispatch = Dispatch(self.fleet, self.outbox, self.epoch)
        hello = say.Hello(version=PROTOCOL_VERSION, name=client, want=True, kernels=kernels)
        self.links = Links(self.fleet, self.outbox, self.dispatch, hello)
        self.restart_servers = restart_servers
        self.children: set[str] = set()  # endpoints of servers that we started ourselves
        self.finished: Finished | None = None
        self.dropped = 0  # messages of an unknown peer, an old lease or epoch, or about a finished bucket
        self._story: deque[tuple[float, str]] = deque(maxlen=STORY)
        self._handlers: Mapping[type, _Handler] = {
            on.ServerExpected: self._expect_server,
            on.ServerAdded: self._add_server,
            on.ServerRemoved: self._remove_server,
            on.ServerDied: self._bury_server,
            on.FrameRequested: self._request_frame,
            on.ListeningBegan: self.links.listen,
            on.DialSucceeded: self._greet,
            on.DialRefused: self._accept_refusal,
            on.ConnectionLost: self._lose_connection,
            on.SendFailed: self._lose_peer,
            on.MessageReceived: self._hear,
            on.PeerMisbehaved: self._hear_nonsense,
            on.AssetRead: self._send_chunk,
            on.CancelRequested: self._cancel,
        }
        self._hearers: Mapping[type, _MessageHandler] = {
            say.Welcome: self._hear_welcome,
            say.Grant: self._hear_grant,
            say.Pong: self._hear_pong,
            say.NoLease: self._hear_nolease,
            say.ErrorMessage: self._hear_error,
            say.Here: self._hear_here,
        }
        self._leased_hearers: Mapping[type, _MessageHandler] = {
            say.Get: self._hear_get,
            say.Progress: self._hear_progress,
            say.Ready: self._hear_ready,
            say.Failed: self._hear_failed,
            say.Beat: self._hear_beat,
            say.Drain: self._hear_drain,
        }

    # What the loop calls

    def handle(self, event: Event, now: float) -> list[Command]:
        """What to do about a fact. Raises Impossible, with the recent story, when our own books do not balance."""
        self._story.append((now, on.title(event)))
        return self._run(lambda: self._handlers[type(event)](event, now), now)

    def tick(self, now: float) -> list[Command]:
        """What to do because time has passed. To be called when `next_deadline()` is over; earlier does no harm."""
        return self._run(lambda: self._tend(now), now)

    def next_deadline(self) -> float:
        """The time at which `tick` has something to do; inf when only an event can change anything."""
        return inf if self.finished else min(self.fleet.wake, self.dispatch.race_at)

    def check(self) -> None:
        """Proves that every bucket is in exactly one place and held by live servers alone. Raises Impossible."""
        self.fleet.check()
        self.dispatch.job.check({server.boot: server.buckets_held() for server in self.fleet if server.lease})

    def report(self) -> Report:
        """The render so far, for a display."""
        return make_report(self.dispatch.job, self.fleet, self.links.lost, self.dropped)

    def _run(self, action: Callable[[], None], now: float) -> list[Command]:
        try:
            action()
            self._settle(now)
        except Impossible as error:
            story = "; ".join(f"{when:.3f} {title}" for when, title in self._story)
            raise Impossible(f"{error}; before that: {story}") from error
        return self.outbox.take()

    def _settle(self, now: float) -> None:
        """After every event: is the render over, hopeless, or due for races?"""
        if self.finished or not self.dispatch.frame:
            return
        if self.dispatch.job.is_over:
            self._finish_frame(now)
        elif self.fleet.is_hopeless():
            self._give_up(now)
        elif now >= self.dispatch.race_at:
            self.dispatch.start_races(now)

    # Servers come and go

    def _expect_server(self, event: on.ServerExpected, now: float) -> None:
        self.children.add(event.endpoint)
        if not self.finished and not self._find(event.endpoint):
            self.fleet.add(event.endpoint, event.name)

    def _add_server(self, event: on.ServerAdded, now: float) -> None:
        if self.finished:
            return
        server = self._find(event.endpoint) or self.fleet.add(event.endpoint, event.name)
        server.whole_host = server.whole_host or event.whole_host
        if server.phase is Phase.IDLE:
            self.links.dial(server, now)

    def _remove_server(self, event: on.ServerRemoved, now: float) -> None:
        if server := self._find(event.endpoint):
            self.links.retire(server, Verdict.REMOVED, event.reason, now)

    def _bury_server(self, event: on.ServerDied, now: float) -> None:
        if not self.finished and event.endpoint not in self.fleet.servers:
            self.fleet.add(event.endpoint, "")  # it died before anybody knew it: still a reason to name
        if server := self._find(event.endpoint):
            self.links.retire(server, Verdict.DIED, event.reason, now)

    def _accept_refusal(self, event: on.DialRefused, now: float) -> None:
        if server := self._find(event.endpoint):
            self.links.retire(server, Verdict.REFUSED, event.reason, now)

    def _greet(self, event: on.DialSucceeded, now: float) -> None:
        server = self._find(event.endpoint)
        if server and server.phase is Phase.DIALING:
            self.links.greet(server, now)

    def _lose_connection(self, event: on.ConnectionLost, now: float) -> None:
        server = self._find(event.endpoint)
        if server and server.phase is not Phase.IDLE:
            self.links.drop(server, event.reason, now)

    def _lose_peer(self, event: on.SendFailed, now: float) -> None:
        if server := self._find_peer(event.peer):
            self.links.drop(server, event.reason, now)

    def _tend(self, now: float) -> None:
        if not self.finished:
            self.links.tend(now)

    def _hear_nonsense(self, event: on.PeerMisbehaved, now: float) -> None:
        if server := self._find_peer(event.peer):
            self.links.punish(server, event.reason, now)

    def _find(self, endpoint: str) -> Server | None:
        """The server at this endpoint while it takes part."""
        server = None if self.finished else self.fleet.servers.get(endpoint)
        return server if server and server.phase is not Phase.OUT else None

    def _find_peer(self, peer: bytes) -> Server | None:
        return None if self.finished else self.fleet.peers.get(peer)

    # What servers say

    def _hear(self, event: on.MessageReceived, now: float) -> None:
        server, message = self.fleet.peers.get(event.peer), event.message
        if server is None and isinstance(message, say.Here) and not self.finished:
            self.links.accept(event.peer, message, now)
        elif server is None:
            self.dropped += 1
        elif self.finished:
            self._hear_too_late(server, message)
        elif server.phase not in HEARING:
            self.links.punish(server, "spoke before it was greeted", now)
        else:
            server.heard = now
            self._hear_live(server, event, now)

    def _hear_live(self, server: Server, event: on.MessageReceived, now: float) -> None:
        message = event.message
        if hearer := self._hearers.get(type(message)):
            hearer(server, message, now)
        elif not self._is_current(server, message):
            self.dropped += 1
        elif isinstance(message, say.Tile):
            self._hear_tile(server, event, now)
        else:
            self._leased_hearers[type(message)](server, message, now)

    def _is_current(self, server: Server, message: say.ServerMessage) -> bool:
        """Whether a message belongs to the lease and the frame that we have now."""
        lease, epoch = getattr(message, "lease", b""), getattr(message, "epoch", self.epoch)
        return bool(server.lease) and lease == server.lease and epoch == self.epoch

    def _hear_too_late(self, server: Server, message: say.ServerMessage) -> None:
        # A server that we waited for became free just now: let it go at once.
        if isinstance(message, say.Grant):
            self.outbox.send(server, say.Bye(lease=message.lease))

    def _hear_welcome(self, server: Server, message: say.Welcome, now: float) -> None:
        if server.phase not in {Phase.UP, Phase.WAITING}:
            self.dropped += 1
            return
        if server.dials_in and server.boot != message.boot:
            self.links.punish(server, "said `here` with another boot id than `welcome`", now)
            return
        if refusal := self.links.compare(message.version, message.kernels):
            self.links.retire(server, Verdict.REFUSED, refusal, now)
            return
        twin = self.fleet.find_twin(server, message.boot)
        if server.whole_host and not (twin and twin.whole_host):
            self.links.dial_siblings(server, message.siblings, now)
        if twin:
            self.links.retire(server, Verdict.REMOVED, f"is the same server as {twin.endpoint}", now)
            return
        server.name, server.boot = message.name, message.boot
        if server.phase is Phase.UP:
            self.fleet.move(server, Phase.WAITING)
        if message.busy:
            text = f"busy with {message.holder or 'another client'}; joins when it is free"
            self.outbox.notify(Topic.WAITING, text, server)

    def _hear_grant(self, server: Server, message: say.Grant, now: float) -> None:
        if server.phase is not Phase.WAITING:
            self.dropped += 1
            return
        self.fleet.grant(server, message.lease, message.threads)
        self._send_setup(server)

    def _hear_pong(self, server: Server, message: say.Pong, now: float) -> None:
        server.measure_pong(message.n, now)

    def _hear_beat(self, server: Server, message: say.Beat, now: float) -> None:
        """A sign of life, which any message is."""

    def _hear_nolease(self, server: Server, message: say.NoLease, now: float) -> None:
        if not server.lease:
            self.dropped += 1
            return
        self.dispatch.take_back(server, "", now, died=False)
        self.links.greet(server, now)
        self.dispatch.serve_all(now)

    def _hear_error(self, server: Server, message: say.ErrorMessage, now: float) -> None:
        if message.code in FINAL_CODES:
            self.links.retire(server, Verdict.REFUSED, message.text, now)
        else:
            self.links.drop(server, f"{message.code}: {message.text}", now, died=False)

    def _hear_here(self, server: Server, message: say.Here, now: float) -> None:
        self.links.punish(server, "said `here` on a connection that was greeted before", now)

    def _hear_get(self, server: Server, message: say.Get, now: float) -> None:
        frame = self.dispatch.frame
        size = frame.assets.get(message.digest) if frame else None
        if size is None or message.offset + message.n > size:
            found = f"{message.n} bytes at {message.offset} of {message.digest.hex()[:12]} ({size or 'no'} bytes)"
            self.links.punish(server, f"expected `get` of an asset of this scene, found {found}", now)
        elif server.reads >= MAX_READS:
            self.links.punish(server, f"expected at most {MAX_READS} unanswered `get`, found more", now)
        else:
            server.reads += 1
            self.outbox.add(ReadAsset(server.peer, message.digest, message.offset, message.n))

    def _send_chunk(self, event: on.AssetRead, now: float) -> None:
        server = self.fleet.peers.get(event.peer)
        if not server:
            return
        server.reads -= 1
        if not server.lease:
            return
        message = say.Chunk(
            lease=server.lease, epoch=self.epoch, digest=event.digest, offset=event.offset, missing=event.missing
        )
        self.outbox.send(server, message, event.payload)

    def _hear_progress(self, server: Server, message: say.Progress, now: float) -> None:
        self.outbox.notify(Topic.PREPARING, message.text, server)

    def _hear_ready(self, server: Server, message: say.Ready, now: float) -> None:
        if server.phase is not Phase.LEASED:
            self.dropped += 1
            return
        self.fleet.move(server, Phase.READY)
        server.has_joined, server.is_reported = True, False
        self.outbox.notify(Topic.JOINED, f"renders with {server.threads} threads", server)
        self.dispatch.serve(server, now)

    def _hear_drain(self, server: Server, message: say.Drain, now: float) -> None:
        if server.phase is Phase.DRAINING:
            return
        self.fleet.move(server, Phase.DRAINING)
        self.dispatch.drain(server, now)

    def _hear_tile(self, server: Server, event: on.MessageReceived, now: float) -> None:
        assert isinstance(event.message, say.Tile)
        try:
            counts = self.dispatch.take_tile(server, event.message, event.payload, now)
        except ProtocolError as error:
            self.links.punish(server, str(error), now)
        else:
            self.dropped += not counts

    def _hear_failed(self, server: Server, message: say.Failed, now: float) -> None:
        if message.bucket is None and message.fatal:
            self._finish(Status.BAD_INPUT, message.error, now)
        elif message.bucket is None:
            self.links.retire(server, Verdict.UNFIT, message.error, now)
        elif server.holds(message.bucket):
            self.dispatch.take_failure(server, message.bucket, message.error, now)
        else:
            self.dropped += 1

    # The frame

    def _request_frame(self, event: on.FrameRequested, now: float) -> None:
        if self.dispatch.frame:
            raise Impossible("a broker renders one frame")
        self.dispatch.begin(event.frame)
        for server in self.fleet:
            if server.phase is Phase.LEASED:
                self._send_setup(server)

    def _send_setup(self, server: Server) -> None:
        if frame := self.dispatch.frame:
            message = say.Setup(
                lease=server.lease,
                epoch=self.epoch,
                manifest=frame.manifest,
                manifest_bytes=frame.assets[frame.manifest],
                settings=frame.settings,
                channels=list(frame.channels),
            )
            self.outbox.send(server, message)

    def _cancel(self, event: on.CancelRequested, now: float) -> None:
        if not self.finished:
            self._finish(Status.INCOMPLETE, event.reason, now)

    def _finish_frame(self, now: float) -> None:
        count = self.dispatch.job.counts[State.POISONED]
        if count:
            self._finish(Status.INCOMPLETE, f"{count} buckets could not be rendered", now)
        else:
            self._finish(Status.COMPLETE, "", now)

    def _give_up(self, now: float) -> None:
        refused = {server.verdict for server in self.fleet} <= {Verdict.REFUSED, Verdict.REMOVED}
        status = Status.REFUSED if refused else Status.INCOMPLETE
        reasons = "; ".join(f"{loss.name}: {loss.reason}" for loss in self.links.lost)
        self._finish(status, f"no server can render this frame: {reasons}", now)

    def _finish(self, status: Status, reason: str, now: float) -> None:
        """Frees every server and ends the render."""
        for server in self.fleet:
            if server.lease:
                self.dispatch.cancel(server, now)
                restart = self.restart_servers and server.endpoint not in self.children
                self.outbox.send(server, say.Bye(lease=server.lease, restart=restart))
                self.fleet.end_lease(server)
        poisoned = tuple(Poisoned(entry.work, entry.error) for entry in self.dispatch.job.poisoned())
        self.finished = Finished(status, reason, poisoned)
        self.outbox.add(self.finished)
