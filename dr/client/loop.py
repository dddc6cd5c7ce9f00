"""Carries out what the broker asks for: sockets, files, children, the clock. Decides nothing and looks into no bucket.

One thread calls `run`. Facts wait in `events` and go into the broker one by one; the commands that come back are done
at once, each by the method that `_ACTIONS` names.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from math import ceil
from time import monotonic
from typing import Any, ClassVar, Protocol

import zmq

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

    def notice_given(self, notice: commands.Notify) -> None: ...

    def turn_ended(self) -> None: ...


class Loop:
    """Runs one broker from its first event to `Finished`."""

    def __init__(
        self, broker: Broker, files: SceneFiles, servers: LocalServers, observer: Observer, link: Link
    ) -> None:
        self.broker = broker
        self.files = files
        self.servers = servers
        self.observer = observer
        self.link = link  # closed by `run`
        self.events: deque[events.Event] = deque()
        self.finished: commands.Finished | None = None
        self._poller = zmq.Poller()
        self._watched: set[Any] = set()
        self._ready: dict[Any, int] = {}
        self._cancelling = False

    def run(self, first: Iterable[events.Event], cancel: threading.Event) -> commands.Finished:
        """Feeds the first events and goes on until the broker says that the render is over."""
        self.events.extend(first)
        try:
            while self.finished is None:
                self._turn(cancel)
        finally:
            self.link.close()
        return self.finished

    def _turn(self, cancel: threading.Event) -> None:
        self._settle()
        if self.finished is None:
            self._wait()
            self._collect(cancel)
            self._settle()
            self._do_all(self.broker.tick(monotonic()))
        self.observer.turn_ended()

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
        wanted = {*self.link.sources(), *self.servers.watched()}
        for gone in self._watched - wanted:
            self._poller.unregister(gone)
        for new in wanted - self._watched:
            self._poller.register(new, zmq.POLLIN)
        self._watched = wanted
        wait_s = min(CANCEL_POLL_S, max(0.0, self.broker.next_deadline() - monotonic()))
        self._ready = dict(self._poller.poll(ceil(wait_s * 1000)))

    def _collect(self, cancel: threading.Event) -> None:
        """Turns what happened into facts.

        Messages come first, so that what a lost server still said is heard; then deaths of children, which say more
        than the loss of a connection.
        """
        for frames in self.link.messages():
            self.events.append(_read_message(frames))
        for fd in [fd for fd in self._ready if isinstance(fd, int)]:
            self._hear_child(fd)
        for change in self.link.changes():
            self._hear_change(change)
        self.events.extend(self.link.losses())
        if cancel.is_set() and not self._cancelling:
            self._cancelling = True
            self.events.append(events.CancelRequested("cancelled"))

    def _hear_change(self, change: Change) -> None:
        """A child's death may show in its connection first: one loss then, with the better reason."""
        died = self.servers.take_death(change.endpoint) if isinstance(change, events.ConnectionLost) else []
        self._tell(died)
        if not any(isinstance(said, ServerExited) for said in died):
            self.events.append(change)

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
        log.info("dial %s", command.endpoint)
        self.link.dial(command.endpoint, command.peer)

    def _disconnect(self, command: commands.Disconnect) -> None:
        log.info("disconnect %s", command.endpoint)
        self.link.hang_up(command.endpoint)

    def _send(self, command: commands.Send) -> None:
        log.debug("send %s to %s", command.message, command.peer.hex())
        if not self.link.send(command.peer, join(command.message, command.payload)):
            self.events.append(events.SendFailed(command.peer, "the connection is gone"))

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
