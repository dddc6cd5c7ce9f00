"""Hears what spawners announce: one SUB socket for each announcer. Knows sockets; knows nothing of what follows.

An announcement names a port; its host is the one that was subscribed to. A malformed one is skipped. An announcer that
is gone is dialled again only when `dial_again` is called: libzmq's own reconnection is off, as everywhere.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
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

_EVENT = struct.Struct("=H")  # the beginning of a monitor's first frame
_ENDS = {
    zmq.Event.DISCONNECTED,
    zmq.Event.CLOSED,
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL,
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL,
    zmq.Event.HANDSHAKE_FAILED_AUTH,
}

log = logging.getLogger("dr.client")


class _Ear(Struct):
    host: str
    endpoint: str
    socket: zmq.Socket[Any] | None = None
    monitor: zmq.Socket[Any] | None = None
    settled: bool = False  # something was heard, or there is nobody
    refused: bool = False  # our key: dialling again is no use


class Announcements:
    """All announcers that are listened to. Everything is called from one thread."""

    def __init__(self, context: zmq.Context[Any], security: Security) -> None:
        self.context = context
        self.security = security
        self._ears: dict[str, _Ear] = {}

    def listen(self, host: str, endpoint: str) -> None:
        """Begins to listen, once for each endpoint; what is heard there is about `host`."""
        if endpoint not in self._ears:
            self._ears[endpoint] = _Ear(host, endpoint)
            self._open(self._ears[endpoint])

    def dial_again(self) -> None:
        """Subscribes anew where nobody was, or nobody is any more."""
        for ear in self._ears.values():
            if ear.socket is None and not ear.refused:
                self._open(ear)

    @property
    def settled(self) -> bool:
        """Whether each announcer has said something or is known not to be there."""
        return all(ear.settled for ear in self._ears.values())

    def descriptors(self) -> Iterator[zmq.Socket[Any]]:
        """What to poll for reading before `hear` is called."""
        for ear in self._ears.values():
            if ear.socket and ear.monitor:
                yield from (ear.socket, ear.monitor)

    def hear(self) -> Iterator[tuple[str, Announcement]]:
        """(host, announcement) of what has arrived; a bounded number of each announcer per call."""
        for ear in self._ears.values():
            for announcement in _receive(ear):
                ear.settled = True
                yield ear.host, announcement
            if _has_ended(ear):
                _close(ear)
                ear.settled = True

    def close(self) -> None:
        for ear in self._ears.values():
            _close(ear)

    def _open(self, ear: _Ear) -> None:
        ear.socket = self.context.socket(zmq.SUB)
        _set_options(ear.socket)
        prepare_dial(ear.socket, ear.endpoint, self.security)
        ear.monitor = ear.socket.get_monitor_socket()
        ear.socket.connect(ear.endpoint)


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


def _receive(ear: _Ear) -> Iterator[Announcement]:
    for _ in range(MESSAGES_PER_TURN):
        if ear.socket is None or not ear.socket.poll(0):
            return
        frames = ear.socket.recv_multipart()
        try:
            yield split_announcement(frames)
        except ProtocolError as error:
            log.debug("%s announces nonsense: %s", ear.endpoint, error)


def _has_ended(ear: _Ear) -> bool:
    """Whether the connection is gone, by its monitor, which must be drained in any case."""
    ended = False
    while ear.monitor and ear.monitor.poll(0):
        event = zmq.Event(_EVENT.unpack_from(ear.monitor.recv_multipart()[0])[0])
        ear.refused |= event == zmq.Event.HANDSHAKE_FAILED_AUTH
        ended |= event in _ENDS
    return ended


def _close(ear: _Ear) -> None:
    if ear.socket and ear.monitor:
        ear.socket.disable_monitor()
        ear.monitor.close(0)
        ear.socket.close(0)
    ear.socket = ear.monitor = None
