"""Lets servers rest that fail bucket after bucket, so that they do not eat the queue. Knows no bucket and no clock.

Time is measured in tiles of the others: after the third failure in a row a server is tried again, with one bucket, when
some tiles have come, and after each further failure when twice as many have. Where nobody else renders, nobody rests.
"""

from __future__ import annotations

from dr.broker.fleet import Fleet, Server

MAX_FAILED = 3  # buckets in a row
FIRST_REST = 4  # tiles
MOST_DOUBLINGS = 12


class Doubts:
    """Who rests, and until when."""

    def __init__(self) -> None:
        self._tiles = 0
        self._ends: set[int] = set()  # of rests, in tiles

    def count_failure(self, server: Server) -> None:
        """To be called when the failure stands in `server.failed`."""
        if self.is_doubtful(server):
            more = len(server.failed) - MAX_FAILED
            server.rest_until = self._tiles + (FIRST_REST << min(more, MOST_DOUBLINGS))
            self._ends.add(server.rest_until)

    def count_tile(self, server: Server) -> None:
        """A tile came from this server, which is in no doubt any more."""
        self._ends.discard(self._tiles)
        self._tiles += 1
        server.rest_until = 0

    def may_wake(self, server: Server) -> bool:
        """Whether somebody's rest may be over, now that this server has given something back."""
        return bool(self._ends) and (not server.held or self._tiles in self._ends)

    def is_doubtful(self, server: Server) -> bool:
        """Whether it should hold no more than one bucket."""
        return len(server.failed) >= MAX_FAILED

    def rests(self, server: Server, fleet: Fleet) -> bool:
        """Whether it should get nothing now, since one of the others is at work: more tiles will come."""
        if server.rest_until <= self._tiles:
            return False
        return any(other.held and not self.is_doubtful(other) for other in fleet.ready())
