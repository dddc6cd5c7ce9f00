"""Decides which listed servers are asked for a lease when only so many may take part. Sends nothing, knows no bucket.

A listed server is one that we dial and did not start ourselves. Those without a seat stand by: they are connected, and
free for other clients. The first idle ones are invited; where too few are idle, the busy ones are waited for as well.
"""

from __future__ import annotations

from dr.broker.fleet import WORKING, Fleet, Phase, Server
from dr.errors import Impossible


class Seats:
    """`limit` listed servers may hold a lease at a time; 0: all of them."""

    def __init__(self, fleet: Fleet, limit: int) -> None:
        self.fleet = fleet
        self.limit = limit

    def binds(self, server: Server) -> bool:
        """Whether this server needs a seat to take part."""
        return bool(self.limit) and server.needs_seat

    def is_full(self) -> bool:
        return self.fleet.seated >= self.limit

    def choose_invited(self) -> list[Server]:
        """Those that stand by and shall be asked for a lease now, in the order in which they were listed."""
        if not self.limit or self.is_full() or not self.fleet.phases[Phase.STANDBY]:
            return []
        free = self.limit - self.fleet.seated - self._count_invited()
        if free <= 0:
            return []
        standing = sorted(self.fleet.phases[Phase.STANDBY].values(), key=lambda server: server.number)
        idle = [server for server in standing if not server.is_taken]
        busy = [server for server in standing if server.is_taken]
        return idle[:free] if len(idle) >= free else idle + busy

    def check(self) -> None:
        """Proves that no seat is given twice and none stays empty while a server stands by. Raises Impossible."""
        if not self.limit:
            return
        holders = sum(server.phase in WORKING for server in self.fleet if server.needs_seat)
        if holders > self.limit or holders != self.fleet.seated:
            raise Impossible(f"{holders} servers hold a lease on {self.limit} seats, {self.fleet.seated} are counted")
        if invited := self.choose_invited():
            raise Impossible(f"server {invited[0].name} stands by while a seat is free")

    def _count_invited(self) -> int:
        """Servers that were asked for a lease and should give it at once: a seat is kept for each."""
        asked = (server for phase in (Phase.UP, Phase.WAITING) for server in self.fleet.phases[phase].values())
        return sum(server.wants and server.needs_seat and not server.is_taken for server in asked)
