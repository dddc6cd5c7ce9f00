"""The server's other door: it dials clients that wait for it, one DEALER for each connection. Knows sockets and frames.

What comes through it is the gate's: peers that speak, peers that are gone. A peer's name is chance that never leaves
this process, so that nobody can choose the same routing id at the gate. Where to dial, and when, is decided elsewhere.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import time
from collections import deque
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from typing import Any

import zmq
from msgspec import Struct, field

from dr.errors import ProtocolError, Refused, printable
from dr.keys.security import Security
from dr.keys.sockets import secure_dial_out
from dr.protocol.address import TcpAddress
from dr.protocol.envelope import Frame, Payload, join, split_client
from dr.protocol.messages import ErrorMessage, Here, ServerMessage
from dr.protocol.version import MAX_MESSAGE_BYTES
from workers.server.dialout_names import Found, Names
from workers.server.dialout_target import Attempt, End, Target, keys_at
from workers.server.events import MessageArrived, MessageRefused, PeerUnreachable
from workers.server.gate import DEAD_MS, HEARTBEAT_MS, LAST_WORDS_MS, MAX_WAITING, RETRY_S
from workers.server.keeper import named_by_key

_FACT = struct.Struct("=hi")  # a monitor's first frame: event, value

Event = MessageArrived | MessageRefused | PeerUnreachable

log = logging.getLogger("dr.server")


class Call(Struct, eq=False):
    """One connection to a client, which is being made or stands."""

    target: Target
    attempt: Attempt
    socket: Any
    monitor: Any
    stands: bool = False  # the handshake has succeeded
    waiting: deque[Sequence[Frame]] = field(default_factory=deque)  # what a full pipe did not take yet


class DialOut:
    """All targets of one server. Everything is called from the loop's thread, whose poller it shares."""

    def __init__(self, context: zmq.Context[Any], poller: zmq.Poller, here: Here) -> None:
        self.context = context
        self.poller = poller
        self.here = here  # the first word on each connection
        self.security = Security()
        self.targets: list[Target] = []
        self.calls: dict[bytes, Call] = {}  # by peer; whom we have heard last comes last
        self.names = Names()
        self._ready: Container[Any] = ()
        poller.register(self.names.fd, zmq.POLLIN)

    def dial(self, targets: Sequence[Target], security: Security) -> None:
        """Begins to dial them, and never ends."""
        self.security = security
        self.targets += targets
        for target in targets:
            log.info("dialling %s", target.name)

    def take_keys(self, security: Security, now: float) -> list[PeerUnreachable]:
        """Other keys are in force: whose key was revoked is let go, and new ones are tried with the next dial."""
        self.security = security
        for target in self.targets:
            target.attempts.clear()
        return [self._revoke(peer, now) for peer, call in list(self.calls.items()) if self._is_revoked(call)]

    def owns(self, peer: bytes) -> bool:
        return peer in self.calls

    @property
    def waiting(self) -> bool:
        """Whether something is to be sent again soon."""
        return any(call.waiting for call in self.calls.values())

    def next_deadline(self) -> float | None:
        """When `turn` has something to do at the latest."""
        return min((target.due_s for target in self.targets if target.due_s is not None), default=None)

    def turn(self, ready: Container[Any], now: float) -> list[Event]:
        """Looks after all connections; `ready` is what the poller found. Gives the last words of who is gone."""
        self._ready = ready
        lost: list[Event] = []
        for peer, call in list(self.calls.items()):
            if call.monitor in ready and (how := self._read_monitor(peer, call)):
                lost += self._bury(peer, call, how, now)
        self.send_waiting()
        if self.names.fd in ready:
            for found in self.names.take():
                self._take_name(found, now)
        for target in self.targets:
            if target.due_s is not None and target.due_s <= now:
                self._go_on(target, now)
        return lost

    def receive(self) -> Event | None:
        """The next message of any client, or None when there is none now."""
        for peer, call in list(self.calls.items()):
            if call.socket in self._ready and (frames := _take(call.socket)):
                self.calls[peer] = self.calls.pop(peer)  # the others have their turn
                return self._read(peer, call, frames)
        return None

    def send(self, peer: bytes, message: ServerMessage, payload: Payload) -> PeerUnreachable | None:
        """Sends now, or keeps what a full pipe does not take: nothing is dropped while the peer is there and reads."""
        call = self.calls[peer]
        frames = join(message, payload)
        if call.waiting or not self._push(call, frames):
            call.waiting.append(frames)
        if len(call.waiting) < MAX_WAITING:
            return None
        log.warning("a client does not read: %d messages were waiting for it", len(call.waiting))
        return self._end(peer, End.CLOSED, time.monotonic())

    def send_waiting(self) -> None:
        """Tries again what did not leave before."""
        for call in self.calls.values():
            while call.waiting and self._push(call, call.waiting[0]):
                call.waiting.popleft()

    def forget(self, peer: bytes) -> None:
        """What was not sent yet is of no use any more."""
        self.calls[peer].waiting.clear()

    def say_last_words(self) -> None:
        """Hands over what full pipes did not take, as far as there is time; `close` follows."""
        until_s = time.monotonic() + LAST_WORDS_MS / 1000
        while self.waiting and time.monotonic() < until_s:
            time.sleep(RETRY_S)
            self.send_waiting()

    def close(self) -> None:
        """The connections stay open until what was sent has left: context.term() waits for that."""
        for peer in list(self.calls):
            self._hang_up(peer, LAST_WORDS_MS)
        self.poller.unregister(self.names.fd)
        self.names.close()

    # -- dialling -------------------------------------------------------------------------------------------------

    def _go_on(self, target: Target, now: float) -> None:
        if target.attempts:
            self._dial(target, now)
        else:
            target.due_s = None
            self.names.ask(target.host)

    def _take_name(self, found: Found, now: float) -> None:
        """Plans a round for those that have waited for it; a name without an answer is where it was before."""
        for target in [each for each in self.targets if each.host == found.host and self._waits_for_name(each)]:
            if found.trouble:
                target.complain(f"cannot resolve it: {found.trouble}")
            target.literals = found.literals or target.literals
            try:
                target.plan({literal: keys_at(literal, self.security) for literal in target.literals}, now)
            except Refused as error:
                target.complain(str(error))
            if not target.attempts:
                target.pause(now, _chance())

    def _waits_for_name(self, target: Target) -> bool:
        return target.due_s is None and not any(call.target is target for call in self.calls.values())

    def _dial(self, target: Target, now: float) -> None:
        attempt = target.next_attempt()
        socket = self.context.socket(zmq.DEALER)
        _set_options(socket)
        if attempt.key is not None:
            secure_dial_out(socket, self.security.ring, attempt.key)
        call = Call(target, attempt, socket, socket.get_monitor_socket())
        peer = os.urandom(16)
        self.calls[peer] = call
        for source in (call.socket, call.monitor):
            self.poller.register(source, zmq.POLLIN)
        try:
            socket.connect(*TcpAddress(attempt.literal, (target.port, target.port)).endpoints())
        except zmq.ZMQError:  # no such interface
            self._end(peer, End.SILENT, now)

    def _read_monitor(self, peer: bytes, call: Call) -> End | None:
        """How the connection has ended, if it has."""
        with suppress(zmq.Again):
            while True:
                number, value = _FACT.unpack(call.monitor.recv_multipart(zmq.DONTWAIT)[0])
                log.debug("%s: %s %d", call.target.name, zmq.Event(number).name, value)
                if number == zmq.Event.HANDSHAKE_SUCCEEDED:
                    call.stands = True
                    self.send(peer, self.here, ())
                elif how := _ending(number, value, call.stands):
                    return how
        return None

    def _read(self, peer: bytes, call: Call, frames: Sequence[Frame]) -> Event:
        try:
            message, payload = split_client(frames)
        except ProtocolError as error:
            return MessageRefused(peer, str(error))
        if isinstance(message, ErrorMessage):
            call.target.complain(f"{message.code}: {printable(message.text)}")
            return self._end(peer, End.SENT_AWAY, time.monotonic())
        call.target.hear(call.attempt)
        key = call.attempt.key or ""
        name = self.security.ring.client_name(key) if key else None
        return MessageArrived(peer, named_by_key(message, name or ""), payload, key)

    def _bury(self, peer: bytes, call: Call, how: End, now: float) -> Iterator[Event]:
        """What a client said before its connection closed counts."""
        while peer in self.calls and (frames := _take(call.socket)):
            yield self._read(peer, call, frames)
        if peer in self.calls:
            lost = self._end(peer, how, now)
            yield from [lost] if call.stands else []  # else nobody knows of it

    def _end(self, peer: bytes, how: End, now: float, linger_ms: int = 0) -> PeerUnreachable:
        """The connection is no more; its place will be dialled again."""
        call = self._hang_up(peer, linger_ms)
        call.target.end(call.attempt, how, now, _chance())
        return PeerUnreachable(peer)

    def _hang_up(self, peer: bytes, linger_ms: int) -> Call:
        call = self.calls.pop(peer)
        for source in (call.socket, call.monitor):
            self.poller.unregister(source)
        call.socket.disable_monitor()
        call.monitor.close(0)
        call.socket.close(linger_ms)
        return call

    # -- words ----------------------------------------------------------------------------------------------------

    def _is_revoked(self, call: Call) -> bool:
        return call.attempt.key is not None and self.security.ring.client_name(call.attempt.key) is None

    def _revoke(self, peer: bytes, now: float) -> PeerUnreachable:
        call = self.calls[peer]
        text = f"your key was revoked; ask for `dr keys authorize NAME '{call.attempt.key}'`"
        self._push(call, join(ErrorMessage(code="key", text=text)))
        return self._end(peer, End.REVOKED, now, linger_ms=LAST_WORDS_MS)

    def _push(self, call: Call, frames: Sequence[Frame]) -> bool:
        """Whether the pipe took it. A connection that is gone takes nothing, and its monitor tells."""
        try:
            call.socket.send_multipart(frames, zmq.DONTWAIT, copy=len(frames) == 1)
        except zmq.Again:
            return False
        return True


def _take(socket: zmq.Socket[Any]) -> list[bytes] | None:
    try:
        return socket.recv_multipart(zmq.DONTWAIT)
    except zmq.Again:
        return None


def _ending(number: int, value: int, stands: bool) -> End | None:
    if number == zmq.Event.HANDSHAKE_FAILED_AUTH:
        return End.REFUSED
    if number == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL and value == errno.EAGAIN:  # the timer: whoever is there is mute
        return End.SILENT
    if number in (zmq.Event.HANDSHAKE_FAILED_NO_DETAIL, zmq.Event.HANDSHAKE_FAILED_PROTOCOL):
        return End.STRANGE
    if number == zmq.Event.DISCONNECTED:
        return End.CLOSED if stands else End.STRANGE
    return End.SILENT if number == zmq.Event.CLOSED else None


def _set_options(socket: zmq.Socket[Any]) -> None:
    socket.linger = 0
    socket.handshake_ivl = DEAD_MS
    socket.connect_timeout = DEAD_MS
    socket.heartbeat_ivl = HEARTBEAT_MS
    socket.heartbeat_timeout = socket.heartbeat_ttl = DEAD_MS
    socket.maxmsgsize = MAX_MESSAGE_BYTES
    socket.reconnect_ivl = -1
    socket.ipv6 = 1
    socket.routing_id = b"\x02" + os.urandom(8)  # for the client's ROUTER, which must never see one twice


def _chance() -> float:
    return int.from_bytes(os.urandom(4), "little") / (1 << 32)
