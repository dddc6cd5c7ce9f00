"""The render client's one ROUTER: dials gates, with keys, carries frames. Knows sockets; no message and no bucket.

Facts of libzmq 4.3 that shape it: a routing id must never be used twice (the library aborts), so each dial brings a
fresh one; automatic reconnection would deliver old words to a restarted server, so it is off; an undrained monitor
stalls everything, so `changes` belongs into the same loop as `messages`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TypeAlias

import zmq
from msgspec import Struct

from dr.broker.events import ConnectionLost, DialRefused, DialSucceeded
from dr.client.guard import explain_failure, explain_refusal, prepare_dial
from dr.keys.security import Guard, Security
from dr.protocol.version import MAX_MESSAGE_BYTES

HEARTBEAT_MS = 1000
SILENCE_MS = 3000  # ZMTP's own heartbeat, handshake and connect time-outs
FAREWELL_MS = 200  # how long closing may take to hand over the last words
MESSAGES_PER_TURN = 256  # then the other descriptors get their turn

_FACT = struct.Struct("=hi")  # a monitor's first frame: event, value
_HANDSHAKE_FAILURES = (zmq.Event.HANDSHAKE_FAILED_NO_DETAIL, zmq.Event.HANDSHAKE_FAILED_PROTOCOL)

Change: TypeAlias = DialSucceeded | DialRefused | ConnectionLost


class _Dial(Struct):
    """A connection that is being made or stands."""

    guard: Guard | None  # none on a Unix socket
    fd: int | None = None  # once connected
    stands: bool = False  # the handshake has succeeded


class Link:
    """One ROUTER socket. Everything is called from one thread."""

    def __init__(self, security: Security) -> None:
        self.security = security
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self._set_options()
        self.monitor = self.socket.get_monitor_socket()
        self._dials: dict[str, _Dial] = {}

    def _set_options(self) -> None:
        options = {
            zmq.LINGER: 0,
            zmq.IPV6: 1,
            zmq.HANDSHAKE_IVL: SILENCE_MS,
            zmq.CONNECT_TIMEOUT: SILENCE_MS,
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
            zmq.HEARTBEAT_TIMEOUT: SILENCE_MS,
            zmq.HEARTBEAT_TTL: SILENCE_MS,
            zmq.RECONNECT_IVL: -1,
            zmq.MAXMSGSIZE: MAX_MESSAGE_BYTES,
            zmq.ROUTER_MANDATORY: 1,
            zmq.ROUTER_HANDOVER: 0,
            zmq.SNDHWM: 0,  # what may wait is bounded by credit: a few buckets and chunks per server
        }
        for option, value in options.items():
            self.socket.setsockopt(option, value)

    def dial(self, endpoint: str, peer: bytes) -> None:
        """Begins to connect; `changes` tells how it went. `peer` must never have been used before.

        Raises Refused where keys are missing, which `resolve_servers` has made sure of.
        """
        self.hang_up(endpoint)
        self._dials[endpoint] = _Dial(prepare_dial(self.socket, endpoint, self.security))
        self.socket.setsockopt(zmq.CONNECT_ROUTING_ID, peer)
        self.socket.connect(endpoint)

    def hang_up(self, endpoint: str) -> None:
        """Drops the connection, or stops dialling."""
        if self._dials.pop(endpoint, None):
            self._disconnect(endpoint)

    def send(self, peer: bytes, frames: Sequence[bytes | memoryview]) -> bool:
        """False when the peer is not connected (any more)."""
        try:
            self.socket.send_multipart([peer, *frames], zmq.DONTWAIT, copy=len(frames) == 1)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def messages(self) -> Iterator[list[bytes]]:
        """What has arrived: routing id, header, payload frames; a bounded number per call."""
        for _ in range(MESSAGES_PER_TURN):
            try:
                yield self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return

    def changes(self) -> Iterator[Change]:
        """Connections made and lost since the last call."""
        while self.monitor.poll(0):
            fact, place = self.monitor.recv_multipart()
            kind, value = _FACT.unpack(fact)
            endpoint = place.decode("utf-8", "replace")
            if endpoint in self._dials:
                change = self._read_event(endpoint, zmq.Event(kind), value)
                if isinstance(change, ConnectionLost | DialRefused):
                    self.hang_up(endpoint)
                if change:
                    yield change

    def _read_event(self, endpoint: str, kind: zmq.Event, value: int) -> Change | None:
        """None: of no interest, or about an earlier connection to the same endpoint, told apart by its descriptor."""
        dial = self._dials[endpoint]
        if kind == zmq.Event.CONNECTED:
            dial.fd = value
        elif kind == zmq.Event.HANDSHAKE_SUCCEEDED:
            dial.stands = True
            return DialSucceeded(endpoint)
        elif kind == zmq.Event.HANDSHAKE_FAILED_AUTH:
            return DialRefused(endpoint, explain_refusal(self.security))
        elif kind in _HANDSHAKE_FAILURES:
            return ConnectionLost(endpoint, explain_failure(dial.guard, self.security))
        elif kind == zmq.Event.DISCONNECTED and dial.fd == value:
            failure = "the connection was closed" if dial.stands else explain_failure(dial.guard, self.security)
            return ConnectionLost(endpoint, failure)
        elif kind == zmq.Event.CLOSED and dial.fd in (None, value):
            return ConnectionLost(endpoint, "nobody listens there")
        return None

    def _disconnect(self, endpoint: str) -> None:
        with suppress(zmq.ZMQError):  # it is gone already
            self.socket.disconnect(endpoint)

    def close(self) -> None:
        """Hands over what was sent, for at most FAREWELL_MS, and ends."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(FAREWELL_MS)
        self.context.term()
