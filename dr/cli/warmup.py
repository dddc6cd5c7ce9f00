"""`dr warmup`: compiles the kernels ahead of the first render. Knows how to say it; the compiling is done elsewhere."""

from __future__ import annotations

import sys
from time import monotonic

from dr.cli.options import Quiet

CLEAR_LINE = "\r\x1b[K"
LINE_S = 5.0  # between two lines without a terminal


def warmup(quiet: Quiet = False) -> int:
    """Compile the kernels now, once per machine and version, so that the first render need not."""
    from workers.prepare.warmup import use_kernel_cache, warm_up

    started = monotonic()
    steps = _Steps(quiet)
    folder = use_kernel_cache()
    warm_up(steps.show)
    steps.end(f"the kernels are ready after {monotonic() - started:.1f} s, compiled code is kept in {folder}")
    return 0


class _Steps:
    """More than a hundred steps: one line that changes on a terminal, elsewhere a line now and then."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty()
        self.next_line = 0.0

    def show(self, text: str) -> None:
        if self.quiet:
            return
        if self.live:
            print(f"{CLEAR_LINE}dr: {text}", end="", file=sys.stderr, flush=True)
        elif monotonic() >= self.next_line:
            self.next_line = monotonic() + LINE_S
            print(f"dr: {text}", file=sys.stderr, flush=True)

    def end(self, text: str) -> None:
        if not self.quiet:
            print(f"{CLEAR_LINE if self.live else ''}dr: {text}", file=sys.stderr, flush=True)
