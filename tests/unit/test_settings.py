"""Settings: who wins, where a value comes from, and what a mistake says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from dr import settings as module
from dr.errors import BadInput
from dr.settings import ServerAddress, Settings, load_settings, setting_rows, settings_part, variable_name


@pytest.fixture(autouse=True)
def no_file_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "default_settings_file", lambda: tmp_path / "user" / "dr.toml")


def toml(folder: Path, text: str) -> Path:
    path = folder / "dr.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("file", "environ", "options", "value", "origin"),
    [
        ("", {}, {}, 0, "default"),
        ("threads = 1", {}, {}, 1, "file"),
        ("threads = 1", {"DR_THREADS": "2"}, {}, 2, "DR_THREADS"),
        ("threads = 1", {"DR_THREADS": "2"}, {"threads": 3}, 3, "command line"),
        ("threads = 1", {}, {"threads": 3}, 3, "command line"),
        ("", {"DR_THREADS": "2"}, {"threads": 0}, 0, "command line"),
        ("threads = 1", {"DR_THREADS": ""}, {"threads": None}, 1, "file"),
    ],
    ids=["nothing", "file", "environment", "all", "file and line", "an explicit default", "empty is not given"],
)
def test_file_loses_to_environment_loses_to_command_line(
    tmp_path: Path, file: str, environ: dict[str, str], options: dict[str, Any], value: int, origin: str
) -> None:
    path = toml(tmp_path, file)
    loaded = load_settings(path, environ, options)
    assert loaded.values.threads == value
    assert loaded.origins["threads"] == (str(path) if origin == "file" else origin)


def test_a_value_that_nobody_gave_keeps_its_default_and_says_so(tmp_path: Path) -> None:
    loaded = load_settings(toml(tmp_path, "threads = 1"), {"DR_PING_S": "0.5"})
    assert loaded.values == Settings(threads=1, ping_s=0.5)
    assert {name for name, origin in loaded.origins.items() if origin != "default"} == {"threads", "ping_s"}


def test_the_users_own_file_is_read_where_there_is_one(tmp_path: Path) -> None:
    assert load_settings(None, {}).values == Settings()
    (tmp_path / "user").mkdir()
    toml(tmp_path / "user", "local_servers = 2")
    assert load_settings(None, {}).values.local_servers == 2


def test_servers_are_a_list_of_addresses(tmp_path: Path) -> None:
    path = toml(tmp_path, 'servers = [{host = "a"}, {host = "b", port = 30000, enabled = false}]')
    servers = (ServerAddress(host="a"), ServerAddress(host="b", port=30000, enabled=False))
    assert load_settings(path, {}).values.servers == servers
    assert load_settings(None, {}, {"servers": list(servers)}).values.servers == servers


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("On", True), ("1", True), ("true", True), ("no", False), ("0", False)]
)
def test_a_variable_may_say_yes_or_no(text: str, value: bool) -> None:
    assert load_settings(None, {"DR_USE_LOCAL_HOST": text}).values.use_local_host is value


def test_a_folder_may_be_below_home_and_is_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    path = toml(tmp_path, 'log_folder = "~/logs"\nkernel_cache = "kernels"')
    values = load_settings(path, {}).values
    assert values.log_folder == Path("/home/ada/logs")
    assert values.kernel_cache == tmp_path / "kernels"
    assert load_settings(path, {"DR_LOG_FOLDER": "here"}).values.log_folder == Path("here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bucketsize = 3", r"dr\.toml: unknown setting 'bucketsize' \(did you mean 'bucket_size'\?\)"),
        ("threads = true", r"dr\.toml: threads \(render threads .*\): Expected `int`, got `bool`; found True"),
        ("threads = '4'", r"dr\.toml: threads .*: Expected `int`, got `str`; found '4'"),
        ("threads = -1", r"dr\.toml: threads .*: Expected `int` >= 0; found -1"),
        ("bucket_order = 'up'", r"dr\.toml: bucket_order \(which buckets come first: spiral, .*\): Invalid enum value"),
        ("servers = [{host = 'a', prot = 1}]", r"dr\.toml: servers .*unknown field `prot` - at `\$\[0\]`"),
        ("log_folder = 3", r"dr\.toml: log_folder .*: Expected the name of a folder; found 3"),
        ("threads =", r"dr\.toml: expected TOML such as `local_servers = 2`: Invalid value"),
        ("ping_s = 5", r"expected ping_s <= dead_s, found 5\.0 \(.*dr\.toml\) and 3\.0 \(default\)"),
    ],
)
def test_a_mistake_in_the_file_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_settings(toml(tmp_path, text), {})


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("DR_THREADS", "four", r"DR_THREADS: threads .*: Expected `int`, got `str`; found 'four'"),
        ("DR_PING_S", "nan", r"DR_PING_S: ping_s .*: Expected `float` > 0\.0; found 'nan'"),
        ("DR_USE_LOCAL_HOST", "perhaps", r"DR_USE_LOCAL_HOST: use_local_host .*: Expected `bool`"),
    ],
)
def test_a_mistake_in_a_variable_names_it(variable: str, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_settings(None, {variable: text})


def test_a_file_that_was_asked_for_must_be_there_and_be_text(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read .*gone\.toml: No such file"):
        load_settings(tmp_path / "gone.toml", {})
    (tmp_path / "dr.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"dr\.toml: expected TOML"):
        load_settings(tmp_path / "dr.toml", {})


def test_every_setting_explains_itself() -> None:
    rows = setting_rows(load_settings(None, {"DR_THREADS": "4"}))
    assert [row.name for row in rows] == list(Settings.__struct_fields__)
    assert all(row.help for row in rows)
    assert all(row.unit == "s" for row in rows if row.name.endswith("_s"))
    threads = next(row for row in rows if row.name == "threads")
    assert (threads.value, threads.default, threads.unit) == (4, 0, "threads")
    assert (threads.origin, threads.variable) == ("DR_THREADS", "DR_THREADS")
    assert variable_name("servers") == ""


class Timers(Struct, frozen=True, kw_only=True):
    ping_s: float = 1.0
    dead_s: float = 9.0
    own_s: float = 7.0


def test_a_part_takes_the_settings_that_it_names() -> None:
    assert settings_part(Settings(ping_s=0.5), Timers) == Timers(ping_s=0.5, dead_s=3.0, own_s=7.0)


def test_reading_settings_loads_no_heavy_library() -> None:
    code = "import dr.settings, sys; print(sorted({'numpy', 'numba', 'zmq', 'OpenImageIO', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
