"""`dr settings`: shows every setting with its value and where that comes from. Changes nothing."""

from __future__ import annotations

import os

import msgspec

from dr.cli.options import Json, SettingsFile
from dr.settings import LoadedSettings, default_settings_file, load_settings, setting_rows

EXAMPLES = """\
Examples:

dr settings

DR_THREADS=4 dr settings --settings farm.toml --json
"""


def settings(settings: SettingsFile = None, json: Json = False) -> int:
    """Show every setting: value, unit, default, where the value comes from, what it means."""
    loaded = load_settings(settings, os.environ)
    if json:
        print(msgspec.json.encode(setting_rows(loaded), enc_hook=str).decode())
    else:
        _print_table(loaded)
        print(f"settings file: {settings or default_settings_file()}")
    return 0


def _print_table(loaded: LoadedSettings) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("setting", "value", "unit", "from", "meaning"):
        table.add_column(column, overflow="fold")
    for row in setting_rows(loaded):
        meaning = f"{row.help} ({row.variable})" if row.variable else row.help
        table.add_row(*map(Text, (row.name, _show(row.value), row.unit, row.origin, meaning)))
    Console(highlight=False).print(table)


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
