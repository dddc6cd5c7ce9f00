"""The render client's connections: a ROUTER dials gates, with keys, and carries frames. Knows sockets; no message.

Facts of libzmq 4.3 that shape it: a routing id must never be used twice (the library aborts), so each dial brings a
fresh one; automatic reconnection would deliver old words to a restarted server, so it is off; an undrained monitor
stalls everything, so `changes` belongs into the same loop as `messages`. Servers that dial out come to a second ROUTER:
bound and dialling with keys do not mix well on one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import zmq
from msgspec import Struct

from dr.broker.events import ConnectionLost, DialRefused, DialSucceeded, SendFailed
from dr.client.guard import explain_failure, explain_refusal, prepare_dial
from dr.client.listen import Listener
from dr.keys.security import Guard, Security
from dr.protocol.version import MAX_MESSAGE_BYTES

HEARTBEAT_MS = 1000
SILENCE_MS = 3000  # ZMTP's own heartbeat, handshake and connect time-outs
FAREWELL_MS = 200  # how long closing may take to hand over the last words
MESSAGES_PER_TURN = 256  # then the other descriptors get their turn

NOBODY: Final = "nobody listens there"

_FACT = struct.Struct("=hi")  # a monitor's first frame: event, value
_HANDSHAKE_FAILURES = (zmq.Event.HANDSHAKE_FAILED_NO_DETAIL, zmq.Event.HANDSHAKE_FAILED_PROTOCOL)

Change: TypeAlias = DialSucceeded | DialRefused | ConnectionLost


class _Dial(Struct):
    """A connection that is being made or stands."""

    guard: Guard | None  # none on a Unix socket
    fd: int | None = None  # once connected
    stands: bool = False  # the handshake has succeeded


class Link:
    """All connections of one render. Everything is called from one thread, which polls `sources`."""

    def __init__(self, security: Security, listen: str | None = None) -> None:
        """`listen`: HOST:PORT for servers that dial out. Raises BadInput and Refused like a Listener."""
        self.security = security
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self._make_router()
        self.monitor = self.socket.get_monitor_socket()
        self.listener: Listener | None = None
        self._dials: dict[str, _Dial] = {}
        try:
            self.listener = Listener(self._make_router(), listen, security) if listen is not None else None
        except BaseException:
            self.close()
            raise

    def _make_router(self) -> zmq.Socket[Any]:
        made: zmq.Socket[Any] = self.context.socket(zmq.ROUTER)
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
            made.setsockopt(option, value)
        return made

    def sources(self) -> list[zmq.Socket[Any]]:
        """What to poll for reading before `messages` and `changes` are called."""
        return [self.socket, self.monitor, *(self.listener.sources() if self.listener else [])]

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
        listener = self.listener if self.listener and self.listener.knows(peer) else None
        socket = listener.socket if listener else self.socket
        try:
            socket.send_multipart([peer, *frames], zmq.DONTWAIT, copy=len(frames) == 1)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            if listener:
                listener.forget(peer)
            return False
        return True

    def messages(self) -> Iterator[list[bytes]]:
        """What has arrived: routing id, header, payload frames; a bounded number per call."""
        for receive in (self._receive, *([self.listener.receive] if self.listener else [])):
            for _ in range(MESSAGES_PER_TURN):
                frames = receive()
                if frames is None:
                    break
                yield frames

    def _receive(self) -> list[bytes] | None:
        try:
            return self.socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return None

    def changes(self) -> Iterator[Change]:
        """Dialled connections made and lost since the last call."""
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
            return ConnectionLost(endpoint, NOBODY)
        return None

    def losses(self) -> Iterator[SendFailed]:
        """Peers that had dialled in and are gone since the last call."""
        return self.listener.losses() if self.listener else iter(())

    def _disconnect(self, endpoint: str) -> None:
        with suppress(zmq.ZMQError):  # it is gone already
            self.socket.disconnect(endpoint)

    def close(self) -> None:
        """Hands over what was sent, for at most FAREWELL_MS, and ends."""
        if self.listener:
            self.listener.close(FAREWELL_MS)
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(FAREWELL_MS)
        self.context.term()
