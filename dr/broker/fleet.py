"""What the client knows of each server: connection, lease, timers, what it holds and how fast it is.

Knows no bucket's pixels and no socket. A server's life is a table of legal phases:
IDLE -> DIALING -> UP (greeted) -> WAITING (for its lease) -> LEASED -> READY, and IDLE again when the connection goes.
Where seats are few it stands by (STANDBY) until it is asked for its lease; one that stops is DRAINING, then LEAVING.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from hashlib import blake2b
from math import inf

from msgspec import Struct, field

from dr.broker.alarms import Alarms
from dr.broker.worker import Worker
from dr.errors import Impossible

PEER_PREFIX = b"\x01"  # of routing ids that a client chose for a dial
CALLER_PREFIX = "here:"  # of what stands for the endpoint of a server that dials in, before its boot id
MAX_CALLERS = 4096  # servers that have dialled in
SMOOTHING = 0.25  # weight of a new measurement


class Timers(Struct, frozen=True, kw_only=True):
    """Seconds; the defaults are the protocol's."""

    dial_s: float = 5.0  # the socket's own timer is shorter and says why
    welcome_s: float = 2.0
    ping_s: float = 1.0
    dead_s: float = 3.0
    backoff_first_s: float = 0.1
    backoff_last_s: float = 1.0
    backoff_dead_s: float = 30.0  # of those that a host names beside itself and that never answered
    steady_s: float = 5.0  # a server that was ready for so long is no crash loop: its back-off begins anew
    ask_s: float = 2.0  # between two questions to a server that waits or stands by: who holds it now?
    wait_s: float = inf  # without any server that renders or prepares, the render ends
    race_s: float = 0.05  # between two looks for races


class Phase(StrEnum):
    IDLE = "not connected"
    DIALING = "connecting"
    UP = "greeted"
    STANDBY = "standing by"  # connected, and free for others until there is a seat
    WAITING = "waiting"
    LEASED = "preparing"
    READY = "rendering"
    DRAINING = "draining"  # finishes what it renders and takes nothing new
    LEAVING = "leaving"  # has drained and was let go; its connection will close
    OUT = "out"  # takes no part in this render any more until it is added again


class Verdict(StrEnum):
    """Why a server is OUT."""

    REMOVED = "removed"
    DIED = "died"
    REFUSED = "refused"
    UNFIT = "unfit"  # cannot render this frame, or breaks the protocol again and again


_CLOSED = frozenset({Phase.IDLE, Phase.OUT})
LEGAL_PHASES: Mapping[Phase, frozenset[Phase]] = {
    Phase.IDLE: frozenset({Phase.DIALING, Phase.OUT}),
    Phase.DIALING: frozenset({Phase.UP}) | _CLOSED,
    Phase.UP: frozenset({Phase.STANDBY, Phase.WAITING}) | _CLOSED,
    Phase.STANDBY: frozenset({Phase.UP}) | _CLOSED,
    Phase.WAITING: frozenset({Phase.UP, Phase.LEASED}) | _CLOSED,
    Phase.LEASED: frozenset({Phase.UP, Phase.READY, Phase.DRAINING}) | _CLOSED,
    Phase.READY: frozenset({Phase.UP, Phase.LEASED, Phase.DRAINING}) | _CLOSED,
    Phase.DRAINING: frozenset({Phase.UP, Phase.LEAVING}) | _CLOSED,
    Phase.LEAVING: _CLOSED,
    Phase.OUT: frozenset({Phase.IDLE}),
}
WORKING = frozenset({Phase.LEASED, Phase.READY, Phase.DRAINING})  # hold a lease of ours
HEARING = WORKING | {Phase.UP, Phase.STANDBY, Phase.WAITING, Phase.LEAVING}  # must answer our pings
_TIMED = frozenset({Phase.UP, Phase.LEAVING})  # must do something by their deadline, besides
_SEATED = WORKING | {Phase.UP, Phase.STANDBY, Phase.WAITING}  # whose coming and going may move a seat


class Server(Worker, kw_only=True, eq=False):
    """One server. What belongs to a connection is reset by `Fleet.close` and `Fleet.retire`.

    One that `dials_in` has a boot id from the beginning, and comes again by itself.
    """

    endpoint: str
    name: str
    phase: Phase = Phase.IDLE
    deadline: float = inf  # IDLE: dial then; DIALING, UP, LEAVING: give up then
    backoff_s: float = 0.0
    peer: bytes = b""
    boot: bytes = b""
    lease: bytes = b""
    heard: float = 0.0
    pinged: float = 0.0
    ping: int = 0
    rtt_s: float = 0.0
    reads: list[tuple[bytes, int, int]] = field(default_factory=list)  # digest, offset and epoch of unanswered `get`
    has_joined: bool = False  # was ready in this connection
    ready_since: float = inf  # in this connection
    wants: bool = False  # was asked for a lease in this connection
    is_taken: bool = False  # somebody else holds it, or it will not have us
    asked: float = 0.0  # when it was greeted last
    told: str = ""  # the last that the user was told of whom it waits for
    dialled: float = -inf  # when, last
    has_answered: bool = False  # at any time
    is_listed: bool = False  # the user named it, or it is our child
    brought_by: str = ""  # endpoint of the server whose host it is on, when that one stands for the whole host
    left_with_host: bool = False  # OUT because the user does not want its host any more: it comes back with it
    twin: str = ""  # OUT because it is the same process as the server at this endpoint
    whole_host: bool = False  # stands for all servers of its host
    siblings: int = 0  # servers that it brought
    dials_in: bool = False
    number: int = 0  # the order in which servers were listed
    needs_seat: bool = True  # counts among those that may take part at most: neither our child nor one that dials in
    is_reported: bool = False  # the user was told that it does not answer
    trouble: str = ""  # why it takes no part now, as far as we know
    strikes: int = 0  # connections lost to misbehaviour
    verdict: Verdict | None = None

    def pop_read(self, what: tuple[bytes, int]) -> int:
        """An asset (digest, offset) was read: the epoch of the frame that it was for; -1 for none."""
        index = next((index for index, read in enumerate(self.reads) if read[:2] == what), None)
        return -1 if index is None else self.reads.pop(index)[2]

    def measure_pong(self, n: int, now: float) -> None:
        if n == self.ping:
            self.rtt_s = _smooth(self.rtt_s, now - self.pinged)


class Fleet:
    """All servers of a render, and the dice for routing ids and back-off."""

    def __init__(self, seed: bytes, timers: Timers) -> None:
        self.timers = timers
        self.servers: dict[str, Server] = {}  # by endpoint
        self.peers: dict[bytes, Server] = {}
        self.holders: dict[bytes, Server] = {}  # by boot: processes that worked for us, of each server the latest
        self.seen = 0  # processes that ever worked for us
        self.children: set[str] = set()  # endpoints of servers that we started ourselves
        self.phases: dict[Phase, dict[str, Server]] = {phase: {} for phase in Phase}  # who is in it, by endpoint
        self.seated = 0  # that hold a lease and need a seat for it
        self.seats_moved = False  # a seat may have been taken or left since somebody looked
        self.listens = False  # servers may dial in at any time
        self.patient = False  # more servers may be listed at any time
        self._dials = Alarms()  # and time-outs of dials: to the point
        self._pings = Alarms()  # of those that must answer us: may ring a little early
        self._seed = seed
        self._draws = 0

    def __iter__(self) -> Iterator[Server]:
        return iter(self.servers.values())

    def draw(self, size: int) -> bytes:
        """The next `size` bytes of chance, which is the seed's."""
        self._draws += 1
        return blake2b(self._draws.to_bytes(8, "little"), digest_size=size, key=self._seed[:64]).digest()

    @property
    def wake(self) -> float:
        """When the first timer runs out."""
        return min(self._dials.next(), self._pings.next())

    @property
    def working(self) -> int:
        """How many servers hold a lease of ours."""
        return sum(len(self.phases[phase]) for phase in WORKING)

    @property
    def taking_part(self) -> int:
        """How many servers are not OUT."""
        return len(self.servers) - len(self.phases[Phase.OUT])

    def ready(self) -> list[Server]:
        return list(self.phases[Phase.READY].values())

    def is_hopeless(self) -> bool:
        """Whether servers died, refused or failed, and none is left that could come."""
        if self.listens or self.patient or self.taking_part:
            return False
        return any(server.verdict is not Verdict.REMOVED for server in self)

    def add(self, endpoint: str, name: str) -> Server:
        """A new server, not dialled yet; or one that is OUT, which may take part again and keeps its numbers."""
        if server := self.servers.get(endpoint):
            self.move(server, Phase.IDLE)
            server.verdict, server.deadline, server.backoff_s, server.strikes = None, inf, 0.0, 0
            server.forget_failures()
            server.left_with_host, server.is_reported, server.twin, server.trouble = False, False, "", ""
            return server
        server = Server(endpoint=endpoint, name=name or endpoint, number=len(self.servers))
        server.needs_seat = endpoint not in self.children
        self.servers[endpoint] = self.phases[Phase.IDLE][endpoint] = server
        return server

    def dial(self, server: Server, now: float) -> None:
        self.move(server, Phase.DIALING)
        server.peer = PEER_PREFIX + self.draw(8)
        server.dialled = now
        server.deadline = now + self.timers.dial_s
        self.peers[server.peer] = server
        self.arm(server)

    def find_caller(self, boot: bytes) -> Server | None:
        """The server with this boot id among those that dial in, a new one if need be. None: there are too many."""
        endpoint = CALLER_PREFIX + boot.hex()
        if server := self.servers.get(endpoint):
            return server
        callers = [each for each in self if each.dials_in]
        if len(callers) >= MAX_CALLERS:
            gone = [each for each in callers if each.phase in _CLOSED]
            if not gone:
                return None
            self._delete(min(gone, key=lambda each: each.boot in self.holders))  # the first, if all have worked
        server = self.add(endpoint, "")
        server.dials_in, server.boot, server.needs_seat = True, boot, False
        return server

    def connect(self, server: Server, peer: bytes, now: float) -> None:
        """The server has dialled in with this routing id."""
        self.move(server, Phase.DIALING)
        server.peer = peer
        server.deadline = now + self.timers.dial_s
        self.peers[peer] = server
        self.arm(server)

    def hasten(self, server: Server, now: float) -> None:
        """The next dial need not wait for the back-off; but two dials never follow each other sooner than the first."""
        server.deadline = min(server.deadline, max(now, server.dialled + self.timers.backoff_first_s))
        self.arm(server)

    def find_twin(self, server: Server | None, boot: bytes) -> Server | None:
        """Another connection to the same process."""
        live = (other for other in self.peers.values() if other is not server)
        return next((other for other in live if other.boot == boot), None)

    def name_process(self, server: Server, boot: bytes) -> None:
        """Another process answers at the server's endpoint: the one before is history."""
        if server.boot == boot:
            return
        if self.holders.get(server.boot) is server:
            del self.holders[server.boot]
        server.boot = boot
        server.forget_failures()

    def grant(self, server: Server, lease: bytes, threads: int) -> None:
        """The server works for us now."""
        self.move(server, Phase.LEASED)
        server.lease, server.threads = lease, threads
        self.seen += server.boot not in self.holders
        self.holders[server.boot] = server

    def end_lease(self, server: Server) -> None:
        """The server is free for others; it stays connected."""
        self.move(server, Phase.UP)
        server.lease = b""
        self.arm(server)

    def greet(self, server: Server, now: float, *, wants: bool) -> None:
        """`hello` is on its way; `welcome` must follow. With `wants` it asks for a lease."""
        server.wants, server.is_taken = wants, wants and server.is_taken
        self.move(server, Phase.UP)
        server.deadline = now + self.timers.welcome_s
        server.heard = server.asked = now
        server.pinged = now - self.timers.ping_s  # the first ping is due at once, to measure the way
        server.lease = b""
        self.arm(server)

    def part(self, server: Server, now: float) -> None:
        """The server has drained and was let go: it will close the connection."""
        self.move(server, Phase.LEAVING)
        server.lease = b""
        server.deadline = now + self.timers.welcome_s
        self.arm(server)

    def start_ping(self, server: Server, now: float) -> int:
        """The number of a new ping."""
        server.ping += 1
        server.pinged = now
        self.arm(server)
        return server.ping

    def close(self, server: Server, now: float) -> None:
        """Forgets the connection; the server is dialled again after its back-off, with jitter of almost half of it."""
        timers = self.timers
        if now >= server.ready_since + timers.steady_s:
            server.backoff_s = 0.0
        self._forget(server)
        self.move(server, Phase.IDLE)
        if server.dials_in:
            server.deadline = inf
            return
        is_guess = not server.is_listed and not server.has_answered
        longest_s = timers.backoff_dead_s if is_guess else timers.backoff_last_s
        server.backoff_s = min(longest_s, max(timers.backoff_first_s, 2 * server.backoff_s))
        jitter = int.from_bytes(self.draw(4), "little") / (1 << 32)
        server.deadline = now + server.backoff_s * (0.5 + 0.45 * jitter)
        self.arm(server)

    def retire(self, server: Server, verdict: Verdict) -> None:
        """The server takes no part any more."""
        self._forget(server)
        self.move(server, Phase.OUT)
        server.verdict = verdict

    def move(self, server: Server, phase: Phase) -> None:
        if phase not in LEGAL_PHASES[server.phase]:
            raise Impossible(f"server {server.name}: illegal move from {server.phase.name} to {phase.name}")
        self.phases[phase][server.endpoint] = self.phases[server.phase].pop(server.endpoint)
        if server.needs_seat:
            self.seated += (phase in WORKING) - (server.phase in WORKING)
            self.seats_moved = self.seats_moved or server.phase in _SEATED or phase is Phase.STANDBY
        server.phase = phase

    def due(self, server: Server) -> float:
        """When a timer of this server runs out; inf when none runs."""
        timers = self.timers
        if server.phase is Phase.OUT:
            return inf
        if server.phase not in HEARING:
            return server.deadline
        beat = min(server.heard + timers.dead_s, server.pinged + timers.ping_s)
        return min(beat, server.deadline) if server.phase in _TIMED else beat

    def take_due(self, now: float) -> list[Server]:
        """The servers with a timer that has run out. The caller acts on each and then calls `arm`."""
        if now < self.wake:
            return []
        # A quarter of a ping early is on time: the pings of a thousand servers then share a few wake-ups a second.
        slack = self.timers.ping_s / 4
        due = []
        rung = dict.fromkeys([*self._dials.take(now), *self._pings.take(now + slack)])
        for server in [self.servers[endpoint] for endpoint in rung]:
            if self.due(server) <= now + (slack if server.phase in HEARING else 0.0):
                due.append(server)
            else:
                self.arm(server)
        return due

    def arm(self, server: Server) -> None:
        """Whatever has changed, we shall wake when its next timer runs out."""
        self._alarms(server).set(server.endpoint, self.due(server))

    def check(self) -> None:
        """Proves that routing ids, phases, leases and what servers hold agree. Raises Impossible."""
        for server in self:
            connected = server.phase not in _CLOSED
            if connected != (self.peers.get(server.peer) is server):
                raise Impossible(f"server {server.name} is {server.phase.name} and its routing id says otherwise")
            leased = server.phase in {Phase.LEASED, Phase.READY, Phase.DRAINING}
            if leased != bool(server.lease):
                raise Impossible(f"server {server.name} is {server.phase.name} with lease {server.lease.hex()!r}")
            if server.held and not leased:
                raise Impossible(f"server {server.name} is {server.phase.name} and holds {server.buckets_held()[:4]}")
            if len(server.running) > server.threads or (server.queued and len(server.running) < server.threads):
                raise Impossible(f"server {server.name}: {len(server.running)} run on {server.threads} threads")
            if server.alone and server.held > 1:
                raise Impossible(f"server {server.name}: a suspect is not alone")
            if self.due(server) < self._alarms(server).time_of(server.endpoint):
                raise Impossible(f"server {server.name}: a timer was not armed")
        if len(self.peers) != sum(server.phase not in _CLOSED for server in self):
            raise Impossible("a routing id belongs to no server")
        if any(server.phase is not phase for phase, servers in self.phases.items() for server in servers.values()):
            raise Impossible("a server is listed in another phase than its own")
        if len(self.servers) != sum(map(len, self.phases.values())):
            raise Impossible("a server is in no phase, or in two")

    def _forget(self, server: Server) -> None:
        if server.held:
            raise Impossible(f"server {server.name}: forgotten while it holds {server.buckets_held()[:4]}")
        self.peers.pop(server.peer, None)
        server.peer = server.lease = b""
        server.reads = []
        server.has_joined, server.ready_since = False, inf
        server.wants = server.is_taken = False
        server.told = ""

    def _delete(self, server: Server) -> None:
        self.name_process(server, b"")
        del self.servers[server.endpoint]
        del self.phases[server.phase][server.endpoint]
        self._dials.drop(server.endpoint)
        self._pings.drop(server.endpoint)

    def _alarms(self, server: Server) -> Alarms:
        return self._pings if server.phase in HEARING else self._dials


def _smooth(old: float, new: float) -> float:
    return old + SMOOTHING * (new - old) if old else new
