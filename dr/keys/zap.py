"""Answers libzmq when it asks whether a CURVE key may enter (ZAP 1.0, rfc.zeromq.org/spec/27). Knows no list of keys.

libzmq asks through an inproc socket of the same context, one handler for all sockets of that context. Without a handler
it would let every key in: `dr.keys.sockets` sets ZAP_ENFORCE_DOMAIN, so that without one nobody enters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import zmq

from dr.errors import Impossible, printable
from dr.keys.key import public_text

ENDPOINT = "inproc://zeromq.zap.01"
DOMAIN = b"dr"
VERSION = b"1.0"
REQUESTS_PER_TURN = 64  # then the loop's other sockets have their turn
LOG_S = 1.0  # between two lines about refused keys: an outsider must not fill the disk
MAX_ID_BYTES = 255

Admit: TypeAlias = Callable[[str], str | None]

log = logging.getLogger("dr.keys")


class Zap:
    """`admit` gives the User-Id of a public key (Z85), or None when it may not enter. One per context, one thread."""

    def __init__(self, context: zmq.Context[Any], admit: Admit) -> None:
        self.admit = admit
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self._quiet_until_s = float("-inf")
        self._unsaid = 0
        try:
            self.socket.bind(ENDPOINT)
        except zmq.ZMQError as error:
            self.socket.close()
            raise Impossible(f"zap: expected the only handler of this context, found another one: {error}") from error

    def answer(self, now: float) -> None:
        """Answers what waits, a bounded number per call. `now` (seconds) only thins out the log."""
        for _ in range(REQUESTS_PER_TURN):
            try:
                frames = self.socket.recv_multipart(zmq.DONTWAIT)
                reply = self._reply(frames, now)
                if reply:
                    self.socket.send_multipart(reply, zmq.DONTWAIT)
            except zmq.Again:
                return

    def close(self) -> None:
        self.socket.close(0)

    def _reply(self, frames: Sequence[bytes], now: float) -> list[bytes] | None:
        """None for what is no request at all: there is nobody who would understand an answer."""
        if len(frames) < 4 or frames[1] or frames[2] != VERSION or len(frames[3]) > MAX_ID_BYTES:
            return None
        asker, request = frames[0], frames[3]
        user = self._decide(frames[4:], now)
        # 400 is final; 300 would leave the connection half open until the handshake timer
        status, reason = (b"200", b"") if user else (b"400", b"this key is not admitted")
        return [asker, b"", VERSION, request, status, reason, (user or "").encode(), b""]

    def _decide(self, claims: Sequence[bytes], now: float) -> str | None:
        """`claims`: domain, address, routing id, mechanism, public key (32 bytes)."""
        if len(claims) != 5 or claims[0] != DOMAIN or claims[3] != b"CURVE" or len(claims[4]) != 32:
            self._log_refusal("a request that is not about a CURVE key", now)
            return None
        public = public_text(claims[4])
        user = self.admit(public)
        if user is None:
            address = printable(claims[1].decode("ascii", "replace")).removeprefix("::ffff:")  # IPv4 through IPv6
            self._log_refusal(f"the key {public} from {address}", now)
        return user

    def _log_refusal(self, what: str, now: float) -> None:
        if now < self._quiet_until_s:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more since the last such line)" if self._unsaid else ""
        log.warning("refused %s%s", what, more)
        self._quiet_until_s, self._unsaid = now + LOG_S, 0
