"""Writes folders that stand for /sys: CPUs, caches, NUMA nodes. Knows the kernel's file names, and no real host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from workers.numa.ranges import parse_ranges

MEMORY_KB = 64 << 20  # of a node about which nothing else is said
LOCAL, REMOTE = 10, 21  # distances as firmware rates them
CPUSET_FILES = {
    "v2": "fs/cgroup/cpuset.cpus.effective",
    "v1": "fs/cgroup/cpuset/cpuset.effective_cpus",
    "old v1": "fs/cgroup/cpuset/cpuset.cpus",
}


def write_host(folder: Path, nodes: Mapping[int, str], memory_kb: Mapping[int, int] | None = None) -> Path:
    """A healthy host whose node N has the CPUs `nodes[N]`, such as "0-3,8"; nodes may share CPUs. All are online."""
    write_nodes(folder, nodes)
    write_memory(folder, {node: (memory_kb or {}).get(node, MEMORY_KB) for node in nodes})
    ids = sorted(nodes)
    write_distances(folder, {a: [LOCAL if a == b else REMOTE for b in ids] for a in ids})
    return write_online(folder, ",".join(filter(None, nodes.values())))


def write_even_host(folder: Path, nodes: int, cpus_each: int) -> Path:
    """`nodes` nodes of `cpus_each` CPUs: node 0 has the first ones, and so on."""
    return write_host(folder, {i: f"{i * cpus_each}-{(i + 1) * cpus_each - 1}" for i in range(nodes)})


def write_nodes(folder: Path, nodes: Mapping[int, str]) -> Path:
    for node, cpus in nodes.items():
        _write(folder, f"devices/system/node/node{node}/cpulist", cpus)
    return folder


def write_memory(folder: Path, memory_kb: Mapping[int, int]) -> Path:
    for node, size_kb in memory_kb.items():
        lines = f"Node {node} MemTotal: {size_kb:>14} kB\nNode {node} MemFree: {size_kb // 2:>15} kB"
        _write(folder, f"devices/system/node/node{node}/meminfo", lines)
    return folder


def write_distances(folder: Path, distances: Mapping[int, Iterable[int]]) -> Path:
    """From each node to all nodes, in ascending order of their numbers: gaps have no entry."""
    for node, row in distances.items():
        _write(folder, f"devices/system/node/node{node}/distance", " ".join(map(str, row)))
    return folder


def write_online(folder: Path, cpus: str) -> Path:
    return _write(folder, "devices/system/cpu/online", cpus)


def write_cores(folder: Path, cores: Iterable[str], name: str = "thread_siblings_list") -> Path:
    """Which CPUs are threads of one core, such as ["0,4", "1,5"]."""
    for core in cores:
        for cpu in parse_ranges(core, "a core"):
            _write(folder, f"devices/system/cpu/cpu{cpu}/topology/{name}", core)
    return folder


def write_caches(folder: Path, groups: Iterable[str], level: int = 3) -> Path:
    """Which CPUs share a cache of this level."""
    for group in groups:
        for cpu in parse_ranges(group, "a cache"):
            _write(folder, f"devices/system/cpu/cpu{cpu}/cache/index{level}/level", str(level))
            _write(folder, f"devices/system/cpu/cpu{cpu}/cache/index{level}/shared_cpu_list", group)
    return folder


def write_cpuset(folder: Path, cpus: str, version: str = "v2") -> Path:
    """The CPUs that a cgroup leaves; `version`: a key of CPUSET_FILES."""
    return _write(folder, CPUSET_FILES[version], cpus)


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    return folder
