"""Decides which servers a host gets: their nodes, CPUs and ports. Knows a topology and options, no system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, TypeVar

from msgspec import Struct

from dr.errors import BadInput
from dr.protocol.messages import EngineKind
from dr.settings import DEFAULT_ANNOUNCE_PORT, DEFAULT_PORT, DEFAULT_RT_PORT
from workers.numa.ranges import format_ranges
from workers.numa.topology import Node, Topology

LAST_PORT = 65535
FIRST_OPEN_PORT = 1024  # those below are for the system's own services
MAX_SERVERS = 1024  # of one host: so many ports fit into `welcome`
BASE_PORTS = {EngineKind.PRODUCTION: DEFAULT_PORT, EngineKind.RT: DEFAULT_RT_PORT}

Item = TypeVar("Item")
Share = tuple[tuple[Node, ...], tuple[int, ...]]  # what one server gets: nodes in the user's order, CPUs


class PlanOptions(Struct, frozen=True, kw_only=True):
    """What the user asks of `dr spawner`, as numbers."""

    numa: int | None = None  # servers; 0: one per node; None: not given
    nodes: tuple[int, ...] | None = None  # in the user's order; None: not given
    ports: tuple[int, ...] = ()
    per_node: int | None = None  # servers on each node; None: not given
    engine: EngineKind = EngineKind.PRODUCTION
    announce: int = DEFAULT_ANNOUNCE_PORT  # wanted for announcements


class Placement(Struct, frozen=True, kw_only=True):
    """One server and its place."""

    nodes: tuple[int, ...]
    cpus: tuple[int, ...]  # ascending
    memory_nodes: tuple[int, ...]  # where its memory shall lie; none: nobody can tell
    port: int
    engine: EngineKind = EngineKind.PRODUCTION


class Plan(Struct, frozen=True, kw_only=True):
    servers: tuple[Placement, ...]
    announce: int  # port for announcements
    notices: tuple[str, ...] = ()  # lines for people: what may surprise them


def make_plan(topology: Topology, options: PlanOptions) -> Plan:
    """The servers in the order of nodes and ports. Raises BadInput that begins with the option as users write it."""
    nodes = _select_nodes(topology, options.nodes)
    shares = _share_nodes(nodes, options)
    ports = _choose_ports(options, len(shares))
    servers = tuple(
        Placement(
            nodes=tuple(node.id for node in used),
            cpus=cpus,
            memory_nodes=_choose_memory(topology, used),
            port=port,
            engine=options.engine,
        )
        for (used, cpus), port in zip(shares, ports, strict=True)
    )
    notices = filter(None, (topology.notice, *_surprises(nodes, options, len(servers))))
    return Plan(servers=servers, announce=_choose_announce(options.announce, ports), notices=tuple(notices))


def plan_facts(plan: Plan) -> dict[str, Any]:
    """What `dr spawner --plan --json` prints."""
    facts = [{"nodes": [*s.nodes], "cpus": [*s.cpus], "port": s.port, "engine": s.engine.value} for s in plan.servers]
    return {"servers": facts, "announce": plan.announce}


def deal(items: Sequence[Item], count: int) -> list[tuple[Item, ...]]:
    """`count` consecutive runs: their sizes differ by at most one, larger ones first, empty ones last."""
    size, larger = divmod(len(items), count)
    ends = accumulate((size + (i < larger) for i in range(count)), initial=0)
    return [tuple(items[begin:end]) for begin, end in pairwise(ends)]


def _select_nodes(topology: Topology, wanted: tuple[int, ...] | None) -> tuple[Node, ...]:
    if wanted is None:
        return topology.nodes
    usable = {node.id: node for node in topology.nodes}
    if not wanted:
        raise BadInput("-node: expected nodes such as 0-3,8, found none")
    for node in wanted:
        if node not in usable and node in topology.memory:
            raise BadInput(f"-node={node}: this node has no CPU that may be used here; {_those(usable)} have")
        if node not in usable:
            raise BadInput(f"-node={node}: this host has {_those(usable)}")
    _refuse_repeats("-node", wanted)
    return tuple(usable[node] for node in wanted)


def _share_nodes(nodes: tuple[Node, ...], options: PlanOptions) -> list[Share]:
    processes = _count_processes(len(nodes), options)
    count = processes if options.per_node is None else len(nodes) * options.per_node
    if count > MAX_SERVERS:
        option = "-numa" if options.per_node is None else f"--per-node={options.per_node}"
        raise BadInput(f"{option}: expected at most {MAX_SERVERS} servers on a host, found {count}")
    if options.per_node is None:
        return [(used, tuple(sorted({cpu for node in used for cpu in node.cpus}))) for used in deal(nodes, processes)]
    return [((node,), cpus) for node in nodes for cpus in _divide_node(node, options.per_node)]


def _count_processes(nodes: int, options: PlanOptions) -> int:
    """How many groups of nodes there shall be, each for one server or, with --per-node, for several."""
    numa, per_node = options.numa, options.per_node
    if numa is not None and numa < 0:
        raise BadInput(f"-numa={numa}: expected 0 (one server per node) or how many servers")
    if per_node is not None and per_node < 1:
        raise BadInput(f"--per-node={per_node}: expected 1 or more servers on each node")
    if per_node is not None and 0 < (numa or 0) < nodes:
        clash = f"-numa={numa}, which puts several of the {nodes} nodes into one server"
        raise BadInput(f"--per-node={per_node}: expected without {clash}; leave one of them out")
    if (numa, options.nodes, per_node) == (None, None, None):
        return 1
    return min(numa or nodes, nodes)


def _divide_node(node: Node, count: int) -> list[tuple[int, ...]]:
    """A core stays whole while there are enough of them, then a CPU, then servers share CPUs."""
    cpus = tuple(cpu for core in node.cores for cpu in core)
    if count <= len(node.cores):
        runs = deal(node.cores, count)
        return [tuple(sorted(cpu for core in run for cpu in core)) for run in runs]
    if count <= len(cpus):
        return [tuple(sorted(run)) for run in deal(cpus, count)]
    return [(cpus[i % len(cpus)],) for i in range(count)]


def _choose_ports(options: PlanOptions, count: int) -> tuple[int, ...]:
    for port in options.ports:
        if not 1 <= port <= LAST_PORT:
            raise BadInput(f"-port={port}: expected a port from 1 to {LAST_PORT}")
    _refuse_repeats("-port", options.ports)
    named = options.ports or (BASE_PORTS[options.engine],)
    owned = frozenset(named)
    free = (port for port in range(named[-1] + 1, named[-1] + 1 + count + len(named)) if port not in owned)
    ports = (*named, *free)[:count]
    if max(ports) > LAST_PORT:
        raise BadInput(f"-port={named[-1]}: {count} servers would need ports beyond {LAST_PORT}; choose a lower one")
    return ports


def _choose_announce(wanted: int, ports: tuple[int, ...]) -> int:
    """The wanted port, unless a server owns it: then the next after the last server's, beyond the end the lowest."""
    after = chain([wanted], range(ports[-1] + 1, LAST_PORT + 1), range(FIRST_OPEN_PORT, LAST_PORT + 1))
    return next(port for port in after if port not in ports)


def _choose_memory(topology: Topology, used: tuple[Node, ...]) -> tuple[int, ...]:
    """Nodes of the server that have memory, or the nearest one of the host that has."""
    if not topology.known:
        return ()
    if own := tuple(node.id for node in used if node.memory_bytes != 0):
        return own
    far = [
        (distance, other) for node in used for other, distance in node.distances.items() if topology.memory.get(other)
    ]
    return (min(far)[1],) if far else ()


def _surprises(nodes: tuple[Node, ...], options: PlanOptions, count: int) -> list[str]:
    """What the user asked for and does not get in full."""
    lines = []
    if options.per_node is None and (options.numa or 0) > len(nodes):
        lines.append(f"-numa={options.numa}: one server per node, {count} in all; for more: --per-node")
    crowded = [node.id for node in nodes if (options.per_node or 0) > len(node.cpus)]
    if crowded:
        lines.append(f"--per-node={options.per_node}: more servers than CPUs on {_those(crowded)}: they share CPUs")
    if spare := options.ports[count:]:
        lines.append(f"-port={format_ranges(spare)}: more ports than servers: not used")
    return lines


def _those(ids: Sequence[int] | dict[int, Node]) -> str:
    return f"node{'s' if len(ids) > 1 else ''} {format_ranges(ids)}"


def _refuse_repeats(option: str, numbers: tuple[int, ...]) -> None:
    for number, times in Counter(numbers).items():
        if times > 1:
            raise BadInput(f"{option}={number}: expected once, found it named {times} times")
