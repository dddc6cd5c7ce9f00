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
from dr.broker.commands import Command, Finished, Poisoned, Status
from dr.broker.dispatch import Dispatch
from dr.broker.events import Event
from dr.broker.fleet import Fleet, Phase, Server, Timers, Verdict
from dr.broker.hearing import Hearing
from dr.broker.job import State
from dr.broker.links import Links
from dr.broker.outbox import Outbox
from dr.broker.report import Report, make_report
from dr.errors import Impossible
from dr.protocol import messages as say
from dr.protocol.version import PROTOCOL_VERSION

STORY = 40  # events that an Impossible tells

_Handler: TypeAlias = Callable[[Any, float], None]


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
        self.hearing = Hearing(self.fleet, self.outbox, self.dispatch, self.links)
        self.restart_servers = restart_servers
        self.children: set[str] = set()  # endpoints of servers that we started ourselves
        self.finished: Finished | None = None
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
            on.AssetRead: lambda event, now: self.hearing.send_chunk(event),
            on.CancelRequested: self._cancel,
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
        return make_report(self.dispatch.job, self.fleet, self.links.lost, self.hearing.dropped)

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
        if self.hearing.bad_scene:
            self._finish(Status.BAD_INPUT, self.hearing.bad_scene, now)
        elif self.dispatch.job.is_over:
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

    def _hear(self, event: on.MessageReceived, now: float) -> None:
        if self.finished:
            self.hearing.hear_too_late(event)
        else:
            self.hearing.hear(event, now)

    def _hear_nonsense(self, event: on.PeerMisbehaved, now: float) -> None:
        if not self.finished:
            self.hearing.hear_nonsense(event, now)

    def _find(self, endpoint: str) -> Server | None:
        """The server at this endpoint while it takes part."""
        server = None if self.finished else self.fleet.servers.get(endpoint)
        return server if server and server.phase is not Phase.OUT else None

    def _find_peer(self, peer: bytes) -> Server | None:
        return None if self.finished else self.fleet.peers.get(peer)

    # The frame

    def _request_frame(self, event: on.FrameRequested, now: float) -> None:
        if self.dispatch.frame:
            raise Impossible("a broker renders one frame")
        self.dispatch.begin(event.frame)
        for server in self.fleet:
            if server.phase is Phase.LEASED:
                self.dispatch.send_setup(server)

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
