"""Hears what spawners announce: one SUB socket for all announcers. Knows sockets; knows nothing of what follows.

An announcement names a port; its host is the one that it came from, as the system tells. A malformed one is skipped.
A connection that has ended is dialled again only when `dial_again` is called: libzmq's own reconnection is off, as
everywhere. Where a handshake fails, as at a port of a render server, the next attempts are ever rarer.
"""

from __future__ import annotations

import ipaddress
import logging
import struct
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any

import zmq
from msgspec import Struct

from dr.client.guard import prepare_dial
from dr.client.link import HEARTBEAT_MS, MESSAGES_PER_TURN, SILENCE_MS
from dr.errors import ProtocolError
from dr.keys.security import Security
from dr.protocol.envelope import TOPIC, split_announcement
from dr.protocol.messages import Announcement
from dr.protocol.version import HEADER_BYTES

DIAL_AGAIN_S = 1.0
DIAL_AGAIN_LAST_S = 30.0  # where handshakes fail

_FACT = struct.Struct("=hi")  # a monitor's first frame: event, value
_HANDSHAKE_FAILURES = (zmq.Event.HANDSHAKE_FAILED_NO_DETAIL, zmq.Event.HANDSHAKE_FAILED_PROTOCOL)

log = logging.getLogger("dr.client")


class _Ear(Struct):
    """One announcer and our connection to it."""

    host: str
    endpoint: str
    dialled: bool = False
    fd: int | None = None  # once connected
    stands: bool = False  # the handshake has succeeded
    due_s: float = inf  # when to dial again; inf: dialled, or never
    pause_s: float = DIAL_AGAIN_S
    settled: bool = False  # something was heard, or there is nobody


class Announcements:
    """All announcers that are listened to. Everything is called from one thread."""

    def __init__(self, context: zmq.Context[Any], security: Security) -> None:
        self.security = security
        self._socket: zmq.Socket[Any] = context.socket(zmq.SUB)
        _set_options(self._socket)
        self._monitor = self._socket.get_monitor_socket()
        self._ears: dict[str, _Ear] = {}
        self._hosts: dict[str, dict[str, None]] = {}  # hosts by the address that their messages come from

    def __len__(self) -> int:
        """How many announcers are listened to."""
        return len(self._ears)

    def listen(self, host: str, endpoint: str) -> None:
        """Begins to listen, once for each endpoint; what is heard there is about `host`, its IP literal."""
        if endpoint not in self._ears:
            self._ears[endpoint] = _Ear(host, endpoint)
            self._hosts.setdefault(_sender(host), {})[host] = None
            self._dial(self._ears[endpoint])

    def forget(self, host: str) -> None:
        """Listens to nobody of this host any more."""
        for endpoint in [endpoint for endpoint, ear in self._ears.items() if ear.host == host]:
            self._hang_up(self._ears.pop(endpoint))
        self._hosts.get(_sender(host), {}).pop(host, None)

    def dial_again(self, now: float) -> None:
        """Subscribes anew where nobody was, or nobody is any more, and that is due."""
        for ear in self._ears.values():
            if ear.due_s <= now:
                self._dial(ear)

    def next_deadline(self) -> float:
        """When `dial_again` has something to do."""
        return min((ear.due_s for ear in self._ears.values()), default=inf)

    @property
    def settled(self) -> bool:
        """Whether each announcer has said something or is known not to be there."""
        return all(ear.settled for ear in self._ears.values())

    def descriptors(self) -> tuple[zmq.Socket[Any], ...]:
        """What to poll for reading before `hear` is called; always the same."""
        return self._socket, self._monitor

    def hear(self) -> Iterator[tuple[str, Announcement]]:
        """(host, announcement) of what has arrived, a bounded number per call."""
        heard: set[int] = set()
        for _ in range(MESSAGES_PER_TURN):
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                break
            heard.add(_number(frames[-1]))
            yield from self._read(frames)
        self._read_monitor(monotonic())
        for ear in self._ears.values():
            ear.settled |= ear.fd in heard

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)

    def _read(self, frames: list[zmq.Frame]) -> Iterator[tuple[str, Announcement]]:
        sender = _sender(str(frames[-1].get("Peer-Address")))
        try:
            announcement = split_announcement([frame.bytes for frame in frames])
        except ProtocolError as error:
            log.debug("%s announces nonsense: %s", sender, error)
            return
        for host in self._hosts.get(sender, ()):
            yield host, announcement

    def _read_monitor(self, now: float) -> None:
        """It must be drained in any case."""
        while self._monitor.poll(0):
            fact, place = self._monitor.recv_multipart()
            kind, value = _FACT.unpack(fact)
            if ear := self._ears.get(place.decode("utf-8", "replace")):
                self._read_event(ear, zmq.Event(kind), value, now)

    def _read_event(self, ear: _Ear, kind: zmq.Event, value: int, now: float) -> None:
        """What is about an earlier connection to the same endpoint is told apart by its descriptor."""
        if not ear.dialled:
            return
        if kind == zmq.Event.CONNECTED:
            ear.fd = value
        elif kind == zmq.Event.HANDSHAKE_SUCCEEDED:
            ear.stands = True
        elif kind == zmq.Event.HANDSHAKE_FAILED_AUTH:
            self._end(ear, inf)
        elif kind in _HANDSHAKE_FAILURES or (kind == zmq.Event.DISCONNECTED and ear.fd == value):
            ear.pause_s = DIAL_AGAIN_S if ear.stands else min(2 * ear.pause_s, DIAL_AGAIN_LAST_S)
            self._end(ear, now + ear.pause_s)
        elif kind == zmq.Event.CLOSED and ear.fd in (None, value):
            self._end(ear, now + DIAL_AGAIN_S)

    def _end(self, ear: _Ear, due_s: float) -> None:
        log.debug("%s is silent", ear.endpoint)
        self._hang_up(ear)
        ear.due_s = due_s
        ear.settled = True

    def _dial(self, ear: _Ear) -> None:
        ear.due_s = inf
        prepare_dial(self._socket, ear.endpoint, self.security)
        try:
            self._socket.connect(ear.endpoint)
        except zmq.ZMQError as error:  # such as an interface that this machine does not have
            log.info("cannot listen to %s: %s", ear.endpoint, error)
            ear.settled = True
            return
        ear.dialled = True

    def _hang_up(self, ear: _Ear) -> None:
        ear.dialled, ear.fd, ear.stands = False, None, False
        with suppress(zmq.ZMQError):  # it is gone already
            self._socket.disconnect(ear.endpoint)


def _set_options(socket: zmq.Socket[Any]) -> None:
    options = {
        zmq.LINGER: 0,
        zmq.IPV6: 1,
        zmq.HANDSHAKE_IVL: SILENCE_MS,
        zmq.CONNECT_TIMEOUT: SILENCE_MS,
        zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
        zmq.HEARTBEAT_TIMEOUT: SILENCE_MS,
        zmq.HEARTBEAT_TTL: SILENCE_MS,
        zmq.RECONNECT_IVL: -1,
        zmq.MAXMSGSIZE: HEADER_BYTES,
    }
    for option, value in options.items():
        socket.setsockopt(option, value)
    socket.setsockopt(zmq.SUBSCRIBE, TOPIC)


def _number(frame: zmq.Frame) -> int:
    """The descriptor of the connection that a frame came through."""
    found = frame.get(zmq.SRCFD)
    assert isinstance(found, int)
    return found


def _sender(host: str) -> str:
    """An address as messages from there tell it: a dial to any address of this machine ends at its loopback."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_unspecified:
        return "::1" if ip.version == 6 else "127.0.0.1"
    return str(ip)
