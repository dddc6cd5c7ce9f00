"""What a user asks for in one render: the scene, the picture, the servers. Knows no process and no file's content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from dr.errors import BadInput, did_you_mean
from dr.protocol.messages import Channel
from dr.scene.model import RenderSettings, ViewSettings
from dr.settings import Settings, default_settings_file, load_settings

if TYPE_CHECKING:
    from dr.keys.security import Security

AUTO = "auto"

Given = TypeVar("Given", RenderSettings, ViewSettings)


def _no_keys() -> Security:
    from dr.keys.security import Security  # libzmq comes with it

    return Security()


class Request(Struct, frozen=True, kw_only=True):
    """One render. What is in `picture` and `view` wins over the scene file, which wins over the built-in defaults."""

    scene: Path
    picture: Mapping[str, Any] = msgspec.field(default_factory=dict)  # fields of RenderSettings
    view: Mapping[str, Any] = msgspec.field(default_factory=dict)  # fields of ViewSettings
    channels: tuple[Channel, ...] = tuple(Channel)
    outputs: tuple[Path, ...] = ()  # checked before the render starts
    servers: tuple[str, ...] = ()  # HOST:PORT; they win over the scene's list, which wins over the settings'
    listen: str | None = None  # HOST:PORT for servers that dial out
    local: bool | None = None  # whether this machine renders, too; None: as the settings say
    settings: Settings = Settings()
    settings_file: Path | None = None  # where they come from, whether it exists or not
    frames: tuple[int, ...] = ()  # their numbers; none: the scene's own frame
    skip_existing: bool = False  # frames whose outputs are all there
    resume: bool = False  # go on from the journals beside the outputs
    autosave_s: float | None = None  # between two partial pictures
    time_limit_s: float | None = None  # then what there is is written
    wait_s: float | None = None  # without any server; None: as long as it takes
    bucket_log: Path | None = None  # one line per bucket of all frames
    security: Security = msgspec.field(default_factory=_no_keys)

    @property
    def numbered(self) -> bool:
        """Whether each frame has files of its own."""
        from dr.client.frames import has_number

        return bool(self.frames) or any(map(has_number, self.outputs))


_PATIENCE = ("autosave_s", "time_limit_s", "wait_s")
_OWN = frozenset(
    {"size", "channels", "outputs", "bucket_log", "servers", "listen", "local", "settings", "insecure"}
    | {"frames", "skip_existing", "resume", *_PATIENCE}
)
_PICTURE = frozenset(RenderSettings.__struct_fields__)
_VIEW = frozenset(ViewSettings.__struct_fields__)
_PROCESS = frozenset(Settings.__struct_fields__) - _OWN


def make_request(scene: str | Path, options: Mapping[str, Any], environ: Mapping[str, str]) -> Request:
    """Sorts options by what they decide; None means not given. Raises BadInput for an unknown one or a bad value."""
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in _OWN | _PICTURE | _VIEW | _PROCESS:
            raise BadInput(f"unknown option {name!r}{did_you_mean(name, _OWN | _PICTURE | _VIEW | _PROCESS)}")
    picture = {**_size(given.get("size")), **_pick(given, _PICTURE)}
    merge(RenderSettings(), picture)
    merge(ViewSettings(), _pick(given, _VIEW))
    return Request(
        scene=Path(scene),
        picture=picture,
        view=_pick(given, _VIEW),
        channels=parse_channels(_many(given.get("channels", tuple(Channel)))),
        outputs=tuple(Path(path) for path in _many(given.get("outputs", ()))),
        servers=tuple(_many(given.get("servers", ()))),
        listen=given.get("listen"),
        local=given.get("local"),
        settings=_settings(given.get("settings"), _pick(given, _PROCESS), environ),
        settings_file=_settings_file(given.get("settings")),
        frames=_frames(given.get("frames")),
        bucket_log=given.get("bucket_log"),
        skip_existing=bool(given.get("skip_existing")),
        resume=bool(given.get("resume")),
        **{name: _seconds(name, given[name]) for name in _PATIENCE if name in given},
        security=_load_security(environ, bool(given.get("insecure"))),
    )


def merge(base: Given, given: Mapping[str, Any]) -> Given:
    """`base` with the given fields, each checked. Raises BadInput naming the field."""
    values = {**msgspec.to_builtins(base), **msgspec.to_builtins(dict(given))}
    try:
        return msgspec.convert(values, type(base))
    except msgspec.ValidationError as error:
        expected, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`")
        field = name.partition("[")[0]
        found = f", found {given[field]!r}" if field in given else ""
        raise BadInput(f"{name or 'settings'}: {expected[:1].lower()}{expected[1:]}{found}") from error


def parse_channels(names: Iterable[str]) -> tuple[Channel, ...]:
    """Channels by name, in the order of Channel. Raises BadInput for a name that is none."""
    wanted = {str(name).strip().lower() for name in names}
    for name in sorted(wanted - set(Channel)):
        hint = did_you_mean(name, map(str, Channel))
        raise BadInput(f"channels: expected names among {', '.join(Channel)}, found {name!r}{hint}")
    if not wanted:
        raise BadInput(f"channels: expected at least one of {', '.join(Channel)}, found none")
    return tuple(channel for channel in Channel if channel in wanted)


def _pick(given: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: _plain(name, value) for name, value in given.items() if name in names}


def _plain(name: str, value: Any) -> Any:
    """Friendly spellings of a value: `bucket_size="auto"`, `region=(x, y, width, height)`, `camera=0`."""
    if name == "bucket_size" and value == AUTO:
        return 0
    if name == "region" and isinstance(value, Iterable):
        return list(value)
    if name == "camera" and isinstance(value, int):
        return str(value)
    return value


def _many(value: Any) -> Iterable[Any]:
    """One name where several may be given."""
    return [value] if isinstance(value, str | Path) else value


def _size(size: Any) -> dict[str, int]:
    if size is None:
        return {}
    try:
        width, height = size
    except (TypeError, ValueError):
        raise BadInput(f"size: expected (width, height) in pixels, found {size!r}") from None
    return {"width": width, "height": height}


def _frames(frames: Any) -> tuple[int, ...]:
    from dr.client.frames import parse_frames

    if frames is None:
        return ()
    if isinstance(frames, str):
        return parse_frames(frames)
    numbers = [frames] if isinstance(frames, int) else list(frames)
    if not numbers:
        raise BadInput("frames: expected at least one number, found none")
    return parse_frames(",".join(map(str, numbers)))


def _seconds(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or not 0 < value < inf:
        raise BadInput(f"{name}: expected seconds, more than 0, found {value!r}")
    return float(value)


def _settings_file(source: Settings | Path | str | None) -> Path | None:
    if isinstance(source, Settings):
        return None
    return default_settings_file() if source is None else Path(source)


def _load_security(environ: Mapping[str, str], insecure: bool) -> Security:
    from dr.client.guard import load_security

    return load_security(environ, insecure)


def _settings(source: Settings | Path | str | None, options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    if isinstance(source, Settings):
        return msgspec.structs.replace(source, **options)
    return load_settings(None if source is None else Path(source), environ, options).values
