"""Finds the servers of a render while it runs: names, edits of the settings, announcements. Talks to no server itself.

The render loop polls `descriptors`, calls `news` when one is ready or `next_deadline` has come, and hands what it gets
to the broker. Nothing here waits but `begin`.

An address that its name does not stand for any more goes when the name stands for others and no server there is
connected; a name that fails keeps the addresses that it had.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from time import monotonic
from typing import Any

import zmq

from dr.broker.events import ServerAdded, ServerAnnounced, ServerRemoved
from dr.client.addresses import check_keys, nowhere
from dr.client.announcements import Announcements
from dr.client.descriptors import allow_many
from dr.client.listing import Listed, Listing, Word
from dr.client.lookups import Lookups
from dr.client.resolver import LOOK_UP_S, Found, Resolver
from dr.client.settings_watch import SettingsWatch
from dr.client.wanted import compare_lists, read_words
from dr.errors import BadInput, Refused
from dr.keys.security import Security
from dr.protocol.address import TcpAddress
from dr.protocol.messages import Announcement, Availability
from dr.settings import ServerAddress

MAX_ANNOUNCERS = 16  # of one host: each is a connection of ours, and its servers name them
ANNOUNCERS_SHARE = 3  # one of so many descriptors may be a connection to an announcer; the rest is for servers, files

log = logging.getLogger("dr.client")


class Recruiter:
    """Everything is called from one thread. `close` comes before the end of the context."""

    def __init__(
        self,
        context: zmq.Context[Any],
        security: Security,
        wanted: Sequence[str] | Sequence[ServerAddress],
        watch: SettingsWatch | None,
        announce_port: int,
    ) -> None:
        """`wanted`: words of the user, or a saved list. Raises BadInput for one that is no address.

        `watch`: of the file that the list came from.
        """
        self.security = security
        self.connected: Callable[[], Iterable[str]] | None = None  # endpoints of servers that answer; None: unknown
        self._watch = watch
        self._announce_port = announce_port
        self._wanted = wanted
        self._words: Sequence[Word] = read_words(wanted)
        self._listing = Listing()
        self._lookups = Lookups()
        self._hosts: dict[str, bool] = {}  # listed now, by literal; True: all its servers
        self._ports: dict[str, tuple[int, ...]] = {}  # where announcers are, of hosts that have told
        self._stored: set[str] = set()  # names that have never resolved and stand for stored addresses
        self._refusal: Refused | BadInput | None = None  # of an address that a name turned out to have
        self._news: deque[Listed] = deque()
        self._notices: list[str] = []
        self._broken = ""  # what the user was told of a list without effect
        self._resolver = Resolver()
        self._announcements = Announcements(context, security)
        self._most_announcers = allow_many() // ANNOUNCERS_SHARE

    # -- what the loop calls ------------------------------------------------------------------------------------------

    def begin(self, within_s: float = LOOK_UP_S, required: bool = True) -> list[str]:
        """Starts to look names up; gives a line for each reason why some have no address, as far as that is known.

        Raises Refused where keys are missing. If servers are `required` it waits for a first address, and raises
        BadInput when servers were named and not one has an address in time.
        """
        now = monotonic()
        self._check_keys(self._words)
        self._want(self._words, {}, now)
        self._ask(now)
        if required and self._words:
            self._await_address(now + within_s)
        if required and self._words and not self.endpoints:
            raise self._refusal or nowhere(self._lookups.give_up(within_s, monotonic()))
        return self._lookups.take_all_complaints()

    def descriptors(self) -> Iterable[Any]:
        """What to poll for reading; always the same."""
        return *self._announcements.descriptors(), self._resolver.fd

    def news(self, now: float) -> Iterator[Listed | ServerAnnounced]:
        """What has happened since the last call, in the order in which the broker must hear it."""
        self._take_answers(self._resolver.take(), now)
        self._look_after_names(now)
        self._look_at_settings(now)
        self._announcements.dial_again(now)
        self._notices += self._lookups.take_complaints(now)
        while self._news:
            yield self._news.popleft()
        for host, announcement in self._announcements.hear():
            if event := self._read_announcement(host, announcement):
                yield event

    def notices(self) -> list[str]:
        """Lines for the user since the last call."""
        lines, self._notices = self._notices, []
        return lines

    def next_deadline(self) -> float:
        """When `news` has something to do, whatever the descriptors say (monotonic, seconds)."""
        looks_s = self._watch.due_s if self._watch else inf
        return min(looks_s, self._lookups.next_deadline(), self._announcements.next_deadline())

    def hear(self, endpoint: str, port: int) -> None:
        """Listens to announcements of this endpoint's host at that port, too, while the host is listed."""
        host = _host_of(endpoint)
        ports = self._ports_of(host)
        if host in self._hosts and port not in ports and len(ports) < MAX_ANNOUNCERS:
            self._ports[host] = (*ports, port)
            self._listen(host, port)

    @property
    def endpoints(self) -> Mapping[str, bool]:
        """Listed now; True: stands for all servers of its host."""
        return self._listing.endpoints

    def close(self) -> None:
        self._announcements.close()
        self._resolver.close()

    # -- names --------------------------------------------------------------------------------------------------------

    def _want(self, words: Sequence[Word], reasons: Mapping[str, str], now: float) -> None:
        """These words are the list now."""
        self._words = words
        self._follow(self._listing.want(words, reasons))
        self._lookups.want(self._listing.names(), now)
        for name in self._listing.names():
            if self._lookups.lacks(name):
                self._use_stored(name)

    def _await_address(self, until_s: float) -> None:
        """Goes on until there is one, or every name has answered."""
        now = monotonic()
        while not self.endpoints and self._lookups.awaits_first and now < until_s:
            answers = self._resolver.take(max(0.0, min(until_s, self._lookups.next_look()) - now))
            now = monotonic()
            self._take_answers(answers, now)
            self._look_after_names(now)

    def _look_after_names(self, now: float) -> None:
        for name in self._lookups.take_silent(now):
            self._use_stored(name)
        self._ask(now)

    def _ask(self, now: float) -> None:
        for name in self._lookups.take_due(now):
            self._resolver.ask(name)

    def _take_answers(self, answers: Mapping[str, Found], now: float) -> None:
        for name, found in answers.items():
            self._take_answer(name, found, now)

    def _take_answer(self, name: str, found: Found, now: float) -> None:
        literals, trouble = self._admit(name, found)
        self._lookups.answered(name, bool(literals), now)
        if literals:
            self._use(name, literals)
            return
        log.info("cannot resolve %s: %s", name, trouble)
        hint = "; its stored addresses are used" if self._use_stored(name) else ""
        self._lookups.complain(name, trouble + hint, now)

    def _admit(self, name: str, found: Found) -> tuple[list[str], str]:
        """The addresses that we have keys for, and why there are no others."""
        literals, trouble = [], found.trouble
        for literal in found.literals:
            try:
                check_keys(name, TcpAddress(literal), self.security)
                literals.append(literal)
            except (Refused, BadInput) as error:
                trouble = f"it is {literal}: {error}"
                self._refusal = error
        return literals, trouble

    def _use(self, name: str, literals: Sequence[str]) -> None:
        """The name stands for these now, and for those that it stood for while servers there are connected."""
        busy = self._busy_hosts(name)
        old = [each for each in self._listing.literals.get(name, ()) if each in literals or each in busy]
        self._stored.discard(name)
        self._follow(self._listing.answer(name, [*dict.fromkeys([*old, *literals])]))

    def _busy_hosts(self, name: str) -> set[str]:
        """Where servers are connected. As long as nobody tells, every address that was looked up may be busy."""
        if self.connected is not None:
            return {_host_of(endpoint) for endpoint in self.connected()}
        return set() if name in self._stored else set(self._listing.literals.get(name, ()))

    def _use_stored(self, name: str) -> bool:
        """Whether the name has stored addresses, which it stands for from now on if it has no others."""
        stored = [each for word in self._words if word.name == name for each in word.stored]
        literals, _ = self._admit(name, Found(tuple(dict.fromkeys(stored))))
        if literals and not self._listing.literals.get(name):
            self._use(name, literals)
            self._stored.add(name)
        return bool(literals)

    def _follow(self, changes: Sequence[Listed]) -> None:
        """Keeps an ear on each listed host, and the changes for the broker."""
        if not changes:
            return
        for change in changes:
            _log_change(change)
        self._news.extend(changes)
        hosts: dict[str, bool] = {}
        for endpoint, whole in self.endpoints.items():
            if host := _host_of(endpoint):
                hosts[host] = hosts.get(host, False) or whole
        for host in self._hosts.keys() - hosts.keys():
            self._announcements.forget(host)
        for host in hosts.keys() - self._hosts.keys():
            for port in self._ports_of(host):
                self._listen(host, port)
        self._hosts = hosts

    def _ports_of(self, host: str) -> tuple[int, ...]:
        """Where its announcers may be; told once, so that a host that comes again is heard as before."""
        return self._ports.get(host, (self._announce_port,))

    def _listen(self, host: str, port: int) -> None:
        """Servers of hosts beyond what descriptors allow are found when they are dialled again."""
        if len(self._announcements) < self._most_announcers:
            self._announcements.listen(host, _endpoint_of(host, port))

    # -- settings -----------------------------------------------------------------------------------------------------

    def _look_at_settings(self, now: float) -> None:
        if self._watch is None:
            return
        servers = self._watch.look(now)
        if complaint := self._watch.take_complaint():
            self._notices.append(complaint)
        if servers is not None:
            self._take_list(servers, self._watch.path.name, now)

    def _take_list(self, servers: Sequence[ServerAddress], place: str, now: float) -> None:
        """A list with a word that is no address, or that we have no keys for, has no effect."""
        try:
            words = read_words(servers)
            self._check_keys(words)
        except (BadInput, Refused) as error:
            self._tell_broken(f"{place}: {error}; this render keeps the servers that it has")
            return
        self._broken = ""
        change = compare_lists(self._wanted, servers, place)
        if change.line:
            self._notices.append(change.line)
        self._wanted = servers
        self._want(words, change.reasons, now)
        self._ask(now)

    def _tell_broken(self, line: str) -> None:
        if line != self._broken:
            self._notices.append(line)
        self._broken = line

    def _check_keys(self, words: Iterable[Word]) -> None:
        for word in words:
            if isinstance(word.address, TcpAddress):
                check_keys(word.text, word.address, self.security)

    # -- announcements ------------------------------------------------------------------------------------------------

    def _read_announcement(self, host: str, announcement: Announcement) -> ServerAnnounced | None:
        """None: it is not free, or nobody wants it."""
        endpoint = _endpoint_of(host, announcement.port)
        listed = self._hosts.get(host) or endpoint in self.endpoints
        if announcement.state is not Availability.READY or not listed:
            return None
        return ServerAnnounced(endpoint, announcement.boot)


def _log_change(change: Listed) -> None:
    match change:
        case ServerAdded(endpoint):
            log.info("server %s is listed", endpoint)
        case ServerRemoved(endpoint, reason):
            log.info("server %s is not listed any more: %s", endpoint, reason)


def _endpoint_of(host: str, port: int) -> str:
    return TcpAddress(host, (port, port)).endpoints()[0]


def _host_of(endpoint: str) -> str:
    """The IP literal in an endpoint; empty where there is none, as for a Unix socket."""
    scheme, _, place = endpoint.partition("tcp://")
    return "" if scheme else place.rpartition(":")[0].removeprefix("[").removesuffix("]")
