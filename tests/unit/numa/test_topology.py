import platform
import subprocess
import sys
from pathlib import Path

import pytest

from dr.errors import BadInput
from tests.support.sysfs import (
    CPUSET_FILES,
    write_caches,
    write_cores,
    write_cpuset,
    write_distances,
    write_even_host,
    write_host,
    write_memory,
    write_nodes,
    write_online,
)
from workers.numa import topology
from workers.numa.topology import Node, Topology, read_topology, usable_cpus


def cpus_of(found: Topology) -> dict[int, tuple[int, ...]]:
    return {node.id: node.cpus for node in found.nodes}


def test_a_host_is_read_whole(tmp_path: Path) -> None:
    write_host(tmp_path, {0: "0-1", 2: "2-3"}, memory_kb={2: 8})
    assert read_topology(tmp_path) == Topology(
        nodes=(
            Node(0, ((0,), (1,)), memory_bytes=64 << 30, distances={0: 10, 2: 21}),
            Node(2, ((2,), (3,)), memory_bytes=8192, distances={0: 21, 2: 10}),
        ),
        memory={0: 64 << 30, 2: 8192},
    )


def test_nodes_come_in_order_whatever_the_gaps(tmp_path: Path) -> None:
    write_nodes(tmp_path, {10: "8-9", 2: "4-7", 0: "0-3"})
    assert cpus_of(read_topology(tmp_path)) == {0: (0, 1, 2, 3), 2: (4, 5, 6, 7), 10: (8, 9)}


def test_what_else_lies_beside_the_nodes_is_no_node(tmp_path: Path) -> None:
    write_even_host(tmp_path, nodes=2, cpus_each=1)
    (tmp_path / "devices/system/node/node_power").mkdir()
    (tmp_path / "devices/system/node/online").write_text("0-1\n")
    assert cpus_of(read_topology(tmp_path)) == {0: (0,), 1: (1,)}


def test_offline_cpus_are_left_out(tmp_path: Path) -> None:
    write_online(write_even_host(tmp_path, nodes=2, cpus_each=4), "0-2,5,7")
    assert cpus_of(read_topology(tmp_path)) == {0: (0, 1, 2), 1: (5, 7)}


@pytest.mark.parametrize("version", CPUSET_FILES)
def test_a_cgroup_forbids_cpus(tmp_path: Path, version: str) -> None:
    write_cpuset(write_even_host(tmp_path, nodes=2, cpus_each=4), "1,6-7", version)
    assert cpus_of(read_topology(tmp_path)) == {0: (1,), 1: (6, 7)}


def test_an_empty_cgroup_list_forbids_nothing(tmp_path: Path) -> None:
    write_cpuset(write_even_host(tmp_path, nodes=1, cpus_each=2), "", "old v1")
    assert cpus_of(read_topology(tmp_path)) == {0: (0, 1)}


def test_given_cpus_narrow_a_foreign_host(tmp_path: Path) -> None:
    write_online(write_even_host(tmp_path, nodes=2, cpus_each=4), "0-5")
    assert cpus_of(read_topology(tmp_path, frozenset({1, 4, 7}))) == {0: (1,), 1: (4,)}


def test_a_node_without_a_usable_cpu_is_left_out_but_its_memory_is_known(tmp_path: Path) -> None:
    write_host(tmp_path, {0: "0-1", 1: "2-3", 2: ""}, memory_kb={0: 1, 1: 2, 2: 4})
    write_online(tmp_path, "2-3")
    found = read_topology(tmp_path)
    assert cpus_of(found) == {1: (2, 3)}
    assert found.memory == {0: 1024, 1: 2048, 2: 4096}


def test_nodes_may_share_cpus(tmp_path: Path) -> None:
    found = read_topology(write_host(tmp_path, {0: "0-1", 1: "0-1", 2: "1"}))
    assert cpus_of(found) == {0: (0, 1), 1: (0, 1), 2: (1,)}
    assert found.cpus == (0, 1)


def test_a_node_may_have_no_memory_and_another_not_say(tmp_path: Path) -> None:
    write_nodes(tmp_path, {0: "0", 1: "1"})
    write_memory(tmp_path, {0: 0})
    assert [node.memory_bytes for node in read_topology(tmp_path).nodes] == [0, None]


@pytest.mark.parametrize("name", ["thread_siblings_list", "core_cpus_list"])
def test_threads_of_a_core_stay_together(tmp_path: Path, name: str) -> None:
    write_cores(write_host(tmp_path, {0: "0-1,4-5", 1: "2-3,6-7"}), ["0,4", "1,5", "2,6", "3,7"], name)
    assert [node.cores for node in read_topology(tmp_path).nodes] == [((0, 4), (1, 5)), ((2, 6), (3, 7))]


def test_of_a_core_only_usable_threads_count(tmp_path: Path) -> None:
    write_cores(write_host(tmp_path, {0: "0-3"}), ["0,2", "1,3"])
    assert read_topology(tmp_path, frozenset({0, 1, 3})).nodes[0].cores == ((0,), (1, 3))


def test_a_cpu_is_in_one_core_whatever_the_lists_say(tmp_path: Path) -> None:
    write_cores(write_host(tmp_path, {0: "0-3"}), ["0-1", "1-2"])  # of CPU 1 both
    assert read_topology(tmp_path).nodes[0].cores == ((0, 1), (2,), (3,))


def test_cores_that_share_the_last_cache_are_side_by_side(tmp_path: Path) -> None:
    write_cores(write_host(tmp_path, {0: "0-7"}), ["0,4", "1,5", "2,6", "3,7"])
    write_caches(tmp_path, ["0,4", "1,5", "2,6", "3,7"], level=2)
    write_caches(tmp_path, ["0,2,4,6", "1,3,5,7"], level=3)
    assert read_topology(tmp_path).nodes[0].cores == ((0, 4), (2, 6), (1, 5), (3, 7))


@pytest.mark.parametrize("usable", [None, frozenset({0, 1, 2, 3})])
def test_without_nodes_it_is_one_node_and_that_is_said(tmp_path: Path, usable: frozenset[int] | None) -> None:
    write_cores(write_online(tmp_path, "0-3"), ["0-1", "2-3"])
    notice = f"{tmp_path} does not tell its NUMA nodes: one node with all CPUs"
    assert read_topology(tmp_path, usable) == Topology((Node(0, ((0, 1), (2, 3))),), notice, known=False)


def test_cpus_without_a_node_make_it_one_node(tmp_path: Path) -> None:
    found = read_topology(write_nodes(tmp_path, {0: "0-1", 1: "2"}), frozenset(range(6)))
    assert cpus_of(found) == {0: (0, 1, 2, 3, 4, 5)}
    assert found.notice == f"{tmp_path} tells no NUMA node of CPUs 3-5: one node with all CPUs"


def test_a_system_that_tells_no_nodes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "SYSFS", tmp_path)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    found = read_topology(tmp_path)
    assert frozenset(found.cpus) == usable_cpus()
    assert found.notice == "this system (Darwin) does not tell its NUMA nodes: one node with all CPUs"


def test_a_folder_that_is_no_sysfs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"^{tmp_path}: expected a folder that stands for /sys, found no "):
        read_topology(tmp_path)


def test_a_host_whose_cgroup_leaves_no_cpu_is_refused(tmp_path: Path) -> None:
    write_cpuset(write_even_host(tmp_path, nodes=1, cpus_each=2), "7")
    with pytest.raises(BadInput, match=f"^{tmp_path}: expected a CPU that is online and may be used, found none"):
        read_topology(tmp_path)


@pytest.mark.parametrize("text", ["zero", "3-1", "0-", "\udcff", "0\x1b1", "-1"])
@pytest.mark.parametrize(
    "name",
    [
        "devices/system/cpu/online",
        "devices/system/cpu/cpu1/topology/core_cpus_list",
        "devices/system/cpu/cpu1/cache/index2/shared_cpu_list",
        "devices/system/cpu/cpu1/cache/index2/level",
        "devices/system/node/node1/cpulist",
        "devices/system/node/node1/meminfo",
        "devices/system/node/node1/distance",
        "fs/cgroup/cpuset.cpus.effective",
    ],
)
def test_garbage_names_its_file(tmp_path: Path, name: str, text: str) -> None:
    path = write_even_host(tmp_path, nodes=2, cpus_each=1) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadInput) as caught:
        read_topology(tmp_path)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert str(caught.value).isprintable()


def test_distances_are_one_for_each_node(tmp_path: Path) -> None:
    write_distances(write_even_host(tmp_path, nodes=2, cpus_each=1), {1: [10, 20, 30]})
    with pytest.raises(BadInput, match="node1/distance: expected 2 numbers, one for each node, found '10 20 30'"):
        read_topology(tmp_path)


def test_this_host_has_the_cpus_that_this_process_may_use() -> None:
    assert frozenset(read_topology().cpus) == usable_cpus()


@pytest.mark.skipif(sys.platform != "linux", reason="taskset is Linux's")
def test_taskset_forbids_cpus() -> None:
    one = max(usable_cpus())
    code = f"import os; os.sched_setaffinity(0, [{one}])\n"
    code += "from workers.numa.topology import read_topology; print(read_topology().cpus)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert result.stdout == f"({one},)\n"
