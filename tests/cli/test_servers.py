"""`dr servers`: what each command says and writes, every mistake in one line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dr.cli import main
from dr.scene.survey import survey
from dr.settings import ServerAddress, load_settings

SCENE = "# mine\n[[objects]]\nbox = { min = [0, 0, 0], max = [1, 1, 1] }\n"
VRAY = "render1 1 20204\r\nrender2 0 20204\r\nrestart_slaves 0\r\nmax_servers 3\r\ncache_limit 100.000000\r\n"


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)


class Servers:
    """Runs `dr servers WORDS`."""

    def __init__(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self.capsys = capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        status = main(["servers", *words])
        out, err = self.capsys.readouterr()
        return status, out, err

    def do(self, *words: str) -> list[str]:
        """The lines that it says when all is well."""
        status, out, err = self.run(*words)
        assert (status, err) == (0, "")
        return out.splitlines()

    def fail(self, *words: str) -> str:
        """The one line that it says about bad input."""
        before = self.file.read_bytes() if self.file.exists() else None
        status, out, err = self.run(*words)
        assert (status, out) == (2, "")
        assert err.startswith("dr: ")
        assert len(err.splitlines()) == 1
        assert before == (self.file.read_bytes() if self.file.exists() else None)
        return err[4:-1]

    @property
    def listed(self) -> tuple[ServerAddress, ...]:
        return load_settings(self.file, {}).values.servers


@pytest.fixture
def servers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Servers:
    return Servers(tmp_path / "config" / "dr" / "dr.toml", capsys)


def test_the_first_server_makes_the_users_file(servers: Servers) -> None:
    assert servers.do("add", "box2", "box3:30000-30001") == [
        "box2: added",
        "box3:30000: added",
        "box3:30001: added",
        f"{servers.file}: made",
    ]
    assert servers.do("add", "box2") == ["box2: is listed already, nothing changed"]
    assert servers.listed == (
        ServerAddress(host="box2"),
        ServerAddress(host="box3", port=30000),
        ServerAddress(host="box3", port=30001),
    )


def test_a_day_in_the_life_of_a_list(servers: Servers) -> None:
    servers.do("add", "a", "b:1", "b:2")
    before = servers.file.read_bytes()
    assert servers.do("disable", "b") == ["b:1: disabled", "b:2: disabled"]
    assert servers.do("enable", "b:2") == ["b:2: enabled"]
    assert servers.do("edit", "a", "c:7") == ["a: now c:7"]
    assert servers.do("remove", "b") == ["b:1: removed", "b:2: removed"]
    assert servers.listed == (ServerAddress(host="c", port=7),)
    servers.do("edit", "c:7", "a")
    servers.do("add", "b:1-2")
    assert load_settings(servers.file, {}).values.servers[0] == ServerAddress(host="a")
    servers.do("remove", "a", "b")
    servers.do("add", "a", "b:1", "b:2")
    assert servers.file.read_bytes() == before


def test_another_file_is_edited_with_its_comments(servers: Servers, tmp_path: Path) -> None:
    other = tmp_path / "farm.toml"
    other.write_text("# ours\nservers = [\n  { host = 'a' }, # fast\n]\nthreads = 2 # all\n")
    servers.do("add", "b", "--settings", "farm.toml")
    assert other.read_text() == (
        "# ours\nservers = [\n  { host = 'a' }, # fast\n  { host = \"b\" },\n]\nthreads = 2 # all\n"
    )
    assert not servers.file.exists()


def test_the_list_is_a_table_that_says_where_it_comes_from(servers: Servers) -> None:
    assert servers.do("list") == [f"{servers.file}: no servers are listed; dr servers add HOST adds one"]
    servers.do("add", "a", "[::1]:7")
    servers.do("disable", "a")
    lines = servers.do("list")
    assert [line.split() for line in lines[:3]] == [
        ["server", "port", "enabled", "addresses"],
        ["a", "all", "no"],
        ["::1", "7", "yes"],
    ]
    assert lines[3] == f"from {servers.file}; a scene's own list and dr render --server win over it"
    assert json.loads(servers.do("list", "--json")[-1]) == {
        "file": str(servers.file),
        "servers": [
            {"server": "a", "host": "a", "port": None, "enabled": False, "addresses": []},
            {"server": "[::1]:7", "host": "::1", "port": 7, "enabled": True, "addresses": []},
        ],
    }


@pytest.fixture
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that knows `a` alone."""

    def look_up(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host != "a":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, 0, 0, "", ("10.0.0.5", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.usefixtures("_names")
def test_addresses_are_looked_up_and_stored(servers: Servers) -> None:
    assert servers.do("resolve") == [f"{servers.file}: no servers are listed; dr servers add HOST adds one"]
    servers.do("add", "a:1", "10.0.0.9", "gone")
    assert servers.do("resolve", "a") == ["a:1: 10.0.0.5, stored"]
    assert servers.listed[0] == ServerAddress(host="a", port=1, addresses=("10.0.0.5",))
    status, out, err = servers.run("resolve")
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        "a:1: 10.0.0.5, as stored",
        "10.0.0.9: is an address",
        "gone: no address: Name or service not known",
    ]
    assert "10.0.0.5" in "".join(servers.do("list"))


def test_a_list_is_saved_in_a_scene_once(servers: Servers, tmp_path: Path) -> None:
    scene = tmp_path / "s.scene.toml"
    scene.write_text(SCENE)
    assert servers.do("save", str(scene)) == [f"{servers.file}: no servers are listed; dr servers add HOST adds one"]
    assert scene.read_text() == SCENE
    servers.do("add", "a", "b:1")
    servers.do("disable", "a")
    assert servers.do("save", str(scene)) == [f"{scene}: now lists 2 servers"]
    assert survey(scene).servers == (ServerAddress(host="a", enabled=False), ServerAddress(host="b", port=1))
    assert servers.do("save", str(scene)) == [f"{scene}: lists these 2 servers already, nothing changed"]
    servers.do("remove", "a", "b")
    assert servers.do("save", str(scene)) == [f"{scene}: lists no servers any more"]


def test_importing_twice_changes_nothing(servers: Servers, tmp_path: Path) -> None:
    servers.do("add", "mine", "render1")
    (tmp_path / "vray_dr.cfg").write_bytes(VRAY.encode())
    skipped = "vray_dr.cfg: line 5, 'cache_limit 100.000000': there is no such setting here, skipped"
    assert servers.do("import", "vray_dr.cfg") == ["render2: added, disabled", "max_servers: 3 instead of 0", skipped]
    values = load_settings(servers.file, {}).values
    assert values.max_servers == 3
    assert [(each.host, each.enabled) for each in values.servers] == [
        ("mine", True),
        ("render1", True),
        ("render2", False),
    ]
    before = servers.file.read_bytes()
    assert servers.do("import", "vray_dr.cfg") == ["all of it is listed already, nothing changed", skipped]
    assert servers.file.read_bytes() == before


def test_every_mistake_is_one_line_and_changes_nothing(servers: Servers, tmp_path: Path) -> None:
    servers.do("add", "render1")
    (tmp_path / "empty.cfg").write_text("max_servers 2\n")
    assert servers.fail("add", "b", "a:0") == "server 'a:0': expected a port from 1 to 65535, found '0'"
    assert servers.fail("remove", "rendr1").endswith("which has one entry (did you mean 'render1'?)")
    assert servers.fail("disable", "zzz").endswith("which has one entry; dr servers list shows all")
    assert "expected one of the list" in servers.fail("edit", "zzz", "b")
    assert "expected one of the list" in servers.fail("resolve", "zzz")
    assert servers.fail("save", "s.glb").startswith("s.glb: expected a .scene.toml")
    assert servers.fail("save", "s.scene.toml") == "s.scene.toml: expected a scene file, found none"
    assert servers.fail("import", "gone.cfg") == "gone.cfg: cannot read it: No such file or directory"
    assert servers.fail("import", "empty.cfg").startswith("empty.cfg: expected V-Ray's vray_dr.cfg with lines such as")
    servers.file.write_text("thraeds = 1\n")
    for words in (["add", "a"], ["list"], ["remove", "a"], ["save", "s.scene.toml"]):
        assert servers.fail(*words).startswith(f"{servers.file}: unknown setting 'thraeds'")


def test_commands_start_without_heavy_libraries() -> None:
    code = (
        "import sys; from dr.cli import main; status = main(['servers', 'add', 'a'])\n"
        "print(status, sorted({'numba', 'OpenImageIO', 'rich.table'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[0] == "a: added"
    assert ran.stdout.splitlines()[-1] == "0 []"
