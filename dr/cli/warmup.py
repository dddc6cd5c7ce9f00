"""`dr warmup`: compiles the kernels ahead of the first render. Knows how to say it; the compiling is done elsewhere."""

from __future__ import annotations

import sys
from time import monotonic

from dr.cli.options import Quiet


def warmup(quiet: Quiet = False) -> int:
    """Compile the kernels now, once per machine and version, so that the first render need not."""
    from workers.prepare.warmup import use_kernel_cache, warm_up

    def say(text: str) -> None:
        if not quiet:
            print(f"dr: {text}", file=sys.stderr, flush=True)

    started = monotonic()
    folder = use_kernel_cache()
    warm_up(say)
    say(f"the kernels are ready after {monotonic() - started:.1f} s, compiled code is kept in {folder}")
    return 0
