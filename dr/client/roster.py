"""Gathers what is known about each server of a farm: facts in, rows out. Knows no socket; time comes in as `now` (s).

A fact may come late: of each kind the newest one about a server counts, so that the order of arrival decides nothing.
What a gate says itself outweighs what a spawner announces about it, because anybody may pose as a spawner.
"""

from __future__ import annotations

import re
from collections.abc import KeysView
from typing import Any, Final, Generic, NamedTuple, TypeVar

from msgspec import Struct

from dr.protocol.messages import Announcement, Availability, ServerStatus, Welcome
from dr.protocol.version import PROTOCOL_VERSION

MAX_SERVERS = 1024  # of one host
MAX_ANNOUNCERS = 16  # of one host: each is a socket of ours, and anybody may name one
ASKED: Final = "asked"
NO_ANSWER: Final = "no answer"
REFUSED: Final = "refused"

Said = TypeVar("Said")


class Place(NamedTuple):
    """Where a gate listens: an IP literal and a port; or a Unix socket (ipc://PATH) and 0."""

    host: str
    port: int


class Row(Struct, frozen=True, kw_only=True):
    """One server as `dr status` shows it. None: nobody has told."""

    host: str  # as the user named it
    port: int
    address: str  # as it is dialled
    name: str | None = None
    answers: bool = False  # it answered, and has not fallen silent since
    state: str = ASKED  # ready, busy, draining, gone, no answer, refused, asked
    holder: str = ""
    engine: str | None = None
    nodes: list[int] | None = None
    threads: int | None = None
    cpu: str | None = None
    buckets: int | None = None
    buckets_per_s: float | None = None
    memory_bytes: int | None = None
    up_s: float | None = None
    version: str | None = None
    guard: str = ""  # what its gate asks for, in its own words: keys, open or insecure
    boot: str | None = None  # hexadecimal; another one means another process
    reason: str = ""  # of no answer; else what should be known about an answer
    silent_s: float | None = None  # since its last answer, or since it was first asked


class Words(Struct, frozen=True, kw_only=True):
    """The newest of each kind that was said by or about one server, as it came. None: nobody has."""

    welcome: Welcome | None = None
    status: ServerStatus | None = None  # of the process that said this welcome
    status_s: float = 0.0  # when it came
    announced: Announcement | None = None


class _Fact(NamedTuple, Generic[Said]):
    at_s: float
    boot: bytes  # of the process that it is about; empty where that is unknown
    said: Said


class _Silence(NamedTuple):
    reason: str
    refused: bool  # it is there, and does not let us in


class _Server(Struct):
    """The newest fact of each kind about one place."""

    first_s: float
    guessed: bool = True  # nobody named it yet
    name: str = ""  # of its host, in the words of the user who named it
    welcome: _Fact[Welcome] | None = None
    status: _Fact[ServerStatus] | None = None
    withheld: _Fact[str] | None = None
    announced: _Fact[Announcement] | None = None
    silence: _Fact[_Silence] | None = None

    @property
    def answers(self) -> bool:
        return self.welcome is not None and not _is_newer(self.silence, self.welcome)


class Roster:
    """All servers that were named, guessed, announced or told of. Not one of them is lost again."""

    def __init__(self) -> None:
        self._servers: dict[Place, _Server] = {}
        self._announcers: dict[Place, None] = {}
        self._names: dict[str, str] = {}  # of the hosts, for servers that the user did not name

    # -- facts ------------------------------------------------------------------------------------------------------

    def named(self, place: Place, name: str, now: float, guessed: bool = False) -> None:
        """The user wants to know about it; `guessed` if only its host was named."""
        self._names.setdefault(place.host, name)
        if server := self._know(place, now, guessed):
            server.name = server.name or name

    def guessed(self, place: Place, now: float) -> None:
        """A gate may listen there; a guess of ours, which is shown when it turns out to be right."""
        self._know(place, now, guessed=True)

    def announcer_named(self, place: Place) -> None:
        """A spawner may announce its servers there."""
        if sum(known.host == place.host for known in self._announcers) < MAX_ANNOUNCERS:
            self._announcers.setdefault(place)

    def welcomed(self, place: Place, welcome: Welcome, now: float) -> None:
        """It answered. Its siblings and its announcer are on its own host: the wire redirects nobody.

        One on a Unix socket has no host, and so neither.
        """
        if server := self._know(place, now):
            server.welcome = _newer(server.welcome, _Fact(now, welcome.boot, welcome))
        if not place.port:
            return
        for port in welcome.siblings:
            if port:
                self._know(Place(place.host, port), now)
        if welcome.announce:
            self.announcer_named(Place(place.host, welcome.announce))

    def reported(self, place: Place, boot: bytes, status: ServerStatus, now: float) -> None:
        """The process `boot` told how it is; one that says it is gone talks nonsense."""
        server = self._know(place, now)
        if server and status.state is not Availability.GONE:
            server.status = _newer(server.status, _Fact(now, boot, status))

    def withheld(self, place: Place, boot: bytes, reason: str, now: float) -> None:
        """The process `boot` answers and tells no status; one line says why."""
        if server := self._know(place, now, guessed=True):
            server.withheld = _newer(server.withheld, _Fact(now, boot, reason))

    def announced(self, host: str, announcement: Announcement, now: float) -> None:
        """A spawner of this host, or somebody who poses as one, told about a server."""
        if server := self._know(Place(host, announcement.port), now):
            server.announced = _newer(server.announced, _Fact(now, announcement.boot, announcement))

    def fell_silent(self, place: Place, reason: str, now: float, refused: bool = False) -> None:
        """It does not answer (any more); one line says why."""
        if server := self._know(place, now, guessed=True):
            server.silence = _newer(server.silence, _Fact(now, b"", _Silence(reason, refused)))

    def _know(self, place: Place, now: float, guessed: bool = False) -> _Server | None:
        """None: its host has too many already."""
        server = self._servers.get(place)
        if server is None:
            if sum(known.host == place.host for known in self._servers) >= MAX_SERVERS:
                return None
            server = self._servers[place] = _Server(now)
        server.first_s = min(server.first_s, now)
        server.guessed &= guessed
        return server

    def _name(self, place: Place) -> str:
        return self._servers[place].name or self._names.get(place.host, place.host)

    # -- what follows -------------------------------------------------------------------------------------------------

    def places(self) -> KeysView[Place]:
        """All gates that may be asked."""
        return self._servers.keys()

    def announcers(self) -> KeysView[Place]:
        """All places where announcements may be heard."""
        return self._announcers.keys()

    def words(self, place: Place) -> Words:
        """For whoever wants to know more about a server than a row shows."""
        known = self._servers.get(place)
        if known is None:
            return Words()
        status = known.status if known.status and _is_same(known.status, known.welcome) else None
        return Words(
            welcome=known.welcome.said if known.welcome else None,
            status=status.said if status else None,
            status_s=status.at_s if status else 0.0,
            announced=known.announced.said if known.announced else None,
        )

    def rows(self, now: float) -> list[Row]:
        """One per server, by host and port. Of each host the guesses count that are as good as its best one."""
        best: dict[str, tuple[bool, bool, bool]] = {}
        for place, server in self._servers.items():
            best[place.host] = max(best.get(place.host, _NOTHING), _certainty(server))
        shown = [
            (place, server)
            for place, server in self._servers.items()
            if not _is_idle_guess(server) or _certainty(server) == best[place.host]
        ]
        rows = [_row(place, self._name(place), server, now) for place, server in shown]
        return sorted(rows, key=lambda row: (_natural(row.host), row.address, row.port))


def _is_idle_guess(server: _Server) -> bool:
    return server.guessed and server.welcome is None


_NOTHING = (False, False, False)


def _certainty(server: _Server) -> tuple[bool, bool, bool]:
    """How much speaks for a server: it is no wrong guess; somebody is there who refuses us; the user named its host."""
    refused = server.silence is not None and server.silence.said.refused
    return not _is_idle_guess(server), refused and _is_idle_guess(server), server.name != ""


def _row(place: Place, name: str, server: _Server, now: float) -> Row:
    welcome = server.welcome.said if server.welcome else None
    status = server.status.said if server.status and _is_same(server.status, server.welcome) else None
    state, holder = _state(server)
    last_s = server.welcome.at_s if server.welcome else server.first_s
    return Row(
        host=name,
        port=place.port,
        address=place.host,
        name=welcome.name if welcome else None,
        answers=server.answers,
        state=state,
        holder=holder,
        threads=welcome.threads if welcome else None,
        cpu=welcome.cpu if welcome else None,
        engine=status.engine.value if status else None,
        nodes=status.nodes if status else None,
        buckets=status.buckets if status else None,
        buckets_per_s=status.buckets_per_s if status and server.answers else None,
        memory_bytes=status.memory_bytes if status and server.answers else None,
        up_s=status.up_s if status and server.answers else None,
        version=status.release if status else None,
        guard=status.guard if status else "",
        boot=welcome.boot.hex() if welcome else None,
        reason=_reason(server, state),
        silent_s=None if server.answers else round(max(0.0, now - last_s), 3),
    )


def _state(server: _Server) -> tuple[str, str]:
    """(state, holder) out of sources that may contradict each other."""
    news = server.announced.said if server.announced else None
    if server.answers and server.welcome:
        return _state_of_answering(server, server.welcome)
    if news and news.state is Availability.GONE and _is_newer(server.announced, server.welcome):
        return Availability.GONE.value, ""
    if server.silence:
        return (REFUSED if server.silence.said.refused else NO_ANSWER), ""
    return (news.state.value, news.holder) if news else (ASKED, "")


def _state_of_answering(server: _Server, welcome: _Fact[Welcome]) -> tuple[str, str]:
    """The newest word about this very process; whoever announces that one which answers is gone is not believed."""
    news, status = server.announced, server.status
    told = status if status and _is_same(status, welcome) else None
    believed = news is not None and news.said.state is not Availability.GONE and _is_same(news, welcome)
    if news and believed and _is_newer(news, told or welcome):
        return news.said.state.value, news.said.holder
    if told:
        return told.said.state.value, told.said.holder
    return (Availability.BUSY if welcome.said.busy else Availability.READY).value, welcome.said.holder


def _reason(server: _Server, state: str) -> str:
    """Why there is no answer, or what should be known about one."""
    if state == Availability.GONE:
        return "the process has ended"
    if server.silence and not server.answers:
        return server.silence.said.reason
    if server.welcome and server.welcome.said.version != PROTOCOL_VERSION:
        found = server.welcome.said.version
        return f"it speaks protocol {found}, this program {PROTOCOL_VERSION}; install one version on both"
    told = server.status and _is_same(server.status, server.welcome)
    return server.withheld.said if server.withheld and not told and _is_same(server.withheld, server.welcome) else ""


def _newer(old: _Fact[Said] | None, new: _Fact[Said]) -> _Fact[Said]:
    return old if old and old.at_s > new.at_s else new


def _is_newer(fact: _Fact[Any] | None, other: _Fact[Any] | None) -> bool:
    """Whether there is this fact, and it came after the other one."""
    return fact is not None and (other is None or fact.at_s > other.at_s)


def _is_same(fact: _Fact[Any], other: _Fact[Any] | None) -> bool:
    """Whether both are about the same process."""
    return other is not None and fact.boot == other.boot


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts node2 before node10."""
    parts = re.split("([0-9]+)", text)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]
