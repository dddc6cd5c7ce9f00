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
from dr.broker.commands import Command, Finished, Status
from dr.broker.dispatch import Dispatch
from dr.broker.events import Event
from dr.broker.fleet import WORKING, Fleet, Phase, Server, Timers, Verdict
from dr.broker.frames import Frames
from dr.broker.hearing import Hearing
from dr.broker.joining import Joining
from dr.broker.links import Links
from dr.broker.membership import Membership
from dr.broker.outbox import Outbox
from dr.broker.patience import Patience
from dr.broker.report import Report, make_report
from dr.broker.seats import Seats
from dr.errors import Impossible
from dr.protocol import messages as say
from dr.protocol.version import PROTOCOL_VERSION

STORY = 40  # events that an Impossible tells

_Handler: TypeAlias = Callable[[Any, float], None]


class Broker:
    """One render: add servers, request its frames, feed events until `Finished`."""

    def __init__(
        self,
        *,
        kernels: str,
        seed: bytes,
        client: str = "client",
        timers: Timers | None = None,
        restart_servers: bool = False,
        frames: int = 1,
        max_servers: int = 0,
        patient: bool = False,
    ) -> None:
        """`kernels` is the digest of the code that decides pixels; `seed`, 16 bytes, must never be used twice.

        With `restart_servers`, those that hold a lease at the end are asked to restart, all but our own children.
        The render is over when so many `frames` are. At most `max_servers` of the listed servers hold a lease at a
        time; 0: all. A `patient` render waits for servers that may be listed later, though all that are known refuse or
        are gone: then only `Timers.wait_s` gives up.
        """
        self.fleet = Fleet(seed, timers or Timers())
        self.fleet.patient = patient
        self.patience = Patience(self.fleet.timers.wait_s)
        self.outbox = Outbox()
        self.frames = Frames(frames)
        self.dispatch = Dispatch(self.fleet, self.outbox, self.frames)
        hello = say.Hello(version=PROTOCOL_VERSION, name=client, want=True, kernels=kernels)
        self.links = Links(self.fleet, self.outbox, self.dispatch, Seats(self.fleet, max_servers), hello)
        self.membership = Membership(self.fleet, self.outbox, self.links)
        joining = Joining(self.fleet, self.outbox, self.dispatch, self.links, self.membership)
        self.hearing = Hearing(self.fleet, self.outbox, self.dispatch, self.links, joining)
        self.restart_servers = restart_servers
        self.finished: Finished | None = None
        self._story: deque[tuple[float, str]] = deque(maxlen=STORY)
        self._handlers: Mapping[type, _Handler] = {
            on.ServerExpected: self._until_the_end(self.membership.expect),
            on.ServerAdded: self._until_the_end(self.membership.add),
            on.ServerRemoved: self._until_the_end(self.membership.remove),
            on.ServerAnnounced: self._until_the_end(self.membership.hear_announcement),
            on.ServerDied: self._until_the_end(self.membership.bury),
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
        return inf if self.finished else min(self.fleet.wake, self.dispatch.races.due, self.patience.deadline)

    def check(self) -> None:
        """Proves that every bucket is in exactly one place and held by live servers alone. Raises Impossible."""
        self.fleet.check()
        if not self.finished:
            self.links.seats.check()
        self.dispatch.check()

    def report(self) -> Report:
        """The render so far, for a display."""
        return make_report(self.frames, self.fleet, self.links.lost, self.hearing.dropped)

    def _run(self, action: Callable[[], None], now: float) -> list[Command]:
        try:
            action()
            self._settle(now)
        except Impossible as error:
            story = "; ".join(f"{when:.3f} {title}" for when, title in self._story)
            raise Impossible(f"{error}; before that: {story}") from error
        return self.outbox.take()

    def _settle(self, now: float) -> None:
        """After every event: what it means for servers and frames."""
        if self.finished:
            return
        for server, reason in self.dispatch.take_unfit():
            if server.phase in WORKING:
                self.links.retire(server, Verdict.UNFIT, reason, now)
        self._look_at_patience(now)
        if self.frames.requested:
            self._settle_frames(now)
        if not self.finished:
            self.links.settle(now)
            self._look_at_patience(now)

    def _look_at_patience(self, now: float) -> None:
        self.patience.look(bool(self.fleet.working) or not self.frames.live, now)

    def _settle_frames(self, now: float) -> None:
        """Is a frame over, is the render, is it hopeless, or due for races?"""
        while finished := self.dispatch.end_frame():
            self.outbox.add(finished)
        if self.hearing.bad_scene:
            self._finish(Status.BAD_INPUT, self.hearing.bad_scene, now)
        elif self.frames.is_over:
            self._finish_last(now)
        elif self.fleet.is_hopeless():
            self._give_up(now)
        elif now >= self.patience.deadline:
            text = f"no server within {self.patience.wait_s:g} s: {self.links.reasons()}"
            self._finish(Status.INCOMPLETE, text, now)
        elif now >= self.dispatch.races.due:
            self.dispatch.start_races(now)

    # Servers come and go

    def _until_the_end(self, handler: _Handler) -> _Handler:
        """What comes after the end changes nothing."""
        return lambda event, now: None if self.finished else handler(event, now)

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

    # The frames

    def _request_frame(self, event: on.FrameRequested, now: float) -> None:
        if not self.finished:
            self.dispatch.begin(event.frame)

    def _cancel(self, event: on.CancelRequested, now: float) -> None:
        if not self.finished:
            self._finish(Status.INCOMPLETE, event.reason, now)

    def _finish_last(self, now: float) -> None:
        if count := len(self.frames.poisoned):
            self._finish(Status.INCOMPLETE, f"{count} buckets could not be rendered", now)
        else:
            self._finish(Status.COMPLETE, "", now)

    def _give_up(self, now: float) -> None:
        refused = {server.verdict for server in self.fleet} <= {Verdict.REFUSED, Verdict.REMOVED}
        status = Status.REFUSED if refused else Status.INCOMPLETE
        self._finish(status, f"no server can render this frame: {self.links.last_losses()}", now)

    def _finish(self, status: Status, reason: str, now: float) -> None:
        """Frees every server and ends the render."""
        for server in self.fleet:
            if server.lease:
                self.dispatch.cancel(server, now)
                restart = self.restart_servers and server.endpoint not in self.fleet.children
                self.outbox.send(server, say.Bye(lease=server.lease, restart=restart))
                self.fleet.end_lease(server)
        self.finished = Finished(status, reason, self.frames.all_poisoned())
        self.outbox.add(self.finished)
