"""What a user asks for in one render: the scene, the picture, the servers. Knows no process and no file's content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from dr.errors import BadInput
from dr.protocol.messages import Channel
from dr.scene.model import RenderSettings, ViewSettings
from dr.settings import Settings

Given = TypeVar("Given", RenderSettings, ViewSettings)


class Request(Struct, frozen=True, kw_only=True):
    """One render. What is in `picture` and `view` wins over the scene file, which wins over the built-in defaults."""

    scene: Path
    picture: Mapping[str, Any] = msgspec.field(default_factory=dict)  # fields of RenderSettings
    view: Mapping[str, Any] = msgspec.field(default_factory=dict)  # fields of ViewSettings
    channels: tuple[Channel, ...] = tuple(Channel)
    outputs: tuple[Path, ...] = ()  # checked before the render starts
    servers: tuple[str, ...] = ()  # HOST:PORT; they win over the scene's list, which wins over the settings'
    local: bool | None = None  # whether this machine renders, too; None: as the settings say
    settings: Settings = Settings()


def merge(base: Given, given: Mapping[str, Any]) -> Given:
    """`base` with the given fields, each checked. Raises BadInput naming the field."""
    values = {**msgspec.to_builtins(base), **msgspec.to_builtins(dict(given))}
    try:
        return msgspec.convert(values, type(base))
    except msgspec.ValidationError as error:
        expected, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`")
        found = f", found {given[name]!r}" if name in given else ""
        raise BadInput(f"{name or 'picture settings'}: {expected[:1].lower()}{expected[1:]}{found}") from error


def parse_channels(names: list[str] | tuple[str, ...]) -> tuple[Channel, ...]:
    """Channels by name, in the order of Channel. Raises BadInput for a name that is none."""
    wanted = set()
    for name in names:
        try:
            wanted.add(Channel(name.strip().lower()))
        except ValueError:
            choices = ", ".join(Channel)
            raise BadInput(f"channels: expected names among {choices}, found {name!r}") from None
    if not wanted:
        raise BadInput(f"channels: expected at least one of {', '.join(Channel)}")
    return tuple(channel for channel in Channel if channel in wanted)
