"""Shows tables: as wide as the terminal, elsewhere as wide as they are. Knows rich, not what is shown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDE = 10_000  # columns where there is no terminal: no line is broken


def make_console() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def print_lines(console: Console, shown: RenderableType) -> None:
    """Without the blanks that rich puts behind the last column."""
    with console.capture() as drawn:
        console.print(shown)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()), flush=True)
