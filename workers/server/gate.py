"""The server's one door to the world: a bound ROUTER. Knows sockets and frames; knows not what a message asks for."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import struct
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq

from dr.errors import BadInput, Impossible, ProtocolError, Refused
from dr.protocol.address import IpcAddress, TcpAddress, parse_address
from dr.protocol.envelope import Frame, Payload, join, split_client, split_peer
from dr.protocol.messages import ServerMessage
from dr.protocol.version import MAX_MESSAGE_BYTES
from workers.server.events import MessageArrived, MessageRefused, PeerUnreachable

HEARTBEAT_MS = 1000
DEAD_MS = 3000
BACKLOG = 1024
MAX_WAITING = 1 << 16  # messages for one peer beyond what its pipe holds; credit keeps honest clients far below
LAST_WORDS_MS = 500  # what was said just before closing has so long to leave: 6 MB at 100 Mbit/s
RETRY_S = 0.005

log = logging.getLogger("dr.server")


class Gate:
    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        """Raises BadInput when the endpoint cannot be bound, Refused when it would need a key."""
        self.socket = context.socket(zmq.ROUTER)
        _set_options(self.socket)
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_ALL)
        self.waiting: dict[bytes, deque[Sequence[Frame]]] = {}  # what a full pipe did not take yet, by peer
        self.socket_file: Path | None = None
        self.closing_s: float | None = None  # when the last words must have left
        try:
            self.endpoint = self._bind(endpoint)
        except BaseException:
            self.close()
            raise

    def _bind(self, endpoint: str) -> str:
        address, port = _allowed(endpoint)
        try:
            if isinstance(address, IpcAddress):
                return self._bind_unix(Path(address.path))
            name = "127.0.0.1" if address.host.lower().rstrip(".") == "localhost" else address.host
            host = f"[{name}]" if ":" in name else name
            self.socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                raise BadInput(f"{endpoint}: the port is taken by another program; choose another one") from error
            raise BadInput(f"{endpoint}: cannot listen there: {os.strerror(error.errno or 0)}") from error
        bound: bytes = self.socket.last_endpoint  # its port is right, its host may read [::ffff:127.0.0.1]
        return f"tcp://{host}:{bound.decode().rstrip(chr(0)).rpartition(':')[2]}"

    def _bind_unix(self, path: Path) -> str:
        _check_private(path)
        self.socket.bind(f"ipc://{path}")
        self.socket_file = path
        return f"ipc://{path}"

    def send(self, peer: bytes, message: ServerMessage, payload: Payload) -> PeerUnreachable | None:
        """Sends now, or keeps what a full pipe does not take: nothing is dropped while the peer is there and reads."""
        frames = join(message, payload, peer)
        if peer in self.waiting:
            self.waiting[peer].append(frames)
            return None if len(self.waiting[peer]) < MAX_WAITING else self._give_up(peer)
        try:
            self._push(frames)
        except zmq.Again:
            self.waiting[peer] = deque([frames])
        except zmq.ZMQError as error:
            return _unreachable(error, peer)
        return None

    def send_waiting(self) -> list[PeerUnreachable]:
        """Tries again what did not leave before."""
        lost = []
        for peer, frames in list(self.waiting.items()):
            try:
                while frames:
                    self._push(frames[0])
                    frames.popleft()
                del self.waiting[peer]
            except zmq.Again:
                continue
            except zmq.ZMQError as error:
                del self.waiting[peer]
                lost.append(_unreachable(error, peer))
        return lost

    def _give_up(self, peer: bytes) -> PeerUnreachable:
        """One that asks and asks and never reads would fill our memory with answers."""
        log.warning("a client does not read: %d messages were waiting for it", len(self.waiting.pop(peer)))
        return PeerUnreachable(peer)

    def forget(self, peer: bytes) -> None:
        self.waiting.pop(peer, None)

    def receive(self) -> MessageArrived | MessageRefused | None:
        """The next message, or None when there is none now."""
        try:
            frames = self.socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return None
        peer, rest = split_peer(frames)
        try:
            message, payload = split_client(rest)
        except ProtocolError as error:
            return MessageRefused(peer, str(error))
        return MessageArrived(peer, message, payload)

    def drain_monitor(self) -> None:
        """Logs what happened to connections. A monitor that nobody reads stalls the socket after some 2,000 events."""
        with suppress(zmq.Again):
            while True:
                event, _ = self.monitor.recv_multipart(zmq.DONTWAIT)
                number, value = struct.unpack("=Hi", event)
                log.debug("gate: %s %d", zmq.Event(number).name, value)

    def say_last_words(self) -> None:
        """Hands over what full pipes did not take, as far as there is time; `close` follows."""
        self.closing_s = time.monotonic() + LAST_WORDS_MS / 1000
        while self.waiting and time.monotonic() < self.closing_s:
            time.sleep(RETRY_S)
            self.send_waiting()

    def close(self) -> None:
        """The connections stay open until what was sent has left: context.term() waits for that."""
        left_ms = LAST_WORDS_MS
        if self.closing_s is not None:
            left_ms = max(0, int((self.closing_s - time.monotonic()) * 1000))
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(left_ms)
        if self.socket_file:
            self.socket_file.unlink(missing_ok=True)

    def _push(self, frames: Sequence[Frame]) -> None:
        self.socket.send_multipart(frames, zmq.DONTWAIT, copy=len(frames) <= 2)


def _set_options(socket: zmq.Socket[Any]) -> None:
    socket.linger = 0
    socket.handshake_ivl = DEAD_MS
    socket.connect_timeout = DEAD_MS
    socket.heartbeat_ivl = HEARTBEAT_MS
    socket.heartbeat_timeout = socket.heartbeat_ttl = DEAD_MS
    socket.maxmsgsize = MAX_MESSAGE_BYTES
    socket.router_mandatory = 1
    socket.router_handover = 0  # with 1, a second peer of the same routing id would receive the first one's messages
    socket.reconnect_ivl = -1
    socket.backlog = BACKLOG
    socket.ipv6 = 1


def _allowed(endpoint: str) -> tuple[TcpAddress | IpcAddress, int]:
    """(address, port) of an endpoint that may be bound without a key."""
    place, _, zero = endpoint.removeprefix("tcp://").rpartition(":")
    any_port = zero == "0"  # the system chooses; the parser of users' words knows only real ports
    address = parse_address(place if any_port else endpoint.removeprefix("tcp://"))
    if not address.is_loopback:
        raise Refused(
            f"{endpoint}: expected a loopback address such as 127.0.0.1, found {place or endpoint}: "
            "listening for other machines needs keys, which this version does not have yet"
        )
    if isinstance(address, IpcAddress):
        return address, 0
    if not any_port and (address.ports is None or address.ports[0] != address.ports[1]):
        raise BadInput(f"{endpoint}: expected one port to listen on, HOST:PORT")
    return address, 0 if any_port or address.ports is None else address.ports[0]


def _check_private(path: Path) -> None:
    """Whoever can reach a Unix socket owns the server, so its folder must be this user's alone."""
    try:
        folder = path.parent.stat()
    except OSError as error:
        raise BadInput(f"ipc://{path}: expected an existing folder, found none at {path.parent}") from error
    if folder.st_uid != os.geteuid() or stat.S_IMODE(folder.st_mode) & 0o077:
        mode = stat.S_IMODE(folder.st_mode)
        raise Refused(
            f"ipc://{path}: expected a folder of your own with mode 700, found mode {mode:o} and owner "
            f"{folder.st_uid}; chmod 700 {path.parent}"
        )
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path))
        raise BadInput(f"ipc://{path}: another server listens there; choose another path")


def _unreachable(error: zmq.ZMQError, peer: bytes) -> PeerUnreachable:
    if error.errno != errno.EHOSTUNREACH:
        raise Impossible(f"gate: cannot send: {error}") from error
    return PeerUnreachable(peer)
