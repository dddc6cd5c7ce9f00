"""Every setting of a process, once: its type, default, unit and meaning. Knows a file, an environment and their order.

A setting is one field of Settings. From it follow the key in `dr.toml` (`local_servers = 2`), the environment variable
(`DR_LOCAL_SERVERS=2`) and the line of `dr settings`. What decides a pixel is no setting: see dr.scene.model.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar, get_args, get_type_hints

import msgspec
import platformdirs
from msgspec import Meta, Struct, field

from dr.errors import BadInput, did_you_mean

DEFAULT_PORT = 20204  # of the production engine
DEFAULT_ANNOUNCE_PORT = 20205
DEFAULT_RT_PORT = 20206
SETTINGS_FILE = "dr.toml"
YES_NO = {"yes": True, "on": True, "no": False, "off": False}  # besides true, false, 1 and 0

Part = TypeVar("Part", bound=Struct)
BucketOrder: TypeAlias = Literal["spiral", "hilbert", "rows", "columns", "checker", "random"]
BUCKET_ORDERS: tuple[str, ...] = get_args(BucketOrder)


class ServerAddress(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of a list of servers. Without a port it means all servers of the host, as a bare HOST does."""

    host: Annotated[str, Meta(min_length=1, max_length=255)]
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    enabled: bool = True
    addresses: Annotated[tuple[str, ...], Meta(max_length=64)] = ()  # IP literals, for when the name does not resolve


def _about(text: str, unit: str = "", **limits: Any) -> Meta:
    """What a person should know about a setting; `limits` are msgspec's (ge, le, gt, ...)."""
    return Meta(description=text, extra={"unit": unit}, **limits)


def _seconds(text: str) -> Meta:
    return _about(text, "s", gt=0, le=86400)


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one process; read once at start and passed on as values."""

    # Who renders
    servers: Annotated[
        tuple[ServerAddress, ...], _about("render servers: a list of {host, port, enabled}; no port: all of the host")
    ] = ()
    max_servers: Annotated[
        int, _about("so many of the listed servers take part, the first idle ones; 0: all", "processes", ge=0, le=65536)
    ] = 0
    use_local_host: Annotated[bool, _about("this machine renders too when servers are configured")] = True
    local_servers: Annotated[
        int, _about("server processes on this machine; 0: one per NUMA node", "processes", ge=0, le=1024)
    ] = 0
    threads: Annotated[int, _about("render threads on this machine; 0: one per CPU", "threads", ge=0, le=4096)] = 0

    restart_servers_on_render_end: Annotated[bool, _about("spawners restart the servers that took part")] = False
    save_servers_in_scene: Annotated[bool, _about("a render writes its list of servers into the .scene.toml")] = False
    render_region_warning: Annotated[bool, _about("warn before a region is rendered over the network")] = True

    # How the frame is cut
    bucket_size: Annotated[int, _about("side of a bucket; 0: chosen by size and samples", "pixels", ge=0, le=1024)] = 0
    bucket_order: Annotated[BucketOrder, _about("which buckets come first: " + ", ".join(BUCKET_ORDERS))] = "spiral"

    # Where a server listens
    port: Annotated[int, _about("first port of a render server", "TCP port", ge=1, le=65535)] = DEFAULT_PORT
    bind: Annotated[
        str,
        _about(
            "address on which servers and their spawner listen; none: all interfaces with a farm key, else loopback"
        ),
    ] = ""
    announce_port: Annotated[
        int,
        _about("where a spawner announces its servers; the next free one if that is taken", "TCP port", ge=1, le=65535),
    ] = DEFAULT_ANNOUNCE_PORT

    # Folders
    log_folder: Annotated[Path, _about("where log files go")] = field(
        default_factory=lambda: platformdirs.user_log_path("dr", appauthor=False)
    )
    kernel_cache: Annotated[Path, _about("where compiled kernels are kept")] = field(
        default_factory=lambda: platformdirs.user_cache_path("dr", appauthor=False) / "kernels"
    )

    # Patience of a client
    dial_s: Annotated[float, _seconds("a dial that has not connected by then has failed")] = 5.0
    welcome_s: Annotated[float, _seconds("a server that has not answered `hello` by then is lost")] = 2.0
    ping_s: Annotated[float, _seconds("between two pings to a server")] = 1.0
    dead_s: Annotated[float, _seconds("a peer that has been silent for so long is lost")] = 3.0
    backoff_first_s: Annotated[float, _seconds("first pause before a lost server is dialled again")] = 0.1
    backoff_last_s: Annotated[float, _seconds("longest such pause")] = 1.0

    # Patience of a server, and what a client may cost it
    beat_s: Annotated[float, _seconds("between two signs of life to a client")] = 0.25
    setup_s: Annotated[float, _seconds("a client that sends no frame for so long loses its lease")] = 30.0
    drain_s: Annotated[float, _seconds("running buckets are waited for so long before a server ends")] = 4.0
    bucket_s: Annotated[float, _seconds("a bucket that takes longer has failed")] = 86400.0
    stuck_s: Annotated[float, _seconds("a render thread that goes on for so long after a cancel is stuck")] = 10.0
    waiters: Annotated[int, _about("clients that may wait for a busy server", "clients", ge=0, le=4096)] = 64
    queued_buckets: Annotated[int, _about("buckets that a client may queue", "buckets", ge=1, le=1 << 24)] = 65536
    scene_bytes: Annotated[int, _about("size of all files of a scene", "bytes", ge=1, le=1 << 48)] = 1 << 40


class LoadedSettings(Struct, frozen=True, kw_only=True):
    """The values, and for each name the place that decided it: a file, `DR_...`, `command line` or `default`."""

    values: Settings
    origins: dict[str, str]


class Layer(NamedTuple):
    """Values from one place; `is_text` ones are still words, relative folders are below `folder`."""

    origin: str
    values: Mapping[str, Any]
    is_text: bool = False
    folder: Path = Path()


class SettingRow(Struct, frozen=True, kw_only=True):
    """One line of `dr settings`."""

    name: str
    value: Any
    default: Any
    unit: str
    origin: str
    variable: str
    help: str


def load_settings(
    file: Path | None, environ: Mapping[str, str], options: Mapping[str, Any] | None = None
) -> LoadedSettings:
    """Merges defaults < file < environment < options (of the command line; None means not given).

    Without `file` the user's own `dr.toml` is read where there is one. BadInput names file or variable, and the key.
    """
    given: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.__struct_fields__, "default")
    for layer in (*_file_layers(file), *_environment_layers(environ), Layer("command line", options or {})):
        for name, value in layer.values.items():
            if value is not None:
                given[name] = _convert(name, value, layer)
                origins[name] = layer.origin
    values = Settings(**given)
    _check_together(values, origins)
    return LoadedSettings(values=values, origins=origins)


def setting_rows(loaded: LoadedSettings) -> list[SettingRow]:
    """What `dr settings` shows, in the order of Settings."""
    default = Settings()
    return [
        SettingRow(
            name=name,
            value=getattr(loaded.values, name),
            default=getattr(default, name),
            unit=about.extra["unit"] if about.extra else "",
            origin=loaded.origins[name],
            variable=variable_name(name),
            help=about.description or "",
        )
        for name, about in _abouts().items()
    ]


def settings_part(values: Settings, kind: type[Part]) -> Part:
    """The settings that one part takes: fields of `kind` that are named alike; its other fields keep their defaults."""
    names = set(kind.__struct_fields__) & set(Settings.__struct_fields__)
    return kind(**{name: getattr(values, name) for name in names})


def as_environment(values: Settings) -> dict[str, str]:
    """The values as environment variables: a child process that reads these has the same settings."""
    texts = {name: getattr(values, name) for name in Settings.__struct_fields__ if variable_name(name)}
    return {variable_name(name): str(int(v) if isinstance(v, bool) else v) for name, v in texts.items()}


def default_settings_file() -> Path:
    """The user's own `dr.toml`, whether it exists or not."""
    return platformdirs.user_config_path("dr", appauthor=False) / SETTINGS_FILE


def variable_name(name: str) -> str:
    """The environment variable of a setting; a list such as `servers` has none."""
    return "" if name == "servers" else f"DR_{name.upper()}"


def _abouts() -> dict[str, Meta]:
    hints = get_type_hints(Settings, include_extras=True)
    return {name: hints[name].__metadata__[0] for name in Settings.__struct_fields__}


def _file_layers(file: Path | None) -> list[Layer]:
    path = file or default_settings_file()
    if file is None and not path.is_file():
        return []
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"settings: cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # TOML or UTF-8
        raise BadInput(f"{path}: expected TOML such as `local_servers = 2`: {error}") from error
    return [Layer(str(path), values, folder=path.parent)]


def _environment_layers(environ: Mapping[str, str]) -> list[Layer]:
    """One layer per variable, so that an error and an origin can name it. An empty variable counts as not set."""
    variables = {variable_name(name): name for name in Settings.__struct_fields__}
    given = [(variable, name) for variable, name in variables.items() if environ.get(variable)]
    return [Layer(variable, {name: environ[variable]}, is_text=True) for variable, name in given]


def _convert(name: str, value: Any, layer: Layer) -> Any:
    if name not in Settings.__struct_fields__:
        raise BadInput(f"{layer.origin}: unknown setting {name!r}{did_you_mean(name, Settings.__struct_fields__)}")
    kind = get_type_hints(Settings, include_extras=True)[name]
    if layer.is_text and kind.__origin__ is bool:
        value = YES_NO.get(value.strip().lower(), value)
    try:
        converted = msgspec.convert(value, kind, strict=not layer.is_text, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise BadInput(
            f"{layer.origin}: {name} ({_abouts()[name].description}): {error}; found {value!r:.80}"
        ) from error
    return layer.folder / converted if isinstance(converted, Path) else converted


def _decode_path(kind: type, value: Any) -> Any:
    if kind is not Path:
        raise NotImplementedError(kind)
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("Expected the name of a folder")
    return Path(value).expanduser()


def _check_together(values: Settings, origins: Mapping[str, str]) -> None:
    """Pairs that make sense in one order only: a farm with dead_s < ping_s would lose healthy servers."""
    for lesser, greater in (("ping_s", "dead_s"), ("beat_s", "dead_s"), ("backoff_first_s", "backoff_last_s")):
        low, high = getattr(values, lesser), getattr(values, greater)
        if low > high:
            found = f"{low} ({origins[lesser]}) and {high} ({origins[greater]})"
            raise BadInput(f"settings: expected {lesser} <= {greater}, found {found}")
