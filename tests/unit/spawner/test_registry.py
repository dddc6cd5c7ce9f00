"""Where running spawners are found: alive ones only, whatever the files say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from workers.spawner import registry
from workers.spawner.host import _identity, hashed_id, host_id
from workers.spawner.registry import Registration, RunningSpawner, running, stop

ROOT = Path(__file__).parents[3]
OTHER = """
import signal, sys
from workers.spawner.registry import Registration
if 'deaf' in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
entry = Registration((30000, 30001), 30002, '127.0.0.1')
if 'lingering' in sys.argv: signal.signal(signal.SIGTERM, lambda *_: entry.close())
if 'polite' in sys.argv: signal.signal(signal.SIGTERM, lambda *_: (entry.close(), sys.exit(0)))
print('here', flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "dr" / "spawners"


@contextmanager
def other_process(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", OTHER, *words], stdin=pipe, stdout=pipe, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
            yield process
        finally:
            process.kill()


def test_a_spawner_is_found_while_it_lives(folder: Path) -> None:
    assert running() == []
    entry = Registration((20204, 20205), 20206, "127.0.0.1")
    (found,) = running()
    assert (found.pid, found.ports, found.announce, found.bind) == (os.getpid(), (20204, 20205), 20206, "127.0.0.1")
    entry.close()
    assert running() == []
    assert list(folder.iterdir()) == []


def test_spawners_are_listed_by_their_ports() -> None:
    entries = [Registration((port,), 20205, "127.0.0.1") for port in (30000, 20204, 25000)]
    assert [each.ports for each in running()] == [(20204,), (25000,), (30000,)]
    for entry in entries:
        entry.close()


def test_the_file_of_a_killed_spawner_is_removed_even_if_its_number_lives_on(folder: Path) -> None:
    with other_process() as process:
        assert [each.pid for each in running()] == [process.pid]
        process.kill()
        process.wait()
        (file,) = folder.iterdir()
        facts = msgspec.json.decode(file.read_bytes(), type=RunningSpawner)
        file.write_bytes(msgspec.json.encode(msgspec.structs.replace(facts, pid=os.getpid())))
        assert running() == []
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("polite",)])
def test_stopping_asks_and_waits(folder: Path, words: tuple[str, ...]) -> None:
    with other_process(*words):
        (found,) = running()
        assert stop(found, within_s=30)
        assert running() == []
        assert list(folder.iterdir()) == []


def test_one_that_does_not_go_is_told(folder: Path) -> None:
    with other_process("deaf") as process:
        (found,) = running()
        assert not stop(found, within_s=0.1)
        assert running() == [found]
        process.kill()
        process.wait()
        assert stop(found)


def test_one_that_gave_its_file_back_has_not_gone_while_the_process_lives(folder: Path) -> None:
    with other_process("lingering"):
        (found,) = running()
        assert not stop(found, within_s=0.3)
        assert list(folder.iterdir()) == []


def test_a_number_that_another_process_got_stops_nobody() -> None:
    gone = RunningSpawner(pid=os.getpid(), ports=(20204,), announce=20205, bind="127.0.0.1", path="/no/such/file")
    assert stop(gone)  # else this process would have ended


def test_a_damaged_file_is_no_spawner(folder: Path) -> None:
    registry.user_folder("spawners")
    for i, data in enumerate((b"", b"{}", b"\xff", b'{"pid": "x"}')):
        (folder / f"spawner-{i}.json").write_bytes(data)
    assert running() == []
    assert list(folder.iterdir()) == []


def test_spawners_of_other_hosts_and_containers_are_left_alone(folder: Path) -> None:
    entry = Registration((20204,), 20205, "127.0.0.1")
    (mine,) = folder.iterdir()
    facts = msgspec.json.decode(mine.read_bytes(), type=RunningSpawner)
    abroad = folder / "spawner-abroad.json"
    abroad.write_bytes(msgspec.json.encode(msgspec.structs.replace(facts, place="0123456789abcdef 1")))
    held = registry.LockFile(abroad)
    held.exclude()
    assert [each.path for each in running()] == [str(mine)]
    held.close()
    assert [each.path for each in running()] == [str(mine)]
    assert abroad.exists()
    contained = folder / "spawner-contained.json"
    contained.write_bytes(msgspec.json.encode(msgspec.structs.replace(facts, place=f"{host_id()} 1")))
    assert [each.path for each in running()] == [str(mine)]
    assert not contained.exists()
    entry.close()


def test_a_host_has_one_name_that_does_not_tell_its_machine_id(tmp_path: Path) -> None:
    assert host_id() == host_id()
    assert len(host_id()) == 16
    int(host_id(), 16)
    machine = "0123456789abcdef0123456789abcdef"
    paths = (tmp_path / "none", tmp_path / "machine-id")
    paths[1].write_text("uninitialized\n")
    unnamed = _identity(paths)
    paths[1].write_text(machine + "\n")
    assert _identity(paths) == machine != unnamed
    assert hashed_id(machine) not in machine
    assert hashed_id(machine) != hashed_id(unnamed)
