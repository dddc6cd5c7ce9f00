"""Shows a running render: a live table on a terminal, lines elsewhere. Knows snapshots; decides nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from dr.client.tally import Progress, ServerRow

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

LINE_S = 10.0  # between two lines without a terminal
REFRESHES_PER_S = 8
BAR_CELLS = 30
RENDERING, PREPARING = "rendering", "preparing"  # the broker's words for servers that are with us


class Display(Protocol):
    """A context manager that is shown every snapshot."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, progress: Progress) -> None: ...


def choose_display(quiet: bool, stream: TextIO | None = None) -> Display:
    """Silence, a live table or plain lines, as the user and the stream (stderr) want it."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        return Silence()
    return LiveTable(stream) if stream.isatty() else PlainLines(stream)


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, progress: Progress) -> None:
        pass


class PlainLines(Silence):
    """Notices as they come, and every LINE_S how far the render is."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.next_line = monotonic() + LINE_S

    def show(self, progress: Progress) -> None:
        for notice in progress.notices:
            print(f"dr: {notice}", file=self.stream, flush=True)
        if monotonic() >= self.next_line:
            self.next_line = monotonic() + LINE_S
            print(f"dr: {describe(progress)}", file=self.stream, flush=True)
            for row in progress.servers:
                if row.state != RENDERING and row.text:
                    print(f"dr:   {row.name} {_describe_server(row)}", file=self.stream, flush=True)


class LiveTable(Silence):
    """A table that rich keeps redrawing at the bottom of the terminal; notices scroll above it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.live: Live | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def show(self, progress: Progress) -> None:
        live = self.live or self._start()
        for notice in progress.notices:
            live.console.print(f"dr: {notice}", markup=False, highlight=False)
        live.update(draw(progress))

    def _start(self) -> Live:
        """Loads rich only now, when servers are starting anyway."""
        from rich.console import Console
        from rich.live import Live

        self.live = Live(console=Console(file=self.stream), refresh_per_second=REFRESHES_PER_S, transient=True)
        self.live.start()
        return self.live


def describe(progress: Progress) -> str:
    """One line: share, buckets, speed, time left; or what is waited for while no server renders."""
    frame = f"frame {progress.frame} ({progress.frames_done + 1} of {progress.frames}), " if progress.frames > 1 else ""
    done = f"{progress.share:4.0%}  {frame}{progress.buckets_done} buckets"
    servers = sum(row.state == RENDERING for row in progress.servers)
    if not servers:
        return f"{done}, {_describe_wait(progress.servers)}"
    left = "" if progress.remaining_s is None else f", {show_time(progress.remaining_s)} left"
    speed = f", {show_count(progress.samples_per_second)} samples/s" if progress.samples_per_second else ""
    busy = f", {servers} servers" if servers != 1 else ", 1 server"
    return f"{done}{speed}{busy}{left}"


def _describe_wait(servers: Sequence[ServerRow]) -> str:
    preparing = sum(row.state == PREPARING for row in servers)
    if preparing:
        return "a server is preparing" if preparing == 1 else f"{preparing} servers are preparing"
    return "waiting for a server"


def draw(progress: Progress) -> Table:
    """The live table: a bar, a line of numbers, a row per server."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    full = round(progress.share * BAR_CELLS)
    table.add_row(Text("━" * full, style="green") + Text("━" * (BAR_CELLS - full), style="dim"), describe(progress))
    for row in progress.servers:
        table.add_row(Text(f"  {row.name}"), Text(_describe_server(row), style="dim"))
    return table


def _describe_server(row: ServerRow) -> str:
    if row.state == RENDERING:
        return f"{row.state}, {row.buckets} buckets, {row.buckets_per_second:.1f} buckets/s"
    return f"{row.state}: {row.text}" if row.text else row.state


def show_time(seconds: float) -> str:
    """`0.8 s`, `42 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def show_count(number: float) -> str:
    """`870`, `12.3 k`, `1.76 M`."""
    if number >= 1e6:
        return f"{number / 1e6:.2f} M"
    return f"{number / 1e3:.1f} k" if number >= 1e3 else f"{number:.0f}"
