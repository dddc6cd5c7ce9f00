"""Names the machine that a figure was measured on, and measures CPU seconds fairly. Knows no renderer."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np


def cpu_name() -> str:
    """The processor's name as the kernel tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe() -> str:
    return (
        f"{cpu_name()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, numba {numba.__version__}, "
        f"numpy {np.__version__}"
    )


def data_folder() -> Path:
    """Where the real scenes lie: DR_DATA, or ../shared/data beside the checkout."""
    return Path(os.environ.get("DR_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time that `work` takes in this process, all threads."""
    before = time.process_time()
    work()
    return time.process_time() - before


def children_cpu_seconds() -> float:
    """CPU time of all child processes waited for so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
