"""`dr doctor` and `dr logs` as a user sees them: words in; lines, JSON, files and exit status out. No bucket."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dr.cli import main
from dr.client.doctor_machine import THIS_MACHINE
from tests.support.farm import environment, serving
from tests.support.spawner import free_ports

SERVER_CHECKS = ["port", "key", "versions", "clock", "cache", "announcements"]


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without settings, keys and spawners; nothing of this machine's is asked by default."""
    announce, port = free_ports(2)
    ours = {"HOME": str(tmp_path), "DR_ANNOUNCE_PORT": str(announce), "DR_PORT": str(port)}
    changed = {name: os.environ.get(name, str(tmp_path / name)) for name in ("DR_KERNEL_CACHE", "NUMBA_CACHE_DIR")}
    for name, value in {**environment(tmp_path), **ours, **changed}.items():  # what the doctor sets is taken back
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a server that is free."""
    with serving(tmp_path_factory.mktemp("server"), "--threads", "1") as place:
        yield place


@pytest.fixture
def nobody() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


def checks(capsys: pytest.CaptureFixture[str], *words: str, status: int) -> list[dict[str, Any]]:
    """The checks that `dr doctor --quick --json WORDS` prints."""
    assert main(["doctor", "--quick", "--json", *words]) == status
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out.splitlines()[-1])["checks"]
    return found


def test_a_healthy_server_is_status_0_and_each_check_a_line(server, capsys):
    assert main(["doctor", "--quick", server]) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = lines.index(server)
    assert lines[0] == THIS_MACHINE
    shown = [line for line in lines[begin + 1 : -1] if "cache: " not in line and line[:6].strip()]  # a disk may be full
    assert [line.split(":")[0] for line in shown] == [f"  ok   {name}" for name in SERVER_CHECKS if name != "cache"]
    assert lines[-1].startswith(f"{sum(line[:6].strip() in ('ok', 'warn') for line in lines)} checks: ")


def test_json_holds_every_check_with_its_verdict(server, capsys):
    found = [each for each in checks(capsys, server, status=0) if each["subject"] == server]
    assert [each["name"] for each in found] == SERVER_CHECKS
    assert {each["verdict"] for each in found if each["name"] != "cache"} == {"ok"}
    assert set(found[0]) == {"subject", "name", "verdict", "found", "hint"}


def test_a_server_that_does_not_answer_is_status_1_with_what_to_do(server, nobody, capsys):
    assert main(["doctor", "--quick", server, nobody]) == 1
    out = capsys.readouterr().out
    port = nobody.partition(":")[2]
    assert f"\n{nobody}\n  FAIL port: nobody listens there\n" in out
    assert "\n       start it with dr spawner there" in out
    assert f"; firewall: allow TCP {port}\n" in out
    assert ", 1 FAIL\n" in out


def test_a_name_that_does_not_resolve_fails_alone(server, capsys):
    found = checks(capsys, "no-such-host.invalid", server, status=1)
    failed = [(each["subject"], each["name"]) for each in found if each["verdict"] == "FAIL"]
    assert failed == [("no-such-host.invalid", "name")]
    assert any(each["subject"] == server and each["name"] == "port" for each in found)


def test_a_server_on_another_machine_without_keys_is_refused_and_status_3(capsys):
    (found,) = (each for each in checks(capsys, "192.0.2.1", status=3) if each["verdict"] == "FAIL")
    assert (found["subject"], found["name"]) == ("192.0.2.1", "key")
    assert "dr keys" in found["found"] + found["hint"]


def test_a_word_that_is_no_address_is_status_2(capsys):
    assert main(["doctor", "--quick", "host:99999"]) == 2
    assert capsys.readouterr().err.startswith("dr: server 'host:99999': expected a port")
    assert main(["doctor", "--quick", "--settings", "no-such-file.toml"]) == 2


def test_the_servers_of_the_settings_are_examined(server, tmp_path, capsys):
    host, _, port = server.partition(":")
    settings = tmp_path / "dr.toml"
    settings.write_text(f'servers = [{{ host = "{host}", port = {port} }}]\n')
    found = checks(capsys, "--settings", str(settings), status=0)
    assert {each["subject"] for each in found} == {THIS_MACHINE, server}


def test_broken_settings_are_a_check_that_failed_and_the_others_follow(server, tmp_path, capsys):
    settings = tmp_path / "dr.toml"
    settings.write_text("threads = many\n")
    found = checks(capsys, "--settings", str(settings), server, status=1)
    assert [each["name"] for each in found if each["verdict"] == "FAIL"] == ["settings"]
    assert any(each["subject"] == server for each in found)


def test_a_machine_without_servers_is_told_how_to_start_some(capsys):
    found = [each for each in checks(capsys, status=0) if each["subject"].startswith("localhost")]
    assert {each["name"] for each in found} <= {"port", *SERVER_CHECKS}
    assert any("dr spawner" in each["hint"] for each in found)


def test_keys_that_others_can_read_fail(tmp_path, capsys):
    assert main(["keys", "init"]) == 0
    (client,) = Path(tmp_path).rglob("client.key")
    client.chmod(0o644)
    capsys.readouterr()
    found = {each["name"]: each for each in checks(capsys, "127.0.0.1:9", status=3) if each["subject"] == THIS_MACHINE}
    assert found["keys"]["verdict"] == "FAIL"
    assert "chmod 600" in found["keys"]["found"]


# -- dr logs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With two logs, the newer one of a spawner."""
    logs = tmp_path / "logs"
    logs.mkdir()
    monkeypatch.setenv("DR_LOG_FOLDER", str(logs))
    (logs / "render-20260101-120000-7.log").write_text("one\ntwo\n")
    (logs / "spawner-20204.log").write_text("".join(f"line {i}\n" for i in range(100)))
    import os

    os.utime(logs / "render-20260101-120000-7.log", (10, 10))
    return logs


def test_what_the_doctor_found_is_in_a_log_of_its_own(server, capsys):
    assert main(["doctor", "--quick", server]) == 0
    assert main(["logs", "--last"]) == 0
    lines = Path(capsys.readouterr().out.splitlines()[-1]).read_text().splitlines()
    assert any(line.split(" dr.doctor: ")[-1].startswith(f"{server}: port: ok: answers") for line in lines)


def test_logs_are_listed_with_size_and_time_the_newest_first(folder, capsys):
    assert main(["logs"]) == 0
    head, first, second, *rest = capsys.readouterr().out.splitlines()
    assert head.split() == ["changed", "size", "what", "file"]
    assert first.split()[2:] == ["790", "B", "spawner", str(folder / "spawner-20204.log")]
    assert second.split()[2:] == ["8", "B", "render", str(folder / "render-20260101-120000-7.log")]
    assert rest[0] == f"2 log files in {folder}"


def test_the_newest_one_and_its_last_lines_can_be_had_alone(folder, capsys):
    assert main(["logs", "--last"]) == 0
    assert capsys.readouterr().out == f"{folder / 'spawner-20204.log'}\n"
    assert main(["logs", "--tail=2"]) == 0
    assert capsys.readouterr().out == "line 98\nline 99\n"
    assert main(["logs", "--tail"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"line {i}" for i in range(80, 100)]


def test_without_logs_there_is_no_newest_one(tmp_path, capsys):
    assert main(["logs", "--last"]) == 1
    assert "no log file in" in capsys.readouterr().err
    assert main(["logs"]) == 0
    assert capsys.readouterr().out.startswith("0 log files in ")


def test_a_pack_tells_what_is_in_it_and_holds_no_key_and_no_home(folder, tmp_path, capsys, monkeypatch):
    from dr.keys.folder import default_folder, load_keys

    monkeypatch.chdir(tmp_path)
    assert main(["keys", "init"]) == 0
    ring = load_keys({}, default_folder())
    assert ring.client
    assert ring.farm
    secrets = [ring.client.secret.reveal(), ring.farm.secret.reveal(), ring.client.public]
    (folder / "spawner-20204.log").write_text("".join(f"key {key} in {tmp_path}/x\n" for key in secrets))
    capsys.readouterr()
    assert main(["logs", "pack"]) == 0
    out = capsys.readouterr().out.splitlines()
    with zipfile.ZipFile("dr-logs.zip") as archive:
        names = archive.namelist()
        text = b"".join(archive.read(name) for name in names).decode()
        facts = json.loads(archive.read("facts.json"))
    assert sorted(names) == [
        "facts.json",
        "logs/render-20260101-120000-7.log",
        "logs/spawner-20204.log",
        "settings.json",
    ]
    assert [line.split(",")[0].strip() for line in out[:-1]] == [name.removeprefix("logs/") for name in names]
    assert out[-1].startswith("dr-logs.zip: ")
    assert not [secret for secret in secrets if secret in text]
    assert str(tmp_path) not in text
    assert "in ~/x\n" in text
    assert {"dr", "python", "packages", "libzmq", "system", "cpu", "topology", "kernels"} <= set(facts)
    assert {"numba", "pyzmq", "numpy"} <= set(facts["packages"])
    assert main(["logs", "pack"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_pack_is_made_with_broken_settings_too(tmp_path, capsys):
    settings = tmp_path / "bad.toml"
    settings.write_text("threads = many\n")
    out = tmp_path / "out.zip"
    assert main(["logs", "pack", "--settings", str(settings), "-o", str(out)]) == 0
    assert "expected TOML" in capsys.readouterr().err
    with zipfile.ZipFile(out) as archive:
        assert "expected TOML" in json.loads(archive.read("facts.json"))["notes"][0]
