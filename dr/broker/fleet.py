"""What the client knows of each server: connection, lease, timers, what it holds and how fast it is.

Knows no bucket's pixels and no socket. A server's life is a table of legal phases:
IDLE -> DIALING -> UP (greeted) -> WAITING (for its lease) -> LEASED -> READY, and IDLE again when the connection goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from hashlib import blake2b
from math import inf

from msgspec import Struct, field

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
    race_s: float = 0.05  # between two looks for races


class Phase(Enum):
    IDLE = "not connected"
    DIALING = "connecting"
    UP = "greeted"
    WAITING = "waiting"
    LEASED = "preparing"
    READY = "rendering"
    DRAINING = "draining"  # finishes what it renders and takes nothing new
    OUT = "out"  # takes no part in this render any more


class Verdict(Enum):
    """Why a server is OUT."""

    REMOVED = "removed"
    DIED = "died"
    REFUSED = "refused"
    UNFIT = "unfit"  # cannot render this frame, or breaks the protocol again and again


_CLOSED = frozenset({Phase.IDLE, Phase.OUT})
LEGAL_PHASES: Mapping[Phase, frozenset[Phase]] = {
    Phase.IDLE: frozenset({Phase.DIALING, Phase.OUT}),
    Phase.DIALING: frozenset({Phase.UP}) | _CLOSED,
    Phase.UP: frozenset({Phase.WAITING}) | _CLOSED,
    Phase.WAITING: frozenset({Phase.LEASED}) | _CLOSED,
    Phase.LEASED: frozenset({Phase.UP, Phase.READY, Phase.DRAINING}) | _CLOSED,
    Phase.READY: frozenset({Phase.UP, Phase.DRAINING}) | _CLOSED,
    Phase.DRAINING: frozenset({Phase.UP}) | _CLOSED,
    Phase.OUT: frozenset(),
}
HEARING = frozenset({Phase.UP, Phase.WAITING, Phase.LEASED, Phase.READY, Phase.DRAINING})  # must answer our pings


class Server(Struct, kw_only=True, eq=False):
    """One server. What belongs to a connection is reset by `Fleet.close`.

    One that `dials_in` has a boot id from the beginning, and comes again by itself.
    """

    endpoint: str
    name: str
    phase: Phase = Phase.IDLE
    deadline: float = inf  # IDLE: dial then; DIALING, UP: give up then
    backoff_s: float = 0.0
    peer: bytes = b""
    boot: bytes = b""
    lease: bytes = b""
    threads: int = 0
    heard: float = 0.0
    pinged: float = 0.0
    ping: int = 0
    rtt_s: float = 0.0
    running: dict[int, float] = field(default_factory=dict)  # bucket to the time when we think it began
    queued: dict[int, None] = field(default_factory=dict)  # buckets in the order of sending
    alone: bool = False  # holds a suspect
    reads: int = 0  # assets asked for and not answered yet
    has_joined: bool = False  # was ready in this connection
    whole_host: bool = False  # stands for all servers of its host
    siblings: int = 0  # servers that it brought
    dials_in: bool = False
    is_reported: bool = False  # the user was told that it does not answer
    strikes: int = 0  # connections lost to misbehaviour
    verdict: Verdict | None = None
    buckets: int = 0  # tiles that counted
    seconds: float = 0.0  # of render threads, for those
    bucket_s: float = 0.0  # smoothed; 0: not known

    @property
    def held(self) -> int:
        return len(self.running) + len(self.queued)

    @property
    def idle_threads(self) -> int:
        """How many threads have nothing to do and may be given something."""
        return 0 if self.alone else self.threads - len(self.running)

    def holds(self, bucket: int) -> bool:
        return bucket in self.running or bucket in self.queued

    def buckets_held(self) -> list[int]:
        """In the order of sending, as far as we know."""
        return [*self.running, *self.queued]

    def take(self, bucket: int, now: float) -> None:
        if len(self.running) < self.threads:
            self.running[bucket] = now
        else:
            self.queued[bucket] = None

    def let_go(self, bucket: int, now: float) -> None:
        """The server does not hold the bucket any more; the next of its queue begins now."""
        self.alone = False  # a suspect was all that it held
        if bucket in self.queued:
            del self.queued[bucket]
            return
        del self.running[bucket]
        if self.queued:
            first = next(iter(self.queued))
            del self.queued[first]
            self.running[first] = now

    def measure_tile(self, seconds: float) -> None:
        self.buckets += 1
        self.seconds += seconds
        self.bucket_s = _smooth(self.bucket_s, seconds)

    def measure_pong(self, n: int, now: float) -> None:
        if n == self.ping:
            self.rtt_s = _smooth(self.rtt_s, now - self.pinged)


class Fleet:
    """All servers of a render, and the dice for routing ids and back-off."""

    def __init__(self, seed: bytes, timers: Timers) -> None:
        self.timers = timers
        self.servers: dict[str, Server] = {}  # by endpoint
        self.peers: dict[bytes, Server] = {}
        self.holders: dict[bytes, Server] = {}  # by boot, every process that ever worked for us
        self.wake = inf  # no timer is due before
        self.listens = False  # servers may dial in at any time
        self._seed = seed
        self._draws = 0

    def __iter__(self) -> Iterator[Server]:
        return iter(self.servers.values())

    def draw(self, size: int) -> bytes:
        """The next `size` bytes of chance, which is the seed's."""
        self._draws += 1
        return blake2b(self._draws.to_bytes(8, "little"), digest_size=size, key=self._seed[:64]).digest()

    def ready(self) -> list[Server]:
        return [server for server in self if server.phase is Phase.READY]

    def is_hopeless(self) -> bool:
        """Whether servers died, refused or failed, and none is left that could come."""
        if self.listens or any(server.verdict is None for server in self):
            return False
        return any(server.verdict is not Verdict.REMOVED for server in self)

    def add(self, endpoint: str, name: str) -> Server:
        """A new server, not dialled yet; takes the place of one that is OUT."""
        server = self.servers[endpoint] = Server(endpoint=endpoint, name=name or endpoint)
        return server

    def dial(self, server: Server, now: float) -> None:
        self.move(server, Phase.DIALING)
        server.peer = PEER_PREFIX + self.draw(8)
        server.deadline = now + self.timers.dial_s
        self.peers[server.peer] = server
        self._arm(server)

    def find_caller(self, boot: bytes) -> Server | None:
        """The server with this boot id among those that dial in, a new one if need be. None: there are too many."""
        endpoint = CALLER_PREFIX + boot.hex()
        if server := self.servers.get(endpoint):
            return server
        callers = [each for each in self if each.dials_in]
        if len(callers) >= MAX_CALLERS:
            idle = next((each for each in callers if each.phase in _CLOSED and each.boot not in self.holders), None)
            if not idle:
                return None
            del self.servers[idle.endpoint]
        server = self.add(endpoint, "")
        server.dials_in, server.boot, server.deadline = True, boot, inf
        return server

    def connect(self, server: Server, peer: bytes, now: float) -> None:
        """The server has dialled in with this routing id."""
        self.move(server, Phase.DIALING)
        server.peer = peer
        server.deadline = now + self.timers.dial_s
        self.peers[peer] = server
        self._arm(server)

    def find_twin(self, server: Server | None, boot: bytes) -> Server | None:
        """Another connection to the same process."""
        live = (other for other in self.peers.values() if other is not server)
        return next((other for other in live if other.boot == boot), None)

    def grant(self, server: Server, lease: bytes, threads: int) -> None:
        """The server works for us now."""
        self.move(server, Phase.LEASED)
        server.lease, server.threads, server.backoff_s = lease, threads, 0.0
        self.holders[server.boot] = server

    def end_lease(self, server: Server) -> None:
        """The server is free for others; it stays connected."""
        self.move(server, Phase.UP)
        server.lease = b""
        self._arm(server)

    def greet(self, server: Server, now: float) -> None:
        """`hello` is on its way; `welcome` must follow."""
        self.move(server, Phase.UP)
        server.deadline = now + self.timers.welcome_s
        server.heard = now
        server.pinged = now - self.timers.ping_s  # the first ping is due at once, to measure the way
        server.lease = b""
        self._arm(server)

    def start_ping(self, server: Server, now: float) -> int:
        """The number of a new ping."""
        server.ping += 1
        server.pinged = now
        self._arm(server)
        return server.ping

    def close(self, server: Server, now: float) -> None:
        """Forgets the connection; the server is dialled again after its back-off, with jitter of half of it."""
        self._forget(server)
        self.move(server, Phase.IDLE)
        if server.dials_in:
            server.deadline = inf
            return
        timers = self.timers
        server.backoff_s = min(timers.backoff_last_s, max(timers.backoff_first_s, 2 * server.backoff_s))
        jitter = int.from_bytes(self.draw(4), "little") / (1 << 32)
        server.deadline = now + server.backoff_s * (0.5 + 0.5 * jitter)
        self._arm(server)

    def retire(self, server: Server, verdict: Verdict) -> None:
        """The server takes no part any more."""
        self._forget(server)
        self.move(server, Phase.OUT)
        server.verdict = verdict

    def move(self, server: Server, phase: Phase) -> None:
        if phase not in LEGAL_PHASES[server.phase]:
            raise Impossible(f"server {server.name}: illegal move from {server.phase.name} to {phase.name}")
        server.phase = phase

    def due(self, server: Server) -> float:
        """When a timer of this server runs out; inf when none runs."""
        timers = self.timers
        if server.phase is Phase.OUT:
            return inf
        if server.phase not in HEARING:
            return server.deadline
        beat = min(server.heard + timers.dead_s, server.pinged + timers.ping_s)
        return min(beat, server.deadline) if server.phase is Phase.UP else beat

    def take_due(self, now: float) -> list[Server]:
        """The servers with a timer that has run out. The caller acts on each, then calls `rest`."""
        if now < self.wake:
            return []
        # A quarter of a ping early is on time: the pings of a thousand servers then share a few wake-ups a second.
        slack = self.timers.ping_s / 4
        return [server for server in self if self.due(server) <= now + (slack if server.phase in HEARING else 0.0)]

    def rest(self) -> None:
        """Sleeps until the next timer."""
        self.wake = min((self.due(server) for server in self), default=inf)

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
            if self.due(server) < self.wake:
                raise Impossible(f"server {server.name}: a timer was not armed")
        if len(self.peers) != sum(server.phase not in _CLOSED for server in self):
            raise Impossible("a routing id belongs to no server")

    def _forget(self, server: Server) -> None:
        if server.held:
            raise Impossible(f"server {server.name}: forgotten while it holds {server.buckets_held()[:4]}")
        self.peers.pop(server.peer, None)
        server.peer = server.lease = b""
        server.reads = 0
        server.has_joined = False

    def _arm(self, server: Server) -> None:
        self.wake = min(self.wake, self.due(server))


def _smooth(old: float, new: float) -> float:
    return old + SMOOTHING * (new - old) if old else new
