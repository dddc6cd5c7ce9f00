"""The render client's open door: a bound ROUTER for servers that dial out. Knows sockets and keys; no message.

Who enters must hold the farm key where keys are at hand. libzmq's monitor names a connection by its descriptor alone,
and each message tells the descriptor that it came through: so it is known at once who is gone.
"""

from __future__ import annotations

import logging
import os
import struct
from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import Any

import zmq

from dr.broker.events import SendFailed
from dr.errors import BadInput
from dr.keys.security import Guard, Security
from dr.keys.sockets import secure_listener
from dr.keys.zap import Zap
from dr.protocol.address import ListenAddress, parse_listen

BACKLOG = 1024
OPEN = "--listen {place}: open: any user of this machine can pose as a server; `dr keys init` closes it"

_FACT = struct.Struct("=hi")  # a monitor's first frame: event, value

log = logging.getLogger("dr.client")


def check_listen(text: str, security: Security) -> tuple[ListenAddress, Guard]:
    """Where to listen and how it is guarded. Raises BadInput for a word that names no place, Refused without keys."""
    place = f"--listen {text}"
    try:
        address = parse_listen(text)
    except BadInput as error:
        raise BadInput(f"--listen {error}") from None
    if not isinstance(address, ListenAddress):
        raise BadInput(f"{place}: expected HOST:PORT; servers of this machine need no --listen")
    return address, security.guard_dial(place, address.is_loopback)


class Listener:
    """One bound ROUTER. Everything is called from one thread, which polls `sources`."""

    def __init__(self, socket: zmq.Socket[Any], text: str, security: Security) -> None:
        """`socket` is a ROUTER with all its options but keys; it is closed here. Raises BadInput and Refused."""
        self.socket = socket
        self.zap: Zap | None = None
        self.monitor = socket.get_monitor_socket()
        self._by_fd: dict[int, deque[bytes]] = {}  # peers that have spoken, by descriptor, in order
        self._peers: dict[bytes, int] = {}  # descriptor by peer
        try:
            address, self.guard = check_listen(text, security)
            self.place = self._bind(address, security)
        except BaseException:
            self.close(0)
            raise

    def _bind(self, address: ListenAddress, security: Security) -> str:
        if self.guard is Guard.CURVE:
            self.zap = Zap(self.socket.context, security.ring.admit_server)
            secure_listener(self.socket, security.ring)
        self.socket.backlog = BACKLOG
        try:
            self.socket.bind(address.endpoint())
        except zmq.ZMQError as error:
            taken = error.errno == zmq.EADDRINUSE
            reason = "the port is taken by another program" if taken else os.strerror(error.errno or 0)
            place = address.endpoint().removeprefix("tcp://")
            raise BadInput(f"--listen {place}: cannot listen there: {reason}; choose another place") from error
        bound: bytes = self.socket.getsockopt(zmq.LAST_ENDPOINT)  # type: ignore[assignment]
        return address.endpoint(int(bound.decode().rstrip("\0").rpartition(":")[2])).removeprefix("tcp://")

    def sources(self) -> list[zmq.Socket[Any]]:
        return [self.socket, self.monitor, *([self.zap.socket] if self.zap else [])]

    def knows(self, peer: bytes) -> bool:
        """Whether this peer has spoken here, and its connection stands as far as we know."""
        return peer in self._peers

    def receive(self) -> list[bytes] | None:
        """Routing id, header, payload frames; None when there is nothing now."""
        try:
            frames = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        peer = frames[0].bytes
        if peer not in self._peers:
            fd = self._peers[peer] = _descriptor(frames[-1])
            self._by_fd.setdefault(fd, deque()).append(peer)
        return [frame.bytes for frame in frames]

    def losses(self) -> Iterator[SendFailed]:
        """Peers that are gone since the last call. Answers to newcomers leave here, too."""
        if self.zap:
            self.zap.answer(monotonic())
        while self.monitor.poll(0):
            kind, value = _FACT.unpack(self.monitor.recv_multipart()[0])
            log.debug("%s: %s %d", self.place, zmq.Event(kind).name, value)
            if kind == zmq.Event.DISCONNECTED and value in self._by_fd:
                peer = self._by_fd[value][0]  # others may have got the descriptor since
                self.forget(peer)
                yield SendFailed(peer, "the connection was closed")

    def forget(self, peer: bytes) -> None:
        """This peer is gone."""
        fd = self._peers.pop(peer)
        self._by_fd[fd].remove(peer)
        if not self._by_fd[fd]:
            del self._by_fd[fd]

    def close(self, linger_ms: int) -> None:
        """Hands over what was sent, for at most so long."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(linger_ms)
        if self.zap:
            self.zap.close()


def _descriptor(frame: zmq.Frame) -> int:
    """Of the connection that a frame came through."""
    found = frame.get(zmq.SRCFD)
    assert isinstance(found, int)
    return found
