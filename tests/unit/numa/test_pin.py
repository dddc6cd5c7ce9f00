"""What the kernel says about a process that was bound: read from outside, in /proc."""

import ctypes
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dr.errors import BadInput
from workers.numa import pin
from workers.numa.pin import pin_process, prefer_memory
from workers.numa.ranges import format_ranges
from workers.numa.topology import read_topology, usable_cpus

BOUND = """
from workers.numa.pin import pin_process, prefer_memory
pin_process([{cpu}])
print(prefer_memory({nodes}), flush=True)
input()
"""


def has_library() -> bool:
    try:
        return bool(ctypes.CDLL(pin.LIBRARY).set_mempolicy)
    except (OSError, AttributeError):
        return False


needs_policy = pytest.mark.skipif(
    not has_library() or not Path("/proc/self/numa_maps").exists(), reason="needs libnuma and a kernel with numa_maps"
)
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")


def proc_of_bound(cpu: int, nodes: list[int]) -> tuple[str, str, str]:
    """What prefer_memory returned in a process of its own, and that process's status and numa_maps."""
    command = [sys.executable, "-c", BOUND.format(cpu=cpu, nodes=nodes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        answer = process.stdout.readline().strip()
        proc = Path(f"/proc/{process.pid}")
        maps = proc / "numa_maps"
        texts = answer, (proc / "status").read_text(), maps.read_text() if maps.exists() else ""
        process.communicate("\n", timeout=30)
    return texts


def memory_nodes() -> list[int]:
    return [node for node, size_bytes in read_topology().memory.items() if size_bytes]


@needs_linux
def test_affinity_is_seen_from_outside() -> None:
    cpu = max(usable_cpus())
    _, status, _ = proc_of_bound(cpu, [])
    assert f"Cpus_allowed_list:\t{cpu}\n" in status


@needs_policy
def test_one_memory_node_is_preferred() -> None:
    node = memory_nodes()[-1]
    answer, _, maps = proc_of_bound(min(usable_cpus()), [node])
    assert answer == ""
    assert set(re.findall(r"^\w+ (\S+)", maps, re.MULTILINE)) == {f"prefer:{node}"}


@needs_policy
def test_several_memory_nodes_take_turns() -> None:
    first = memory_nodes()[0]
    absent = first + 1 if first + 1 not in memory_nodes() else memory_nodes()[-1]
    answer, _, maps = proc_of_bound(min(usable_cpus()), [absent, first])
    assert answer == ""
    turns = format_ranges(sorted({first, absent} & set(memory_nodes())))  # the kernel drops those that are not there
    assert set(re.findall(r"^\w+ (\S+)", maps, re.MULTILINE)) == {f"interleave:{turns}"}


@needs_policy
@pytest.mark.parametrize("node", [63, 64, 1023, 99999])
def test_a_node_that_the_kernel_does_not_have_is_said(node: int) -> None:
    assert node not in memory_nodes()
    answer, _, maps = proc_of_bound(min(usable_cpus()), [node])
    assert answer == (
        f"memory policy for nodes {node} not set: Invalid argument (EINVAL): no memory there that this process may use"
    )
    assert set(re.findall(r"^\w+ (\S+)", maps, re.MULTILINE)) == {"default"}


class Kernel:
    """Stands for libnuma: notes what it is asked, and answers with an errno."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.asked: list[tuple[int, set[int]]] = []

    def set_mempolicy(self, mode: int, mask: "ctypes.Array[ctypes.c_ulong]", bits: ctypes.c_ulong) -> int:
        assert bits.value == 8 * ctypes.sizeof(mask) + 1  # the kernel reads one bit less
        words = bytes(memoryview(mask))
        self.asked.append((mode, {i for i in range(8 * len(words)) if words[i // 8] >> i % 8 & 1}))
        ctypes.set_errno(self.number)
        return -1 if self.number else 0


@needs_linux
@pytest.mark.parametrize("nodes", [[0], [63], [64], [5, 5], [0, 1], [130, 64, 3], [1023, 1022]])
def test_each_node_is_one_bit_of_the_mask(nodes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: kernel)
    assert prefer_memory(nodes) == ""
    assert kernel.asked == [(pin.MPOL_PREFERRED if len(set(nodes)) == 1 else pin.MPOL_INTERLEAVE, set(nodes))]


@needs_linux
def test_a_container_without_the_right_is_told_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: Kernel(1))
    said = "memory policy for nodes 0-1 not set: Operation not permitted (EPERM): in a container it takes CAP_SYS_NICE"
    assert prefer_memory([0, 1]) == said


@needs_linux
def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pin, "LIBRARY", "libnuma-that-nobody-has.so.1")
    said = "memory policy for nodes 0 not set: libnuma-that-nobody-has.so.1 is not installed"
    assert prefer_memory([0]) == said


def test_other_systems_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert re.fullmatch(r"memory policy for nodes 0 not set: \w+ has no memory policies", prefer_memory([0]))


def test_without_nodes_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pin, "LIBRARY", "libnuma-that-nobody-has.so.1")
    assert prefer_memory([]) == ""


@needs_linux
def test_a_process_is_pinned_and_refuses_strange_cpus() -> None:
    before = os.sched_getaffinity(0)
    try:
        pin_process([min(before)])
        assert os.sched_getaffinity(0) == {min(before)}
        with pytest.raises(BadInput, match="found 99999"):
            pin_process([99999])
    finally:
        os.sched_setaffinity(0, before)


@needs_linux
def test_threads_that_start_later_are_pinned_too() -> None:
    before, seen = os.sched_getaffinity(0), []
    try:
        pin_process([max(before)])
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join(30)
    finally:
        os.sched_setaffinity(0, before)
    assert seen == [{max(before)}]
