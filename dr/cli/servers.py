"""`dr servers`: changes and shows the list of render servers. Knows words; the files are changed elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from dr.cli import COMPLETE, INCOMPLETE
from dr.cli.options import Json, SettingsFile
from dr.errors import BadInput
from dr.settings import ServerAddress, default_settings_file

if TYPE_CHECKING:
    from dr.client.saved_lists import Draft
    from dr.client.server_list import ServerList
    from dr.client.vray_list import VrayList

MAX_BYTES = 1 << 20  # of a file that is imported
EXAMPLES = """\
Examples:

dr servers add box2 box3:30000-30003

dr servers disable box3

dr servers import vray_dr.cfg

docs/servers.md says more.
"""

servers_app = typer.Typer(
    help="The list of render servers in the settings file. A render that uses it follows within a second.",
    no_args_is_help=True,
    epilog=EXAMPLES,
)

Words: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="HOST[:PORT]...", show_default=False, help="As listed; a bare HOST: all its entries."),
]


@servers_app.command("add")
def add(
    servers: Annotated[
        list[str],
        typer.Argument(
            metavar="HOST[:PORT[-PORT]]...",
            show_default=False,
            help="HOST (all its servers), HOST:PORT, HOST:FIRST-LAST (each of them), [IPv6]:PORT or dns+any:HOST.",
        ),
    ],
    settings: SettingsFile = None,
) -> int:
    """Add servers. One that is listed already is enabled."""
    return _edit(settings, lambda listed: listed.add(servers))


@servers_app.command("edit")
def edit(
    old: Annotated[str, typer.Argument(metavar="OLD", show_default=False, help="An entry as listed.")],
    new: Annotated[str, typer.Argument(metavar="NEW", show_default=False, help="HOST or HOST:PORT.")],
    settings: SettingsFile = None,
) -> int:
    """Name an entry anew. A bare HOST for a bare HOST renames the host in all its entries."""
    return _edit(settings, lambda listed: listed.edit(old, new))


@servers_app.command("remove")
def remove(servers: Words, settings: SettingsFile = None) -> int:
    """Remove servers."""
    return _edit(settings, lambda listed: listed.remove(servers))


@servers_app.command("enable")
def enable(servers: Words, settings: SettingsFile = None) -> int:
    """Let listed servers take part."""
    return _edit(settings, lambda listed: listed.enable(servers, enabled=True))


@servers_app.command("disable")
def disable(servers: Words, settings: SettingsFile = None) -> int:
    """Keep servers in the list and out of renders."""
    return _edit(settings, lambda listed: listed.enable(servers, enabled=False))


@servers_app.command("list")
def list_servers(json: Json = False, settings: SettingsFile = None) -> int:
    """Show the list."""
    from dr.client.server_list import describe

    path, entries = _path(settings), _read(settings)
    if json:
        import msgspec

        facts = {"file": str(path), "servers": [describe(entry) for entry in entries]}
        print(msgspec.json.encode(facts).decode())
    elif not entries:
        _say_how_to_add(path)
    else:
        _print_table(entries, path)
    return COMPLETE


@servers_app.command("resolve")
def resolve(
    servers: Annotated[
        list[str] | None,
        typer.Argument(metavar="[HOST...]", show_default=False, help="As listed. Default: all of the list."),
    ] = None,
    settings: SettingsFile = None,
) -> int:
    """Look up and store the addresses of servers: a render uses them when a name does not resolve.

    Status 1 if an enabled name has no address; what is stored for it stays.
    """
    from dr.client.resolver import look_up
    from dr.client.server_list import ServerList, host_name

    listed = ServerList(_read(settings))
    if not listed.rows and not servers:
        return _say_how_to_add(_path(settings))
    rows = [row for word in servers for row in listed.find(word)] if servers else listed.rows
    found = look_up(host_name(row.entry) for row in rows)
    _edit(settings, lambda listed_now: listed_now.store(found))
    missed = {row.entry.host for row in rows if row.entry.enabled and not found[host_name(row.entry)].literals}
    return INCOMPLETE if missed else COMPLETE


@servers_app.command("save")
def save(
    scene: Annotated[Path, typer.Argument(metavar="SCENE.scene.toml", show_default=False)],
    settings: SettingsFile = None,
) -> int:
    """Write the list into a scene, where it wins over the settings file, wherever the scene is rendered."""
    from dr.client.saved_lists import save_in_scene

    entries = _read(settings)
    size = f"{len(entries)} server{'s' if len(entries) != 1 else ''}"
    if save_in_scene(scene, entries):
        print(f"{scene}: now lists {size}" if entries else f"{scene}: lists no servers any more")
    elif entries:
        print(f"{scene}: lists these {size} already, nothing changed")
    else:
        _say_how_to_add(_path(settings))
    return COMPLETE


@servers_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="V-Ray's vray_dr.cfg.")],
    settings: SettingsFile = None,
) -> int:
    """Take over servers and settings from V-Ray. What is listed here already stays."""
    from dr.client.vray_list import parse_vray_list

    found = parse_vray_list(_read_bytes(file))
    if not found.servers:
        raise BadInput(f"{file}: expected V-Ray's vray_dr.cfg with lines such as `box2 1 20204`, found no such line")
    _edit_settings(settings, lambda draft: _take_over(draft, found))
    for note in found.notes:
        print(f"{file}: {note}")
    return COMPLETE


def _take_over(draft: Draft, found: VrayList) -> list[str]:
    lines = draft.servers.merge(found.servers)
    for name, value in found.settings.items():
        old = getattr(draft.settings, name)
        if value != old:
            draft.changes[name] = value
            lines.append(f"{name}: {_show(value)} instead of {_show(old)}")
    return lines or ["all of it is listed already, nothing changed"]


def _edit(settings: Path | None, change: Callable[[ServerList], list[str]]) -> int:
    return _edit_settings(settings, lambda draft: change(draft.servers))


def _edit_settings(settings: Path | None, change: Callable[[Draft], list[str]]) -> int:
    """Changes the file and says what was changed."""
    from dr.client.saved_lists import edit_settings

    path = _path(settings)
    is_new = not os.path.exists(path)
    for line in edit_settings(path, change):
        print(line)
    if is_new and os.path.exists(path):
        print(f"{path}: made")
    return COMPLETE


def _read(settings: Path | None) -> Sequence[ServerAddress]:
    from dr.client.saved_lists import read_settings

    return read_settings(_path(settings)).servers


def _read_bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{file}: cannot read it: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise BadInput(f"{file}: expected V-Ray's vray_dr.cfg, found a file of more than {MAX_BYTES} bytes")
    return data


def _path(settings: Path | None) -> Path:
    return settings or default_settings_file()


def _say_how_to_add(path: Path) -> int:
    from dr.client.server_list import HOW_TO_ADD

    print(f"{path}: no servers are listed; {HOW_TO_ADD}")
    return COMPLETE


def _print_table(entries: Iterable[ServerAddress], path: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from dr.cli.tables import make_console, print_lines

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("server", "port", "enabled", "addresses"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        cells = (entry.host, str(entry.port or "all"), _show(entry.enabled), ", ".join(entry.addresses))
        table.add_row(*map(Text, cells), style="" if entry.enabled else "dim")
    print_lines(make_console(), table)
    print(f"from {path}; a scene's own list and dr render --server win over it")


def _show(value: bool | int) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
