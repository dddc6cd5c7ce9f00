"""Ties a process to the one that started it: no orphan stays, even after kill -9. Knows processes only."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, number: signal.Signals) -> bool:
    """Asks the kernel (Linux) to send us `number` when the parent ends; False when it has ended already.

    The signal comes when the parent's *thread* that started us ends, so a parent starts us from its main thread.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    return os.getppid() == parent


def lifeline_fd() -> int | None:
    """Our stdin, when the parent holds its other end: it reads the end of the stream when the parent is gone."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return None
    return 0 if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None
