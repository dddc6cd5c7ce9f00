"""The spawner as a service: what systemd says of the unit, install, uninstall, status, and who reads which settings."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dr.cli import main
from dr.cli.service_order import make_order
from dr.cli.spawner_options import Wanted
from dr.keys.changes import init_keys
from dr.keys.folder import key_places
from tests.support.farm import environment, start_dr, wait_for_line
from tests.support.spawner import free_ports
from tests.support.systemctl import FakeSystemctl
from workers.spawner import service as systemd
from workers.spawner.registry import Registration

ME = pwd.getpwuid(os.geteuid()).pw_name
NASTY = "a b%h$HOME;é"  # systemd takes no quotes and backslashes in paths of its own


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without settings and without a service, who is root if need be."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in ("SUDO_USER", "DR_FARM_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(systemd, "SYSTEM_UNITS", tmp_path / "etc")
    monkeypatch.setattr(systemd, "SETTLE_S", 0.0)
    monkeypatch.setattr("dr.cli.service._is_root", lambda: True)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystemctl:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    fake = FakeSystemctl(tmp_path / "bin")
    fake.answer("is-active", "inactive")
    return fake


Dr = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dr(capsys: pytest.CaptureFixture[str]) -> Dr:
    """Runs `dr spawner WORDS`: status, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["spawner", *words])
        return (status, *capsys.readouterr())

    return run


def one_port() -> str:
    return f"-port={free_ports(1)[0]}"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("system", [True, False], ids=["system", "user"])
def test_systemd_finds_nothing_wrong_with_the_unit(
    system: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dr: Dr
) -> None:
    """Nasty paths everywhere, a program among them: systemd looks whether it can be executed."""
    folder = tmp_path / NASTY
    folder.mkdir()
    program = folder / "dr"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (folder / "'\"\\.toml").touch()
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("DR_KERNEL_CACHE", str(folder / "kernels"))
    words = ["--settings", str(folder / "'\"\\.toml"), "--system" if system else "--user"]
    status, unit, _ = dr("install", "-numa", "--print", *words)
    assert status == 0
    path = tmp_path / "dr-spawner.service"
    path.write_text(unit)
    tmp_path.chmod(0o700)
    scope = [] if system else ["--user"]
    done = subprocess.run(
        ["systemd-analyze", *scope, "verify", str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_install_writes_enables_and_starts_it(systemctl: FakeSystemctl, tmp_path: Path, dr: Dr) -> None:
    port = one_port()
    status, out, err = dr("install", "--user", port, "-numa=1")
    path = tmp_path / "xdg_config_home/systemd/user/dr-spawner.service"
    assert (status, err) == (0, "")
    first, second, *_ = out.splitlines()
    assert first == f"installed {path}; it runs as {ME}, with servers on {port[6:]}"
    assert second.startswith("how it does: dr spawner status, journalctl --user -u dr-spawner, ")
    assert systemctl.calls() == [
        "--user daemon-reload",
        *(f"--user {w} dr-spawner.service" for w in ("enable", "restart")),
    ]
    unit = path.read_text()
    assert f"\nExecStart={sys.executable} -P -m dr.cli spawner -numa=1 {port}\n" in unit
    assert sorted(each.name for each in path.parent.iterdir()) == ["dr-spawner.service"]
    systemctl.answer("is-active", "active")
    systemctl.answer("is-enabled", "enabled")
    status, out, _ = dr("status")
    expected = ["system service: not installed", f"user service: active, enabled ({path})"]
    assert (status, out.splitlines()) == (0, [*expected, "running: no spawner of this user"])
    status, out, _ = dr("uninstall", "--user")
    assert (status, out) == (0, f"stopped and removed {path}\n")
    assert systemctl.calls() == ["--user disable --now dr-spawner.service", "--user daemon-reload"]
    assert not path.exists()
    assert dr("uninstall", "--user") == (1, "", f"dr: no such service is installed: there is no {path}\n")
    assert dr("status")[0] == 1


def test_root_installs_for_the_machine_and_is_told_who_runs(systemctl: FakeSystemctl, tmp_path: Path, dr: Dr) -> None:
    root = pwd.getpwuid(0).pw_name
    status, out, err = dr("install", one_port(), "--account", root)
    unit = (tmp_path / "etc/dr-spawner.service").read_text()
    assert (status, out.splitlines()[0].split(";")[0]) == (0, f"installed {tmp_path / 'etc/dr-spawner.service'}")
    assert err == "dr: the servers will run as root; --account NAME chooses an account that may do less\n"
    assert f"\nUser={root}\n" in unit
    assert systemctl.calls() == ["daemon-reload", "enable dr-spawner.service", "restart dr-spawner.service"]
    assert dr("uninstall")[0] == 0
    assert systemctl.calls() == ["disable --now dr-spawner.service", "daemon-reload"]


def test_print_changes_nothing_and_asks_nobody(systemctl: FakeSystemctl, tmp_path: Path, dr: Dr) -> None:
    before = sorted(tmp_path.rglob("*"))
    for scope in ("--user", "--system"):
        status, out, _ = dr("install", scope, "-node=0", "--print")
        assert status == 0
        assert " spawner -node=0\n" in out
    assert sorted(tmp_path.rglob("*")) == before
    assert systemctl.calls() == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("-numa=x", "-numa=x: expected how many servers"),
        ("-node=777", "-node=777: this host has node"),
        ("-port=70000", "-port=70000: expected a port from 1 to 65535"),
        ("-engine=rt", "-engine=rt: the interactive engine does not exist yet"),
        ("--bind=nowhere.example", "nowhere.example"),
        ("-numa 4", "-numa 4: expected -numa or -numa=N"),
        ("--settings=none.toml", "settings: cannot read none.toml"),
        ("--account=nobody-7", "--account nobody-7: this machine has no such account"),
        ("--user --account=nobody-7", f"--account nobody-7: a service of --user runs as {ME}"),
        ("--plan", "No such option: --plan"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    words: str, error: str, systemctl: FakeSystemctl, tmp_path: Path, dr: Dr
) -> None:
    before = sorted(tmp_path.rglob("*"))
    status, out, err = dr("install", *words.split())
    assert status in (2, 3)
    assert (out, len(err.splitlines())) == ("", 1)
    assert error in err
    assert sorted(tmp_path.rglob("*")) == before
    assert systemctl.calls() == []


def test_a_taken_port_is_refused_unless_the_service_itself_has_it(
    systemctl: FakeSystemctl, tmp_path: Path, dr: Dr
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = dr("install", "--user", f"-port={port}")
        assert (status, err) == (2, f"dr: -port={port}: the port is taken by another program; choose another\n")
        unit = tmp_path / "xdg_config_home/systemd/user/dr-spawner.service"
        assert not unit.exists()
        unit.parent.mkdir(parents=True)
        unit.write_text("an older one")
        systemctl.answer("is-active", "active")
        assert dr("install", "--user", f"-port={port}") == (status, "", err)
        assert unit.read_text() == "an older one"
        systemctl.answer("MainPID", str(os.getpid()))
        assert dr("install", "--user", f"-port={port}")[0] == 0
        assert unit.read_text() != "an older one"


def test_a_port_of_another_spawner_is_refused_and_one_of_the_services_own_is_not(
    systemctl: FakeSystemctl, tmp_path: Path, dr: Dr
) -> None:
    """Also while the server there is just being started again, and nobody listens."""
    unit = tmp_path / "xdg_config_home/systemd/user/dr-spawner.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    systemctl.answer("is-active", "active")
    port, announce = free_ports(2)
    entry = Registration((port,), announce, "127.0.0.1")
    try:
        systemctl.answer("MainPID", "0")
        status, _, err = dr("install", "--user", f"-port={port}")
        assert (status, f"the spawner with process {os.getpid()} has this port" in err) == (2, True)
        systemctl.answer("MainPID", str(os.getpid()))
        assert dr("install", "--user", f"-port={port}")[0] == 0
    finally:
        entry.close()


def test_a_service_that_does_not_stay_active_is_told_with_status_1(
    systemctl: FakeSystemctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dr: Dr
) -> None:
    """Active when it has just been started, and a moment later one that waits to be started again."""
    monkeypatch.setattr(systemd, "SETTLE_S", 30.0)
    systemctl.answer_then("is-active", "activating")
    status, out, err = dr("install", "--user", one_port())
    assert (status, out) == (1, f"installed {tmp_path}/xdg_config_home/systemd/user/dr-spawner.service\n")
    hint = "journalctl --user -u dr-spawner -n 20 shows why"
    assert err == f"dr: the service does not run: expected active, found activating; {hint}\n"


def test_only_root_installs_for_the_machine(systemctl: FakeSystemctl, monkeypatch: pytest.MonkeyPatch, dr: Dr) -> None:
    monkeypatch.setattr("dr.cli.service._is_root", lambda: False)
    status, _, err = dr("install", "--system", "--account", ME)
    assert (status, err.splitlines()[-1]) == (
        2,
        "dr: --system: expected root, found another user; say it with sudo, or say --user",
    )
    assert dr("install", "--system", "--print")[0] == 0
    assert "WantedBy=default.target" in dr("install", "--print")[1]
    assert systemctl.calls() == []


def test_without_systemd_one_line_says_what_to_do(
    systemctl: FakeSystemctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dr: Dr
) -> None:
    systemctl.refuse("show-environment", "System has not been booted with systemd.\nCan't operate.")
    status, out, err = dr("install", "--user")
    assert (status, out) == (2, "")
    assert err == (
        "dr: expected systemd to answer, found: System has not been booted with systemd; start `dr spawner` by what "
        "starts programs here: `dr spawner install --print` shows how it is meant\n"
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    status, out, err = dr("install", "--user")
    assert (status, out) == (2, "")
    assert err.startswith("dr: expected systemd, found no systemctl on this machine; start `dr spawner` by what")
    assert not (tmp_path / "xdg_config_home").exists()


def test_what_systemd_refuses_is_told_in_its_words(systemctl: FakeSystemctl, dr: Dr) -> None:
    systemctl.refuse("restart", "Job for dr-spawner.service failed.\nSee journalctl.")
    status, _, err = dr("install", "--user", one_port())
    expected = "dr: systemctl restart dr-spawner.service failed: Job for dr-spawner.service failed. See journalctl\n"
    assert (status, err) == (2, expected)
    systemctl.refuse("disable", "Access denied")
    assert dr("uninstall", "--user")[2] == "dr: systemctl disable --now dr-spawner.service failed: Access denied\n"


def test_where_no_user_may_make_a_sandbox_the_service_runs_without_and_says_so(
    systemctl: FakeSystemctl, tmp_path: Path, dr: Dr
) -> None:
    systemctl.refuse("restart", "Job failed", once=True)
    systemctl.answer("ExecMainStatus", "226")
    status, _, err = dr("install", "--user", one_port())
    expected = "dr: this system lets no user make a sandbox: the service runs without one; --system has it\n"
    assert (status, err) == (0, expected)
    unit = (tmp_path / "xdg_config_home/systemd/user/dr-spawner.service").read_text()
    assert "NoNewPrivileges=yes" in unit
    assert "ProtectSystem" not in unit


def test_stop_stops_a_service_that_is_not_this_users(systemctl: FakeSystemctl, tmp_path: Path, dr: Dr) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/dr-spawner.service").touch()
    assert dr("stop") == (1, "", "dr: no spawner of this user runs on this host\n")
    systemctl.answer("is-active", "activating")
    assert dr("stop") == (0, "stopped the service dr-spawner.service\n", "")
    assert systemctl.calls() == ["stop dr-spawner.service"]
    expected = "dr: -port=1: no spawner of this user has this port; running: none\n"
    assert dr("stop", "-port=1") == (1, "", expected)
    assert systemctl.calls() == []


def test_stop_does_not_choose_between_the_services_of_the_system_and_of_the_user(
    systemctl: FakeSystemctl, tmp_path: Path, dr: Dr
) -> None:
    for folder in (tmp_path / "etc", tmp_path / "xdg_config_home/systemd/user"):
        folder.mkdir(parents=True)
        (folder / "dr-spawner.service").touch()
    systemctl.answer("is-active", "active")
    status, out, err = dr("stop")
    assert (status, out) == (2, "")
    assert err == (
        "dr: 2 services run: the system's and this user's; stop one with systemctl stop dr-spawner.service or "
        "systemctl --user stop dr-spawner.service, or both with --all\n"
    )
    assert systemctl.calls() == []
    assert dr("stop", "--all")[0] == 0
    assert systemctl.calls() == ["stop dr-spawner.service", "--user stop dr-spawner.service"]


def test_the_service_keeps_what_this_shell_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dr: Dr) -> None:
    monkeypatch.setenv("DR_DRAIN_S", "2.5")
    monkeypatch.setenv("DR_LOG_FOLDER", "logs")
    monkeypatch.setenv("DR_UNKNOWN", "secret")
    status, out, err = dr("install", "--user", "--print")
    assert status == 0
    assert "dr: the service keeps what this shell sets: DR_DRAIN_S, DR_LOG_FOLDER\n" in err
    variables = dict(
        line.removeprefix("Environment=").split("=", 1) for line in out.splitlines() if "Environment=" in line
    )
    assert variables["DR_DRAIN_S"] == "2.5"
    assert variables["DR_LOG_FOLDER"] == str(tmp_path / "logs")
    assert variables["XDG_CONFIG_HOME"] == str(tmp_path / "xdg_config_home")
    assert "DR_UNKNOWN" not in variables


def test_the_service_knows_the_farm_key_that_this_shell_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dr: Dr
) -> None:
    keys = key_places({}, tmp_path / "carried")
    init_keys(keys, "owner")
    monkeypatch.setenv("DR_FARM_KEY_FILE", "carried/farm.key")
    for scope in ("--user", "--system"):
        status, out, err = dr("install", scope, "--print", "--bind=0.0.0.0")
        assert status == 0
        assert "the service keeps what this shell sets: DR_FARM_KEY_FILE\n" in err
        assert f"\nEnvironment=DR_FARM_KEY_FILE={keys.farm}\n" in out
        assert "secret" not in out


def test_other_machines_need_a_key_unless_the_service_is_insecure_or_another_accounts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dr: Dr
) -> None:
    words = ("install", "--print", "--system", "--bind=0.0.0.0")
    status, _, err = dr(*words)
    assert (status, len(err.splitlines())) == (3, 1)
    assert err.startswith("dr: --bind 0.0.0.0: a server that other machines reach needs a farm key")
    status, out, _ = dr(*words, "--insecure")
    assert status == 0
    assert " spawner --bind=0.0.0.0 --insecure\n" in out
    entry = pwd.struct_passwd(("render", "x", os.geteuid() + 1, os.getegid(), "", str(tmp_path), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry)
    assert dr(*words, "--account", "render")[0] == 0


def test_a_system_service_reads_the_settings_of_its_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not those of whoever installs it."""
    mine = tmp_path / "xdg_config_home/dr/dr.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text("port = 31000\n")
    home = tmp_path / "home"
    entry = pwd.struct_passwd(("render", "x", os.geteuid(), os.getegid(), "", str(home), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry)
    assert make_order(Wanted(), system=True, account="render").plan.servers[0].port == 20204
    (home / ".config/dr").mkdir(parents=True)
    (home / ".config/dr/dr.toml").write_text("port = 32000\n")
    assert make_order(Wanted(), system=True, account="render").plan.servers[0].port == 32000
    assert make_order(Wanted(), system=False, account=None).plan.servers[0].port == 31000


def test_all_that_a_spawner_writes_lies_in_the_folders_that_the_unit_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's folders are looked through while a spawner and a server run in the unit's environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", environment(tmp_path)["XDG_CACHE_HOME"])
    service = make_order(Wanted(), system=False, account=None).service
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    (port,) = free_ports(1)
    with start_dr(tmp_path, "spawner", f"-port={port}") as process:
        wait_for_line(process, ": ready")
        written = [path for path in tmp_path.rglob("*") if path.is_file() and tmp_path / "t" not in path.parents]
        process.terminate()
        process.communicate()
    assert {path.suffix for path in written} >= {".log", ".json"}
    outside = [path for path in written if not any(path.is_relative_to(folder) for folder in service.writable)]
    assert outside == []
    assert service.environment["DR_KERNEL_CACHE"].startswith(service.environment["XDG_CACHE_HOME"])


def test_a_system_service_writes_where_systemd_lets_it() -> None:
    service = make_order(Wanted(), system=True, account=None).service
    assert service.writable == ()
    assert service.environment == {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "XDG_CACHE_HOME": "/var/cache",
        "DR_LOG_FOLDER": "/var/log/dr",
        "DR_KERNEL_CACHE": "/var/cache/dr/kernels",
    }
