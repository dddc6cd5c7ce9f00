"""Tells subscribers what the servers of this host have to offer: a bound XPUB. Knows sockets; decides nothing.

Who subscribes hears the last value of every port at once. What arrives is never trusted: it is small, a turn takes a
bounded number of frames, and however many come, last values are sent again at most once per RESEND_S. libzmq remembers
every topic that anybody subscribes to, some 8 KB each: after MAX_STRANGE of those that cannot concern us the socket is
made anew, which drops all subscribers; honest ones redial. So it is when a key was revoked: it cannot drop one alone.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Collection, Sequence
from typing import Any

import zmq

from dr.errors import BadInput
from dr.protocol.envelope import Frame, join_announcement
from dr.protocol.messages import Announcement
from workers.numa.plan import FIRST_OPEN_PORT, LAST_PORT
from workers.server.door import Door
from workers.server.gate import BACKLOG, DEAD_MS, HEARTBEAT_MS, LAST_WORDS_MS
from workers.spawner.host import host_id

TRIES = 64  # ports, from the wanted one on
MAX_FRAME_BYTES = 512  # of what subscribers send: our topics have less than 40, a handshake with keys some 280
FRAMES_PER_TURN = 256  # then the servers have their turn
MAX_STRANGE = 1000
REBIND_TRIES = 500  # of a millisecond: libzmq gives a port back a little later
RESEND_S = 0.01
SPARE_MESSAGES = 64  # that a slow subscriber may lag behind, beyond two rounds of last values; the rest it misses
SUBSCRIBE = b"\1"

log = logging.getLogger("dr.spawner")


class Announcer:
    """`port` tells where it really is; the caller polls with `poller` and then calls `hear`."""

    def __init__(
        self, poller: zmq.Poller, context: zmq.Context[Any], door: Door, wanted: int, ports: Collection[int]
    ) -> None:
        """`ports` are those of the servers: never taken. Raises BadInput when no port is free."""
        self.door = door
        self.poller = poller
        self.context = context
        self.last: dict[int, list[Frame]] = {}
        self.strange = 0  # frames that cannot concern us, since the socket was made
        self.resend_at: float | None = None
        self.resent_s = float("-inf")
        self.waiting = 2 * len(ports) + SPARE_MESSAGES
        self.socket = self._make_socket()
        try:
            self.port = self._bind(candidates(wanted, ports))
        except BaseException:
            self.close()
            raise

    def _make_socket(self) -> zmq.Socket[Any]:
        made: zmq.Socket[Any] = self.context.socket(zmq.XPUB)
        _set_options(made, self.waiting)
        self.door.secure(made)
        self.poller.register(made, zmq.POLLIN)
        return made

    def _bind(self, ports: Sequence[int]) -> int:
        for port in ports:
            if self._try_bind(port):
                return port
        tried = f"{ports[0]} to {ports[-1]}" if ports else "none"
        raise BadInput(f"announce_port: expected a free port among {tried}; choose another with DR_ANNOUNCE_PORT")

    def _try_bind(self, port: int) -> bool:
        try:
            self.socket.bind(self.door.address.endpoint(port))
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            reason = os.strerror(error.errno or 0)
            raise BadInput(
                f"announce_port={port}: cannot listen on {self.door.address.host} there: {reason}"
            ) from error
        return True

    def publish(self, announcement: Announcement) -> None:
        """Sends it and keeps it as the last value of its port."""
        frames = join_announcement(host_id(), announcement)
        self.last[announcement.port] = frames
        self.socket.send_multipart(frames)  # never waits: a subscriber that does not keep up misses it

    def hear(self, now: float) -> None:
        """Takes what subscribers have said, and sends last values to those who are new."""
        for _ in range(FRAMES_PER_TURN):
            try:
                said = self.socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                break
            if not self._concerns_us(said[1:]):
                self.strange += 1
            elif said[:1] == SUBSCRIBE and self.resend_at is None:
                self.resend_at = max(now, self.resent_s + RESEND_S)
        if self.strange > MAX_STRANGE:
            log.warning("subscribers asked for %d topics that are not ours: their connections drop", self.strange)
            self.start_over()
        self.resend(now)

    def resend(self, now: float) -> None:
        """Sends last values again when that is due; to all subscribers, for they cannot be told apart."""
        if self.resend_at is None or now < self.resend_at:
            return
        self.resend_at, self.resent_s = None, now
        for frames in self.last.values():
            self.socket.send_multipart(frames)

    def next_deadline(self) -> float | None:
        """When `resend` has something to do."""
        return self.resend_at

    def close(self) -> None:
        self.poller.unregister(self.socket)
        self.socket.close(LAST_WORDS_MS)

    def _concerns_us(self, topic: bytes) -> bool:
        """Whether what a peer begins or ends to hear begins one of our topics."""
        return any(bytes(ours).startswith(topic) for ours, _ in self.last.values())

    def start_over(self) -> None:
        """Drops all subscribers; those who may come redial."""
        self.close()
        self.strange = 0
        self.socket = self._make_socket()
        for _ in range(REBIND_TRIES):
            if self._try_bind(self.port):
                return
            self.socket.poll(1)
        log.error("another program took port %d: nothing is announced any more; restart the spawner", self.port)


def candidates(wanted: int, ports: Collection[int]) -> list[int]:
    """Where to try, in this order: from the wanted port on, beyond the end the lowest; none that a server owns."""
    free = (port for port in (*range(wanted, LAST_PORT + 1), *range(FIRST_OPEN_PORT, wanted)) if port not in ports)
    return [port for port, _ in zip(free, range(TRIES), strict=False)]


def _set_options(socket: zmq.Socket[Any], waiting: int) -> None:
    socket.xpub_verbose = 1  # the second subscriber to a topic is heard of, too
    socket.linger = 0
    socket.sndhwm = waiting
    socket.rcvhwm = FRAMES_PER_TURN
    socket.handshake_ivl = DEAD_MS
    socket.heartbeat_ivl = HEARTBEAT_MS
    socket.heartbeat_timeout = socket.heartbeat_ttl = DEAD_MS
    socket.maxmsgsize = MAX_FRAME_BYTES
    socket.backlog = BACKLOG
    socket.ipv6 = 1
