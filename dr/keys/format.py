"""The text of a key file, both ways. Knows TOML and what belongs into it; knows no path but as a word in errors.

Two kinds, each with a version: a client key (one pair) and a farm key (one pair and the clients it admits, or the
public half alone). Described in docs/threat-model.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from dr.errors import BadInput, did_you_mean, printable
from dr.keys.key import KeyPair, Secret, parse_pair, parse_public
from dr.keys.ring import FARM_NAME

VERSION = 1
MAX_NAME_LETTERS = 64
SHOWN_LETTERS = 20  # of what an error repeats: less than a key, which may stand in a wrong place
_CLIENT = """\
# A client key of dr. KEEP IT SECRET: whoever can read this file can render in your name wherever this key is admitted.
version = 1
kind = "client"
"""
_FARM = """\
# A farm key of dr. KEEP IT SECRET: whoever can read this file can pose as any server of the farm and render on it.
# Put a copy on each machine of the farm with `dr keys import-farm`. After a loss: `dr keys init --renew farm`.
version = 1
kind = "farm"
"""
_FARM_PUBLIC = """\
# The public half of a farm key of dr. No secret, but check where it comes from: you trust the servers that it names.
version = 1
kind = "farm"
"""


class FarmKey(Struct, frozen=True, kw_only=True):
    """A farm file. Without `secret` it is the public half, which admits nobody."""

    public: str
    secret: Secret | None = None
    clients: Mapping[str, str] = {}  # public key by name


class _Fields(Struct):
    version: int
    kind: str
    public_key: str
    secret_key: str | None = None
    clients: dict[str, str] | None = None


def parse_client(data: bytes, place: str) -> KeyPair:
    """Raises BadInput, one line that names `place`, for whatever is not a client key file."""
    fields = _parse(data, place, "client")
    if fields.clients is not None:
        raise BadInput(f"{place}: expected no [clients] in a client key, found some; only a farm key lists them")
    if fields.secret_key is None:
        raise BadInput(
            f"{place}: expected secret_key, found none; bring the whole file back, or renew it (dr keys init -h)"
        )
    return parse_pair(fields.public_key, fields.secret_key, place)


def parse_farm(data: bytes, place: str) -> FarmKey:
    """Raises BadInput, one line that names `place`, for whatever is not a farm key file."""
    fields = _parse(data, place, "farm")
    if fields.secret_key is None:
        if fields.clients:
            raise BadInput(f"{place}: expected secret_key beside [clients], found none; bring the whole file back")
        return FarmKey(public=parse_public(fields.public_key, f"{place}: public_key"))
    pair = parse_pair(fields.public_key, fields.secret_key, place)
    return FarmKey(public=pair.public, secret=pair.secret, clients=_check_clients(fields.clients or {}, place))


def check_name(name: str, place: str) -> str:
    """The same name. Raises BadInput when it is not one that can be shown, typed and told from others."""
    if not (name.isprintable() and name == name.strip() and 1 <= len(name) <= MAX_NAME_LETTERS):
        expected = f"1 to {MAX_NAME_LETTERS} printable letters without spaces at the ends"
        raise BadInput(f"{place}: expected a name of {expected}, found {printable(name)[:SHOWN_LETTERS]!r}")
    if name == FARM_NAME or name.startswith("-"):
        expected = f"a name that does not begin with '-' and is not {FARM_NAME!r}"
        raise BadInput(f"{place}: expected {expected}, found {name[:SHOWN_LETTERS]!r}")
    return name


def format_client(pair: KeyPair) -> str:
    return f'{_CLIENT}public_key = "{pair.public}"\nsecret_key = "{pair.secret.reveal()}"\n'


def format_farm(farm: FarmKey) -> str:
    """Names are sorted, so that equal keys give equal files."""
    if farm.secret is None:
        return f'{_FARM_PUBLIC}public_key = "{farm.public}"\n'
    lines = [f"{_quoted(name)} = {_quoted(farm.clients[name])}\n" for name in sorted(farm.clients)]
    pair = f'public_key = "{farm.public}"\nsecret_key = "{farm.secret.reveal()}"\n'
    return f"{_FARM}{pair}\n[clients]\n{''.join(lines)}"


def _parse(data: bytes, place: str, kind: str) -> _Fields:
    tables = _read_toml(data, place)
    if tables.get("version") != VERSION or isinstance(tables["version"], bool):
        found = tables.get("version", "none")
        hint = "this dr is too old for it" if isinstance(found, int) and found > VERSION else "it is no key file"
        raise BadInput(f"{place}: expected version = {VERSION}, found {_shown(found)}; {hint}")
    if tables.get("kind") != kind:
        raise BadInput(
            f"{place}: expected kind = {kind!r}, found {_shown(tables.get('kind', 'none'))}; choose another file"
        )
    for name in tables.keys() - set(_Fields.__struct_fields__):
        raise BadInput(f"{place}: unknown entry {_shown(name)}{did_you_mean(name, _Fields.__struct_fields__)}")
    try:
        return msgspec.convert(tables, _Fields, strict=True)
    except msgspec.ValidationError as error:  # names types and places, never values
        raise BadInput(f"{place}: {str(error).replace('$.', '')}") from None


def _read_toml(data: bytes, place: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # TOML or UTF-8; nested without end
        text = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else printable(str(error))
        raise BadInput(f"{place}: expected a key file (TOML): {text}"[:300]) from None


def _check_clients(clients: dict[str, str], place: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for name, public in clients.items():
        shown = check_name(name, f"{place}: [clients]")[:SHOWN_LETTERS]
        parse_public(public, f"{place}: [clients] {shown!r}")
        if public in names:
            raise BadInput(f"{place}: [clients]: expected one name per key, found {names[public]!r} and {shown!r}")
        names[public] = shown
    return clients


def _shown(value: object) -> str:
    """Short, and nothing that could be a key."""
    return repr(value) if isinstance(value, int | str) and len(str(value)) <= SHOWN_LETTERS else "something else"


def _quoted(text: str) -> str:
    """A TOML basic string; `text` is printable."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
