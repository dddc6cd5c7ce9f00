"""Decides how a server dials one waiting client: which address, with which key, and when again. Knows no socket.

Knows no clock and no dice either: `now` (seconds) and `chance` (0 to 1) come in. A *round* tries each address with each
key that the client may have, because a CURVE connection names the one key that it expects. After a round without an
answer comes a pause.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from msgspec import Struct

from dr.errors import BadInput
from dr.keys.ring import dial_out_keys
from dr.keys.security import Guard, Security
from dr.protocol.address import TcpAddress, parse_address

PAUSE_FIRST_S = 0.1
PAUSE_LAST_S = 1.0
MAX_COMPLAINTS = 64  # that are told between two answers: some texts are a client's
KEY_GAP_S = 0.02  # between two keys: many listed clients shall not make a flood
_EXPECTED = "expected HOST:PORT or [IPv6]:PORT of a client that renders with --listen"


class End(Enum):
    """How a connection, or the attempt to make one, ended. Of the failures of a round the last of these is told."""

    SILENT = "nobody answers there"
    STRANGE = "no client that is admitted here listens there"
    REFUSED = "the client there does not admit this server's farm key"
    CLOSED = "the connection was closed"
    SENT_AWAY = "the client there does not want this server now"
    REVOKED = "the key of the client there was revoked"


_HOST_IS_OUT = frozenset({End.SILENT, End.REFUSED})  # with any key
_LEVELS = {End.SILENT.value: logging.INFO}  # of complaints; the others are warnings

log = logging.getLogger("dr.server")


class Attempt(Struct, frozen=True):
    """One dial: an IP literal, and the public key that the client there must have. None: without keys."""

    literal: str
    key: str | None


class Target:
    """One client's place. `due_s` is when to go on with it; None while a name is looked up or a connection is there."""

    def __init__(self, address: TcpAddress) -> None:
        assert address.ports
        self.host, self.port = address.host, address.ports[0]
        self.name = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self.due_s: float | None = float("-inf")
        self.attempts: deque[Attempt] = deque()  # that are left of this round
        self.literals: Sequence[str] = ()  # that the name had when it was looked up last
        self.answers = False  # a client has spoken on the connection that there is now
        self._favourite: Attempt | None = None  # that worked last
        self._pause_s = 0.0
        self._failures: set[End] = set()  # of this round
        self._said: set[str] = set()  # complaints since the last answer

    def plan(self, keys: Mapping[str, Iterable[str | None]], now: float) -> None:
        """Begins a round: `keys` are those to try at each literal. What worked last comes first."""
        attempts = [Attempt(literal, key) for literal, each in keys.items() for key in each]
        if best := self._favourite:
            attempts.sort(key=lambda attempt: (attempt != best, attempt.key != best.key))
        self.attempts = deque(attempts)
        self._failures.clear()
        self.due_s = now

    def next_attempt(self) -> Attempt:
        self.due_s = None
        return self.attempts.popleft()

    def hear(self, attempt: Attempt) -> None:
        """A client spoke."""
        if not self.answers:
            log.info("%s answers", self.name)
        self.answers, self._favourite = True, attempt
        self._pause_s = 0.0
        self._said.clear()

    def end(self, attempt: Attempt, how: End, now: float, chance: float) -> None:
        """The attempt, or the connection that came of it, is over."""
        self._failures.add(how)
        if how in _HOST_IS_OUT:
            self.attempts = deque(each for each in self.attempts if each.literal != attempt.literal)
        elif how is not End.STRANGE:
            self.attempts.clear()
        if self.attempts:
            self.due_s = now + KEY_GAP_S
        else:
            self._tell_end(how)
            self.pause(now, chance)

    def pause(self, now: float, chance: float) -> None:
        """The next round begins a while from now, with jitter of half of it."""
        self._pause_s = min(PAUSE_LAST_S, max(PAUSE_FIRST_S, 2 * self._pause_s))
        self.attempts.clear()
        self.due_s = now + self._pause_s * (0.5 + 0.5 * chance)

    def complain(self, what: str) -> None:
        """Into the log, unless it was said since a client answered: a redial a second must not fill it."""
        if what not in self._said and len(self._said) < MAX_COMPLAINTS:
            self._said.add(what)
            log.log(_LEVELS.get(what, logging.WARNING), "%s: %s; dialling on", self.name, what)

    def _tell_end(self, how: End) -> None:
        if self.answers:
            self.answers = False
            self._said.add(End.SILENT.value)  # which is no news after this
            log.info("%s does not answer any more: %s; dialling on", self.name, how.value)
        elif how is not End.SENT_AWAY:  # which the client's own words explain
            self.complain(max(self._failures, key=list(End).index).value)


def parse_targets(texts: Iterable[str], security: Security) -> list[Target]:
    """The clients that a user named. Raises BadInput for a word that names none, Refused where keys are missing."""
    addresses = dict.fromkeys(_parse(text) for text in texts)
    for address in addresses:
        security.guard_listener(f"--dial {address.host}", address.is_loopback)
    return [Target(address) for address in addresses]


def keys_at(literal: str, security: Security) -> tuple[str | None, ...]:
    """The keys that a client at this address may have. Raises Refused where there must be one and is none."""
    guard = security.guard_listener(f"--dial {literal}", TcpAddress(literal).is_loopback)
    return dial_out_keys(security.ring) if guard is Guard.CURVE else (None,)


def _parse(text: str) -> TcpAddress:
    try:
        address = parse_address(text)
    except BadInput:
        raise BadInput(f"--dial {text!r}: {_EXPECTED}") from None
    if not isinstance(address, TcpAddress) or address.every or not address.ports or len(set(address.ports)) > 1:
        raise BadInput(f"--dial {text!r}: {_EXPECTED}")
    return address
