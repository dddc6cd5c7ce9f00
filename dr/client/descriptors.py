"""Lets this process have many connections: each is a descriptor, of which a process may have few. Opens none."""

from __future__ import annotations

import sys
from contextlib import suppress

ENOUGH = 65536
USUAL = 1024  # where nobody can be asked


def allow_many() -> int:
    """Raises the process's own limit of descriptors as far as the system lets it; gives the limit."""
    if sys.platform == "win32":
        return USUAL
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # the system has a limit beyond the one that it tells
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return ENOUGH if soft == resource.RLIM_INFINITY else soft
