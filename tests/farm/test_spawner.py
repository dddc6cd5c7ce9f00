"""The spawner as real processes: where servers run, who is told, who starts again, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from dr.errors import Impossible
from dr.protocol.envelope import split_announcement
from dr.protocol.messages import (
    Availability,
    Bucket,
    BucketWork,
    Bye,
    Drain,
    ErrorMessage,
    Hello,
    Kind,
    Ping,
    Pong,
    Tile,
    Welcome,
)
from dr.settings import Settings
from tests.support.farm import ROOT, environment
from tests.support.server_process import RawClient
from tests.support.spawner import (
    SpawnerProcess,
    Subscriber,
    assert_ports_free,
    free_ports,
    listens_on,
    wait_gone,
)
from workers.numa.plan import Placement, Plan
from workers.numa.ranges import parse_ranges
from workers.numa.topology import usable_cpus
from workers.spawner import loop

BUSY, GONE, READY = Availability.BUSY, Availability.GONE, Availability.READY
DEADLINE_S = 30.0
LOADED_S = 2.0  # what a loaded machine may take besides
QUICK = {"backoff_first_s": 0.05, "beacon_s": 0.2}
REAL_SERVER = (sys.executable, "-m", "workers.server")


@pytest.fixture(autouse=True)
def patient_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw client says nothing while a test waits for something else."""
    monkeypatch.setenv("DR_DEAD_S", "60")


@contextmanager
def spawned(folder: Path, count: int = 2, **given: object) -> Iterator[SpawnerProcess]:
    """A spawner whose servers are all ready."""
    with SpawnerProcess(folder, free_ports(count), **given) as spawner:
        spawner.wait_ready()
        yield spawner


def works(count: int) -> list[BucketWork]:
    return [BucketWork(i, 16 * i, 0, 16, 16, 0, 32) for i in range(count)]


def gate(port: int) -> RawClient:
    return RawClient(f"tcp://127.0.0.1:{port}")


def set_up(client: RawClient, **behaviour: object) -> bytes:
    """Takes a lease and prepares a scene; gives the lease."""
    lease = client.take_lease()
    client.set_up(lease, {"scene.json": json.dumps(behaviour).encode()})
    return lease


def render_slowly(client: RawClient, bucket_s: float) -> None:
    """Has buckets of that length under way when it returns."""
    lease = set_up(client, bucket_s=bucket_s)
    client.say(Bucket(lease=lease, epoch=1, buckets=works(8)))
    client.say(Ping(n=1))
    while client.hear(Pong) != Pong(n=1):
        pass


def welcome(port: int) -> Welcome:
    with gate(port) as client:
        client.say(Hello(version=1, kind=Kind.STATUS))
        return client.hear(Welcome)


def assert_nothing_left(spawner: SpawnerProcess, *ports: int) -> None:
    wait_gone(spawner.seen)
    assert_ports_free(ports or (*spawner.ports, spawner.wanted_announce))
    assert spawner.registered() == []


# -- where servers run ----------------------------------------------------------------------------------------------


def test_each_server_runs_where_the_plan_puts_it_as_seen_from_outside(tmp_path: Path) -> None:
    cpus = sorted(usable_cpus())
    one, other = cpus[0], cpus[-1]
    nodes = {0: str(one), 3: f"{one},{other}", 5: str(other)}
    with spawned(tmp_path, 3, nodes=nodes) as spawner:
        for port, (node, text) in zip(spawner.ports, nodes.items(), strict=True):
            server = spawner.server(port)
            expected = set(parse_ranges(text, "node"))
            tasks = [*Path(f"/proc/{server.pid}/task").iterdir()]
            assert len(tasks) > len(expected)  # the loop and libzmq's threads besides those that render
            for task in tasks:
                (allowed,) = re.findall(r"Cpus_allowed_list:\s*(\S+)", (task / "status").read_text())
                assert set(parse_ranges(allowed, "status")) == expected
            assert listens_on(server) == [port]
            assert Path(f"/proc/{server.pid}/comm").read_text().strip() == f"dr:{port} n{node}"[:15]
            words = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
            assert words[0].decode() == f"dr:{port} node {node}"
            facts = welcome(port)
            assert facts.threads == len(expected)
            assert facts.announce == spawner.wanted_announce
            assert sorted(facts.siblings) == sorted(set(spawner.ports) - {port})


def test_memory_lies_on_the_node_of_its_server(tmp_path: Path) -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("this kernel has no numa_maps")
    with spawned(tmp_path, 1) as spawner:
        server = spawner.server(spawner.ports[0])
        assert "prefer:0" in Path(f"/proc/{server.pid}/numa_maps").read_text()


# -- who dies and who starts again ----------------------------------------------------------------------------------


def test_a_killed_server_is_announced_gone_and_started_again(tmp_path: Path) -> None:
    with spawned(tmp_path, patience=QUICK) as spawner, spawner.subscriber() as subscriber:
        port = spawner.ports[0]
        before = subscriber.wait_state(port, READY)
        spawner.server(port).kill()
        assert subscriber.wait_state(port, GONE).boot == before.boot
        again = subscriber.wait_state(port, READY)
        assert again.boot != before.boot
        with gate(port) as client:
            assert set_up(client)
        assert f"{port}: killed by SIGKILL; starts again in 0.05 s" in spawner.said()


def test_a_death_is_noticed_although_a_grandchild_holds_the_streams(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "pid = os.fork()\n"
        "pid or signal.pause()\n"
        "print('listening on it', flush=True)\n"
        "os.write(2, b'ERROR grandchild %d' % pid)\n"
        "sys.exit(7)"
    )
    patience = {"deaths": 1}
    command = (sys.executable, "-S", "-c", program)
    with SpawnerProcess(tmp_path, free_ports(1), patience=patience, command=command) as spawner:
        assert spawner.exit_status() == 1
        said = spawner.said()
        assert "ended with status 7" in said
        (grandchild,) = {*re.findall(r"grandchild (\d+)", said)}
        psutil.Process(int(grandchild)).kill()


def test_a_server_that_never_lives_is_given_up_and_its_words_say_why(tmp_path: Path) -> None:
    command = (sys.executable, "-S", "-c", "import sys; sys.exit('dr: no such thing')")
    patience = {"backoff_first_s": 0.01, "deaths": 3}
    with SpawnerProcess(tmp_path, free_ports(2), patience=patience, command=command) as spawner:
        assert spawner.exit_status() == 1
        for port in spawner.ports:
            assert f"{port}: ended with status 1: dr: no such thing; given up after 3 deaths" in spawner.said()
        assert_nothing_left(spawner)


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with SpawnerProcess(tmp_path, free_ports(1), patience={"deaths": 1}, command=["/no/such/dr"]) as spawner:
        assert spawner.exit_status() == 1
        assert "could not be started: /no/such/dr: No such file or directory" in spawner.said()


def test_a_client_may_ask_for_a_fresh_server(tmp_path: Path) -> None:
    with spawned(tmp_path) as spawner, spawner.subscriber() as subscriber:
        port, other = spawner.ports
        before = subscriber.wait_state(port, READY)
        with gate(port) as client:
            lease = client.take_lease("ada")
            assert subscriber.wait_state(port, BUSY).holder == "ada"
            client.say(Bye(lease=lease, restart=True))
            assert subscriber.wait_state(port, READY, but=before.boot)
        said = spawner.said()
        assert "starts again in" not in said
        assert said.count(f"{port}: starting") == 2
        assert said.count(f"{other}: starting") == 1


def test_changed_settings_reach_free_servers_at_once_and_busy_ones_later(tmp_path: Path) -> None:
    with spawned(tmp_path) as spawner, spawner.subscriber() as subscriber:
        free, busy = spawner.ports
        before = {port: subscriber.wait_state(port, READY).boot for port in spawner.ports}
        with gate(busy) as client:
            lease = set_up(client)
            write_settings(tmp_path, "waiters = 1")
            spawner.signal(signal.SIGHUP)
            assert subscriber.wait_state(free, READY, but=before[free])
            assert client.render(lease, *works(2))
            client.leave(lease)
        assert subscriber.wait_state(busy, READY, but=before[busy])
        assert "waiters changed" in spawner.said()
        for port in spawner.ports:
            with gate(port) as first, gate(port) as second, gate(port) as third:
                first.take_lease()
                second.say(Hello(version=1, want=True))
                assert second.hear(Welcome).queue_pos == 1
                third.say(Hello(version=1, want=True))
                assert third.hear(ErrorMessage)  # only one may wait


def test_settings_that_cannot_be_read_change_nothing(tmp_path: Path) -> None:
    with spawned(tmp_path, patience=QUICK) as spawner, spawner.subscriber() as subscriber:
        port = spawner.ports[0]
        before = subscriber.wait_state(port, READY).boot
        write_settings(tmp_path, "waiters = many")
        spawner.signal(signal.SIGHUP)
        wait_said(spawner, subscriber, "the old settings stay")
        assert subscriber.wait_state(port, READY).boot == before
        spawner.server(port).kill()  # a server that starts now has them, too: it reads no file by itself
        subscriber.wait_state(port, GONE)
        assert subscriber.wait_state(port, READY, but=before)


# -- who is told ----------------------------------------------------------------------------------------------------


def test_a_late_subscriber_hears_all_last_values_at_once(tmp_path: Path) -> None:
    with spawned(tmp_path, 3, patience={"beacon_s": 3600.0}) as spawner, gate(spawner.ports[1]) as client:
        client.take_lease("ada")
        with spawner.subscriber() as early:
            early.wait_state(spawner.ports[1], BUSY)
        with spawner.subscriber() as late:
            heard = [split_announcement(frames) for frames in late.wait(3)]
        assert {(each.port, each.state, each.holder) for each in heard} == {
            (spawner.ports[0], READY, ""),
            (spawner.ports[1], BUSY, "ada"),
            (spawner.ports[2], READY, ""),
        }


def test_a_server_that_owns_the_announce_port_moves_the_announcer(tmp_path: Path) -> None:
    ports = free_ports(2)
    with SpawnerProcess(tmp_path, ports, announce=ports[1]) as spawner:
        announce = wait_announce_port(spawner)
        assert announce not in ports
        with Subscriber(announce) as subscriber:
            for port in ports:
                subscriber.wait_state(port, READY)
        assert {welcome(port).announce for port in ports} == {announce}


def test_a_second_spawner_announces_on_the_next_free_port(tmp_path: Path) -> None:
    with spawned(tmp_path, 1) as first:
        with SpawnerProcess(tmp_path, free_ports(1), announce=first.wanted_announce) as second:
            announce = wait_announce_port(second)
            assert announce > first.wanted_announce
            with Subscriber(announce) as subscriber:
                subscriber.wait_state(second.ports[0], READY)
            assert welcome(second.ports[0]).announce == announce
            assert len(first.registered()) == 2
            second.signal(signal.SIGTERM)
            assert second.exit_status() == 0
        with first.subscriber() as subscriber:
            subscriber.wait_state(first.ports[0], READY)


# -- how it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_idle_servers_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with spawned(tmp_path) as spawner, spawner.subscriber() as subscriber:
        subscriber.wait()
        begun = time.perf_counter()
        spawner.signal(number)
        assert spawner.exit_status() == 0
        assert time.perf_counter() - begun <= 5.0 + LOADED_S
        gone: set[int] = set()
        while gone != set(spawner.ports):
            gone.add(subscriber.wait_for(lambda each: each.state is GONE, "servers that are gone").port)
        assert_nothing_left(spawner)


def test_a_stop_under_load_returns_the_running_buckets_and_takes_at_most_five_seconds(tmp_path: Path) -> None:
    with spawned(tmp_path) as spawner, gate(spawner.ports[0]) as client:
        render_slowly(client, bucket_s=1.0)
        begun = time.perf_counter()
        spawner.signal(signal.SIGTERM)
        assert {type(client.hear(Drain, Tile)) for _ in range(2)} == {Drain, Tile}
        assert spawner.exit_status() == 0
        assert time.perf_counter() - begun <= 5.0 + LOADED_S
        assert_nothing_left(spawner)


def test_a_bucket_without_end_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    with spawned(tmp_path) as spawner, gate(spawner.ports[0]) as client:
        render_slowly(client, bucket_s=3600.0)
        begun = time.perf_counter()
        spawner.signal(signal.SIGTERM)
        assert spawner.exit_status() == 0
        assert time.perf_counter() - begun <= 5.0 + LOADED_S
        assert_nothing_left(spawner)


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with spawned(tmp_path) as spawner, gate(spawner.ports[0]) as client:
        render_slowly(client, bucket_s=3600.0)
        spawner.signal(signal.SIGTERM)
        client.hear(Drain)
        begun = time.perf_counter()
        spawner.signal(signal.SIGINT)
        assert spawner.exit_status() == 0
        assert time.perf_counter() - begun <= LOADED_S
        assert_nothing_left(spawner)


def test_a_frozen_server_is_killed_at_the_stop(tmp_path: Path) -> None:
    with spawned(tmp_path, patience={"stop_s": 0.5}) as spawner:
        port = spawner.ports[0]
        spawner.server(port).suspend()
        spawner.signal(signal.SIGTERM)
        assert spawner.exit_status() == 0
        assert f"{port}: killed (node 0): it did not leave within 0.5 s" in spawner.said()
        assert_nothing_left(spawner)


def test_nothing_survives_the_kill_of_the_spawner(tmp_path: Path) -> None:
    with spawned(tmp_path) as spawner, gate(spawner.ports[0]) as client:
        render_slowly(client, bucket_s=3600.0)
        spawner.process.kill()
        wait_gone(spawner.seen, within_s=10.0)
        assert_ports_free([*spawner.ports, spawner.wanted_announce])
        with SpawnerProcess(tmp_path, spawner.ports) as again:  # the same ports may be had at once
            again.wait_ready()
            assert len(again.registered()) == 1  # the file of the dead one went with the start
            assert [facts["pid"] for facts in running_here(tmp_path)] == [again.process.pid]


def test_no_preparing_process_survives_the_kill_of_the_spawner(tmp_path: Path) -> None:
    with SpawnerProcess(tmp_path, free_ports(1), command=REAL_SERVER) as spawner:
        spawner.wait_ready()
        assert len(spawner.seen) >= 3  # the spawner, its server, and that one's preparing process
        spawner.process.kill()
        wait_gone(spawner.seen, within_s=10.0)


def test_our_own_bug_ends_every_server(tmp_path: Path) -> None:
    with spawned(tmp_path, bug=True) as spawner:
        spawner.signal(signal.SIGHUP)
        assert spawner.exit_status() == 1
        assert "RuntimeError: a bug of ours" in spawner.said()
        assert_nothing_left(spawner)


def test_a_state_that_cannot_be_is_told_with_what_happened_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(state: object) -> None:
        raise Impossible("spawner state: expected otherwise")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(loop.SpawnerState, "check", fail)
    monkeypatch.setattr(loop, "SERVER_COMMAND", ("/no/such/dr",))
    port, announce = free_ports(2)
    server = Placement(nodes=(0,), cpus=(min(usable_cpus()),), memory_nodes=(), port=port)
    plan = Plan(servers=(server,), announce=announce)
    with pytest.raises(Impossible, match=r"otherwise; the last events were:\nServerExited\(slot=0"):
        loop.run_spawner(loop.SpawnerOptions(plan=plan, bind="127.0.0.1", settings=Settings(), reread=Settings))
    assert_ports_free([port, announce])


def test_another_process_stops_it_through_the_registry(tmp_path: Path) -> None:
    with spawned(tmp_path) as spawner:
        (facts,) = running_here(tmp_path)
        assert facts["pid"] == spawner.process.pid
        assert tuple(facts["ports"]) == spawner.ports
        assert facts["announce"] == spawner.wanted_announce
        script = "from workers.spawner import registry; print(*map(registry.stop, registry.running()))"
        assert run_here(tmp_path, script) == "True\n"
        assert spawner.exit_status() == 0
        assert_nothing_left(spawner)


def test_a_closed_terminal_ends_it(tmp_path: Path) -> None:
    spawner = SpawnerProcess(tmp_path, free_ports(1))
    words = [sys.executable, "-m", "tests.support.spawner", json.dumps(spawner.facts)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(words[0], words, environment(tmp_path))
    try:
        with spawner.subscriber() as subscriber:
            subscriber.wait_state(spawner.ports[0], READY)
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        wait_gone(family)
        assert spawner.registered() == []
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"engine": "rt"}, "-engine=rt: the interactive engine does not exist yet; leave -engine out"),
        ({"bind": "0.0.0.0"}, "--bind 0.0.0.0: a server that other machines reach needs a farm key, here is none;"),
        ({"bind": "example.com"}, "--bind example.com: expected an IP address of this machine"),
        ({"nodes": {0: "99990-99993"}}, "expected CPUs among"),
    ],
)
def test_what_cannot_be_started_here_is_one_line_and_starts_nothing(tmp_path: Path, given: dict, text: str) -> None:
    with SpawnerProcess(tmp_path, free_ports(1), command=["/no/such/dr"], **given) as spawner:
        assert spawner.exit_status() == 2
        (line,) = spawner.said().splitlines()
        assert text in line
        assert spawner.registered() == []


def test_a_taken_port_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        with SpawnerProcess(tmp_path, [*free_ports(1), taken], command=["/no/such/dr"]) as spawner:
            assert spawner.exit_status() == 2
            expected = f"dr: -port={taken}: the port is taken by another program; choose another"
            assert spawner.said().splitlines() == [expected]


def test_a_port_stays_its_spawners_while_the_server_there_is_started_again(tmp_path: Path) -> None:
    with spawned(tmp_path, patience={"backoff_first_s": 3600.0}) as spawner, spawner.subscriber() as subscriber:
        port = spawner.ports[0]
        spawner.server(port).kill()
        subscriber.wait_state(port, GONE)
        words = [sys.executable, "-m", "tests.support.spawner", json.dumps(spawner.facts)]
        second = subprocess.run(
            words, env=environment(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert second.returncode == 2
        (line,) = second.stderr.splitlines()
        assert f"-port={port}: the spawner with process {spawner.process.pid} has this port; choose another" in line


# -- small things ---------------------------------------------------------------------------------------------------


def write_settings(folder: Path, text: str) -> None:
    path = folder / "xdg_config_home" / "dr" / "dr.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def wait_announce_port(spawner: SpawnerProcess) -> int:
    """Where it really announces: its file in the registry says so."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for facts in running_here(spawner.folder):
            if facts["pid"] == spawner.process.pid:
                return facts["announce"]
    raise AssertionError(spawner.said())


def wait_said(spawner: SpawnerProcess, subscriber: Subscriber, text: str) -> None:
    """Looks at the log with each beacon."""
    deadline = time.monotonic() + DEADLINE_S
    while text not in spawner.said():
        assert time.monotonic() < deadline, spawner.said()
        subscriber.wait_for(lambda each: True, "a beacon")


def running_here(folder: Path) -> list[dict]:
    script = (
        "import msgspec\nfrom workers.spawner import registry\nprint(msgspec.json.encode(registry.running()).decode())"
    )
    return json.loads(run_here(folder, script))


def run_here(folder: Path, script: str) -> str:
    """What a script of the same user prints."""
    words = [sys.executable, "-c", script]
    return subprocess.run(words, env=environment(folder), cwd=ROOT, capture_output=True, text=True, check=True).stdout
