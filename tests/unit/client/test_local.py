"""Child processes of the client: told apart by what they say and how they end."""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from dr.client.local import (
    LocalEvent,
    LocalServers,
    ServerExited,
    ServerListening,
    ServerPlan,
    ServerSaid,
    plan_servers,
)
from dr.errors import DrError

DEADLINE_S = 20
LISTENS = "import sys; print('listening on it', flush=True); sys.stdin.read()"
PLANS = [ServerPlan(name="local-1", threads=1, cpus=(0,)), ServerPlan(name="local-2", threads=1, cpus=(0,))]


@contextmanager
def started(plans: list[ServerPlan], command: list[str]) -> Iterator[LocalServers]:
    with LocalServers(command) as servers:
        servers.start(plans)
        yield servers


def child(program: str) -> list[str]:
    return [sys.executable, "-S", "-c", program]


def take_until(servers: LocalServers, kind: type[LocalEvent], count: int = 1) -> list[LocalEvent]:
    """All events up to the `count`-th of a kind."""
    events: list[LocalEvent] = []
    while sum(isinstance(event, kind) for event in events) < count:
        ready, _, _ = select.select(servers.watched(), [], [], DEADLINE_S)
        assert ready, f"only {events}"
        for fd in ready:
            events += servers.take(fd)
    return events


def test_a_server_is_announced_when_it_listens() -> None:
    with started(PLANS, child(LISTENS)) as servers:
        events = take_until(servers, ServerListening, 2)
        names = {event.name: event.endpoint for event in events if isinstance(event, ServerListening)}
        assert names == {"local-1": f"ipc://{servers.folder}/1", "local-2": f"ipc://{servers.folder}/2"}


def test_the_folder_is_private_and_goes_with_the_servers() -> None:
    with started(PLANS, child(LISTENS)) as servers:
        folder = servers.folder
        assert folder is not None
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        processes = [psutil.Process(server.child.pid) for server in servers.servers]
    assert not folder.exists()
    assert not any(process.is_running() for process in processes)


def test_a_killed_server_is_noticed_with_its_signal() -> None:
    with started(PLANS, child(LISTENS)) as servers:
        take_until(servers, ServerListening, 2)
        os.kill(servers.servers[1].child.pid, signal.SIGKILL)
        exited = take_until(servers, ServerExited)[-1]
        assert exited == ServerExited("local-2", f"ipc://{servers.folder}/2", "killed by SIGKILL")


def test_the_loss_of_a_connection_finds_the_death_behind_it() -> None:
    with started(PLANS[:1], child(LISTENS)) as servers:
        take_until(servers, ServerListening)
        endpoint = f"ipc://{servers.folder}/1"
        assert servers.take_death("tcp://127.0.0.1:1") == []
        os.kill(servers.servers[0].child.pid, signal.SIGKILL)
        assert servers.take_death(endpoint) == [ServerExited("local-1", endpoint, "killed by SIGKILL")]
        assert servers.take_death(endpoint) == []
        assert all(servers.take(fd) == [] for fd in servers.watched())


def test_a_server_that_lives_has_no_death_to_tell() -> None:
    with started(PLANS[:1], child(LISTENS)) as servers:
        take_until(servers, ServerListening)
        assert servers.take_death(f"ipc://{servers.folder}/1") == []


def test_a_killed_server_had_no_last_words() -> None:
    program = "import sys; print('preparing', file=sys.stderr); print('listening on it', flush=True); input()"
    with started(PLANS[:1], child(program)) as servers:
        take_until(servers, ServerListening)
        os.kill(servers.servers[0].child.pid, signal.SIGKILL)
        last = take_until(servers, ServerExited)[-1]
        assert isinstance(last, ServerExited)
        assert last.reason == "killed by SIGKILL"


def test_the_last_words_of_a_server_say_why_it_ended() -> None:
    program = "import sys; sys.stderr.write('one\\ntwo: no such thing\\n'); sys.exit(70)"
    with started(PLANS[:1], child(program)) as servers:
        events = take_until(servers, ServerExited)
        assert [event.line for event in events if isinstance(event, ServerSaid)] == ["one", "two: no such thing"]
        last = events[-1]
        assert isinstance(last, ServerExited)
        assert last.reason == "ended with status 70: two: no such thing"


def test_an_exit_is_held_back_while_another_server_starts() -> None:
    program = "import os, sys; sys.argv[4] == 'local-1' and sys.exit(3); print('listening on it', flush=True); input()"
    with started(PLANS, child(program)) as servers:
        events = take_until(servers, ServerExited)
        kinds = [(type(event), event.name) for event in events]
        assert sorted(kinds[:2], key=str) == [(ServerListening, "local-1"), (ServerListening, "local-2")]
        assert kinds[2:] == [(ServerExited, "local-1")]


def test_an_exception_in_the_client_leaves_no_server() -> None:
    seen: list[psutil.Process] = []

    def fail() -> None:
        with started(PLANS, child(LISTENS)) as servers:
            seen.extend(psutil.Process(server.child.pid) for server in servers.servers)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert not any(process.is_running() for process in seen)


def test_a_server_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dr.client.local.STOP_S", 0.1)
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN); print('listening on it', flush=True); signal.pause()"
    with started(PLANS[:1], child(stubborn)) as servers:
        take_until(servers, ServerListening)
        process = psutil.Process(servers.servers[0].child.pid)
    assert not process.is_running()


def test_a_program_that_is_not_there_is_one_clear_line() -> None:
    with pytest.raises(DrError, match="cannot start a local server: No such file"), started(PLANS, ["/no/such/dr"]):
        pass


def test_a_long_temporary_folder_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with started(PLANS[:1], child(LISTENS)) as servers:
        assert str(servers.folder).startswith("/tmp/dr-")
    assert list(deep.iterdir()) == []


@pytest.mark.parametrize(
    ("nodes", "count", "threads", "expected"),
    [
        ([[0, 1]], None, None, [(2, (0, 1))]),
        ([[0, 1], [2, 3]], None, None, [(2, (0, 1)), (2, (2, 3))]),
        ([[0, 1], [2, 3]], None, 3, [(2, (0, 1)), (1, (2, 3))]),
        ([[0, 1], [2, 3]], None, 1, [(1, (0, 1, 2, 3))]),
        ([[0, 1]], 2, None, [(1, (0,)), (1, (1,))]),
        ([[0, 1, 2, 3, 4]], 2, 3, [(2, (0, 1, 2)), (1, (3, 4))]),
        ([[0, 1]], 3, None, [(1, (0,)), (1, (1,)), (1, (0,))]),
        ([[0, 1]], 0, None, []),
    ],
)
def test_cpus_and_threads_are_dealt_to_the_servers(
    nodes: list[list[int]], count: int | None, threads: int | None, expected: list[tuple[int, tuple[int, ...]]]
) -> None:
    assert [(plan.threads, plan.cpus) for plan in plan_servers(nodes, count, threads)] == expected
