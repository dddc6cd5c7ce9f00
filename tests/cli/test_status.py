"""`dr status` as a user or a container sees it: words in; table, JSON, lines and exit status out."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from select import select
from termios import TIOCSWINSZ
from typing import Any

import psutil
import pytest
from rich.console import Console

from dr.cli import main
from dr.cli.status import draw, show_bytes, summarise
from dr.client.roster import Row
from dr.settings import DEFAULT_PORT
from tests.support.farm import DEADLINE_S, ROOT, environment, serving, start_dr, wait_for_line
from tests.support.spawner import free_ports
from workers.spawner.registry import Registration

KEYS = [
    *("host", "port", "address", "name", "answers", "state", "holder", "engine", "nodes", "threads", "cpu", "buckets"),
    *("buckets_per_s", "memory_bytes", "up_s", "version", "guard", "boot", "reason", "silent_s"),
]
NOBODY = "no render server answers; start one with dr spawner or dr serve"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without settings, whose announcements nobody makes."""
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DR_ANNOUNCE_PORT", str(free_port()))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a server that is free."""
    with serving(tmp_path_factory.mktemp("server"), "--threads", "2", "--nodes", "2,3") as place:
        yield place


@pytest.fixture
def nobody() -> str:
    """HOST:PORT where nobody listens."""
    return f"127.0.0.1:{free_port()}"


def listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The list that `--json` printed last."""
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return rows


def start(*words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "tests.support.fake_dr", "status", *words]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)


def test_a_server_that_answers_is_a_line_of_the_table_and_status_0(server, capsys):
    assert main(["status", server]) == 0
    shown = capsys.readouterr()
    head, row, note, summary = shown.out.splitlines()
    assert head.split() == [
        *("host", "port", "engine", "node", "threads", "state", "holder", "buckets/s", "memory", "version")
    ]
    port = server.partition(":")[2]
    words = row.split()
    assert words[:8] == ["127.0.0.1", port, "production", "2-3", "2", "ready", "0.0", words[7]]
    assert words[8:] == ["MB", "0.1.0"]
    assert note.startswith(f"{server}: open, without keys: any user of that machine can connect; ")
    assert summary == "1 server: 1 ready; 2 threads"
    assert shown.err == ""


def test_a_server_that_does_not_answer_is_named_with_what_to_do_and_status_1(server, nobody, capsys):
    assert main(["status", server, nobody]) == 1
    shown = capsys.readouterr()
    assert f"{nobody}: nobody listens there\n" in shown.out
    assert shown.out.splitlines()[-1] == "2 servers: 1 ready, 1 no answer; 2 threads"
    assert shown.err == f"dr: {nobody}: {NOBODY}\n"


def test_json_is_a_list_of_objects_with_keys_that_stay(server, nobody, capsys):
    assert main(["status", "--json", nobody, server]) == 1
    rows = listed(capsys)
    assert [list(row) for row in rows] == [KEYS, KEYS]
    by_port = {row["port"]: row for row in rows}
    row, silent = (by_port[int(place.partition(":")[2])] for place in (server, nobody))
    assert (row["state"], row["nodes"], row["threads"], row["version"]) == ("ready", [2, 3], 2, "0.1.0")
    assert (silent["state"], silent["answers"], silent["reason"]) == ("no answer", False, "nobody listens there")


def test_without_words_the_servers_of_the_settings_are_asked(server, tmp_path, capsys):
    host, _, port = server.partition(":")
    settings = tmp_path / "dr.toml"
    settings.write_text(
        f'servers = [{{ host = "{host}", port = {port} }}, {{ host = "127.0.0.1", port = 9, enabled = false }}]'
    )
    assert main(["status", "--json", "--settings", str(settings)]) == 0
    assert [row["port"] for row in listed(capsys)] == [int(port)]


def test_without_words_and_settings_this_machine_is_asked(server, monkeypatch, capsys):
    monkeypatch.setenv("DR_PORT", server.partition(":")[2])  # where this user's servers listen
    assert main(["status", "--json"]) == 0
    rows = {row["port"]: row for row in listed(capsys)}
    assert rows[int(server.partition(":")[2])]["host"] == "localhost"


@contextmanager
def spawned(folder: Path, servers: int, *words: object) -> Iterator[None]:
    """`dr spawner WORDS` whose servers are all ready."""
    with start_dr(folder, "spawner", *words) as process:
        try:
            for _ in range(servers):
                wait_for_line(process, ": ready")
            yield
        finally:
            process.terminate()
            process.communicate(timeout=DEADLINE_S)


def ports_that_answer(capsys: pytest.CaptureFixture[str]) -> list[int]:
    """But the usual one, where somebody else of this machine may serve."""
    return sorted(row["port"] for row in listed(capsys) if row["answers"] and row["port"] != DEFAULT_PORT)


def test_without_words_every_spawner_of_this_user_is_found_wherever_it_announces(tmp_path, capsys):
    first, second = free_ports(2)
    with spawned(tmp_path, 1, f"-port={first}"), spawned(tmp_path, 1, f"-port={second}"):
        assert main(["status", "--json"]) == 0
        assert ports_that_answer(capsys) == sorted([first, second])


def test_a_server_that_owns_the_announce_port_is_found_by_its_host(tmp_path, monkeypatch, capsys):
    """As with `-port=20205 --per-node 2`: nobody announces at the usual port, nobody serves at the other one."""
    (port,) = free_ports(1)
    monkeypatch.setenv("DR_ANNOUNCE_PORT", str(port))
    with spawned(tmp_path, 2, f"-port={port}", "--per-node", "2"):
        for words in ([], ["127.0.0.1"]):
            assert main(["status", "--json", *words]) == 0
            assert ports_that_answer(capsys) == [port, port + 1]


def test_a_spawner_on_all_interfaces_is_asked_on_loopback(server, capsys):
    port = int(server.partition(":")[2])
    entry = Registration((port,), *free_ports(1), "*")
    try:
        assert main(["status", "--json"]) == 0
    finally:
        entry.close()
    assert ports_that_answer(capsys) == [port]


def test_a_server_of_a_running_spawner_that_does_not_answer_is_shown(server, tmp_path, capsys):
    port, silent, announce = int(server.partition(":")[2]), *free_ports(2)
    entry = Registration((port, silent), announce, "127.0.0.1")
    try:
        assert main(["status", "--json"]) == 0
    finally:
        entry.close()
    states = {row["port"]: row["state"] for row in listed(capsys) if row["port"] != DEFAULT_PORT}
    assert states == {port: "ready", silent: "no answer"}


def test_a_spawner_that_only_a_key_reaches_is_a_line_and_hides_nobody(server, monkeypatch, capsys):
    entry = Registration(tuple(free_ports(1)), *free_ports(1), "10.99.98.97")
    monkeypatch.setenv("DR_PORT", server.partition(":")[2])
    try:
        assert main(["status"]) == 0
    finally:
        entry.close()
    assert "localhost: the spawner on 10.99.98.97: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["10.0.0.1"], 3, "dr: server '10.0.0.1': a server on another machine needs a farm key, here is none"),
        (["not a host"], 2, "dr: server 'not a host': expected HOST"),
        (["localhost:0"], 2, "dr: server 'localhost:0': expected a port from 1 to 65535"),
        (["--seconds", "0"], 2, "--seconds"),
        (["--seconds", "nan"], 2, "--seconds"),
    ],
)
def test_a_word_that_cannot_be_is_one_line(words, status, error, capsys):
    assert main(["status", *words]) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert error in shown.err


def test_a_health_check_of_a_host_that_hangs_ends_in_time_with_status_1(capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        assert main(["status", "--json", "--seconds", "0.2", place]) == 1
    assert [row["reason"] for row in listed(capsys)] == ["no answer within 0.2 s"]


def test_help_shows_examples(capsys):
    assert main(["status", "--help"]) == 0
    assert "dr status --json --seconds 5" in capsys.readouterr().out


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_watching_into_a_pipe_writes_a_line_for_each_change_until_it_is_interrupted(tmp_path, end):
    with serving(tmp_path, "--threads", "2") as place:
        process = start("--watch", "--json", place)
        assert process.stdout is not None
        (before,) = json.loads(process.stdout.readline())
        assert before["state"] == "ready"
        (server,) = [each for each in psutil.Process().children(recursive=True) if listens_at(each, place)]
        server.kill()
        (after,) = json.loads(process.stdout.readline())
        assert (after["state"], after["boot"]) == ("no answer", before["boot"])
    process.send_signal(end)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, "")


def listens_at(process: psutil.Process, place: str) -> bool:
    found = [each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    return int(place.partition(":")[2]) in found


def test_watching_for_some_seconds_ends_by_itself(nobody, capsys):
    assert main(["status", "--watch", "--seconds", "0.3", nobody]) == 0
    time, _, row, reason, summary, empty = capsys.readouterr().out.splitlines()
    assert time.count(":") == 2
    assert row.split() == [*nobody.split(":"), "no", "answer"]
    assert (reason, summary, empty) == (f"{nobody}: nobody listens there", "1 server: 1 no answer", "")


def test_watching_on_a_terminal_shows_colours_and_the_age_of_silence(server, nobody):
    shown, status = on_terminal(100, "--watch", server, nobody, until=b"nobody listens there, for 1 s")
    assert status == 0
    assert b"\x1b[32mready" in shown
    assert b"\x1b[31mno answer" in shown
    assert shown.rstrip().endswith(b"\x1b[?25h")  # the cursor is back


@pytest.mark.parametrize("columns", [80, 100])
def test_a_table_fits_its_terminal(server, columns):
    shown, status = on_terminal(columns, server, until=b"1 server: 1 ready; 2 threads")
    assert status == 0
    assert b"holder" in shown
    assert "…".encode() not in shown


def on_terminal(columns: int, *words: str, until: bytes) -> tuple[bytes, int]:
    """(all that was shown, exit status) of `dr status WORDS`, interrupted when these words were shown."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [sys.executable, "-m", "tests.support.fake_dr", "status", *words]
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env={**env, "TERM": "xterm"}
    )
    os.close(theirs)
    shown = b""
    try:
        while until not in shown:
            assert select([ours], [], [], DEADLINE_S)[0], shown
            shown += os.read(ours, 65536)
        if "--watch" in words:
            process.send_signal(signal.SIGINT)
        while select([ours], [], [], DEADLINE_S)[0] and (more := read_terminal(ours)):
            shown += more
        return shown, process.wait(DEADLINE_S)
    finally:
        process.kill()
        os.close(ours)


def read_terminal(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # nobody is at the other end any more
        return b""


def test_sizes_are_shown_for_people():
    assert [show_bytes(size) for size in (None, 0, 43_000_000, 1_240_000_000)] == ["", "0 MB", "43 MB", "1.2 GB"]


def test_servers_that_let_in_whoever_comes_are_a_line_for_each_host():
    rows = [
        Row(host="a", port=port, address="a", answers=True, state="ready", guard=guard)
        for port, guard in [(1, "open"), (2, "open"), (3, "keys"), (4, "insecure"), (5, ""), (6, "sesame")]
    ]
    console = Console(width=200)
    with console.capture() as drawn:
        console.print(draw(rows, 200))
    *_, first, second, summary = drawn.get().splitlines()
    assert first == "a:1-2: open, without keys: any user of that machine can connect; `dr keys init` there closes it"
    assert second == "a:4: INSECURE: whoever reaches the port can connect; started with --insecure"
    assert summary == "6 servers: 6 ready"


def test_the_summary_counts_threads_of_servers_that_answer():
    rows = [
        Row(host="a", port=1, address="a", answers=True, state="busy", threads=8),
        Row(host="a", port=2, address="a", answers=True, state="ready", threads=8),
        Row(host="a", port=3, address="a", state="gone", threads=8),
    ]
    assert summarise(rows) == "3 servers: 1 ready, 1 busy, 1 gone; 16 threads"
