import os

import pytest

from dr.errors import BadInput
from workers.numa.pin import pin_process
from workers.numa.topology import Node, Topology, read_topology, usable_cpus


def sysfs(folder, **nodes):
    for name, cpus in nodes.items():
        path = folder / "devices/system/node" / name
        path.mkdir(parents=True)
        (path / "cpulist").write_text(cpus + "\n")
    return folder


def test_nodes_come_in_order_with_the_cpus_that_may_be_used(tmp_path):
    root = sysfs(tmp_path, node10="8-9", node2="4-7", node0="0-3")
    usable = frozenset({0, 1, 3, 5, 8, 9})
    assert read_topology(root, usable) == Topology((Node(0, (0, 1, 3)), Node(2, (5,)), Node(10, (8, 9))))


def test_a_node_without_a_usable_cpu_is_left_out(tmp_path):
    root = sysfs(tmp_path, node0="0-1", node1="2-3", node2="")
    assert read_topology(root, frozenset({2, 3})).nodes == (Node(1, (2, 3)),)


@pytest.mark.parametrize("nodes", [{}, {"node0": "0-1"}])
def test_without_complete_information_it_is_one_node(tmp_path, nodes):
    assert read_topology(sysfs(tmp_path, **nodes), frozenset(range(4))).nodes == (Node(0, (0, 1, 2, 3)),)


def test_this_host_has_the_cpus_that_this_process_may_use():
    assert frozenset(read_topology().cpus) == usable_cpus()


def test_a_process_is_pinned_and_refuses_strange_cpus():
    before = os.sched_getaffinity(0)
    try:
        pin_process([min(before)])
        assert os.sched_getaffinity(0) == {min(before)}
        with pytest.raises(BadInput, match="found 99999"):
            pin_process([99999])
    finally:
        os.sched_setaffinity(0, before)
