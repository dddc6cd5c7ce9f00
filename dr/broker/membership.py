"""Decides who shall take part: whom the user lists, whom a host brings, whom a spawner announces.

Knows no bucket and no lease. A host that is named without a port is a server that stands for the others beside it: they
are brought by it, and leave with it unless the user named them, too.
"""

from __future__ import annotations

from collections.abc import Iterable

from dr.broker import events as on
from dr.broker.commands import HearAnnouncements, Topic
from dr.broker.fleet import HEARING, Fleet, Phase, Server, Verdict
from dr.broker.links import Links
from dr.broker.outbox import Outbox
from dr.protocol.address import with_port
from dr.protocol.messages import Welcome

MAX_SIBLINGS = 1024  # that one server may ever bring
MAX_ANNOUNCERS = 16  # ports of one host


class Membership:
    """Servers come and go."""

    def __init__(self, fleet: Fleet, outbox: Outbox, links: Links) -> None:
        self.fleet = fleet
        self.outbox = outbox
        self.links = links
        self._hosts: dict[str, Server] = {}  # by endpoint without port: who stands for the whole host
        self._announcers: dict[str, set[int]] = {}  # by endpoint without port

    # What the user wants

    def expect(self, event: on.ServerExpected, now: float) -> None:
        self.fleet.children.add(event.endpoint)
        if not self._find(event.endpoint):
            self.fleet.add(event.endpoint, event.name).needs_seat = False

    def add(self, event: on.ServerAdded, now: float) -> None:
        server = self._find(event.endpoint) or self.fleet.add(event.endpoint, event.name)
        server.is_listed = True
        if event.whole_host and not server.whole_host:
            server.whole_host = True
            self._hosts[_host_of(server.endpoint)] = server
            if server.phase in HEARING:
                self.links.ask(server)
        if server.phase is Phase.IDLE:
            self.links.dial(server, now)

    def remove(self, event: on.ServerRemoved, now: float) -> None:
        """Whom it brought goes with it; a twin that gave way to one of these comes back."""
        if not (server := self.fleet.servers.get(event.endpoint)):
            return
        gone = [server, *self._brought_by(server)] if server.whole_host else [server]
        for each in gone:
            each.left_with_host = each is not server
            self._remove_one(each, event.reason, now)
        server.is_listed = server.whole_host = False
        self._hosts = {host: each for host, each in self._hosts.items() if each is not server}
        self._revive_twins({each.endpoint for each in gone}, now)

    def bury(self, event: on.ServerDied, now: float) -> None:
        if event.endpoint not in self.fleet.servers:
            self.fleet.add(event.endpoint, "")  # it died before anybody knew it: still a reason to name
        if server := self._find(event.endpoint):
            self.links.retire(server, Verdict.DIED, event.reason, now)

    # What hosts and spawners say

    def hear_of_host(self, server: Server, welcome: Welcome, now: float) -> None:
        """What a server says about the host that it is on: others of it, and where they are announced."""
        if server.whole_host:
            self._bring(server, welcome.siblings, now)
        if welcome.announce:
            self._listen_to(server, welcome.announce)

    def hear_announcement(self, event: on.ServerAnnounced, now: float) -> None:
        """A server is free, somebody says: the worst that a lie costs is a dial."""
        server = self.fleet.servers.get(event.endpoint)
        bringer = self._hosts.get(_host_of(event.endpoint))
        if server and server.phase is Phase.IDLE and event.endpoint not in self.fleet.children:
            self.fleet.hasten(server, now)
            if server.deadline <= now:
                self.links.dial(server, now)
        elif bringer and not self._has_whole_twin(bringer) and self._is_fresh(event.endpoint):
            self._bring(bringer, [int(event.endpoint.rpartition(":")[2])], now)

    def _bring(self, server: Server, ports: Iterable[int], now: float) -> None:
        """Dials the ports beside a server's own, on the host that we dialled, each once.

        Those that are known already stay what they are, also when they are out of this render.
        """
        named = dict.fromkeys(with_port(server.endpoint, port) for port in ports if port)
        fresh = [place for place in named if place and self._is_fresh(place)]
        fresh = fresh[: max(0, MAX_SIBLINGS - server.siblings)]
        for endpoint in fresh:
            is_new = endpoint not in self.fleet.servers
            brought = self.fleet.add(endpoint, "")
            brought.brought_by = server.endpoint
            server.siblings += is_new
            self.links.dial(brought, now)
        if fresh:
            self.outbox.notify(Topic.FOUND, f"its host has {_count_more(len(fresh))}", server)

    def _listen_to(self, server: Server, port: int) -> None:
        ports = self._announcers.setdefault(_host_of(server.endpoint), set())
        if with_port(server.endpoint, port) and port not in ports and len(ports) < MAX_ANNOUNCERS:
            ports.add(port)
            self.outbox.add(HearAnnouncements(server.endpoint, port))

    def _is_fresh(self, endpoint: str) -> bool:
        """Whether nobody knows this server, or it left with its host, which is back."""
        server = self.fleet.servers.get(endpoint)
        return server is None or (server.phase is Phase.OUT and server.left_with_host)

    def _has_whole_twin(self, server: Server) -> bool:
        """Whether the same host is here under another address that stands for all of it."""
        twin = self.fleet.servers.get(server.twin)
        return twin is not None and twin.whole_host

    def _remove_one(self, server: Server, reason: str, now: float) -> None:
        if server.phase is not Phase.OUT:
            self.links.retire(server, Verdict.REMOVED, reason, now)
            return
        server.verdict, server.trouble, server.twin = Verdict.REMOVED, reason, ""

    def _brought_by(self, server: Server) -> list[Server]:
        """Those that would not be here without it, but for those that the user removed one by one."""
        brought = (each for each in self.fleet if each.brought_by == server.endpoint and not each.is_listed)
        return [each for each in brought if each.verdict is not Verdict.REMOVED or each.twin]

    def _revive_twins(self, gone: set[str], now: float) -> None:
        for server in [each for each in self.fleet if each.twin in gone]:
            if server.is_listed or server.brought_by:
                self.links.dial(self.fleet.add(server.endpoint, ""), now)

    def _find(self, endpoint: str) -> Server | None:
        """The server at this endpoint while it takes part."""
        server = self.fleet.servers.get(endpoint)
        return server if server and server.phase is not Phase.OUT else None


def _host_of(endpoint: str) -> str:
    return endpoint.rpartition(":")[0]


def _count_more(count: int) -> str:
    return f"{count} more server{'s' * (count > 1)}"
