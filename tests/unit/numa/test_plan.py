import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.errors import BadInput
from dr.protocol.messages import EngineKind
from dr.settings import DEFAULT_ANNOUNCE_PORT
from tests.support.sysfs import write_cores, write_even_host, write_host
from workers.numa.plan import MAX_SERVERS, Placement, Plan, PlanOptions, deal, make_plan, plan_facts
from workers.numa.topology import Node, Topology, read_topology

# The documented examples, on a host with 8 nodes: command, what it means, nodes, ports.
EXAMPLES = [
    (
        "dr spawner -numa",
        PlanOptions(numa=0),
        [(0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,)],
        [20204, 20205, 20206, 20207, 20208, 20209, 20210, 20211],
    ),
    (
        "dr spawner -numa=4",
        PlanOptions(numa=4),
        [(0, 1), (2, 3), (4, 5), (6, 7)],
        [20204, 20205, 20206, 20207],
    ),
    (
        "dr spawner -node=3,5,6 -ports=30000,40000",
        PlanOptions(nodes=(3, 5, 6), ports=(30000, 40000)),
        [(3,), (5,), (6,)],
        [30000, 40000, 40001],
    ),
    (
        "dr spawner -node=2,3,4,5,6 -numa=3",
        PlanOptions(nodes=(2, 3, 4, 5, 6), numa=3),
        [(2, 3), (4, 5), (6,)],
        [20204, 20205, 20206],
    ),
    ("dr spawner", PlanOptions(), [(0, 1, 2, 3, 4, 5, 6, 7)], [20204]),
    ("dr spawner -numa=0", PlanOptions(numa=0), [(i,) for i in range(8)], list(range(20204, 20212))),
    ("dr spawner -numa=99", PlanOptions(numa=99), [(i,) for i in range(8)], list(range(20204, 20212))),
    ("dr spawner -numa=1", PlanOptions(numa=1), [(0, 1, 2, 3, 4, 5, 6, 7)], [20204]),
    ("dr spawner -node=6,2", PlanOptions(nodes=(6, 2)), [(6,), (2,)], [20204, 20205]),
    ("dr spawner -node=6,2 -numa=1", PlanOptions(nodes=(6, 2), numa=1), [(6, 2)], [20204]),
    (
        "dr spawner -node=0,1,2 -port=30001,30000",
        PlanOptions(nodes=(0, 1, 2), ports=(30001, 30000)),
        [(0,), (1,), (2,)],
        [30001, 30000, 30002],  # 30001 is named already
    ),
    ("dr spawner -node=5 -port=65535", PlanOptions(nodes=(5,), ports=(65535,)), [(5,)], [65535]),
    (
        "dr spawner -node=4,5 --per-node 2",
        PlanOptions(nodes=(4, 5), per_node=2),
        [(4,), (4,), (5,), (5,)],
        [20204, 20205, 20206, 20207],
    ),
    (
        "dr spawner -engine=rt -node=0-1",
        PlanOptions(nodes=(0, 1), engine=EngineKind.RT),
        [(0,), (1,)],
        [20206, 20207],
    ),
]

REFUSALS = [
    ("-node=9: this host has nodes 0-7", PlanOptions(nodes=(3, 9))),
    ("-node=3: expected once, found it named 2 times", PlanOptions(nodes=(3, 4, 3))),
    ("-node=0: expected once, found it named 2 times", PlanOptions(nodes=(0, 0))),
    ("-node: expected nodes such as 0-3,8, found none", PlanOptions(nodes=())),
    ("-numa=-1: expected 0 (one server per node) or how many servers", PlanOptions(numa=-1)),
    ("-port=70000: expected a port from 1 to 65535", PlanOptions(ports=(30000, 70000))),
    ("-port=0: expected a port from 1 to 65535", PlanOptions(ports=(0,))),
    ("-port=30000: expected once, found it named 3 times", PlanOptions(ports=(30000, 1, 30000, 30000))),
    (
        "-port=65529: 8 servers would need ports beyond 65535; choose a lower one",
        PlanOptions(numa=0, ports=(65529,)),
    ),
    ("--per-node=0: expected 1 or more servers on each node", PlanOptions(per_node=0)),
    (
        "--per-node=2: expected without -numa=3, which puts several of the 8 nodes into one server; "
        "leave one of them out",
        PlanOptions(per_node=2, numa=3),
    ),
    ("--per-node=129: expected at most 1024 servers on a host, found 1032", PlanOptions(per_node=129)),
    (
        f"--per-node={10**30}: expected at most 1024 servers on a host, found {8 * 10**30}",
        PlanOptions(per_node=10**30),
    ),
]


@pytest.fixture(scope="module")
def eight_nodes(tmp_path_factory: pytest.TempPathFactory) -> Topology:
    return read_topology(write_even_host(tmp_path_factory.mktemp("sys"), nodes=8, cpus_each=4))


@pytest.mark.parametrize(("command", "options", "nodes", "ports"), EXAMPLES, ids=[example[0] for example in EXAMPLES])
def test_an_example_gives_what_is_documented(
    eight_nodes: Topology, command: str, options: PlanOptions, nodes: list[tuple[int, ...]], ports: list[int]
) -> None:
    servers = make_plan(eight_nodes, options).servers
    assert [server.nodes for server in servers] == nodes, command
    assert [server.port for server in servers] == ports, command
    assert {server.engine for server in servers} == {options.engine}


@pytest.mark.parametrize(("text", "options"), REFUSALS, ids=[refusal[0] for refusal in REFUSALS])
def test_a_refusal_names_the_option(eight_nodes: Topology, text: str, options: PlanOptions) -> None:
    with pytest.raises(BadInput) as caught:
        make_plan(eight_nodes, options)
    assert str(caught.value) == text


def test_the_facts_of_a_plan_are_those_that_scripts_read(eight_nodes: Topology) -> None:
    plan = make_plan(eight_nodes, PlanOptions(nodes=(2, 3, 4, 5, 6), numa=3))
    assert plan_facts(plan) == {
        "servers": [
            {"nodes": [2, 3], "cpus": [8, 9, 10, 11, 12, 13, 14, 15], "port": 20204, "engine": "production"},
            {"nodes": [4, 5], "cpus": [16, 17, 18, 19, 20, 21, 22, 23], "port": 20205, "engine": "production"},
            {"nodes": [6], "cpus": [24, 25, 26, 27], "port": 20206, "engine": "production"},
        ],
        "announce": 20207,
    }


@pytest.mark.parametrize(
    ("ports", "wanted", "announce"),
    [
        ((20204,), 20205, 20205),
        ((20205,), 20205, 20206),
        ((20205, 20206), 20205, 20207),
        ((20206, 20205), 20205, 20207),  # the next one is a server's
        ((20205, 40000), 20205, 40001),
        ((40000, 20205), 20205, 20206),  # the last server's is not the largest
        ((20205, 65535), 20205, 1024),  # beyond the last port the lowest open one
        ((1024, 1025, 20205, 65535), 20205, 1026),
        ((20204,), 30000, 30000),
        ((30000,), 30000, 30001),
    ],
)
def test_announcements_go_to_a_port_that_no_server_owns(ports: tuple[int, ...], wanted: int, announce: int) -> None:
    host = simple_host(len(ports))
    assert make_plan(host, PlanOptions(numa=0, ports=ports, announce=wanted)).announce == announce


def test_a_node_without_a_usable_cpu_is_refused_for_that_reason() -> None:
    host = Topology((Node(0, ((0,),)), Node(2, ((2,),))), memory={0: 1, 1: 1, 2: 1})
    with pytest.raises(BadInput, match=r"^-node=1: this node has no CPU that may be used here; nodes 0,2 have$"):
        make_plan(host, PlanOptions(nodes=(1,)))
    with pytest.raises(BadInput, match=r"^-node=3: this host has nodes 0,2$"):
        make_plan(host, PlanOptions(nodes=(3,)))


@pytest.mark.parametrize(
    ("options", "notice"),
    [
        (PlanOptions(numa=9), "-numa=9: one server per node, 8 in all; for more: --per-node"),
        (PlanOptions(ports=(1, 7, 8, 20)), "-port=7-8,20: more ports than servers: not used"),
        (PlanOptions(nodes=(1, 2), per_node=5), "--per-node=5: more servers than CPUs on nodes 1-2: they share CPUs"),
    ],
)
def test_what_may_surprise_is_said(eight_nodes: Topology, options: PlanOptions, notice: str) -> None:
    assert make_plan(eight_nodes, options).notices == (notice,)


def test_a_plain_plan_has_no_notice(eight_nodes: Topology) -> None:
    assert make_plan(eight_nodes, PlanOptions(numa=8, per_node=2, ports=(30000,))).notices == ()


def test_the_notice_of_the_host_is_passed_on_and_its_memory_left_alone() -> None:
    host = Topology((Node(0, ((0,), (1,))),), "nobody knows", known=False)
    server = Placement(nodes=(0,), cpus=(0, 1), memory_nodes=(), port=20204)
    assert make_plan(host, PlanOptions()) == Plan(servers=(server,), announce=20205, notices=("nobody knows",))


@pytest.mark.parametrize(
    ("memory", "options", "expected"),
    [
        ([8, 8, 8], PlanOptions(), [(0, 1, 2)]),
        ([8, 0, 8], PlanOptions(), [(0, 2)]),
        ([8, 0, 8], PlanOptions(numa=0), [(0,), (2,), (2,)]),  # node 2 is nearer to 1 than 0 is
        ([8, 0, 0], PlanOptions(numa=0), [(0,), (0,), (0,)]),
        ([0, 0, 0], PlanOptions(numa=0), [(), (), ()]),
        ([None, None, None], PlanOptions(numa=2), [(0, 1), (2,)]),
    ],
)
def test_memory_lies_near(memory: list[int | None], options: PlanOptions, expected: list[tuple[int, ...]]) -> None:
    rows = [{0: 10, 1: 30, 2: 40}, {0: 30, 1: 10, 2: 20}, {0: 40, 1: 20, 2: 10}]
    nodes = tuple(Node(i, ((i,),), memory[i], rows[i]) for i in range(3))
    plan = make_plan(Topology(nodes, memory=dict(enumerate(memory))), options)
    assert [server.memory_nodes for server in plan.servers] == expected


def test_memory_may_come_from_a_node_without_cpus(tmp_path: Path) -> None:
    write_host(tmp_path, {0: "0", 1: ""}, memory_kb={0: 0, 1: 8})
    assert make_plan(read_topology(tmp_path), PlanOptions(numa=0)).servers[0].memory_nodes == (1,)


def test_nodes_that_share_cpus_are_one_set_of_cpus(tmp_path: Path) -> None:
    host = read_topology(write_host(tmp_path, {0: "0-1", 1: "0-1"}))
    assert [server.cpus for server in make_plan(host, PlanOptions()).servers] == [(0, 1)]
    assert [server.cpus for server in make_plan(host, PlanOptions(numa=0)).servers] == [(0, 1), (0, 1)]


@pytest.mark.parametrize(
    ("per_node", "cpus"),
    [
        (1, [(0, 1, 2, 3, 4, 5)]),
        (2, [(0, 1, 3, 4), (2, 5)]),  # cores (0, 3), (1, 4) and (2, 5)
        (3, [(0, 3), (1, 4), (2, 5)]),
        (4, [(0, 3), (1, 4), (2,), (5,)]),
        (6, [(0,), (3,), (1,), (4,), (2,), (5,)]),
        (7, [(0,), (3,), (1,), (4,), (2,), (5,), (0,)]),
    ],
)
def test_a_core_stays_whole_while_there_are_enough(tmp_path: Path, per_node: int, cpus: list[tuple[int, ...]]) -> None:
    host = read_topology(write_cores(write_host(tmp_path, {0: "0-5"}), ["0,3", "1,4", "2,5"]))
    plan = make_plan(host, PlanOptions(per_node=per_node))
    assert [server.cpus for server in plan.servers] == cpus
    assert bool(plan.notices) == (per_node == 7)


def simple_host(nodes: int) -> Topology:
    return Topology(tuple(Node(i, ((i,),)) for i in range(nodes)))


@st.composite
def hosts(draw: st.DrawFn) -> Topology:
    """Nodes with gaps in their numbers; CPUs dealt to them in any order, by cores of one to three threads."""
    ids = sorted(draw(st.sets(st.integers(0, 200), min_size=1, max_size=12)))
    threads = [draw(st.lists(st.integers(1, 3), min_size=1, max_size=6)) for _ in ids]  # of each core of each node
    cpus = iter(draw(st.permutations(range(sum(map(sum, threads))))))
    cores = [[tuple(sorted(itertools.islice(cpus, count))) for count in node] for node in threads]
    return Topology(tuple(Node(number, tuple(node)) for number, node in zip(ids, cores, strict=True)))


def falls_by_at_most_one(sizes: Sequence[int]) -> bool:
    return max(sizes) - min(sizes) <= 1 and list(sizes) == sorted(sizes, reverse=True)


@given(hosts(), st.data())
def test_every_selected_node_is_used_exactly_once(host: Topology, data: st.DataObject) -> None:
    ids = [node.id for node in host.nodes]
    wanted = data.draw(st.lists(st.sampled_from(ids), unique=True, min_size=1))
    numa = data.draw(st.integers(0, len(wanted) + 3))
    servers = make_plan(host, PlanOptions(nodes=tuple(wanted), numa=numa)).servers
    assert [node for server in servers for node in server.nodes] == wanted
    assert len(servers) == (numa if 0 < numa <= len(wanted) else len(wanted))
    assert falls_by_at_most_one([len(server.nodes) for server in servers])
    cpus = {node.id: set(node.cpus) for node in host.nodes}
    for server in servers:
        assert list(server.cpus) == sorted(set().union(*(cpus[node] for node in server.nodes)))


@given(hosts(), st.integers(1, 20))
def test_each_node_is_divided_whole(host: Topology, per_node: int) -> None:
    servers = make_plan(host, PlanOptions(per_node=per_node)).servers
    assert [server.nodes for server in servers] == [(node.id,) for node in host.nodes for _ in range(per_node)]
    for node in host.nodes:
        parts = [server.cpus for server in servers if server.nodes == (node.id,)]
        dealt = [cpu for part in parts for cpu in part]
        assert set(dealt) == set(node.cpus)
        if per_node > len(node.cpus):
            assert {len(part) for part in parts} == {1}
            continue
        assert len(dealt) == len(node.cpus)
        whole = [[core for core in node.cores if set(core) <= set(part)] for part in parts]
        if per_node <= len(node.cores):
            assert sum(map(len, whole)) == len(node.cores)
            assert falls_by_at_most_one([len(cores) for cores in whole])
        else:
            assert falls_by_at_most_one([len(part) for part in parts])


@given(st.integers(1, 40), st.lists(st.integers(1, 65535), unique=True, max_size=8), st.integers(1, 65535))
def test_ports_are_distinct_and_in_range(count: int, ports: list[int], announce: int) -> None:
    try:
        plan = make_plan(simple_host(count), PlanOptions(numa=0, ports=tuple(ports), announce=announce))
    except BadInput:
        assert ports
        assert len({*range(ports[-1], 65536), *ports}) < count
        return
    found = [server.port for server in plan.servers]
    assert len({*found, plan.announce}) == count + 1
    assert all(1 <= port <= 65535 for port in (*found, plan.announce))
    assert found[: len(ports)] == ports[:count]
    assert plan.announce == announce or announce in found


@given(st.lists(st.integers()), st.integers(1, 30))
def test_what_is_dealt_is_whole_and_even(items: list[int], count: int) -> None:
    runs = deal(items, count)
    assert [item for run in runs for item in run] == items
    assert len(runs) == count
    assert falls_by_at_most_one([len(run) for run in runs])


def test_the_announce_port_without_options_is_the_documented_one() -> None:
    assert make_plan(simple_host(1), PlanOptions()).announce == DEFAULT_ANNOUNCE_PORT


def test_as_many_servers_as_a_welcome_can_name_are_planned() -> None:
    assert len(make_plan(simple_host(1), PlanOptions(per_node=MAX_SERVERS)).servers) == MAX_SERVERS
