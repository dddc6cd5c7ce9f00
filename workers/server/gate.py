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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq

from dr.errors import BadInput, Impossible, ProtocolError, Refused
from dr.keys.ring import KeyRing
from dr.keys.security import Guard, Security
from dr.protocol.address import IpcAddress
from dr.protocol.envelope import Frame, Payload, join, split_client
from dr.protocol.messages import ServerMessage
from dr.protocol.version import MAX_MESSAGE_BYTES
from workers.server.door import Door, door_of
from workers.server.events import MessageArrived, MessageRefused, PeerRevoked, PeerUnreachable
from workers.server.keeper import named_by_key

HEARTBEAT_MS = 1000
DEAD_MS = 3000
BACKLOG = 1024
MAX_WAITING = 1 << 16  # messages for one peer beyond what its pipe holds; credit keeps honest clients far below
LAST_WORDS_MS = 500  # what was said just before closing has so long to leave: 6 MB at 100 Mbit/s
RETRY_S = 0.005
DROPS_PER_TURN = 64  # frames of revoked peers, before the loop's other sockets have their turn
USER_ID = "User-Id"  # what our ZAP handler says of a connection: the client's public key

log = logging.getLogger("dr.server")


class Gate:
    """`guard` tells what it asks of clients; with keys each message is checked by the key of its connection."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, security: Security) -> None:
        """Raises BadInput when the endpoint cannot be bound, Refused when it would need a key."""
        door = door_of(endpoint, security)
        self.guard = None if isinstance(door, IpcAddress) else door.guard
        self.ring = security.ring
        self.revoked: set[bytes] = set()  # peers that have been told; what they go on saying is dropped
        self.socket = context.socket(zmq.ROUTER)
        _set_options(self.socket)
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_ALL)
        self.waiting: dict[bytes, deque[Sequence[Frame]]] = {}  # what a full pipe did not take yet, by peer
        self.socket_file: Path | None = None
        self.removes_folder = False  # of the Unix socket, when no other one is left in it
        self.closing_s: float | None = None  # when the last words must have left
        try:
            self.endpoint = self._bind(endpoint, door)
        except BaseException:
            self.close()
            raise

    def _bind(self, endpoint: str, door: Door | IpcAddress) -> str:
        try:
            if isinstance(door, IpcAddress):
                return self._bind_unix(Path(door.path))
            door.secure(self.socket)
            self.socket.bind(door.address.endpoint())
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                raise BadInput(f"{endpoint}: the port is taken by another program; choose another one") from error
            raise BadInput(f"{endpoint}: cannot listen there: {os.strerror(error.errno or 0)}") from error
        bound: bytes = self.socket.last_endpoint  # its port is right, its host may read [::ffff:127.0.0.1]
        return door.address.endpoint(int(bound.decode().rstrip("\0").rpartition(":")[2]))

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

    def receive(self) -> MessageArrived | MessageRefused | PeerRevoked | None:
        """The next message, or None when there is none now."""
        for _ in range(DROPS_PER_TURN):
            try:
                who = self.socket.recv(zmq.DONTWAIT, copy=False)
                frames = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            peer, key = who.bytes, self._key_of(who)
            if key is None:
                return _read(peer, frames)
            name = self.ring.client_name(key)
            if name is not None:
                return _read(peer, frames, key, name)
            if peer not in self.revoked:
                return self._revoke(peer, key)
        return None

    def _key_of(self, frame: zmq.Frame) -> str | None:
        """Whose connection a frame came through, None where no keys are asked for."""
        return str(frame.get(USER_ID)) if self.guard is Guard.CURVE else None

    def take_keys(self, ring: KeyRing, clients: Mapping[bytes, str]) -> list[PeerRevoked]:
        """Other keys are in force: those of `clients`, the keys of peers, whose key is none of them."""
        self.ring = ring
        return [self._revoke(peer, key) for peer, key in clients.items() if key and ring.client_name(key) is None]

    def _revoke(self, peer: bytes, key: str) -> PeerRevoked:
        """Hears nothing from this peer any more."""
        self.revoked.add(peer)
        return PeerRevoked(peer, key)

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
            if self.removes_folder:
                with suppress(OSError):
                    self.socket_file.parent.rmdir()

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


def _read(peer: bytes, frames: Sequence[Frame], key: str = "", name: str = "") -> MessageArrived | MessageRefused:
    try:
        message, payload = split_client(frames)
    except ProtocolError as error:
        return MessageRefused(peer, str(error))
    return MessageArrived(peer, named_by_key(message, name), payload, key)


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
