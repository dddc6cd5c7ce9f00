"""Decides who renders what, from the first dial to the last tile. Knows no clock, socket, file or dice.

`Broker.handle(event, now)` takes a fact and returns the commands to carry out; `next_deadline()` says when `tick(now)`
wants to be called; `check()` proves that nothing was lost or doubled. `now` is a monotonic clock in seconds. The same
seed and the same events give the same commands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, TypeAlias

from dr.broker import commands as do
from dr.broker import events as on
from dr.broker.commands import Command, Poisoned, Status, Topic
from dr.broker.events import Event
from dr.broker.fleet import HEARING, Fleet, Phase, Server, Timers, Verdict
from dr.broker.job import Frame, Job, State
from dr.broker.report import Report, make_report
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
from dr.errors import Impossible
from dr.protocol import messages as say
from dr.protocol.version import PROTOCOL_VERSION

BATCH = 512  # buckets of one message, far below the header's limit
MAX_READS = 8  # assets that a server may have asked for at a time; it should stop at 4
MAX_STRIKES = 3  # connections that a server may lose to misbehaviour
STORY = 40  # events that an Impossible tells
FINAL_CODES = frozenset({"version", "kernels", "key", "refused"})  # of `error`: dialling again is no use

_Handler: TypeAlias = Callable[[Any, float], None]
_MessageHandler: TypeAlias = Callable[[Server, Any, float], None]


class Broker:
    """One render: add servers, request the frame, feed events until `Finished`."""

    def __init__(self, *, kernels: str, seed: bytes, client: str = "client", timers: Timers | None = None) -> None:
        """`kernels` is the digest of the code that decides pixels; `seed`, 16 bytes, must never be used twice."""
        self.kernels = kernels
        self.client = client
        self.fleet = Fleet(seed, timers or Timers())
        self.epoch = int.from_bytes(self.fleet.draw(6), "little")
        self.frame: Frame | None = None
        self.job = Job(())
        self.finished: do.Finished | None = None
        self.dropped = 0  # messages of an unknown peer, an old lease or epoch, or about a finished bucket
        self.lost: list[tuple[str, str]] = []  # name of a server and why, one item per loss
        self.race_at = inf
        self._is_stranded = False
        self._commands: list[Command] = []
        self._story: deque[str] = deque(maxlen=STORY)
        self._handlers: Mapping[type, _Handler] = {
            on.ServerAdded: self._add_server,
            on.ServerRemoved: self._remove_server,
            on.ServerDied: self._bury_server,
            on.FrameRequested: self._request_frame,
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
        self._story.append(f"{now:.3f} {_title(event)}")
        return self._run(lambda: self._handlers[type(event)](event, now), now)

    def tick(self, now: float) -> list[Command]:
        """What to do because time has passed. To be called when `next_deadline()` is over; earlier does no harm."""
        return self._run(lambda: self._tend_servers(now), now)

    def next_deadline(self) -> float:
        """The time at which `tick` has something to do; inf when only an event can change anything."""
        return inf if self.finished else min(self.fleet.wake, self.race_at)

    def check(self) -> None:
        """Proves that every bucket is in exactly one place and held by live servers alone. Raises Impossible."""
        self.fleet.check()
        self.job.check({server.boot: server.buckets_held() for server in self.fleet if server.lease})

    def report(self) -> Report:
        """The render so far, for a display."""
        return make_report(self.job, self.fleet, self.lost, self.dropped)

    def _run(self, action: Callable[[], None], now: float) -> list[Command]:
        try:
            action()
            self._settle(now)
        except Impossible as error:
            raise Impossible(f"{error}; before that: {'; '.join(self._story)}") from error
        commands, self._commands = self._commands, []
        return commands

    def _settle(self, now: float) -> None:
        """After every event: is the render over, hopeless, or due for races?"""
        if self.finished or not self.frame:
            return
        if self.job.is_over:
            self._finish_frame()
        elif self.fleet.is_hopeless():
            self._give_up()
        elif now >= self.race_at:
            self._start_races(now)

    # Servers come and go

    def _add_server(self, event: on.ServerAdded, now: float) -> None:
        server = None if self.finished else self.fleet.add(event.endpoint, event.name)
        if server:
            self._dial(server, now)

    def _remove_server(self, event: on.ServerRemoved, now: float) -> None:
        if server := self._find(event.endpoint):
            self._retire(server, Verdict.REMOVED, event.reason, now)

    def _bury_server(self, event: on.ServerDied, now: float) -> None:
        if server := self._find(event.endpoint):
            self._retire(server, Verdict.DIED, event.reason, now)

    def _accept_refusal(self, event: on.DialRefused, now: float) -> None:
        if server := self._find(event.endpoint):
            self._retire(server, Verdict.REFUSED, event.reason, now)

    def _greet(self, event: on.DialSucceeded, now: float) -> None:
        server = self._find(event.endpoint)
        if server and server.phase is Phase.DIALING:
            self._say_hello(server, now)

    def _lose_connection(self, event: on.ConnectionLost, now: float) -> None:
        server = self._find(event.endpoint)
        if server and server.phase is not Phase.IDLE:
            self._drop(server, event.reason, now)

    def _lose_peer(self, event: on.SendFailed, now: float) -> None:
        if server := self._known(event.peer):
            self._drop(server, event.reason, now)

    def _hear_nonsense(self, event: on.PeerMisbehaved, now: float) -> None:
        if server := self._known(event.peer):
            self._punish(server, event.reason, now)

    def _tend_servers(self, now: float) -> None:
        if self.finished:
            return
        for server in self.fleet.take_due(now):
            self._tend(server, now)
        self.fleet.rest()

    def _tend(self, server: Server, now: float) -> None:
        timers = self.fleet.timers
        if server.phase is Phase.IDLE:
            self._dial(server, now)
        elif server.phase is Phase.DIALING:
            self._drop(server, f"no connection within {timers.dial_s:g} s", now)
        elif now >= server.heard + timers.dead_s:
            self._drop(server, f"silent for {timers.dead_s:g} s", now)
        elif server.phase is Phase.UP and now >= server.deadline:
            self._drop(server, f"no welcome within {timers.welcome_s:g} s", now)
        else:
            self._send(server, say.Ping(n=self.fleet.start_ping(server, now)))

    def _dial(self, server: Server, now: float) -> None:
        self.fleet.dial(server, now)
        self._commands.append(do.Dial(server.endpoint, server.peer))

    def _say_hello(self, server: Server, now: float) -> None:
        self.fleet.greet(server, now)
        self._send(server, say.Hello(version=PROTOCOL_VERSION, name=self.client, want=True, kernels=self.kernels))

    def _drop(self, server: Server, reason: str, now: float, *, died: bool = True) -> None:
        """Ends the connection; the server is dialled again. With `died`, the buckets that ran there are suspects."""
        self._commands.append(do.Disconnect(server.endpoint, server.peer))
        self._tell_loss(server, reason)
        self._take_back(server, reason, now, died=died)
        self.fleet.close(server, now)
        self._serve_all(now)

    def _retire(self, server: Server, verdict: Verdict, reason: str, now: float) -> None:
        """The server takes no part any more."""
        self._take_back(server, reason, now, died=verdict is Verdict.DIED)
        if server.lease:
            self._send(server, say.Bye(lease=server.lease))
        if server.peer:
            self._commands.append(do.Disconnect(server.endpoint, server.peer))
        topic = Topic.LOST if verdict in {Verdict.REMOVED, Verdict.DIED} else Topic.REFUSED
        self._notify(topic, reason, server)
        self.lost.append((server.name, reason))
        self.fleet.retire(server, verdict)
        self._serve_all(now)

    def _punish(self, server: Server, reason: str, now: float) -> None:
        """Ends a connection on which the peer broke the protocol; the third time is the last."""
        server.strikes += 1
        self._send(server, say.ErrorMessage(code="protocol", text=reason[:4096]))
        if server.strikes >= MAX_STRIKES:
            self._retire(server, Verdict.UNFIT, f"broke the protocol {MAX_STRIKES} times, at last: {reason}", now)
        else:
            self._drop(server, f"broke the protocol: {reason}", now, died=False)

    def _tell_loss(self, server: Server, reason: str) -> None:
        if server.has_joined:
            self.lost.append((server.name, reason))
            self._notify(Topic.LOST, reason, server)
        elif not server.is_reported:
            self._notify(Topic.UNREACHABLE, f"{reason}; trying again", server)
        server.is_reported = True

    # What servers say

    def _hear(self, event: on.MessageReceived, now: float) -> None:
        server, message = self.fleet.peers.get(event.peer), event.message
        if server is None:
            self.dropped += 1
        elif self.finished:
            self._hear_too_late(server, message)
        elif server.phase not in HEARING:
            self._punish(server, "spoke before it was greeted", now)
        else:
            server.heard = now
            self._hear_live(server, event, now)

    def _hear_live(self, server: Server, event: on.MessageReceived, now: float) -> None:
        message = event.message
        if hearer := self._hearers.get(type(message)):
            hearer(server, message, now)
        elif not server.lease or message.lease != server.lease or getattr(message, "epoch", self.epoch) != self.epoch:
            self.dropped += 1
        elif isinstance(message, say.Tile):
            self._hear_tile(server, event, now)
        else:
            self._leased_hearers[type(message)](server, message, now)

    def _hear_too_late(self, server: Server, message: say.ServerMessage) -> None:
        # A server that we waited for became free just now: let it go at once.
        if isinstance(message, say.Grant):
            self._send(server, say.Bye(lease=message.lease))

    def _hear_welcome(self, server: Server, message: say.Welcome, now: float) -> None:
        if server.phase not in {Phase.UP, Phase.WAITING}:
            self.dropped += 1
            return
        if refusal := self._compare_versions(message):
            self._retire(server, Verdict.REFUSED, refusal, now)
            return
        if twin := self.fleet.find_twin(server, message.boot):
            self._retire(server, Verdict.REMOVED, f"is the same server as {twin.endpoint}", now)
            return
        server.name, server.boot = message.name, message.boot
        if server.phase is Phase.UP:
            self.fleet.move(server, Phase.WAITING)
        if message.busy:
            text = f"busy with {message.holder or 'another client'}; joins when it is free"
            self._notify(Topic.WAITING, text, server)

    def _compare_versions(self, message: say.Welcome) -> str:
        """Why this server cannot render for us, or nothing."""
        if message.version != PROTOCOL_VERSION:
            return f"speaks protocol {message.version}, this client {PROTOCOL_VERSION}; install one version everywhere"
        if message.kernels != self.kernels:
            found, own = message.kernels[:12] or "none", self.kernels[:12] or "none"
            return f"has kernels {found}, this client {own}; install one version everywhere"
        return ""

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
        self._take_back(server, "", now, died=False)
        self._say_hello(server, now)
        self._serve_all(now)

    def _hear_error(self, server: Server, message: say.ErrorMessage, now: float) -> None:
        if message.code in FINAL_CODES:
            self._retire(server, Verdict.REFUSED, message.text, now)
        else:
            self._drop(server, f"{message.code}: {message.text}", now, died=False)

    def _hear_here(self, server: Server, message: say.Here, now: float) -> None:
        self._punish(server, "said `here` on a connection that the client dialled", now)

    def _hear_get(self, server: Server, message: say.Get, now: float) -> None:
        size = self.frame.assets.get(message.digest) if self.frame else None
        if size is None or message.offset + message.n > size:
            found = f"{message.n} bytes at {message.offset} of {message.digest.hex()[:12]} ({size or 'no'} bytes)"
            self._punish(server, f"expected `get` of an asset of this scene, found {found}", now)
        elif server.reads >= MAX_READS:
            self._punish(server, f"expected at most {MAX_READS} unanswered `get`, found more", now)
        else:
            server.reads += 1
            self._commands.append(do.ReadAsset(server.peer, message.digest, message.offset, message.n))

    def _send_chunk(self, event: on.AssetRead, now: float) -> None:
        server = self.fleet.peers.get(event.peer)
        if not server or not server.lease:
            return
        server.reads -= 1
        message = say.Chunk(
            lease=server.lease, epoch=self.epoch, digest=event.digest, offset=event.offset, missing=event.missing
        )
        self._send(server, message, event.payload)

    def _hear_progress(self, server: Server, message: say.Progress, now: float) -> None:
        self._notify(Topic.PREPARING, message.text, server)

    def _hear_ready(self, server: Server, message: say.Ready, now: float) -> None:
        if server.phase is not Phase.LEASED:
            self.dropped += 1
            return
        self.fleet.move(server, Phase.READY)
        server.has_joined, server.is_reported, self._is_stranded = True, False, False
        self._notify(Topic.JOINED, f"renders with {server.threads} threads", server)
        self._serve(server, now)

    def _hear_drain(self, server: Server, message: say.Drain, now: float) -> None:
        if server.phase is Phase.DRAINING:
            return
        self.fleet.move(server, Phase.DRAINING)
        queued = list(server.queued)
        self._withdraw(server, queued, now)
        self._send_cancel(server, queued)
        self._serve_all(now)

    # Frames and buckets

    def _request_frame(self, event: on.FrameRequested, now: float) -> None:
        if self.frame:
            raise Impossible("a broker renders one frame")
        self.frame = event.frame
        self.job = Job(event.frame.buckets)
        for server in self.fleet:
            if server.phase is Phase.LEASED:
                self._send_setup(server)

    def _send_setup(self, server: Server) -> None:
        if frame := self.frame:
            message = say.Setup(
                lease=server.lease,
                epoch=self.epoch,
                manifest=frame.manifest,
                manifest_bytes=frame.assets[frame.manifest],
                settings=frame.settings,
                channels=list(frame.channels),
            )
            self._send(server, message)
