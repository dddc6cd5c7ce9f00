"""Binds this process to CPUs and memory nodes. Call it before threads start: they inherit it. Decides nothing."""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Iterable

from dr.errors import BadInput
from workers.numa.ranges import format_ranges
from workers.numa.topology import usable_cpus

LIBRARY = "libnuma.so.1"
MPOL_PREFERRED, MPOL_INTERLEAVE = 1, 3  # linux/mempolicy.h
HINTS = {
    errno.EINVAL: ": no memory there that this process may use",
    errno.EPERM: ": in a container it takes CAP_SYS_NICE",
}


def pin_process(cpus: Iterable[int]) -> None:
    """Raises BadInput when one of the CPUs is not this process's to use. Without such a system call, does nothing."""
    wanted = frozenset(cpus)
    strange = wanted - usable_cpus()
    if strange or not wanted:
        listed = ",".join(map(str, sorted(strange))) or "none"
        here = ",".join(map(str, sorted(usable_cpus())))
        raise BadInput(f"--cpus: expected CPUs among {here}, found {listed}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, wanted)


def prefer_memory(nodes: Iterable[int]) -> str:
    """From now on this thread, and those that it starts, get their memory from these nodes. Never raises.

    One node is preferred, not bound to (MPOL_PREFERRED): when it is full the next one serves, where MPOL_BIND would
    let the kernel kill the render. Several take turns page by page (MPOL_INTERLEAVE): the threads of a server that
    spans nodes share one scene, so none shall have all of it near. No node: nothing to do. Returns "", or one line
    that says why memory lies wherever a thread first touches it.
    """
    wanted = sorted(set(nodes))
    problem = _set_policy(wanted) if wanted else ""
    return f"memory policy for nodes {format_ranges(wanted)} not set: {problem}" if problem else ""


def _set_policy(nodes: list[int]) -> str:
    """Why the kernel did not take the policy, or nothing."""
    if sys.platform != "linux":
        return f"{platform.system()} has no memory policies"
    try:
        import ctypes

        set_mempolicy = ctypes.CDLL(LIBRARY, use_errno=True).set_mempolicy
    except (ImportError, OSError, AttributeError):
        return f"{LIBRARY} is not installed"
    word_bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    mask = (ctypes.c_ulong * (nodes[-1] // word_bits + 1))()
    for node in nodes:
        mask[node // word_bits] |= 1 << node % word_bits
    mode = MPOL_PREFERRED if len(nodes) == 1 else MPOL_INTERLEAVE
    bits = ctypes.c_ulong(len(mask) * word_bits + 1)  # the kernel takes one off
    if set_mempolicy(mode, mask, bits) == 0:
        return ""
    number = ctypes.get_errno()
    return f"{os.strerror(number)} ({errno.errorcode.get(number, number)}){HINTS.get(number, '')}"
