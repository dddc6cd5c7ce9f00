"""Binds this process to CPUs. Call it before threads start: they inherit it. Decides nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dr.errors import BadInput
from workers.numa.topology import usable_cpus


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
