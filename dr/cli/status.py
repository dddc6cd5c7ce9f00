"""`dr status`: shows who answers in the farm and what they do. Asks through dr.client.status; decides nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from time import strftime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dr.cli import COMPLETE, INCOMPLETE, REFUSED, say
from dr.cli.options import Insecure, SettingsFile
from dr.cli.tables import make_console, print_lines
from dr.errors import BadInput
from dr.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Group

    from dr.client.roster import Row
    from dr.client.targets import RunningSpawner, Target

EXAMPLES = """\
Examples:

dr status

dr status 127.0.0.1 127.0.0.1:30000 --watch

dr status --json --seconds 5
"""

LISTEN_S = 1.0
FOREVER_S = float("inf")
NARROW = 100  # terminals with fewer columns than that get a closer table
STYLES = {
    "ready": "green",
    "busy": "yellow",
    "draining": "cyan",
    "gone": "red",
    "no answer": "red",
    "refused": "red",
    "asked": "dim",
}
COLUMNS = ("host", "port", "engine", "node", "threads", "state", "holder", "buckets/s", "memory", "version")
NUMBERS = {"port", "threads", "buckets/s", "memory"}
GUARDS = {
    "open": "open, without keys: any user of that machine can connect; `dr keys init` there closes it",
    "insecure": "INSECURE: whoever reaches the port can connect; started with --insecure",
}
MB, GB = 1e6, 1e9


def status(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="HOST",
            show_default=False,
            help="HOST (all its servers) or HOST:PORT. Default: the servers of the settings, else this machine.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", metavar="", help="Show changes until Ctrl-C.")] = False,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S", min=0.01, max=86400, show_default=False, help="How long to ask, or to watch. Default: 1."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON list last on stdout.")] = False,
    insecure: Insecure = False,
    settings: SettingsFile = None,
) -> int:
    """Show the farm: each render server, what it does, and for whom.

    Status 1 if a named host does not answer, 3 if it refuses this user's key.
    """
    from dr.client.guard import WARNING, load_security
    from dr.client.status import ask_farm, watch_farm
    from dr.client.targets import find_targets

    values = load_settings(settings, os.environ).values
    security = load_security(os.environ, insecure)
    if insecure:
        say(WARNING, COMPLETE)
    targets = find_targets(hosts or (), values, security, () if hosts else running_spawners())
    if watch:
        return _watch(watch_farm(targets, values, seconds or FOREVER_S, security), json)
    rows = ask_farm(targets, values, seconds or LISTEN_S, security)
    statuses = [_judge(target, rows) for target in targets]
    _print(rows, json)
    return max(statuses)


def running_spawners() -> list[RunningSpawner]:
    """Those of this user that run here, as far as that can be known."""
    from dr.client.targets import RunningSpawner
    from workers.spawner.registry import running

    try:
        found = running()
    except (BadInput, OSError):  # a user without a folder has none
        return []
    return [RunningSpawner(ports=each.ports, announce=each.announce, bind=each.bind) for each in found]


def _judge(target: Target, rows: Sequence[Row]) -> int:
    """The exit status that this target alone would give; what is wrong with it is said."""
    from dr.client.link import NOBODY

    if target.is_answered(rows):
        return COMPLETE
    silent = target.pick(rows)
    refusals = [row.reason for row in silent if row.state == "refused"]
    if refusals:
        return say(f"{target.text}: {refusals[0]}", REFUSED)
    reasons = [row.reason for row in silent if row.reason not in ("", NOBODY)]
    hint = "no render server answers; start one with dr spawner or dr serve"
    return say(f"{target.text}: {target.trouble or (reasons[0] if reasons else hint)}", INCOMPLETE)


def _watch(watching: Iterable[list[Row]], json: bool) -> int:
    """A table that changes on a terminal; elsewhere one block, or one line of JSON, for each change."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        if sys.stdout.isatty() and not json:
            _watch_live(watching)
        else:
            _watch_changes(watching, json)
    except KeyboardInterrupt:
        pass
    return COMPLETE


def _watch_live(watching: Iterable[list[Row]]) -> None:
    from rich.live import Live

    console = make_console()
    with Live(console=console, auto_refresh=False) as live:
        for rows in watching:
            live.update(draw(rows, console.width, ages=True), refresh=True)


def _watch_changes(watching: Iterable[list[Row]], json: bool) -> None:
    shown: list[Row] = []
    for rows in watching:
        lasting = [_without_ageing(row) for row in rows]
        if lasting != shown:
            shown = lasting
            if not json:
                print(strftime("%H:%M:%S"))
            _print(rows, json)
            if not json:
                print(flush=True)


def _without_ageing(row: Row) -> Row:
    """What must differ for a change to be worth a block."""
    import msgspec

    return msgspec.structs.replace(row, silent_s=None, up_s=None, memory_bytes=None)


def _print(rows: Sequence[Row], json: bool) -> None:
    if json:
        import msgspec

        print(msgspec.json.encode(rows).decode(), flush=True)
        return
    console = make_console()
    print_lines(console, draw(rows, console.width))


def draw(rows: Sequence[Row], width: int, ages: bool = False) -> Group:
    """The table, a line for each reason, and a summary, for so many columns. The holder's name gives way first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    padding = (0, 1) if width >= NARROW else (0, 1, 0, 0)
    table = Table(box=None, pad_edge=False, padding=padding, header_style="bold")
    for column in COLUMNS:
        justify: Any = "right" if column in NUMBERS else "left"
        yields = column == "holder"
        table.add_column(column, justify=justify, no_wrap=not yields, min_width=8 * yields, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(text, style=STYLES.get(text, "")) for text in _cells(row)))
    notes = map(Text, _notes(rows, ages))
    guards = (Text(line, style="bold red" if GUARDS["insecure"] in line else "") for line in _guard_notes(rows))
    return Group(table, *notes, *guards, Text(summarise(rows), style="bold"))


def _cells(row: Row) -> tuple[str, ...]:
    """In the order of COLUMNS; what nobody has told is empty."""
    from workers.numa.ranges import format_ranges

    return (
        row.host,
        str(row.port or ""),
        row.engine or "",
        format_ranges(row.nodes or ()),
        "" if row.threads is None else str(row.threads),
        row.state,
        row.holder,
        "" if row.buckets_per_s is None else f"{row.buckets_per_s:.1f}",
        show_bytes(row.memory_bytes),
        row.version or "",
    )


def summarise(rows: Iterable[Row]) -> str:
    """`3 servers: 2 ready, 1 gone; 16 threads`, those of the servers that answer."""
    rows = list(rows)
    counts = Counter(row.state for row in rows)
    states = ", ".join(f"{counts[state]} {state}" for state in sorted(counts, key=list(STYLES).index))
    threads = sum(row.threads or 0 for row in rows if row.answers)
    in_all = f"; {threads} thread{'s' if threads != 1 else ''}" if threads else ""
    return f"{len(rows)} server{'s' if len(rows) != 1 else ''}: {states}{in_all}"


def show_bytes(size: int | None) -> str:
    """`812 MB`, `1.2 GB`, nothing for unknown."""
    if size is None:
        return ""
    return f"{size / GB:.1f} GB" if size >= GB else f"{size / MB:.0f} MB"


def _notes(rows: Iterable[Row], ages: bool) -> list[str]:
    """One line for each reason on each host: `localhost:30000-30003: nobody listens there`, the oldest one's age."""
    groups = _group((row, row.reason) for row in rows)
    return [f"{_place(group)}: {reason}{_age(group) if ages else ''}" for reason, group in groups]


def _guard_notes(rows: Iterable[Row]) -> list[str]:
    """One line for each host where somebody can come in without a key; what else a server says of it is not shown."""
    groups = _group((row, GUARDS.get(row.guard, "") if row.answers else "") for row in rows)
    return [f"{_place(group)}: {text}" for text, group in groups]


def _group(rows: Iterable[tuple[Row, str]]) -> list[tuple[str, list[Row]]]:
    """Rows of one host with the same text, those without a text left out."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row, text in rows:
        if text:
            groups.setdefault((row.host, text), []).append(row)
    return [(text, group) for (_, text), group in groups.items()]


def _place(group: Sequence[Row]) -> str:
    """`localhost:30000-30003`"""
    from workers.numa.ranges import format_ranges

    name = group[0].host
    host = f"[{name}]" if ":" in name else name
    return f"{host}:{format_ranges(row.port for row in group)}" if group[0].port else name


def _age(group: Iterable[Row]) -> str:
    silences = [row.silent_s for row in group if row.silent_s is not None]
    if not silences:
        return ""
    minutes, seconds = divmod(int(max(silences)), 60)
    return f", for {minutes} min {seconds:02d} s" if minutes else f", for {seconds} s"
