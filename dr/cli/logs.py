"""`dr logs`: shows where the log files are, and packs them for a bug report. Knows words; files are read elsewhere."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from time import localtime, strftime
from typing import TYPE_CHECKING, Annotated

import typer

from dr.cli import BAD_INPUT, COMPLETE, INCOMPLETE, say
from dr.cli.options import Json, SettingsFile
from dr.cli.tables import make_console, print_lines
from dr.errors import BadInput, DrError
from dr.settings import LoadedSettings, load_settings, setting_rows

if TYPE_CHECKING:
    from dr.client.log_files import LogFile, Packed
    from dr.keys.ring import KeyRing

EXAMPLES = """\
Examples:

dr logs --tail=50

less $(dr logs --last)

dr logs pack -o dr-logs.zip
"""

PACK = Path("dr-logs.zip")
SHOWN = 20  # log files, the newest
PACKAGES = ("numba", "llvmlite", "numpy", "pyzmq", "msgspec", "OpenImageIO", "typer")
JOURNAL = "a spawner that is a service logs into systemd's journal, too: journalctl -u dr-spawner"

logs_app = typer.Typer(rich_markup_mode="rich")


@logs_app.callback(invoke_without_command=True, epilog=EXAMPLES)
def logs(
    context: typer.Context,
    last: Annotated[bool, typer.Option("--last", metavar="", help="Print the path of the newest one alone.")] = False,
    tail: Annotated[
        int | None,
        typer.Option("--tail", metavar="[=N]", min=1, max=1_000_000, help="Its last lines; 20.", show_default=False),
    ] = None,
    json: Json = False,
    settings: SettingsFile = None,
) -> int:
    """Show the log files of renders, spawners and servers of this user, the newest first."""
    if context.invoked_subcommand:
        if last or tail or json or settings:
            raise BadInput(f"dr logs {context.invoked_subcommand}: expected its options after it, found some before")
        return COMPLETE
    from dr.client.log_files import find_logs, read_tail

    folder = load_settings(settings, os.environ).values.log_folder
    found = find_logs(folder)
    if not found and (last or tail):
        return say(f"no log file in {folder}; renders, spawners and servers write them", INCOMPLETE)
    if last:
        print(found[0].path)
    elif tail:
        print("\n".join(read_tail(found[0].path, tail)))
    else:
        _show(folder, found, json)
    return COMPLETE


@logs_app.command("pack")
def pack(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write; it must not exist.")
    ] = PACK,
    settings: SettingsFile = None,
) -> int:
    """Pack the newest logs, the settings and facts about this machine into one file, for a bug report.

    Keys and the path of the home folder are taken out; look through it before you send it.
    """
    from dr.client.log_files import find_logs, pack_logs

    loaded, notes = _load_settings(settings)
    facts = {"facts.json": _facts(notes), "settings.json": _settings(loaded)}
    packed = pack_logs(output, find_logs(loaded.values.log_folder), facts, _ring())
    _show_pack(output, packed)
    return COMPLETE


def _load_settings(file: Path | None) -> tuple[LoadedSettings, list[str]]:
    """The settings, or the defaults and what is wrong with them: a bug report may be about just that."""
    try:
        return load_settings(file, os.environ), []
    except BadInput as error:
        say(f"{error}; packing with default settings", BAD_INPUT)
        return load_settings(Path(os.devnull), {}), [str(error)]


def _ring() -> KeyRing:
    """This user's keys, to take them out."""
    from dr.keys.folder import default_folder, load_keys
    from dr.keys.ring import KeyRing

    try:
        return load_keys(os.environ, default_folder())
    except DrError:  # they cannot be known; whatever looks like a key is taken out all the same
        return KeyRing()


def _settings(loaded: LoadedSettings) -> str:
    """What `dr settings --json` prints."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(setting_rows(loaded), enc_hook=str)).decode()


def _facts(notes: Sequence[str]) -> str:
    """Versions and this machine, as JSON."""
    import msgspec
    import zmq

    from dr import __version__
    from dr.protocol.version import PROTOCOL_VERSION
    from dr.scene.code_digest import code_digest
    from workers.numa.topology import read_topology
    from workers.prepare.warmup import kernel_digest
    from workers.server.serving import cpu_model

    facts = {
        "dr": __version__,
        "protocol": PROTOCOL_VERSION,
        "kernels": {"code": code_digest(), "compiled": kernel_digest()},
        "python": sys.version,
        "packages": {name: _version(name) for name in PACKAGES},
        "libzmq": zmq.zmq_version(),
        "system": platform.platform(),
        "cpu": {"model": cpu_model(), "features": _features()},
        "topology": read_topology(),
        "notes": notes,
    }
    return msgspec.json.format(msgspec.json.encode(facts)).decode()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _features() -> list[str]:
    """What the CPU can do, in LLVM's words."""
    import llvmlite.binding as llvm

    return sorted(name for name, present in llvm.get_host_cpu_features().items() if present)


def _show(folder: Path, found: Sequence[LogFile], json: bool) -> None:
    import msgspec

    if json:
        print(msgspec.json.encode(found, enc_hook=str).decode())
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("changed", "size", "what", "file"):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for log in found[:SHOWN]:
        changed = strftime("%Y-%m-%d %H:%M:%S", localtime(log.changed_s))
        table.add_row(*map(Text, (changed, show_size(log.size), log.kind, str(log.path))))
    if found:
        print_lines(make_console(), table)
    more = f", {len(found) - SHOWN} older ones are not shown" if len(found) > SHOWN else ""
    print(f"{len(found)} log file{'s' if len(found) != 1 else ''} in {folder}{more}")
    print(JOURNAL)


def _show_pack(output: Path, packed: Sequence[Packed]) -> None:
    for each in packed:
        print(f"  {each.name}, {show_size(each.size)}{', its end' if each.cut else ''}")
    print(f"{output}: {show_size(output.stat().st_size)}; keys and your home folder are taken out, look through it")


def show_size(size: int) -> str:
    """`812 B`, `3.4 kB`, `1.2 MB`."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"
