"""Keeps the connections to servers: dials, greets, pings, gives up on the dead. Knows no bucket, reads no message."""

from __future__ import annotations

from collections.abc import Iterable

from dr.broker.commands import Dial, Disconnect, Send, Topic
from dr.broker.dispatch import Dispatch
from dr.broker.events import ListeningBegan
from dr.broker.fleet import MAX_CALLERS, Fleet, Phase, Server, Verdict
from dr.broker.outbox import Outbox
from dr.broker.report import Loss
from dr.protocol.address import with_port
from dr.protocol.messages import Bye, ErrorMessage, Hello, Here, Ping
from dr.protocol.version import PROTOCOL_VERSION

MAX_STRIKES = 3  # connections that a server may lose to misbehaviour
ERROR_CHARS = 4096
MAX_SIBLINGS = 1024  # that one server may ever bring


class Links:
    """Every way in which a connection begins or ends. What a lost server held goes back through `dispatch`."""

    def __init__(self, fleet: Fleet, outbox: Outbox, dispatch: Dispatch, hello: Hello) -> None:
        self.fleet = fleet
        self.outbox = outbox
        self.dispatch = dispatch
        self.hello = hello
        self.lost: list[Loss] = []

    def dial(self, server: Server, now: float) -> None:
        self.fleet.dial(server, now)
        self.outbox.add(Dial(server.endpoint, server.peer))

    def listen(self, event: ListeningBegan, now: float) -> None:
        self.fleet.listens = True
        self.outbox.notify(Topic.WAITING, f"waiting for servers to dial in at {event.place}")

    def accept(self, peer: bytes, here: Here, now: float) -> None:
        """A server has dialled in: it is greeted as if we had dialled it, unless there is a reason to send it away.

        One that is out of this render gets no answer: if it were sent away it would come again and again.
        """
        server = self.fleet.find_caller(here.boot)
        if server is None:
            self._send_away(peer, "full", f"{MAX_CALLERS} servers have dialled in already")
        elif server.phase is Phase.OUT:
            return
        elif twin := self.fleet.find_twin(None, here.boot):
            self._send_away(peer, "twin", f"this server takes part already, as {twin.name}")
        else:
            self.fleet.connect(server, peer, now)
            self.greet(server, now)

    def greet(self, server: Server, now: float) -> None:
        """Asks for a lease, for the first time on this connection or because the server ended the last one."""
        self.fleet.greet(server, now)
        self.outbox.send(server, self.hello)

    def dial_siblings(self, server: Server, ports: Iterable[int], now: float) -> None:
        """Dials the ports that a server names beside its own, on the host that we dialled, each once.

        Those that are known already stay what they are, also when they are out of this render.
        """
        named = [with_port(server.endpoint, port) for port in ports if port]
        fresh = [place for place in dict.fromkeys(named) if place and place not in self.fleet.servers]
        fresh = fresh[: MAX_SIBLINGS - server.siblings]
        for endpoint in fresh:
            self.dial(self.fleet.add(endpoint, ""), now)
        server.siblings += len(fresh)
        if fresh:
            self.outbox.notify(Topic.FOUND, f"its host has {_count_more(len(fresh))}", server)

    def tend(self, now: float) -> None:
        """Acts on every timer that has run out."""
        for server in self.fleet.take_due(now):
            self._tend_one(server, now)
        self.fleet.rest()

    def drop(self, server: Server, reason: str, now: float, *, died: bool = True) -> None:
        """Ends the connection; the server is dialled again. With `died`, the buckets that ran there are suspects.

        A draining server said that it would go: what it could not finish is no suspect.
        """
        died = died and server.phase is not Phase.DRAINING
        self._part(server, reason)
        self._tell_loss(server, reason)
        self.dispatch.take_back(server, reason, now, died=died)
        had_joined = server.has_joined
        self.fleet.close(server, now)
        self.dispatch.serve_all(now)
        self._tell_stranded(had_joined)

    def retire(self, server: Server, verdict: Verdict, reason: str, now: float) -> None:
        """The server takes no part any more."""
        topic = Topic.LOST if verdict in {Verdict.REMOVED, Verdict.DIED} else Topic.REFUSED
        self.outbox.notify(topic, reason, server)
        self.lost.append(Loss(server.name, reason))
        self.dispatch.take_back(server, reason, now, died=verdict is Verdict.DIED)
        if server.lease:
            self.outbox.send(server, Bye(lease=server.lease))
        if server.peer:
            self._part(server, reason)
        had_joined = server.has_joined
        self.fleet.retire(server, verdict)
        self.dispatch.serve_all(now)
        self._tell_stranded(had_joined)

    def punish(self, server: Server, reason: str, now: float) -> None:
        """Ends a connection on which the peer broke the protocol; the third time is the last."""
        server.strikes += 1
        self.outbox.send(server, ErrorMessage(code="protocol", text=reason[:ERROR_CHARS]))
        if server.strikes >= MAX_STRIKES:
            self.retire(server, Verdict.UNFIT, f"broke the protocol {MAX_STRIKES} times, at last: {reason}", now)
        else:
            self.drop(server, f"broke the protocol: {reason}", now, died=False)

    def compare(self, version: int, kernels: str) -> str:
        """Why a server with these versions cannot render for us, or nothing."""
        if version != PROTOCOL_VERSION:
            return f"speaks protocol {version}, this client {PROTOCOL_VERSION}; install one version everywhere"
        if kernels != self.hello.kernels:
            found, own = kernels[:12] or "none", self.hello.kernels[:12] or "none"
            return f"has kernels {found}, this client {own}; install one version everywhere"
        return ""

    def _part(self, server: Server, reason: str) -> None:
        """Ends the connection. Nothing at our end can drop one that was dialled at the other: its server does."""
        if server.dials_in:
            self._send_away(server.peer, "dropped", reason)
        else:
            self.outbox.add(Disconnect(server.endpoint, server.peer))

    def _send_away(self, peer: bytes, code: str, reason: str) -> None:
        self.outbox.add(Send(peer, ErrorMessage(code=code, text=reason[:ERROR_CHARS])))

    def _tend_one(self, server: Server, now: float) -> None:
        timers = self.fleet.timers
        if server.phase is Phase.IDLE:
            self.dial(server, now)
        elif server.phase is Phase.DIALING:
            self.drop(server, f"no connection within {timers.dial_s:g} s", now)
        elif now >= server.heard + timers.dead_s:
            self.drop(server, f"silent for {timers.dead_s:g} s", now)
        elif server.phase is Phase.UP and now >= server.deadline:
            self.drop(server, f"no welcome within {timers.welcome_s:g} s", now)
        else:
            self.outbox.send(server, Ping(n=self.fleet.start_ping(server, now)))

    def _tell_loss(self, server: Server, reason: str) -> None:
        if server.has_joined:
            self.lost.append(Loss(server.name, reason))
            self.outbox.notify(Topic.LOST, reason, server)
        elif not server.is_reported:
            then = "it may dial in again" if server.dials_in else "trying again"
            self.outbox.notify(Topic.UNREACHABLE, f"{reason}; {then}", server)
        server.is_reported = True

    def _tell_stranded(self, had_joined: bool) -> None:
        if had_joined and not self.fleet.ready():
            self.outbox.notify(Topic.WAITING, "no server is left; waiting for one")


def _count_more(count: int) -> str:
    return f"{count} more server{'s' * (count > 1)}"
