"""Asks servers how they are and listens to what is announced about them. Knows sockets and the clock.

What is known of whom, and who else is to be asked, is the roster's business. Gates are dialled as a render client
dials them. Each asking is a `hello` of kind `status` and a `ping`, so that the `pong` tells that all has been said.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from math import ceil, inf
from time import monotonic

import zmq
from msgspec import Struct

from dr.broker.events import DialRefused, DialSucceeded
from dr.client.addresses import NO_KEYS
from dr.client.announcements import Announcements
from dr.client.link import Link
from dr.client.roster import Place, Roster, Row
from dr.client.targets import Target, endpoint_of
from dr.errors import ProtocolError
from dr.keys.security import Security
from dr.protocol.envelope import join, split_server
from dr.protocol.messages import ErrorMessage, Hello, Kind, Ping, Pong, ServerMessage, ServerStatus, Welcome
from dr.protocol.version import PROTOCOL_VERSION
from dr.settings import Settings

ASK_S = 1.0  # between two askings, and before one that is silent is dialled again
SHOW_S = 0.1  # changes within such a time are shown together
DIALS_AT_ONCE = 256  # each is a descriptor, of which a process may have few
NAME = "dr status"
NONSENSE = "no render server answers there: what comes is no message of this protocol"
OLD_SERVER = "it tells no more; an older version than this program?"

log = logging.getLogger("dr.client")


class Patience(Struct, frozen=True):
    """Seconds until one that was dialled or asked must have answered, and between two askings; inf: asked once."""

    welcome_s: float = inf
    ask_s: float = inf


def ask_farm(targets: Sequence[Target], settings: Settings, within_s: float, security: Security = NO_KEYS) -> list[Row]:
    """Asks everybody once; done when all have answered or that many seconds are over."""
    until = monotonic() + within_s
    inquiry = Inquiry(targets, settings.announce_port, Patience(), security)
    try:
        while not inquiry.settled and monotonic() < until:
            inquiry.turn(until)
        inquiry.give_up(f"no answer within {within_s:g} s")
        return inquiry.rows()
    finally:
        inquiry.close()


def watch_farm(
    targets: Sequence[Target], settings: Settings, for_s: float = inf, security: Security = NO_KEYS
) -> Iterator[list[Row]]:
    """Asks again and again; gives all rows when something may have changed, and at least every second or so."""
    end = monotonic() + for_s
    inquiry = Inquiry(targets, settings.announce_port, Patience(settings.welcome_s, ASK_S), security)
    try:
        first = min(end, monotonic() + ASK_S)
        while not inquiry.settled and monotonic() < first:
            inquiry.turn(first)
        yield inquiry.rows()
        while monotonic() < end:
            show_at = min(end, monotonic() + SHOW_S)
            inquiry.turn(min(end, monotonic() + ASK_S))
            while monotonic() < show_at:
                inquiry.turn(show_at)
            yield inquiry.rows()
    finally:
        inquiry.close()


class _Dial(Struct):
    """How it stands between us and one gate."""

    place: Place
    endpoint: str
    due_s: float  # when to dial, to ask again, or to give up
    peer: bytes = b""  # empty: not dialled
    boot: bytes = b""  # of the process that welcomed us on this connection
    waiting: bool = True  # for a connection or an answer
    settled: bool = False  # it has answered, or was found silent, at least once
    asked_s: float = 0.0  # when we asked last
    round_trip_s: float = inf  # the shortest so far, from the question to the first word of the answer


class Inquiry:
    """Everybody who is asked. Everything is called from one thread; `close` ends it."""

    def __init__(self, targets: Iterable[Target], announce_port: int, patience: Patience, security: Security) -> None:
        now = monotonic()
        self.roster = Roster()
        self.patience = patience
        self._met: set[Place] = set()
        self._dials: dict[str, _Dial] = {}
        self._peers: dict[bytes, _Dial] = {}
        self._link = Link(security)
        self._announcements = Announcements(self._link.context, security)
        for target in targets:
            self._name(target, announce_port, now)
        self._meet_new_ones()

    def close(self) -> None:
        self._announcements.close()
        self._link.close()

    @property
    def settled(self) -> bool:
        """Whether everybody known so far, gates and announcers, has said something or is silent."""
        return self._announcements.settled and all(dial.settled for dial in self._dials.values())

    def rows(self) -> list[Row]:
        return self.roster.rows(monotonic())

    def round_trips(self) -> dict[Place, float]:
        """The shortest time (s) from a question to the first word of the answer, for each that has answered."""
        return {dial.place: dial.round_trip_s for dial in self._dials.values() if dial.round_trip_s < inf}

    def give_up(self, reason: str) -> None:
        """Whoever has said nothing by now is silent."""
        for dial in self._dials.values():
            if not dial.settled and not dial.boot:
                self._lose(dial, reason)

    def turn(self, until_s: float) -> None:
        """Does what is due, waits for something to happen, and takes note of it."""
        self._do_what_is_due(monotonic())
        self._wait(until_s)
        for peer, *frames in self._link.messages():
            if peer in self._peers:
                self._hear(self._peers[peer], frames)
        for change in self._link.changes():
            if isinstance(change, DialSucceeded):
                self._ask(self._dials[change.endpoint])
            else:
                refused = isinstance(change, DialRefused)
                self._lose(self._dials[change.endpoint], change.reason, refused)
        for host, announcement in self._announcements.hear():
            self.roster.announced(host, announcement, monotonic())
        self._meet_new_ones()

    # -- what we do ---------------------------------------------------------------------------------------------------

    def _name(self, target: Target, announce_port: int, now: float) -> None:
        for place in target.places:
            self.roster.named(place, target.name or place.host, now, guessed=target.bare)
            if target.bare:
                self.roster.announcer_named(Place(place.host, announce_port))
                self.roster.guessed(Place(place.host, announce_port), now)  # a server may have it instead
        for place in target.sure:
            self.roster.named(place, target.name or place.host, now)
        for announcer in target.announcers:
            self.roster.announcer_named(announcer)
        if target.trouble:
            nowhere = Place(target.name, 0)
            self._met.add(nowhere)  # it cannot be dialled
            self.roster.named(nowhere, target.name, now)
            self.roster.fell_silent(nowhere, target.trouble, now)

    def _meet_new_ones(self) -> None:
        for announcer in self.roster.announcers():
            self._announcements.listen(announcer.host, endpoint_of(announcer))
        for place in self.roster.places() - self._met:
            endpoint = endpoint_of(place)
            self._dials[endpoint] = _Dial(place, endpoint, monotonic())
            self._met.add(place)

    def _do_what_is_due(self, now: float) -> None:
        if self.patience.ask_s < inf:
            self._announcements.dial_again(now)
        free = DIALS_AT_ONCE - sum(dial.waiting for dial in self._peers.values())
        for dial in self._dials.values():
            if now < dial.due_s:
                continue
            if dial.peer and dial.waiting:
                self._lose(dial, f"no answer within {self.patience.welcome_s:g} s")
            elif dial.peer:
                self._ask(dial)
            elif free > 0:
                free -= 1
                self._dial(dial, now)

    def _wait(self, until_s: float) -> None:
        now = monotonic()
        dues = (dial.due_s for dial in self._dials.values() if dial.due_s > now)  # others wait for a free descriptor
        again_s = self._announcements.next_deadline() if self.patience.ask_s < inf else inf
        wait_s = max(0.0, min(until_s, again_s, *dues) - now)
        poller = zmq.Poller()
        for socket in (self._link.socket, self._link.monitor, *self._announcements.descriptors()):
            poller.register(socket, zmq.POLLIN)
        poller.poll(ceil(wait_s * 1000))

    def _dial(self, dial: _Dial, now: float) -> None:
        dial.peer, dial.boot, dial.waiting = b"\x01" + os.urandom(8), b"", True
        dial.due_s = now + self.patience.welcome_s
        self._peers[dial.peer] = dial
        self._link.dial(dial.endpoint, dial.peer)

    def _ask(self, dial: _Dial) -> None:
        """If it cannot be sent, the connection is gone; a change will tell."""
        dial.asked_s = monotonic()
        dial.waiting, dial.due_s = True, dial.asked_s + self.patience.welcome_s
        self._link.send(dial.peer, join(Hello(version=PROTOCOL_VERSION, kind=Kind.STATUS, name=NAME)))
        self._link.send(dial.peer, join(Ping(n=0)))

    # -- what we hear -------------------------------------------------------------------------------------------------

    def _hear(self, dial: _Dial, frames: Sequence[bytes]) -> None:
        try:
            message, _ = split_server(frames)
        except ProtocolError as error:
            log.debug("%s: %s", dial.endpoint, error)
            self._lose(dial, NONSENSE)
            return
        if dial.boot or isinstance(message, Welcome | ErrorMessage):
            self._take(dial, message, monotonic())

    def _take(self, dial: _Dial, message: ServerMessage, now: float) -> None:
        """What a gate says; all but errors after it has welcomed us."""
        match message:
            case Welcome():
                dial.boot = message.boot
                dial.round_trip_s = min(dial.round_trip_s, now - dial.asked_s)
                self.roster.welcomed(dial.place, message, now)
            case ServerStatus():
                self.roster.reported(dial.place, dial.boot, message, now)
                self._rest(dial, now)
            case Pong() if dial.waiting:
                self.roster.withheld(dial.place, dial.boot, OLD_SERVER, now)
                self._rest(dial, now)
            case ErrorMessage(code="key"):
                self._lose(dial, message.text, refused=True)
            case ErrorMessage() if dial.boot:
                self.roster.withheld(dial.place, dial.boot, f"it refuses to tell more: {message.text}", now)
                self._rest(dial, now)
                self._hang_up(dial)
            case ErrorMessage():
                self._lose(dial, f"it refuses: {message.text}")

    def _rest(self, dial: _Dial, now: float) -> None:
        """It has said everything. If it is not to be asked again, others can have its descriptor."""
        dial.waiting, dial.settled, dial.due_s = False, True, now + self.patience.ask_s
        if self.patience.ask_s == inf:
            self._hang_up(dial)

    def _lose(self, dial: _Dial, reason: str, refused: bool = False) -> None:
        """A refusal is final: whoever lets us in later has to be asked by another `dr status`."""
        now = monotonic()
        self._hang_up(dial)
        dial.settled, dial.due_s = True, inf if refused else now + self.patience.ask_s
        self.roster.fell_silent(dial.place, reason, now, refused)

    def _hang_up(self, dial: _Dial) -> None:
        self._link.hang_up(dial.endpoint)
        self._peers.pop(dial.peer, None)
        dial.peer, dial.waiting = b"", False
