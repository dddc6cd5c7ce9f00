"""Who a render server is, and how it says so. Knows no lease: who holds the server comes in as plain values."""

from __future__ import annotations

from msgspec import Struct

from dr.protocol.messages import Availability, Boot, EngineKind, ServerStatus, Welcome
from dr.protocol.version import PROTOCOL_VERSION


class Identity(Struct, frozen=True, kw_only=True):
    """What does not change while the process lives."""

    name: str
    boot: Boot
    kernels: str
    threads: int
    cpu: str = ""
    release: str = ""  # of the program
    engine: EngineKind = EngineKind.PRODUCTION
    nodes: tuple[int, ...] = ()  # NUMA nodes that it is bound to
    announce: int = 0  # port of this host's announcements; 0: there are none
    siblings: tuple[int, ...] = ()  # ports of the other servers of the same spawner
    supervised: bool = False  # a parent hears our reports and starts us again
    guard: str = ""  # of its port, see dr.keys.security.Guard; none: a private Unix socket

    def welcome(self, holder: str, queue_pos: int, threads: int) -> Welcome:
        """`holder`: the name of another client that holds this server, or nothing; `threads`: those that can render."""
        return Welcome(
            version=PROTOCOL_VERSION,
            kernels=self.kernels,
            boot=self.boot,
            name=self.name,
            threads=max(1, threads),  # who has none refuses with the next word
            cpu=self.cpu,
            busy=bool(holder),
            holder=holder,
            queue_pos=queue_pos,
            announce=self.announce,
            siblings=list(self.siblings),
        )

    def status(self, state: Availability, holder: str) -> ServerStatus:
        """Without what is counted and measured."""
        return ServerStatus(
            state=state,
            holder=holder,
            engine=self.engine,
            nodes=list(self.nodes),
            release=self.release,
            guard=self.guard,
        )
