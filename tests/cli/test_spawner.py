"""`dr spawner`: the documented commands word for word, every refusal in one line, start, log and stop."""

from __future__ import annotations

import json
import logging
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from dr.cli import main
from dr.client.logs import is_journal, rotating_log
from dr.protocol.messages import Availability
from tests.support.farm import DEADLINE_S, ROOT, assert_all_gone, children, environment, run_dr, start_dr, wait_for_line
from tests.support.spawner import Subscriber, free_ports, listens_on
from tests.support.sysfs import write_even_host, write_host

REFUSED = [
    ("-numa=x", "-numa=x: expected how many servers, such as 4 (0: one per node)"),
    ("-numa=-1", "-numa=-1: expected how many servers, such as 4 (0: one per node)"),
    ("-numa=", "-numa=: expected how many servers, such as 4 (0: one per node)"),
    ("-numa 4", "-numa 4: expected -numa or -numa=N, found a space; write -numa=4"),
    ("-node=a", "-node=a: expected nodes such as 3,5,6 or 0-3,8"),
    ("-node=", "-node=: expected nodes such as 3,5,6 or 0-3,8"),
    ("-node=9", "-node=9: this host has nodes 0-7"),
    ("-node=3,3", "-node=3: expected once, found it named 2 times"),
    ("-port=", "-port=: expected TCP ports such as 30000,40000 or 30000-30003"),
    ("-port=x", "-port=x: expected TCP ports such as 30000,40000 or 30000-30003"),
    ("-port=0", "-port=0: expected a port from 1 to 65535"),
    ("-port=70000", "-port=70000: expected a port from 1 to 65535"),
    ("-ports=1,1 -numa", "-port=1: expected once, found it named 2 times"),
    ("-port=65530 -numa", "-port=65530: "),
    ("-engine=rtx", "-engine=rtx: expected production or rt (did you mean 'rt'?)"),
    ("-engine=rt", "-engine=rt: the interactive engine does not exist yet; leave -engine out"),
    ("--per-node=0", "--per-node=0: expected 1 or more servers on each node"),
    ("--per-node=2 -numa=3", "--per-node=2: "),
    ("--per-node=x", "--per-node: expected a number such as 2, found 'x'"),
    ("--per-node=-1", "--per-node: expected a number such as 2, found '-1'"),
    ("--per-node --plan", "--per-node: expected a number such as 2, found '--plan'"),
    ("--json", "--json: expected --plan with it, found it alone; write --plan --json"),
    ("-nmua=4", "No such option: -nmua=4 (did you mean -numa?)"),
    ("--plan stop", "dr spawner stop: expected its options after it, found some before; write them after it"),
    ("halt", "No such command 'halt'; see dr spawner --help"),
    ("--settings=none.toml", "settings: cannot read none.toml: No such file or directory"),
]
NO_TREE = "expected a folder that stands for /sys, found no devices/system/cpu/online in it"


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without settings, whose logs are thrown away."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("workers.spawner.service.SYSTEM_UNITS", tmp_path)  # a service of this machine is left alone
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> str:
    """A host with 8 nodes of 4 CPUs."""
    return str(write_even_host(tmp_path / "sys", nodes=8, cpus_each=4))


def plan_of(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[list[int]], list[int], int]:
    """(nodes of each server, ports, announce port) of `dr spawner WORDS --plan --json`."""
    assert main(["spawner", *words, "--plan", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    return [s["nodes"] for s in facts["servers"]], [s["port"] for s in facts["servers"]], facts["announce"]


@pytest.mark.parametrize(
    ("command", "nodes", "ports", "announce"),
    [
        ("dr spawner", [[0, 1, 2, 3, 4, 5, 6, 7]], [20204], 20205),
        ("dr spawner -numa", [[i] for i in range(8)], [*range(20204, 20212)], 20212),
        ("dr spawner -numa=4", [[0, 1], [2, 3], [4, 5], [6, 7]], [*range(20204, 20208)], 20208),
        ("dr spawner -node=3,5,6 -ports=30000,40000", [[3], [5], [6]], [30000, 40000, 40001], 20205),
        ("dr spawner -node=2,3,4,5,6 -numa=3", [[2, 3], [4, 5], [6]], [20204, 20205, 20206], 20207),
        ("dr spawner --node=2,3,4,5,6 --numa=3", [[2, 3], [4, 5], [6]], [20204, 20205, 20206], 20207),
        ("dr spawner -numa -node=3,5", [[3], [5]], [20204, 20205], 20206),
        ("dr spawner --numa -node=0-1 -engine=rt", [[0], [1]], [20206, 20207], 20205),
        ("dr spawner --per-node 2 -node=7", [[7], [7]], [20204, 20205], 20206),
    ],
)
def test_the_documented_commands_plan_what_is_documented(
    command: str,
    nodes: list[list[int]],
    ports: list[int],
    announce: int,
    tree: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert plan_of(capsys, *command.split()[2:], "--sysfs", tree) == (nodes, ports, announce)


def test_the_plan_for_programs_has_the_documented_shape(tree: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spawner", "-node=2,3", "-numa=1", "--plan", "--json", "--sysfs", tree]) == 0
    expected = {"nodes": [2, 3], "cpus": [8, 9, 10, 11, 12, 13, 14, 15], "port": 20204, "engine": "production"}
    assert json.loads(capsys.readouterr().out) == {"servers": [expected], "announce": 20205}


def test_the_plan_for_people_is_a_table(tree: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spawner", "-node=2,3,4,5,6", "-numa=3", "-port=1,2,3,4", "--plan", "--sysfs", tree]) == 0
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["server", "nodes", "CPUs", "threads", "port", "engine"],
        ["1", "2-3", "8-15", "8", "1", "production"],
        ["2", "4-5", "16-23", "8", "2", "production"],
        ["3", "6", "24-27", "4", "3", "production"],
        ["announcements:", "port", "20205"],
    ]
    assert not [line for line in out.splitlines() if line != line.rstrip()]
    assert err == "dr: -port=4: more ports than servers: not used\n"


def test_a_plan_needs_no_free_port_and_leaves_nothing(
    tree: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (port,) = free_ports(1)
    before = sorted(tmp_path.rglob("*"))
    assert plan_of(capsys, f"-port={port}", "--sysfs", tree)[1] == [port]
    assert sorted(tmp_path.rglob("*")) == before


def test_settings_decide_what_no_option_does(
    tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "farm.toml").write_text("port = 31000\nannounce_port = 31001\n")
    words = ["-numa=2", "--settings", "farm.toml", "--sysfs", tree]
    assert plan_of(capsys, *words)[1:] == ([31000, 31001], 31002)
    assert plan_of(capsys, *words, "-port=5000")[1:] == ([5000, 5001], 31001)
    monkeypatch.setenv("DR_PORT", "32000")
    assert plan_of(capsys, *words)[1:] == ([32000, 32001], 31001)


@pytest.mark.parametrize(("words", "error"), REFUSED, ids=[words for words, _ in REFUSED])
def test_a_refusal_is_one_line_and_status_2(
    words: str, error: str, tree: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To be started, the tree's nodes share the CPUs that this process has."""
    here = f"{min(psutil.Process().cpu_affinity())}"  # type: ignore[type-var]
    shared = write_host(tmp_path / "shared", dict.fromkeys(range(8), here))
    before = sorted(tmp_path.rglob("*"))
    assert main(["spawner", "--sysfs", str(shared), *words.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith(f"dr: {error}")
    logs = [path for path in tmp_path.rglob("*") if path not in before and path.is_file()]
    assert logs == []


def test_a_folder_that_is_no_sysfs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spawner", "--plan", "--sysfs", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"dr: {tmp_path}: {NO_TREE}\n"


def test_help_and_plans_load_neither_sockets_nor_kernels(tree: str) -> None:
    program = f"""
import sys
from dr.cli import main
for words in (["--help"], ["spawner", "--help"], ["spawner", "install", "--help"]):
    assert main(words) == 0
assert main(["spawner", "-numa", "--plan", "--json", "--sysfs", {tree!r}]) == 0
print(sorted({{"zmq", "numba", "OpenImageIO"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


@contextmanager
def running(folder: Path, *words: object) -> Iterator[subprocess.Popen[str]]:
    """`dr spawner WORDS` whose servers are ready; killed at last if it still runs."""
    with start_dr(folder, "spawner", *words) as process:
        try:
            wait_for_line(process, ": ready")
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_a_spawner_starts_logs_and_is_stopped_from_another_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port, announce, other = free_ports(3)
    monkeypatch.setenv("DR_ANNOUNCE_PORT", str(announce))
    with running(tmp_path, f"-port={port}", "-numa=1") as process:
        family = [psutil.Process(process.pid), *children(process)]
        status = run_dr(tmp_path, "spawner", "status")
        assert f"running: spawner {process.pid} with 1 server on {port}, announcing on {announce}" in status.stdout
        assert status.returncode == 0
        second = run_dr(tmp_path, "spawner", f"-port={port}")
        owner = f"the spawner with process {process.pid} has this port"
        expected = f"dr: -port={port}: {owner}; choose another, or end it with dr spawner stop\n"
        assert (second.returncode, second.stderr) == (2, expected)
        wrong = run_dr(tmp_path, "spawner", "stop", f"-port={other}")
        assert wrong.returncode == 1
        assert f"-port={other}: no spawner of this user has this port; running: spawner" in wrong.stderr
        done = run_dr(tmp_path, "spawner", "stop", f"-port={port}")
        line = f"stopped spawner {process.pid} with 1 server on {port}, announcing on {announce}\n"
        assert (done.returncode, done.stdout) == (0, line)
        process.communicate()
        assert process.returncode == 0
    assert_all_gone(family, tmp_path)
    (log,) = (tmp_path / "xdg_state_home").rglob("*.log")
    assert log.name == f"spawner-{port}.log"
    assert f"dr.spawner: {port}: ready" in log.read_text()
    assert main(["spawner", "stop"]) == 1
    assert capsys.readouterr().err == "dr: no spawner of this user runs on this host\n"


def test_several_spawners_are_stopped_by_port_or_all(tmp_path: Path) -> None:
    first, second, announce = free_ports(3)
    shared = [f"--settings={tmp_path / 'farm.toml'}"]
    (tmp_path / "farm.toml").write_text(f"announce_port = {announce}\n")
    with running(tmp_path, f"-port={first}", *shared) as one, running(tmp_path, f"-port={second}", *shared) as two:
        vague = run_dr(tmp_path, "spawner", "stop")
        assert vague.returncode == 2
        assert vague.stderr.startswith("dr: 2 spawners run: spawner ")
        assert vague.stderr.endswith("; name one with -port=P, or all with --all\n")
        every = run_dr(tmp_path, "spawner", "stop", "--all")
        assert (every.returncode, len(every.stdout.splitlines())) == (0, 2)
        for process in (one, two):
            process.communicate()
            assert process.returncode == 0


def test_a_spawner_that_does_not_go_is_named_with_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, announce = free_ports(2)
    monkeypatch.setenv("DR_ANNOUNCE_PORT", str(announce))
    with running(tmp_path, f"-port={port}") as process:
        process.send_signal(signal.SIGSTOP)
        done = run_dr(tmp_path, "spawner", "stop")
        assert done.returncode == 1
        assert done.stderr == (
            f"dr: spawner {process.pid} with 1 server on {port}, announcing on {announce} has not gone within 8 s; "
            f"kill -9 {process.pid} ends it\n"
        )


def test_a_stopped_terminal_does_not_stop_the_supervision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-S, and a server dies: it is started again all the same, and the spawner can be ended."""
    port, announce = free_ports(2)
    monkeypatch.setenv("DR_ANNOUNCE_PORT", str(announce))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tests.support.fake_dr", "spawner", f"-port={port}"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment(tmp_path), cwd=ROOT) as process:
        try:
            with Subscriber(announce) as subscriber:
                before = subscriber.wait_state(port, Availability.READY)
                termios.tcflow(theirs, termios.TCOOFF)
                (server,) = [each for each in psutil.Process(process.pid).children() if listens_on(each) == [port]]
                server.kill()
                subscriber.wait_state(port, Availability.READY, but=before.boot)
            process.terminate()
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    os.close(ours)
    os.close(theirs)


def test_a_changed_settings_file_is_read_again_at_sighup(tmp_path: Path) -> None:
    port, announce = free_ports(2)
    file = tmp_path / "farm.toml"
    file.write_text(f"announce_port = {announce}\n")
    with running(tmp_path, f"-port={port}", "--settings", file) as process:
        file.write_text(f"announce_port = {announce}\ndrain_s = 3.5\n")
        process.send_signal(signal.SIGHUP)
        assert "drain_s" in wait_for_line(process, "settings read again")
        file.write_text("drain_s = 'soon'\n")
        process.send_signal(signal.SIGHUP)
        assert "drain_s" in wait_for_line(process, "farm.toml")
        assert process.poll() is None
        process.terminate()
        process.communicate()
        assert process.returncode == 0


@contextmanager
def fresh_log(folder: Path, name: str = "spawner-1") -> Iterator[Path | None]:
    with rotating_log(folder, name) as path:
        yield path


def test_a_long_log_goes_on_in_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dr.client.logs.ROTATED_BYTES", 1000)
    with fresh_log(tmp_path / "log") as path:
        assert path == tmp_path / "log" / "spawner-1.log"
        for i in range(100):
            logging.getLogger("dr.spawner").info("line %d of a long story", i)
    files = sorted(path.name for path in (tmp_path / "log").iterdir())
    assert files == ["spawner-1.log", *(f"spawner-1.log.{i}" for i in range(1, 5))]
    assert max(path.stat().st_size for path in (tmp_path / "log").iterdir()) <= 1000
    assert (tmp_path / "log" / "spawner-1.log").read_text().endswith("line 99 of a long story\n")


def test_a_log_folder_that_cannot_be_made_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text("a file")
    with fresh_log(tmp_path / "log") as path:
        assert path is None
        logging.getLogger("dr.spawner").info("it goes on")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(f"no log file: cannot write {tmp_path / 'log' / 'spawner-1.log'}: File exists")
    assert second.endswith("INFO    it goes on")


def test_a_full_disk_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spawner-1.log").symlink_to("/dev/full")
    with fresh_log(tmp_path):
        for _ in range(3):
            logging.getLogger("dr.spawner").info("a line")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dr: ")]
    assert len(told) == 1
    assert told[0].endswith("No space left on device; lines are missing")


def test_the_journal_gets_no_times_because_it_has_its_own(tmp_path: Path) -> None:
    program = f"""
import logging
from pathlib import Path
from dr.client.logs import rotating_log
with rotating_log(Path({str(tmp_path)!r}), "spawner-1"):
    logging.getLogger("dr.spawner").info("here")
"""
    reader, writer = os.pipe()
    found = os.fstat(writer)
    journal = {**environment(tmp_path), "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    subprocess.run([sys.executable, "-c", program], stderr=writer, env=journal, check=True, cwd=ROOT)
    os.close(writer)
    with open(reader) as text:
        assert text.read() == "INFO    here\n"


def test_a_variable_of_a_journal_alone_makes_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    assert not is_journal(2)


def documented_commands() -> list[str]:
    page = (ROOT / "docs/spawner.md").read_text()
    lines = [line.partition("#")[0].split("dr ", 1)[1].strip() for line in page.splitlines() if line.startswith("$ ")]
    return sorted(set(lines))


@pytest.mark.parametrize("command", documented_commands())
def test_every_command_of_the_page_is_understood(
    command: str, tree: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that would start something are planned or printed instead."""
    words = command.replace("--account render ", "").split()
    if words[1:2] == ["install"]:
        monkeypatch.setattr("workers.numa.topology.SYSFS", Path(tree))
        monkeypatch.setattr("workers.numa.topology.usable_cpus", lambda: frozenset(range(32)))
        assert main([*words, *({"--print"} - set(words))]) == 0
        assert "ExecStart=" in capsys.readouterr().out
    elif words[1:2] and words[1] in ("stop", "uninstall", "status"):
        assert main(words) == 1
    else:
        assert main([*words, *({"--plan"} - set(words)), "--sysfs", tree]) == 0
