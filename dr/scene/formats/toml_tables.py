"""Reads TOML into typed tables. Knows how to name a wrong key and its place; does not know what any table means."""

from __future__ import annotations

import math
import tomllib
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from dr.errors import BadInput
from dr.scene.explain import explain, suggest

_MAX_BYTES = 1 << 22
_MAX_LINE = 1 << 13  # a dotted key costs the square of its length
T = TypeVar("T")


def read_tables(data: bytes, table: type[T], label: str) -> T:
    """The document as a `table`. BadInput names the file and the line or the key path."""
    if len(data) > _MAX_BYTES:
        raise BadInput(f"{label}: expected at most {_MAX_BYTES} bytes, found {len(data)}; put meshes into .glb")
    if max(map(len, data.split(b"\n"))) > _MAX_LINE:
        raise BadInput(f"{label}: expected lines of at most {_MAX_LINE} bytes, found a longer one")
    try:
        document = tomllib.loads(data.decode())
        _check(document, inspect.type_info(table), label, "")
        return msgspec.convert(document, table)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{label}: not valid TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{label}: expected UTF-8 text, found byte {data[error.start]:#04x}") from error
    except (msgspec.ValidationError, RecursionError) as error:
        raise explain(label, error) from error


def _check(value: Any, expected: inspect.Type, label: str, path: str) -> None:
    """Refuses unknown keys and numbers that are not finite; wrong types are left to msgspec."""
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{label}: {path}: expected a finite number, found {value}")
    if isinstance(value, list):
        for number, item in enumerate(value):
            _check(item, _item_type(expected), label, f"{path}[{number}]")
    if isinstance(value, dict):
        known = _fields(value, expected)
        for key, item in value.items():
            here = f"{path}.{key}" if path else key
            if known is not None and key not in known:
                raise BadInput(f"{label}: {here[:200]}: unknown key; {suggest(key[:80], known)}")
            _check(item, (known or {}).get(key, inspect.AnyType()), label, here)


def _fields(value: dict[str, Any], expected: inspect.Type) -> dict[str, inspect.Type] | None:
    """The keys that the table `value` may have; None when that cannot be told."""
    candidates = expected.types if isinstance(expected, inspect.UnionType) else (expected,)
    for candidate in candidates:
        if not isinstance(candidate, inspect.StructType):
            continue
        known = {field.encode_name: field.type for field in candidate.fields}
        if candidate.tag_field is None:
            return known
        if value.get(candidate.tag_field) == candidate.tag:
            return {**known, candidate.tag_field: inspect.AnyType()}
    return None


def _item_type(expected: inspect.Type) -> inspect.Type:
    return expected.item_type if isinstance(expected, inspect.ListType) else inspect.AnyType()
