"""A render server of the churn: what it holds, how fast it is and in which ways it is broken. Knows no broker.

It does as protocol.md says, as tests.support.simulated_farm does, but costs little: a hundred of these render millions
of buckets. Whoever owns it delivers what it hears, carries what it says (`say`) and calls back (`after`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any, TypeAlias

from dr.broker.worker import Ticket
from dr.protocol.messages import (
    Beat,
    Bucket,
    BucketWork,
    Bye,
    Cancel,
    Channel,
    Chunk,
    ClientMessage,
    Drain,
    ErrorMessage,
    Failed,
    Get,
    Grant,
    Hello,
    NoLease,
    Ping,
    Pong,
    Ready,
    ServerMessage,
    Setup,
    Tile,
    Welcome,
)
from dr.protocol.version import PROTOCOL_VERSION
from tests.support.simulated_farm import DEAD_S, KERNELS, MANIFEST, MAX_FRAMES

BEAT_S = 0.25
CHANNELS = [Channel.BEAUTY]
PIXELS = (b"pixels",)

Say: TypeAlias = Callable[[bytes, ServerMessage], None]
After: TypeAlias = Callable[..., None]


class ChurnServer:
    """One place of the farm, and the process that is there now, if any."""

    def __init__(self, place: str, threads: int, rate: float, chance: Random, say: Say, after: After) -> None:
        """`rate` is samples per second of one thread."""
        self.place, self.threads, self.rate = place, threads, rate
        self.chance, self.say, self.after = chance, say, after
        self.is_poison: Callable[[int, BucketWork], bool] = lambda epoch, work: False
        self.blame: Callable[[Ticket], None] = lambda ticket: None
        self.siblings: list[int] = []
        self.announce = 0
        self.lie = 1.0  # times the seconds that it tells
        self.fails = 0.0  # chance that it cannot render a bucket
        self.hangs = 0.0  # chance that a bucket never returns, nor its thread
        self.tokens = count()
        self.leases = 0
        self.start()

    def start(self) -> None:
        """A fresh process."""
        self.boot = self.chance.randbytes(8)
        self.kernels = KERNELS
        self.is_up, self.is_silent, self.is_draining, self.is_lent, self.is_sick = True, False, False, False, False
        self.stuck = 0  # threads that will never return
        self.waiter: bytes | None = None
        self.missed: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []  # while it was silent
        self.restarts = False
        self._free()

    def stop(self) -> None:
        """The process is gone."""
        self.is_up = False
        self.waiter = None
        self.missed.clear()
        self._free()

    def revive(self) -> None:
        """It was silent, and goes on with all that it has missed."""
        self.is_silent = False
        missed, self.missed = self.missed, []
        for action, words in missed:
            action(*words)

    def hear(self, peer: bytes, message: ClientMessage) -> None:
        if not self.is_up:
            return
        if self.is_silent:
            self.missed.append((self.hear, (peer, message)))
            return
        if peer == self.holder:
            self.is_heard = True
        match message:
            case Ping(n=n):
                self.say(peer, Pong(n=n))
            case Hello(want=want):
                self.say(peer, self._welcome())
                if want:
                    self.lend(peer)
            case ErrorMessage():
                self.release(peer)
            case _ if peer != self.holder or message.lease != self.lease:
                self.say(peer, NoLease())
            case _:
                self._work(peer, message)

    def lend(self, peer: bytes) -> None:
        """A new connection of our client takes the place of the old one."""
        if self.is_lent or self.is_draining:
            self.waiter = peer
            return
        if peer != self.holder:
            self._free()
            self.holder, self.is_heard = peer, True
            self.leases += 1
            self.lease = self.leases.to_bytes(8, "big")
            self.after(BEAT_S, self._beat, self.boot, self.lease, BEAT_S)
        self.say(peer, Grant(lease=self.lease, threads=self.threads))

    def release(self, peer: bytes) -> None:
        """A connection is gone, or a lease is over: the next one that waits gets it."""
        if peer == self.waiter:
            self.waiter = None
        if peer == self.holder:
            self._free()
            self.lend_to_waiter()

    def lend_to_waiter(self) -> None:
        if self.is_up and self.holder is None and not self.is_lent and self.waiter is not None:
            peer, self.waiter = self.waiter, None
            self.lend(peer)

    def lose_client(self) -> None:
        """The server gives its client up, and says so."""
        if self.holder is not None:
            peer = self.holder
            self.say(peer, NoLease())
            self.release(peer)

    def drain(self) -> None:
        """It finishes what runs, and says that it takes nothing new."""
        self.is_draining = True
        self.queue.clear()
        if self.holder is not None:
            self.say(self.holder, Drain(lease=self.lease))

    def _free(self) -> None:
        self.holder: bytes | None = None
        self.is_heard = False
        self.lease = b""
        self.epochs: dict[int, bool] = {}  # oldest first; whether it is ready for that frame
        self.queue: deque[tuple[int, BucketWork]] = deque()
        self.stuck += sum(token < 0 for token, _ in getattr(self, "running", {}).values())
        self.running: dict[Ticket, tuple[int, BucketWork]] = {}  # token: negative where the thread never returns

    def _welcome(self) -> Welcome:
        return Welcome(
            version=PROTOCOL_VERSION,
            kernels=self.kernels,
            boot=self.boot,
            name=self.place,
            threads=self.threads,
            busy=self.is_lent,
            holder="somebody" if self.is_lent else "",
            announce=self.announce,
            siblings=self.siblings,
        )

    def _work(self, peer: bytes, message: ClientMessage) -> None:
        match message:
            case Bucket(epoch=epoch, buckets=works) if epoch in self.epochs:
                assert self.epochs[epoch], "a bucket of a frame that this server is not ready for"
                self.queue.extend([(epoch, work) for work in works])
                self._start_threads()
            case Cancel(epoch=epoch, buckets=cancelled):
                self._cancel(epoch, set(cancelled))
            case Setup(epoch=epoch):
                self._set_up(peer, epoch)
            case Chunk(epoch=epoch) if epoch in self.epochs:
                self.after(self.chance.uniform(0.01, 0.3), self._be_ready, self.lease, epoch)
            case Bye(restart=restart):
                self.restarts = restart
                self.release(peer)

    def _set_up(self, peer: bytes, epoch: int) -> None:
        if self.is_sick:
            self.say(peer, Failed(lease=self.lease, epoch=epoch, error="no memory for this scene"))
        elif epoch not in self.epochs:
            if len(self.epochs) == MAX_FRAMES:
                oldest = next(iter(self.epochs))
                del self.epochs[oldest]
                self._drop(lambda ticket: ticket[0] == oldest)
            self.epochs[epoch] = False
            self.say(peer, Get(lease=self.lease, epoch=epoch, digest=MANIFEST, offset=0, n=100))

    def _be_ready(self, lease: bytes, epoch: int) -> None:
        if self.is_silent:
            self.missed.append((self._be_ready, (lease, epoch)))
        elif lease == self.lease and self.holder is not None and epoch in self.epochs:
            self.epochs[epoch] = True
            self.say(self.holder, Ready(lease=lease, epoch=epoch))

    def _cancel(self, epoch: int, cancelled: set[int]) -> None:
        self._drop(lambda ticket: ticket[0] == epoch and ticket[1] in cancelled)

    def _drop(self, is_over: Callable[[Ticket], bool]) -> None:
        self.queue = deque(held for held in self.queue if not is_over((held[0], held[1].id)))
        for ticket in [ticket for ticket in self.running if is_over(ticket)]:
            self.stuck += self.running.pop(ticket)[0] < 0
        self._start_threads()

    def _start_threads(self) -> None:
        while self.queue and len(self.running) < self.threads - self.stuck:
            epoch, work = self.queue.popleft()
            token = next(self.tokens) + 1
            if self.hangs and self.chance.random() < self.hangs:
                token = -token
            ticket = (epoch, work.id)
            self.running[ticket] = (token, work)
            if token > 0:
                seconds = samples_of(work) / self.rate * self.chance.uniform(0.5, 2.0)
                self.after(seconds, self._end, token, ticket, seconds)

    def _end(self, token: int, ticket: Ticket, seconds: float) -> None:
        held = self.running.get(ticket)
        if held is None or held[0] != token:
            return
        if self.is_silent:
            self.missed.append((self._end, (token, ticket, seconds)))
            return
        del self.running[ticket]
        assert self.holder is not None
        self.say(self.holder, self._result(ticket, held[1], seconds))
        self._start_threads()

    def _result(self, ticket: Ticket, work: BucketWork, seconds: float) -> ServerMessage:
        epoch, bucket = ticket
        if self.is_poison(epoch, work) or (self.fails and self.chance.random() < self.fails):
            self.blame(ticket)
            return Failed(lease=self.lease, epoch=epoch, bucket=bucket, error="kernel raised")
        return Tile(lease=self.lease, epoch=epoch, bucket=work, channels=CHANNELS, seconds=seconds * self.lie)

    def _beat(self, boot: bytes, lease: bytes, age_s: float) -> None:
        """Every 250 ms under a lease; every 3 s it looks whether its client is silent."""
        if boot != self.boot or lease != self.lease or self.holder is None:
            return
        if not self.is_silent:
            self.say(self.holder, Beat(lease=lease, queued=len(self.queue), running=len(self.running)))
            if age_s >= DEAD_S:
                age_s = 0.0
                if not self.is_heard:
                    self.lose_client()
                self.is_heard = False
        self.after(BEAT_S, self._beat, boot, lease, age_s + BEAT_S)


def samples_of(work: BucketWork) -> int:
    return work.width * work.height * (work.sample_end - work.sample_begin)
