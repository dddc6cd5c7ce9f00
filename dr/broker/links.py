"""Keeps the connections to servers: dials, greets, pings, gives up on the dead. Knows no bucket, reads no message."""

from __future__ import annotations

from collections import deque

from msgspec.structs import replace

from dr.broker.commands import Dial, Disconnect, Send, Topic
from dr.broker.dispatch import Dispatch
from dr.broker.events import ListeningBegan
from dr.broker.fleet import MAX_CALLERS, Fleet, Phase, Server, Verdict
from dr.broker.outbox import Outbox
from dr.broker.report import Loss
from dr.broker.seats import Seats
from dr.protocol.messages import Bye, ErrorMessage, Hello, Here, Ping
from dr.protocol.version import PROTOCOL_VERSION

MAX_STRIKES = 3  # connections that a server may lose to misbehaviour
ERROR_CHARS = 4096
MAX_LOSSES = 1000  # that are remembered, the latest
MAX_REASONS = 5  # that one line tells


class Links:
    """Every way in which a connection begins or ends. What a lost server held goes back through `dispatch`."""

    def __init__(self, fleet: Fleet, outbox: Outbox, dispatch: Dispatch, seats: Seats, hello: Hello) -> None:
        """`hello` asks for a lease."""
        self.fleet = fleet
        self.outbox = outbox
        self.dispatch = dispatch
        self.seats = seats
        self.hello = hello
        self.lost: deque[Loss] = deque(maxlen=MAX_LOSSES)
        self._told_stranded = False  # since a server was ready

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
        """The first words on this connection, or the first after a lease; one that needs a seat is not asked for it."""
        self._say_hello(server, now, wants=not self.seats.binds(server))

    def invite(self, server: Server, now: float) -> None:
        """Asks one that stands by for a lease."""
        self._say_hello(server, now, wants=True)

    def ask(self, server: Server) -> None:
        """Lets a server say again who it is and who else is on its host; nothing else changes by that."""
        self.outbox.send(server, replace(self.hello, want=False))

    def release(self, server: Server, lease: bytes, now: float) -> None:
        """There is no seat for a server that became free: it may work for others."""
        self.outbox.send(server, Bye(lease=lease))
        self.greet(server, now)

    def tend(self, now: float) -> None:
        """Acts on every timer that has run out."""
        for server in self.fleet.take_due(now):
            self._tend_one(server, now)
            self.fleet.arm(server)

    def settle(self, now: float) -> None:
        """After every event: lets go who has drained, and fills the seats."""
        for server in list(self.fleet.phases[Phase.DRAINING].values()):
            if not server.held:
                self._dismiss(server, now)
        while self.fleet.seats_moved:
            self.fleet.seats_moved = False
            for server in self.seats.choose_invited():
                self.invite(server, now)
        if self.fleet.phases[Phase.READY]:
            self._told_stranded = False

    def drop(self, server: Server, reason: str, now: float, *, died: bool = True) -> None:
        """Ends the connection; the server is dialled again. With `died`, the buckets that ran there are suspects.

        A draining server said that it would go: what it could not finish is no suspect.
        """
        died = died and server.phase is not Phase.DRAINING
        server.trouble = reason
        had_lease = bool(server.lease)
        self._part(server, reason)
        self._tell_loss(server, reason)
        self.dispatch.take_back(server, reason, now, died=died)
        self.fleet.close(server, now)
        self.dispatch.serve_all(now)
        self._tell_stranded(had_lease)

    def retire(self, server: Server, verdict: Verdict, reason: str, now: float) -> None:
        """The server takes no part any more."""
        server.trouble = reason
        had_lease = bool(server.lease)
        self._tell_end(server, verdict, reason)
        self.dispatch.take_back(server, reason, now, died=verdict is Verdict.DIED)
        if server.lease:
            self.outbox.send(server, Bye(lease=server.lease))
        if server.peer:
            self._part(server, reason)
        self.fleet.retire(server, verdict)
        self.dispatch.serve_all(now)
        self._tell_stranded(had_lease)

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

    def reasons(self) -> str:
        """Why no server takes part, of the first few."""
        found = [f"{server.name}: {server.trouble or server.phase.value}" for server in self.fleet]
        more = [f"and {len(found) - MAX_REASONS} more"] if len(found) > MAX_REASONS else []
        return "; ".join([*found[:MAX_REASONS], *more]) or "none is listed"

    def last_losses(self) -> str:
        """Who was lost, and why, of the last few."""
        losses = [f"{loss.name}: {loss.reason}" for loss in self.lost]
        more = [f"and {len(losses) - MAX_REASONS} more"] if len(losses) > MAX_REASONS else []
        return "; ".join([*losses[-MAX_REASONS:], *more])

    def _say_hello(self, server: Server, now: float, *, wants: bool) -> None:
        self.fleet.greet(server, now, wants=wants)
        self._ask(server)

    def _ask(self, server: Server) -> None:
        self.outbox.send(server, replace(self.hello, want=server.wants))

    def _dismiss(self, server: Server, now: float) -> None:
        """It drains and has nothing of ours left: it need not wait until it is sure that we have its tiles."""
        self.outbox.send(server, Bye(lease=server.lease))
        self._tell_loss(server, "it stops, and leaves nothing undone")
        self.fleet.part(server, now)
        server.has_joined = False
        self._tell_stranded(had_lease=True)

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
        elif server.phase is Phase.LEAVING and now >= server.deadline:
            self.drop(server, f"stopped, and its connection stood for {timers.welcome_s:g} s more", now)
        elif server.phase in {Phase.WAITING, Phase.STANDBY} and now >= server.asked + timers.ask_s:
            self._ask_again(server, now)
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

    def _ask_again(self, server: Server, now: float) -> None:
        """A gate does not tell by itself who holds it next. The answer is a sign of life, as that to a ping is."""
        server.asked = now
        self.fleet.start_ping(server, now)
        self._ask(server)

    def _tell_end(self, server: Server, verdict: Verdict, reason: str) -> None:
        """The end of a guess that was never right is no news."""
        if verdict is Verdict.REMOVED and server.brought_by and not server.has_answered:
            return
        topic = Topic.LOST if verdict in {Verdict.REMOVED, Verdict.DIED} else Topic.REFUSED
        self.outbox.notify(topic, reason, server)
        self.lost.append(Loss(server.name, reason, verdict is Verdict.REMOVED))

    def _tell_stranded(self, had_lease: bool) -> None:
        """Once for each time of being without servers, but not when the render ends for it."""
        news = had_lease or not self.fleet.taking_part
        if news and not self.fleet.working and not self._told_stranded and not self.fleet.is_hopeless():
            self._told_stranded = True
            self.outbox.notify(Topic.WAITING, "no server is left; waiting for one")
