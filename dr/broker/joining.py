"""Hears what servers say before they work for us: who they are, whether they are free, and that we hold them now.

Knows versions, twins and seats; knows no bucket.
"""

from __future__ import annotations

from dr.broker.commands import Topic
from dr.broker.dispatch import Dispatch
from dr.broker.fleet import WORKING, Fleet, Phase, Server, Verdict
from dr.broker.links import Links
from dr.broker.membership import Membership
from dr.broker.outbox import Outbox
from dr.protocol.messages import Grant, NoLease, Welcome


class Joining:
    """From `welcome` to `grant`, and back when a server ends the lease. Each returns whether the message counts."""

    def __init__(self, fleet: Fleet, outbox: Outbox, dispatch: Dispatch, links: Links, membership: Membership) -> None:
        self.fleet = fleet
        self.outbox = outbox
        self.dispatch = dispatch
        self.links = links
        self.membership = membership

    def hear_welcome(self, server: Server, message: Welcome, now: float) -> bool:
        if server.phase in WORKING and server.boot == message.boot:
            self.membership.hear_of_host(server, message, now)
        elif server.phase not in {Phase.UP, Phase.STANDBY, Phase.WAITING}:
            return False
        elif server.dials_in and server.boot != message.boot:
            self.links.punish(server, "said `here` with another boot id than `welcome`", now)
        elif server.phase is not Phase.UP and server.boot != message.boot:
            self.links.punish(server, "said `welcome` with two boot ids", now)
        elif refusal := self.links.compare(message.version, message.kernels):
            self.links.retire(server, Verdict.REFUSED, refusal, now)
        else:
            self._welcome(server, message, now)
        return True

    def hear_grant(self, server: Server, message: Grant, now: float) -> bool:
        if server.phase is not Phase.WAITING:
            return False
        if self.links.seats.binds(server) and self.links.seats.is_full():
            self.links.release(server, message.lease, now)
        else:
            self.fleet.grant(server, message.lease, message.threads)
            self.dispatch.send_setup(server)
        return True

    def hear_nolease(self, server: Server, message: NoLease, now: float) -> bool:
        if not server.lease:
            return False
        self.dispatch.take_back(server, "", now, died=False)
        self.links.greet(server, now)
        self.dispatch.serve_all(now)
        return True

    def _welcome(self, server: Server, message: Welcome, now: float) -> None:
        server.has_answered = True
        twin = self.fleet.find_twin(server, message.boot) if server.phase is Phase.UP else None
        if not (twin and twin.whole_host):
            self.membership.hear_of_host(server, message, now)
        if twin:
            server.twin = twin.endpoint
            self.links.retire(server, Verdict.REMOVED, f"is the same server as {twin.endpoint}", now)
            return
        server.name = message.name
        self.fleet.name_process(server, message.boot)
        # One that says it is free, and does not come, counts as taken: no seat is kept for it.
        is_taken = message.busy or server.phase is Phase.WAITING
        self.fleet.seats_moved = self.fleet.seats_moved or is_taken != server.is_taken
        server.is_taken = is_taken
        if server.phase is Phase.UP:
            self.fleet.move(server, Phase.WAITING if server.wants else Phase.STANDBY)
        self._tell_holder(server, message)

    def _tell_holder(self, server: Server, message: Welcome) -> None:
        """Whom it waits for, as often as that changes."""
        busy = f"busy with {message.holder or 'another client'}" if message.busy else ""
        server.trouble = busy
        if server.wants and busy:
            seat = " and a seat is left" if self.links.seats.binds(server) else ""
            text = f"{busy}; joins when it is free{seat}"
        elif server.phase is Phase.STANDBY and server.told:
            text = "stands by: as many servers as wanted take part"
        else:
            return
        if text != server.told:
            server.told = text
            self.outbox.notify(Topic.WAITING, text, server)
