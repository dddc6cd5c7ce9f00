"""Reads this host's NUMA nodes and which of their CPUs this process may use. Decides nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

from workers.numa.ranges import parse_ranges

SYSFS = Path("/sys")


class Node(Struct, frozen=True):
    id: int
    cpus: tuple[int, ...]  # ascending


class Topology(Struct, frozen=True):
    nodes: tuple[Node, ...]  # ascending ids; nodes without a usable CPU are left out

    @property
    def cpus(self) -> tuple[int, ...]:
        return tuple(sorted(cpu for node in self.nodes for cpu in node.cpus))


def usable_cpus() -> frozenset[int]:
    """The CPUs that affinity and cgroups leave to this process."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def read_topology(sysfs: Path = SYSFS, usable: frozenset[int] | None = None) -> Topology:
    """The nodes of this host; without NUMA information it is one node 0 with all usable CPUs."""
    usable = usable_cpus() if usable is None else usable
    nodes = []
    for folder in (sysfs / "devices/system/node").glob("node*"):
        match = re.fullmatch(r"node(\d+)", folder.name)
        cpus = _read_cpus(folder / "cpulist") & usable if match else frozenset()
        if match and cpus:
            nodes.append(Node(int(match[1]), tuple(sorted(cpus))))
    if frozenset(cpu for node in nodes for cpu in node.cpus) != usable:
        return Topology((Node(0, tuple(sorted(usable))),))
    return Topology(tuple(sorted(nodes, key=lambda node: node.id)))


def _read_cpus(path: Path) -> frozenset[int]:
    try:
        text = path.read_text().strip()
    except OSError:
        return frozenset()
    return frozenset(parse_ranges(text, str(path))) if text else frozenset()
