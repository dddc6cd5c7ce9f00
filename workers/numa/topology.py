"""Reads a host's NUMA nodes: the CPUs that may be used, memory, distances. Decides nothing."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from msgspec import Struct

from dr.errors import BadInput
from workers.numa.cores import read_cores, read_numbers, read_text
from workers.numa.ranges import format_ranges

SYSFS = Path("/sys")
CPUSETS = (  # what a cgroup leaves: version 2, version 1, version 1 before Linux 3.17
    "fs/cgroup/cpuset.cpus.effective",
    "fs/cgroup/cpuset/cpuset.effective_cpus",
    "fs/cgroup/cpuset/cpuset.cpus",
)


class Node(Struct, frozen=True):
    id: int
    cores: tuple[tuple[int, ...], ...]  # usable CPUs by core; cores that share a last-level cache are side by side
    memory_bytes: int | None = None  # 0: a node without memory; None: unknown
    distances: dict[int, int] = {}  # to each node of the host, itself included, as the firmware rates them

    @property
    def cpus(self) -> tuple[int, ...]:
        return tuple(sorted(cpu for core in self.cores for cpu in core))


class Topology(Struct, frozen=True):
    nodes: tuple[
        Node, ...
    ]  # ascending ids, gaps allowed; nodes without a usable CPU are left out; nodes may share CPUs
    notice: str = ""  # one line for people when there is no telling which nodes there are
    memory: dict[int, int | None] = {}  # bytes of every node of the host, those without a usable CPU included
    known: bool = True  # False: a single node 0 stands for nodes that nobody could tell

    @property
    def cpus(self) -> tuple[int, ...]:
        return tuple(sorted({cpu for node in self.nodes for cpu in node.cpus}))


def usable_cpus() -> frozenset[int]:
    """The CPUs that affinity and cgroups leave to this process. Linux leaves offline ones out."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def read_topology(sysfs: Path = SYSFS, usable: frozenset[int] | None = None) -> Topology:
    """The nodes of the host that `sysfs` describes; without NUMA information one node 0 with all usable CPUs.

    On /sys itself the CPUs of this process count, or `usable`. Any other folder speaks for itself: its CPUs that are
    online and in its cgroup count, those among `usable` where given. Raises BadInput naming the file that is garbage.
    """
    folders = _node_folders(sysfs)
    listed = {node: read_numbers(folder / "cpulist") or frozenset() for node, folder in folders.items()}
    everything = frozenset().union(*listed.values())
    if sysfs == SYSFS:
        allowed = usable_cpus() if usable is None else usable
    else:
        allowed = _cpus_of_tree(sysfs, usable, everything)
    if not folders:
        return _one_node(sysfs, allowed, f"{_speaker(sysfs)} does not tell its NUMA nodes")
    if homeless := allowed - everything:
        return _one_node(
            sysfs, allowed, f"{_speaker(sysfs)} tells no NUMA node of CPUs {format_ranges(sorted(homeless))}"
        )
    memory = {node: _read_memory(folder / "meminfo") for node, folder in folders.items()}
    nodes = tuple(
        Node(node, read_cores(sysfs, cpus), memory[node], _read_distances(folders[node] / "distance", list(folders)))
        for node in folders
        if (cpus := listed[node] & allowed)
    )
    return Topology(nodes, memory=memory)


def _node_folders(sysfs: Path) -> dict[int, Path]:
    found = ((re.fullmatch(r"node(\d+)", path.name), path) for path in (sysfs / "devices/system/node").glob("node*"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def _cpus_of_tree(sysfs: Path, usable: frozenset[int] | None, everything: frozenset[int]) -> frozenset[int]:
    """Without a list of those online it is those that may be used, or else those of its nodes."""
    online = read_numbers(sysfs / "devices/system/cpu/online") or (everything if usable is None else usable)
    if not online:
        raise BadInput(f"{sysfs}: expected a folder that stands for /sys, found no devices/system/cpu/online in it")
    sets = [online, usable, next(filter(None, (read_numbers(sysfs / name) for name in CPUSETS)), None)]
    cpus = frozenset.intersection(*(found for found in sets if found is not None))
    if not cpus:
        raise BadInput(f"{sysfs}: expected a CPU that is online and may be used, found none")
    return cpus


def _one_node(sysfs: Path, cpus: frozenset[int], notice: str) -> Topology:
    return Topology((Node(0, read_cores(sysfs, cpus)),), f"{notice}: one node with all CPUs", known=False)


def _speaker(sysfs: Path) -> str:
    return f"this system ({platform.system()})" if sysfs == SYSFS else str(sysfs)


def _read_memory(path: Path) -> int | None:
    text = read_text(path)
    if text is None:
        return None
    match = re.search(r"MemTotal:\s*(\d{1,15}) kB", text)
    if not match:
        raise BadInput(f"{path}: expected a line such as `Node 0 MemTotal: 1024 kB`, found {text!r:.80}")
    return int(match[1]) * 1024


def _read_distances(path: Path, nodes: list[int]) -> dict[int, int]:
    text = read_text(path)
    if text is None:
        return {}
    words = text.split()
    if len(words) != len(nodes) or not all(re.fullmatch(r"[0-9]{1,9}", word) for word in words):
        raise BadInput(f"{path}: expected {len(nodes)} numbers, one for each node, found {text!r:.80}")
    return dict(zip(nodes, map(int, words), strict=True))
