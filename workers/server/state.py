"""Decides who holds a render server. Knows no clock, socket, file, thread or dice: `now` (seconds) and `seed` come in.

    FREE -> (hello with want) LEASED -> (setup) FETCHING -> PREPARING -> READY -> (bye, unreachable, silent) FREE

This file is about leases and the clients that wait for one; what happens under a lease is in workers.server.work.
`handle` takes an event, `tick` the passing of time; both answer with commands in the order to carry out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import inf
from typing import Any

from msgspec.structs import replace

from dr.errors import Impossible, ProtocolError
from dr.protocol.envelope import Payload
from dr.protocol.messages import (
    Availability,
    Beat,
    Bucket,
    Bye,
    Cancel,
    Chunk,
    Drain,
    ErrorMessage,
    Grant,
    Hello,
    Kind,
    NoLease,
    Ping,
    Pong,
    ServerMessage,
    Setup,
)
from dr.protocol.version import PROTOCOL_VERSION
from workers.server import commands as do
from workers.server import events as seen
from workers.server.identity import Identity
from workers.server.lease import Ending, Holder, Waiter
from workers.server.words import RESTART_STATUS
from workers.server.work import ERROR_CHARS, Limits, Owner, Work

# A connection that closes sooner may lose what is on its way, because the client still talks, and what has arrived but
# was not read: libzmq forgets it together with a connection that it does not make anew.
RECEIPT_S = 1.0
STUCK = "a render thread is stuck in its kernel"


class ServerState:
    def __init__(self, identity: Identity, seed: bytes, limits: Limits | None = None) -> None:
        """`seed` is secret: leases are derived from it."""
        self.identity = identity
        self.seed = seed
        self.limits = limits or Limits()
        self.out: list[do.Command] = []
        self.work = Work(identity.threads, self.limits, self.out)
        self.holder: Holder | None = None
        self.waiters: dict[bytes, Waiter] = {}  # in order of arrival
        self.leases = 0
        self.restart_due = ""  # why a fresh process takes our place when the lease ends
        self.ending: Ending | None = None
        self.exited = False
        self.reported: do.Report | None = None

    def handle(self, event: seen.Event, now: float) -> list[do.Command]:
        _REACTIONS[type(event)](self, event, now)
        return self._finish(now)

    def tick(self, now: float) -> list[do.Command]:
        """What the time asks for; call it at `next_deadline` or later."""
        for peer in [peer for peer, waiter in self.waiters.items() if now >= waiter.heard_s + self.limits.dead_s]:
            # One whose connection stands must ask again: its pings would be answered for ever, and no lease come.
            self._refuse(peer, "silent", f"no word for {self.limits.dead_s:g} s, so your place in the queue is gone")
            del self.waiters[peer]
        if self.work.tick(now):
            self._threads_stuck(now)
        if self.holder:
            self._tick_lease(self.holder, now)
        return self._finish(now)

    def next_deadline(self) -> float | None:
        """When `tick` has something to do at the latest; None: never, unless something happens."""
        deadlines = [waiter.heard_s + self.limits.dead_s for waiter in self.waiters.values()]
        if self.holder:
            deadlines += [self.holder.heard_s + self.limits.dead_s, self.holder.beat_s]
            deadlines += [] if self.work.frames else [self.work.empty_since_s + self.limits.setup_s]
        if self.ending and not self.exited:
            deadlines.append(self._leaves_s(self.ending))
        return min((time for time in (*deadlines, self.work.next_deadline()) if time is not None), default=None)

    def check(self) -> None:
        """Raises Impossible when this state cannot be."""
        owner = self.work.owner
        holds = Owner(self.holder.peer, self.holder.lease, self.holder.name) if self.holder else None
        proofs = {
            "the work belongs to the holder": owner == holds,
            "a free server has no waiters": self.holder is not None or not self.waiters,
            "the holder does not wait": self.holder is None or self.holder.peer not in self.waiters,
            "the queue of waiters is bounded": len(self.waiters) <= self.limits.waiters,
            "nobody waits for a server that ends": not self.ending or not self.waiters,
            "a restart is due only while somebody holds the server": not self.restart_due or self.holder is not None,
            "a process that has left holds nothing": not self.exited or self.holder is None,
        }
        for proof, true in proofs.items():
            if not true:
                raise Impossible(f"server state: expected that {proof}")
        self.work.check()

    def _finish(self, now: float) -> list[do.Command]:
        self.work.start_buckets(now)
        leaving = None if self.exited else self.ending
        if leaving and now >= self._leaves_s(leaving):
            self.exited = True
            self._end_lease("this server leaves", now)
        self._report()
        if leaving and self.exited:
            self.out.append(do.Exit(leaving.status))
        commands = self.out.copy()
        self.out.clear()
        return commands

    def _leaves_s(self, ending: Ending) -> float:
        """When the process leaves if nothing happens: what is wanted may run, and tiles on their way may arrive."""
        if self.work.threads.wanted:
            return ending.deadline_s
        last_words = [ending.dismissed_s]
        if self.holder:
            last_words += [ending.begun_s, -inf if self.work.tile_s is None else self.work.tile_s]
        return min(ending.deadline_s, max(last_words) + RECEIPT_S)

    @property
    def availability(self) -> Availability:
        if self.ending or self.work.threads.all_stuck:
            return Availability.DRAINING
        return Availability.BUSY if self.holder else Availability.READY

    def _report(self) -> None:
        """The first answer ever, and each one that changes something, tells the parent."""
        report = do.Report(self.availability, self.holder.name if self.holder else "")
        if report != self.reported:
            self.reported = report
            self.out.append(report)

    def clients(self) -> dict[bytes, str]:
        """The key of each peer that holds this server or waits for it; empty where none was asked for."""
        waiting = {peer: waiter.key for peer, waiter in self.waiters.items()}
        return {self.holder.peer: self.holder.key, **waiting} if self.holder else waiting

    # -- what clients say -----------------------------------------------------------------------------------------

    def _message_arrived(self, event: seen.MessageArrived, now: float) -> None:
        held = self.holder is not None and self.holder.peer == event.peer
        client = self.holder if held else self.waiters.get(event.peer)
        if client and client.key == event.key:
            client.heard_s = now
        elif client:  # who spoke before is gone, and another one has got its routing id
            self._lose(event.peer, now)
        try:
            self._answer(event, now)
        except ProtocolError as error:
            self._message_refused(seen.MessageRefused(event.peer, str(error)), now)

    def _answer(self, event: seen.MessageArrived, now: float) -> None:
        match event.message:
            case Hello() as hello:
                self._hello(event, hello, now)
            case Ping() as ping:
                self._send(event.peer, Pong(n=ping.n))
            case ErrorMessage():
                self._lose(event.peer, now)
            case message if not self._holds(event.peer, message.lease):
                self._send(event.peer, NoLease())
            case Bye(restart=restart):
                self._bye(restart, now)
            case message:
                _WORK[type(message)](self.work, message, event.payload, now)

    def _holds(self, peer: bytes, lease: bytes) -> bool:
        return self.holder is not None and self.holder.peer == peer and self.holder.lease == lease

    def _message_refused(self, event: seen.MessageRefused, now: float) -> None:
        self._refuse(event.peer, "protocol", event.error)
        self._lose(event.peer, now)

    def _peer_revoked(self, event: seen.PeerRevoked, now: float) -> None:
        self._lose(event.peer, now, "its key was revoked")
        self._refuse(event.peer, "key", f"your key was revoked; ask for `dr keys authorize NAME '{event.key}'`")

    def _peer_unreachable(self, event: seen.PeerUnreachable, now: float) -> None:
        self._lose(event.peer, now)

    def _hello(self, event: seen.MessageArrived, hello: Hello, now: float) -> None:
        """Whoever says hello is welcomed; one who wants this server gets it, waits for it, or is told why not.

        One who watches the farm (`status`) is answered whatever its version, and nothing is remembered of it.
        """
        peer, client = event.peer, Waiter(hello.name, now, event.key)
        wants = hello.want and hello.kind is Kind.CONTROL
        refusal = self._refusal(hello, peer) if wants else None
        held = self.holder is not None and self.holder.peer == peer
        if wants and not refusal and self.holder and not held:
            self.waiters.setdefault(peer, client)
        self._welcome(peer)
        if hello.kind is Kind.STATUS:
            self._send_status(peer, now)
        elif refusal:
            self._refuse(peer, *refusal)
        elif wants and self.holder is None:
            self._grant(peer, client, now)
        elif wants and self.holder and held:
            self._send(peer, Grant(lease=self.holder.lease, threads=self.work.threads.usable))

    def _refusal(self, hello: Hello, peer: bytes) -> tuple[str, str] | None:
        """(code, text) when this client shall not have this server."""
        mine = self.identity
        if hello.version != PROTOCOL_VERSION:
            return "version", f"{mine.name} speaks protocol {PROTOCOL_VERSION}, the client {hello.version}; update one"
        if hello.kernels and hello.kernels != mine.kernels:
            versions = f"{mine.name} has {mine.kernels[:16]}, the client {hello.kernels[:16]}"
            return "kernels", f"the code that decides pixels differs: {versions}; install the same version on both"
        if self.ending:
            return "draining", f"{mine.name} is stopping"
        if self.work.threads.all_stuck:
            return self._no_threads
        would_wait = self.holder is not None and self.holder.peer != peer and peer not in self.waiters
        if would_wait and len(self.waiters) >= self.limits.waiters:
            return "queue", f"{mine.name} is busy, and no more than {self.limits.waiters} may wait; try again later"
        return None

    def _welcome(self, peer: bytes) -> None:
        holder = self.holder if self.holder and self.holder.peer != peer else None
        place = list(self.waiters).index(peer) + 1 if peer in self.waiters else 0
        self._send(peer, self.identity.welcome(holder.name if holder else "", place, self.work.threads.usable))

    def _send_status(self, peer: bytes, now: float) -> None:
        status = self.identity.status(self.availability, self.holder.name if self.holder else "")
        counted = replace(status, buckets=self.work.rendered, buckets_per_s=self.work.rate.per_s(now))
        self.out.append(do.SendStatus(peer, counted))

    # -- leases ---------------------------------------------------------------------------------------------------

    def _grant(self, peer: bytes, client: Waiter, now: float) -> None:
        self.leases += 1
        lease = hashlib.sha256(self.seed + self.leases.to_bytes(8, "big")).digest()[:8]
        self.holder = Holder(peer, client.name, lease, now, now + self.limits.beat_s, client.key)
        self.work.begin(Owner(peer, lease, client.name), now)
        self._send(peer, Grant(lease=lease, threads=self.work.threads.usable))
        self._log(f"lease given to {client.name}")
        self.out.append(do.GetReady())

    def _tick_lease(self, holder: Holder, now: float) -> None:
        silent = now >= holder.heard_s + self.limits.dead_s
        useless = not self.work.frames and now >= self.work.empty_since_s + self.limits.setup_s
        if silent or useless:
            what, seconds = ("no word", self.limits.dead_s) if silent else ("no frame", self.limits.setup_s)
            self._release(f"{what} for {seconds:g} s", now)
            self._send(holder.peer, NoLease())
        elif now >= holder.beat_s:
            holder.beat_s = now + self.limits.beat_s
            self._send(
                holder.peer, Beat(lease=holder.lease, queued=len(self.work.queue), running=self.work.threads.wanted)
            )

    def _lose(self, peer: bytes, now: float, reason: str = "the client is gone") -> None:
        """This peer is gone, or ought to be."""
        self.waiters.pop(peer, None)
        if self.holder and self.holder.peer == peer:
            self._release(reason, now)

    def _bye(self, restart: bool, now: float) -> None:
        if restart:
            self._restart_requested(seen.RestartRequested("the client asks for it"), now)
        self._release("the client says bye", now)

    def _release(self, reason: str, now: float) -> None:
        """The lease ends and nothing of it stays. Then a restart is due, or the next waiter holds this server."""
        if self.holder:
            self.out.append(do.ForgetPeer(self.holder.peer))
        self._end_lease(reason, now)
        self._restart_if_free(now)
        if self.waiters:
            peer = next(iter(self.waiters))
            self._grant(peer, self.waiters.pop(peer), now)

    def _end_lease(self, reason: str, now: float) -> None:
        if self.holder:
            buckets = self.work.rendered - self.work.rendered_before
            self._log(f"lease ended after {buckets} bucket{'' if buckets == 1 else 's'}: {reason}")
            self.work.end(now)
            self.holder = None

    # -- the end of the process -----------------------------------------------------------------------------------

    def _stop_requested(self, event: seen.StopRequested, now: float) -> None:
        if self.exited:
            return
        again = self.ending
        at_once = event.at_once or again is not None
        self._log(f"stop{' at once' if at_once else ''}: {event.reason}")
        if again:
            self.ending = Ending(again.status, now)
        else:
            self._end(Ending(0, now if at_once else now + self.limits.drain_s), "stopping", now)

    def _restart_requested(self, event: seen.RestartRequested, now: float) -> None:
        """A fresh process takes our place when the lease ends, or now."""
        if not self.identity.supervised:
            self._log(f"no restart ({event.reason}): nobody would start this server again")
        elif not self.ending:
            self.restart_due = event.reason
            self._restart_if_free(now)

    def _restart_if_free(self, now: float) -> None:
        """One whose threads are all stuck is of no use to its holder either."""
        if self.restart_due and (self.holder is None or self.work.threads.all_stuck):
            self._log(f"restart: {self.restart_due}")
            self._end(Ending(RESTART_STATUS, now + self.limits.drain_s), "restarting", now)

    def _threads_stuck(self, now: float) -> None:
        """Whoever supervises us gives us fresh threads; by itself a server goes on with those that are left."""
        if self.ending:
            return
        if self.identity.supervised:
            self._restart_requested(seen.RestartRequested(STUCK), now)
        elif self.work.threads.all_stuck:
            self._dismiss_waiters(*self._no_threads)
            if self.holder:
                self._refuse(self.holder.peer, *self._no_threads)
                self._release("all render threads are stuck", now)

    @property
    def _no_threads(self) -> tuple[str, str]:
        return "stuck", f"all render threads of {self.identity.name} are stuck in their kernels; restart it"

    def _end(self, ending: Ending, doing: str, now: float) -> None:
        """Nothing new is taken from now on."""
        self.ending = replace(ending, begun_s=now, dismissed_s=now if self.waiters else -inf)
        self.restart_due = ""
        self._dismiss_waiters("draining", f"{self.identity.name} is {doing}")
        self.work.drain()
        if self.holder:
            self._send(self.holder.peer, Drain(lease=self.holder.lease))

    # -- words ----------------------------------------------------------------------------------------------------

    def _log(self, text: str) -> None:
        self.out.append(do.Log(text))

    def _send(self, peer: bytes, message: ServerMessage) -> None:
        self.out.append(do.Send(peer, message))

    def _dismiss_waiters(self, code: str, text: str) -> None:
        for peer in self.waiters:
            self._refuse(peer, code, text)
        self.waiters.clear()

    def _refuse(self, peer: bytes, code: str, text: str) -> None:
        self._send(peer, ErrorMessage(code=code, text=text[:ERROR_CHARS]))


def _to_work(method: Callable[[Work, Any, float], None]) -> Callable[[ServerState, Any, float], None]:
    return lambda state, event, now: method(state.work, event, now)


_REACTIONS: dict[type, Callable[[ServerState, Any, float], None]] = {
    seen.MessageArrived: ServerState._message_arrived,
    seen.MessageRefused: ServerState._message_refused,
    seen.PeerRevoked: ServerState._peer_revoked,
    seen.PeerUnreachable: ServerState._peer_unreachable,
    seen.StopRequested: ServerState._stop_requested,
    seen.RestartRequested: ServerState._restart_requested,
    seen.AssetSealed: _to_work(Work.asset_sealed),
    seen.AssetRefused: _to_work(Work.asset_refused),
    seen.ManifestOpened: _to_work(Work.manifest_opened),
    seen.ThreadStarted: _to_work(Work.thread_started),
    seen.TileRendered: _to_work(Work.tile_rendered),
    seen.BucketStopped: _to_work(Work.bucket_stopped),
    seen.BucketFailed: _to_work(Work.bucket_failed),
    seen.KernelsWarmed: _to_work(Work.kernels_warmed),
    seen.KernelsRefused: _to_work(Work.kernels_refused),
    seen.KernelsProgressed: _to_work(Work.kernels_progressed),
    seen.ScenePrepared: _to_work(Work.scene_prepared),
    seen.PreparationFailed: _to_work(Work.preparation_failed),
    seen.PreparationProgressed: _to_work(Work.preparation_progressed),
}

_WORK: dict[type, Callable[[Work, Any, Payload, float], None]] = {
    Setup: Work.setup,
    Chunk: Work.chunk,
    Bucket: Work.bucket,
    Cancel: Work.cancel,
}
