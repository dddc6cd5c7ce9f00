"""Carries out what the broker asks for: sockets, files, children, the clock. Decides nothing and looks into no bucket.

One thread calls `run`. Facts wait in `events` and go into the broker one by one; the commands that come back are done
at once, each by the method that `_ACTIONS` names.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import ceil, inf
from time import monotonic
from typing import Any, ClassVar, Protocol

import zmq
from msgspec import Struct

from dr.broker import commands, events
from dr.client.files import SceneFiles
from dr.client.link import Change, Link
from dr.client.local import LocalEvent, LocalServers, ServerExited, ServerListening, ServerSaid
from dr.errors import BadInput, ProtocolError
from dr.protocol.envelope import join, split_server

CANCEL_POLL_S = 0.05  # how soon a cancel from another thread is seen

log = logging.getLogger("dr.client")


class Broker(Protocol):
    """What the loop needs of dr.broker.state.Broker."""

    def handle(self, event: events.Event, now: float) -> list[commands.Command]: ...

    def tick(self, now: float) -> list[commands.Command]: ...

    def next_deadline(self) -> float: ...


class Observer(Protocol):
    """Who is told what happens; called from the loop's thread."""

    def tile_arrived(self, tile: commands.MergeTile) -> None: ...

    def frame_finished(self, frame: commands.FrameFinished) -> None: ...

    def notice_given(self, notice: commands.Notify) -> None: ...

    def told(self, line: str) -> None: ...

    def turn_ended(self) -> Iterable[events.Event]:
        """Facts that follow, such as the next frame."""


class Recruiter(Protocol):
    """Who knows which servers shall take part: dr.client.recruiter.Recruiter."""

    connected: Callable[[], Iterable[str]] | None  # endpoints of servers that answer

    @property
    def endpoints(self) -> Mapping[str, bool]: ...

    def descriptors(self) -> Iterable[Any]: ...

    def news(self, now: float) -> Iterable[events.Event]: ...

    def notices(self) -> Iterable[str]: ...

    def next_deadline(self) -> float: ...

    def hear(self, endpoint: str, port: int) -> None: ...


class Surroundings(Struct, frozen=True, kw_only=True):
    """Where facts come from, besides the user."""

    link: Link
    servers: LocalServers
    recruiter: Recruiter


class Loop:
    """Runs one broker from its first event to `Finished`."""

    def __init__(
        self, broker: Broker, files: SceneFiles, around: Surroundings, observer: Observer, stop_at: float = inf
    ) -> None:
        """`stop_at`: when the time limit is over, on the monotonic clock."""
        self.broker = broker
        self.files = files
        self.link = around.link
        self.servers = around.servers
        self.recruiter = around.recruiter
        self.observer = observer
        self.stop_at = stop_at
        self.events: deque[events.Event] = deque()
        self.finished: commands.Finished | None = None
        self._poller = zmq.Poller()
        self._watched: set[Any] = set()
        self._ready: dict[Any, int] = {}
        self._cancelling = False
        self._endpoints: dict[bytes, str] = {}  # by peer, of the last dial of each
        self._peers: dict[str, bytes] = {}  # the other way round
        self._tried: set[str] = set()  # endpoints dialled, without success since

    def run(self, first: Iterable[events.Event], cancel: threading.Event) -> commands.Finished:
        """Feeds the first events and goes on until the broker says that the render is over."""
        self.events.extend(first)
        while self.finished is None:
            self._turn(cancel)
        return self.finished

    def _turn(self, cancel: threading.Event) -> None:
        self._settle()
        if self.finished is None:
            self._wait()
            self._collect(cancel)
            self._settle()
            self._do_all(self.broker.tick(monotonic()))
        if self.finished is None:
            self.events.extend(self.observer.turn_ended())

    def _settle(self) -> None:
        """Hands every waiting fact to the broker; doing what it asks for may bring new ones."""
        while self.events:
            self._do_all(self.broker.handle(self.events.popleft(), monotonic()))

    def _do_all(self, wanted: Iterable[commands.Command]) -> None:
        for command in wanted:
            self._ACTIONS[type(command)](self, command)

    # --- facts

    def _wait(self) -> None:
        """Sleeps until a descriptor has something or the broker's next deadline."""
        wanted = {*self.link.sources(), *self.servers.watched(), *self.recruiter.descriptors()}
        for gone in self._watched - wanted:
            self._poller.unregister(gone)
        for new in wanted - self._watched:
            self._poller.register(new, zmq.POLLIN)
        self._watched = wanted
        deadline = min(self.broker.next_deadline(), self.recruiter.next_deadline(), self.stop_at)
        wait_s = 0.0 if self.events else min(CANCEL_POLL_S, max(0.0, deadline - monotonic()))
        self._ready = dict(self._poller.poll(ceil(wait_s * 1000)))

    def _collect(self, cancel: threading.Event) -> None:
        """Turns what happened into facts.

        Messages come first, so that what a lost server still said is heard; then deaths of children, which say more
        than the loss of a connection.
        """
        for frames in self.link.messages():
            self.events.append(_read_message(frames))
        children = set(self.servers.watched())
        for fd in [fd for fd in self._ready if fd in children]:
            self._hear_child(fd)
        for change in self.link.changes():
            self._hear_change(change)
        self.events.extend(self.link.losses())
        self._hear_recruiter()
        if reason := self._why_stop(cancel):
            self._cancelling = True
            self.events.append(events.CancelRequested(reason))

    def _why_stop(self, cancel: threading.Event) -> str:
        """Why the render ends here, told once."""
        if self._cancelling:
            return ""
        if cancel.is_set():
            return "cancelled"
        return "the time limit is over" if monotonic() >= self.stop_at else ""

    def _hear_recruiter(self) -> None:
        self.events.extend(self.recruiter.news(monotonic()))
        for line in self.recruiter.notices():
            log.info("%s", line)
            self.observer.told(line)

    def _hear_change(self, change: Change) -> None:
        if isinstance(change, events.ConnectionLost):
            self._lose(change.endpoint, change)
            return
        if isinstance(change, events.DialSucceeded):
            self._tried.discard(change.endpoint)
        self.events.append(change)

    def _lose(self, endpoint: str, loss: events.ConnectionLost | events.SendFailed) -> None:
        """A child's death may show in its connection first: one loss then, with the better reason."""
        died = self.servers.take_death(endpoint)
        self._tell(died)
        if not any(isinstance(said, ServerExited) for said in died):
            self.events.append(loss)

    def _hear_child(self, fd: int) -> None:
        self._tell(self.servers.take(fd))

    def _tell(self, news: Iterable[LocalEvent]) -> None:
        for said in news:
            if isinstance(said, ServerListening):
                self.events.append(events.ServerAdded(said.endpoint, said.name))
            elif isinstance(said, ServerSaid):
                log.info("%s says: %s", said.name, said.line)
            elif isinstance(said, ServerExited):
                self.events.append(events.ServerDied(said.endpoint, said.reason))

    # --- commands

    def _dial(self, command: commands.Dial) -> None:
        log.log(self._loudness(command.endpoint), "dial %s", command.endpoint)
        self._tried.add(command.endpoint)
        self._endpoints.pop(self._peers.get(command.endpoint, b""), None)
        self._endpoints[command.peer] = command.endpoint
        self._peers[command.endpoint] = command.peer
        self.link.dial(command.endpoint, command.peer)

    def _loudness(self, endpoint: str) -> int:
        """A server that is away for a night is dialled again each second: only the first time is worth a line."""
        return logging.DEBUG if endpoint in self._tried else logging.INFO

    def _disconnect(self, command: commands.Disconnect) -> None:
        log.log(self._loudness(command.endpoint), "disconnect %s", command.endpoint)
        self.link.hang_up(command.endpoint)

    def _hear_announcements(self, command: commands.HearAnnouncements) -> None:
        self.recruiter.hear(command.endpoint, command.port)

    def _finish_frame(self, command: commands.FrameFinished) -> None:
        log.info("frame %d is finished, %d buckets given up", command.frame, len(command.poisoned))
        self.observer.frame_finished(command)

    def _send(self, command: commands.Send) -> None:
        log.debug("send %s to %s", command.message, command.peer.hex())
        if not self.link.send(command.peer, join(command.message, command.payload)):
            endpoint = self._endpoints.get(command.peer, "")
            self._lose(endpoint, events.SendFailed(command.peer, "the connection is gone"))

    def _merge(self, command: commands.MergeTile) -> None:
        log.info("tile %d from %s after %.3f s", command.bucket.id, command.server, command.seconds)
        self.observer.tile_arrived(command)

    def _read(self, command: commands.ReadAsset) -> None:
        payload: tuple[bytes, ...] = ()
        missing = ""
        try:
            payload = (self.files.read(command.digest, command.offset, command.n),)
        except BadInput as error:
            missing = str(error)
            log.warning("%s", error)
        self.events.append(events.AssetRead(command.peer, command.digest, command.offset, payload, missing))

    def _notify(self, command: commands.Notify) -> None:
        log.info("%s %s: %s", command.topic, command.server or command.endpoint or "farm", command.text)
        self.observer.notice_given(command)

    def _finish(self, command: commands.Finished) -> None:
        log.info("finished: %s %s", command.status.name.lower(), command.reason)
        self.finished = command

    _ACTIONS: ClassVar[dict[type, Callable[[Loop, Any], None]]] = {
        commands.Dial: _dial,
        commands.Disconnect: _disconnect,
        commands.Send: _send,
        commands.MergeTile: _merge,
        commands.ReadAsset: _read,
        commands.Notify: _notify,
        commands.HearAnnouncements: _hear_announcements,
        commands.FrameFinished: _finish_frame,
        commands.Finished: _finish,
    }


def _read_message(frames: list[bytes]) -> events.MessageReceived | events.PeerMisbehaved:
    """The fact that a multipart message of the ROUTER is."""
    peer = frames[0]
    try:
        message, payload = split_server(frames[1:])
    except ProtocolError as error:
        log.warning("%s misbehaves: %s", peer.hex(), error)
        return events.PeerMisbehaved(peer, str(error))
    return events.MessageReceived(peer, message, payload)
