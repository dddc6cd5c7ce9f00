"""Reads V-Ray's list of servers, vray_dr.cfg. Knows its lines and what they are called here; opens no file.

A line is `host enabled port`, where the port may be missing, or `setting value`; the settings follow the servers.
Programs that write this file for V-Ray also leave out the second number or write UTF-16.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from dr.client.server_list import parse_entries
from dr.errors import BadInput, printable
from dr.settings import DEFAULT_PORT, ServerAddress

SWITCHES = {
    "restart_slaves": "restart_servers_on_render_end",
    "list_in_scene": "save_servers_in_scene",
    "use_local_machine": "use_local_host",
}
NUMBERS = {"max_servers": ("max_servers", 65536)}  # what it is called here, and the largest
NOT_HERE = ("transfer_missing_assets", "use_cached_assets", "cache_limit_type", "cache_limit", "autostart_local_slave")
KNOWN = {*SWITCHES, *NUMBERS, *NOT_HERE}
_PORTS = re.compile(r"[0-9]+(-[0-9]+)?")
_SHOWN = 60  # letters of a line that is not understood


class VrayList(Struct, frozen=True):
    """`settings`: by our names. `notes`: a line for each line of the file that we do not take over."""

    servers: tuple[ServerAddress, ...]
    settings: dict[str, bool | int]
    notes: tuple[str, ...]


def parse_vray_list(data: bytes) -> VrayList:
    """What the file says; a line that makes no sense is a note, never an error."""
    servers: list[ServerAddress] = []
    settings: dict[str, bool | int] = {}
    notes: list[str] = []
    among_settings = False
    for number, line in enumerate(_decode(data).splitlines(), start=1):
        words = line.partition("//")[0].split()
        if not words:
            continue
        name = words[0].lower()
        among_settings |= name in KNOWN and len(words) == 2
        try:
            if among_settings and len(words) == 2:
                settings |= _read_setting(name, words[1])
            else:
                servers += _read_server(words)
        except BadInput as error:
            notes.append(f"line {number}, {printable(line.strip())[:_SHOWN]!r}: {error}")
    return VrayList(tuple(_as_ours(servers)), settings, tuple(notes))


def _decode(data: bytes) -> str:
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def _read_setting(name: str, value: str) -> dict[str, bool | int]:
    if name in NOT_HERE:
        raise BadInput("there is no such setting here, skipped")
    if name in SWITCHES:
        return {SWITCHES[name]: bool(_read_number(value, 1))}
    if name in NUMBERS:
        ours, largest = NUMBERS[name]
        return {ours: _read_number(value, largest)}
    raise BadInput("this setting is not known, skipped")


def _read_number(text: str, largest: int) -> int:
    """V-Ray writes `1`, some settings as `100.000000`."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (number.is_integer() and 0 <= number <= largest):
        raise BadInput(f"expected a number from 0 to {largest}, skipped")
    return int(number)


def _read_server(words: list[str]) -> list[ServerAddress]:
    """`host enabled port`, `host enabled`, or `host port`, where no number but a port is above 1."""
    host, numbers = words[0], words[1:]
    is_port_alone = len(numbers) == 1 and _PORTS.fullmatch(numbers[0]) and numbers[0] not in ("0", "1")
    switch, *ports = ["1", *numbers] if is_port_alone else numbers or [""]
    if switch not in ("0", "1") or len(ports) > 1:
        raise BadInput("expected HOST ENABLED PORT, skipped")
    place = ":".join([f"[{host}]" if ":" in host else host, *ports])
    return [replace(entry, enabled=switch == "1") for entry in parse_entries(place)]


def _as_ours(servers: Sequence[ServerAddress]) -> list[ServerAddress]:
    """V-Ray names the port of a host's one server; here a bare host means all its servers, which the first names.

    So a host whose only port is the default one becomes a bare host. One with several lines keeps its ports.
    """
    ports: dict[str, set[int | None]] = {}
    for each in servers:
        ports.setdefault(each.host.lower(), set()).add(each.port)
    ours: dict[tuple[str, int | None], ServerAddress] = {}
    for each in servers:
        is_alone = ports[each.host.lower()] <= {DEFAULT_PORT, None}
        entry = replace(each, port=None) if is_alone else each
        ours[entry.host.lower(), entry.port] = entry  # of a host that is listed twice, the last line
    return list(ours.values())
