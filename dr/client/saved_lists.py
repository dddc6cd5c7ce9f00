"""The two files that keep a list of servers, a settings file and a .scene.toml. Knows their rules; knows no command."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dr.client.edited_file import edit_file, read_text
from dr.client.server_list import Row, ServerList
from dr.client.toml_text import TomlText, Value
from dr.errors import BadInput, Impossible
from dr.settings import ServerAddress, Settings, load_settings

SERVERS = "servers"  # the key in both files
SCENE_ENDING = ".scene.toml"
T = TypeVar("T")


class Draft:
    """What a settings file is to become: `servers`, and values of other settings in `changes`."""

    def __init__(self, settings: Settings, entries: Sequence[ServerAddress]) -> None:
        self.settings = settings  # as they are now
        self.servers = ServerList(entries)
        self.changes: dict[str, bool | int] = {}


def read_settings(path: Path) -> Settings:
    """What the file alone says; defaults for a missing file. BadInput names file and key."""
    read_text(path)  # says what is wrong with a file that is there but cannot be reached
    return load_settings(path, {}).values if os.path.exists(path) else Settings()


def edit_settings(path: Path, change: Callable[[Draft], T]) -> T:
    """Lets `change` work on the file's list, and writes what became of it. BadInput leaves the file as it was.

    `change` may be called twice, since others may write at the same time; the last result counts.
    """
    results: list[T] = []

    def rewrite(text: str) -> str:
        settings = read_settings(path)
        entries = _entries(tomllib.loads(text))
        draft = Draft(settings, entries)
        results.append(change(draft))
        return _rewrite(text, entries, draft.servers.rows, draft.changes)

    def check(written: Path) -> None:
        load_settings(written, {})

    edit_file(path, rewrite, check)
    return results[-1]


def save_in_scene(path: Path, servers: Sequence[ServerAddress]) -> bool:
    """Writes the list into a .scene.toml, enabled or not; False, and nothing is touched, when it has this list already.

    BadInput for another kind of file, one that is missing, and one that is no scene.
    """
    if not path.name.lower().endswith(SCENE_ENDING):
        raise BadInput(
            f"{path}: expected a {SCENE_ENDING}, which can keep a list of servers; write one that includes this file: "
            f'[[objects]] with file = "{path.name}"'
        )
    if not os.path.isfile(path):
        raise BadInput(f"{path}: expected a scene file, found {'a folder' if os.path.isdir(path) else 'none'}")

    def rewrite(text: str) -> str:
        return scene_with_list(text, servers, str(path))

    return edit_file(path, rewrite, lambda written: _check_scene(written, path))


def scene_with_list(text: str, servers: Sequence[ServerAddress], label: str) -> str:
    """The text of a .scene.toml with this list; entries that stay keep their lines. BadInput names `label`."""
    entries = _read_scene(text, label)
    draft = ServerList(entries)
    draft.become(servers)
    return _rewrite(text, entries, draft.rows, {})


def _check_scene(written: Path, path: Path) -> None:
    _read_scene(read_text(written), str(path))


def _read_scene(text: str, label: str) -> list[ServerAddress]:
    from dr.scene.formats.scene_toml_schema import SceneTable
    from dr.scene.formats.toml_tables import read_tables

    return read_tables(text.encode(), SceneTable, label).servers


def _rewrite(text: str, entries: Sequence[ServerAddress], rows: Sequence[Row], values: Mapping[str, Value]) -> str:
    """The text with these rows for its list of `entries`, and these values."""
    after = TomlText(text, SERVERS)
    kept = {row.source: row.entry for row in rows if row.source is not None}
    changes = {at: _changes(entries[at], entry) for at, entry in kept.items() if entry != entries[at]}
    after.change(changes)
    after.append([_table(row.entry) for row in rows if row.source is None])  # written as those that may go now
    after.remove([at for at in range(len(entries)) if at not in kept])
    for name, value in values.items():
        after.set_value(name, value)
    written = after.text()
    _check(text, written, [row.entry for row in rows], values)
    return written


def _entries(document: Mapping[str, Any]) -> list[ServerAddress]:
    return msgspec.convert(document.get(SERVERS, []), list[ServerAddress])


def _table(entry: ServerAddress) -> dict[str, Value]:
    """The fields of a new entry that are not their defaults."""
    default = ServerAddress(host=entry.host)
    return {
        "host": entry.host,
        **{name: value for name, value in _changes(default, entry).items() if value is not None},
    }


def _changes(old: ServerAddress, new: ServerAddress) -> dict[str, Value | None]:
    """The fields that differ; None for one that is to be left out."""
    names = (name for name in ServerAddress.__struct_fields__ if getattr(old, name) != getattr(new, name))
    return {name: getattr(new, name) if getattr(new, name) != () else None for name in names}


def _check(before: str, after: str, entries: Sequence[ServerAddress], values: Mapping[str, Value]) -> None:
    """An edit changes what it was asked to, and nothing else."""
    wanted: dict[str, Any] = {**tomllib.loads(before), **values}
    found = tomllib.loads(after)
    listed = _entries(found)
    if listed != list(entries) or {**found, SERVERS: []} != {**wanted, SERVERS: []}:
        raise Impossible("the edited file does not hold what was asked for; nothing was changed")
