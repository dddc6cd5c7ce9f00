"""`dr render --server`, `dr serve` and `dr spawner`: real processes over loopback TCP."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import dr
from dr.protocol import address
from dr.protocol.messages import Availability
from dr.settings import Settings
from tests.support.farm import (
    DEADLINE_S,
    ROOT,
    environment,
    facts_of,
    run_dr,
    serving,
    start_dr,
    wait_for_line,
    write_scene,
)
from tests.support.spawner import Subscriber, free_ports
from tests.support.sysfs import write_host
from workers.numa.topology import usable_cpus

SIZE = ("--size", "96x64", "--samples", "4", "--bucket-size", "16")


def test_servers_on_ports_render_without_local_ones(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path, bucket_s=0.1), tmp_path / "a.exr"
    with serving(tmp_path, "--threads", 1) as one, serving(tmp_path, "--threads", 1) as two:
        where = ("--server", one, "--server", two, "--no-local")
        facts = facts_of(run_dr(tmp_path, "render", scene, "-o", out, *SIZE, *where, "--json"))
    assert {server["endpoint"] for server in facts["servers"]} == {f"tcp://{one}", f"tcp://{two}"}
    assert facts["buckets"] >= 24  # the last ones may be split


def test_local_servers_help_those_on_ports(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path, bucket_s=0.05), tmp_path / "a.exr"
    with serving(tmp_path, "--threads", 1) as one:
        where = ("--server", one, "--local-servers", 1, "--threads", 1)
        facts = facts_of(run_dr(tmp_path, "render", scene, "-o", out, *SIZE, *where, "--json"))
    assert sorted(server["endpoint"][:3] for server in facts["servers"]) == ["ipc", "tcp"]


def test_this_machine_stays_out_when_the_settings_say_so(tmp_path: Path) -> None:
    settings = tmp_path / "dr.toml"
    settings.write_text("use_local_host = false\n")
    scene, out = write_scene(tmp_path, bucket_s=0.05), tmp_path / "a.exr"
    with serving(tmp_path, "--threads", 1) as one:
        words = ("--server", one, "--settings", settings, "--json")
        facts = facts_of(run_dr(tmp_path, "render", scene, "-o", out, *SIZE, *words))
    assert [server["endpoint"] for server in facts["servers"]] == [f"tcp://{one}"]


def test_a_server_serves_one_render_after_another(tmp_path: Path) -> None:
    scene = write_scene(tmp_path)
    with serving(tmp_path) as one:
        for name in ("a.exr", "b.exr"):
            done = run_dr(tmp_path, "render", scene, "-o", tmp_path / name, *SIZE, "--server", one, "--no-local")
            assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.exr").read_bytes() == (tmp_path / "b.exr").read_bytes()


def test_a_second_client_waits_for_the_first(tmp_path: Path) -> None:
    slow, quick = tmp_path / "slow", tmp_path / "quick"
    slow.mkdir()
    quick.mkdir()
    with serving(tmp_path) as one:
        where = ("--server", one, "--no-local", "-v")
        first = start_dr(slow, "render", write_scene(slow, bucket_s=0.5), "-o", slow / "a.exr", *SIZE, *where)
        wait_for_line(first, "tile 0 from")
        second = start_dr(quick, "render", write_scene(quick), "-o", quick / "a.exr", *SIZE, *where)
        wait_for_line(second, "busy with")
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=DEADLINE_S)
        second.communicate(timeout=DEADLINE_S)
    assert (first.returncode, second.returncode) == (1, 0)


def test_a_scene_names_its_servers(tmp_path: Path) -> None:
    with serving(tmp_path) as one:
        scene = tmp_path / "saved.scene.toml"
        port = one.rpartition(":")[2]
        scene.write_text(f'servers = [{{ host = "127.0.0.1", port = {port} }}]\n')
        done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE, "--no-local", "--json")
        assert [server["endpoint"] for server in facts_of(done)["servers"]] == [f"tcp://{one}"]


def test_the_api_cancels_from_its_progress(tmp_path: Path) -> None:
    import threading

    cancel, seen = threading.Event(), []

    def watch(progress: dr.Progress) -> None:
        seen.append(progress)
        if progress.buckets_done:
            cancel.set()

    scene = write_scene(tmp_path, bucket_s=0.05)
    with serving(tmp_path, "--threads", 1) as one:
        image = dr.render(
            scene, size=(96, 64), samples=4, bucket_size=16, servers=[one], local=False, progress=watch, cancel=cancel
        )
    assert (image.complete, image.reason) == (False, "cancelled")
    assert 0 < image.statistics.buckets < 24
    assert seen[-1].buckets_done == image.statistics.buckets
    assert image.channels["beauty"].shape == (64, 96, 3)
    assert (image.channels["alpha"] == 0).any()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from dr.cli import main; raise SystemExit(main())", "serve", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment(folder), cwd=ROOT)


@pytest.mark.slow
def test_dr_serve_listens_where_it_is_told_and_ctrl_c_stops_it(tmp_path: Path, free_port: int) -> None:
    process = serve(tmp_path, f"-port={free_port}", "--threads", "1")
    assert process.stdout is not None
    assert process.stdout.readline() == f"listening on tcp://127.0.0.1:{free_port}\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port))


@pytest.mark.slow
def test_dr_serve_on_a_taken_port_is_one_line_and_status_2(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = serve(tmp_path, f"-port={taken.getsockname()[1]}")
        _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert len(stderr.splitlines()) == 1
    assert "the port is taken" in stderr


@pytest.mark.slow
def test_dr_serve_beyond_this_machine_is_refused(tmp_path: Path) -> None:
    process = serve(tmp_path, "--bind", "0.0.0.0")
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 3
    assert "keys" in stderr.splitlines()[-1]


def is_server(process: psutil.Process) -> bool:
    return process.status() != psutil.STATUS_ZOMBIE and "tests.support.fake_server" in process.cmdline()


def test_a_server_killed_over_tcp_leaves_the_client_waiting_until_cancelled(tmp_path: Path) -> None:
    scene = write_scene(tmp_path, bucket_s=0.05)
    with serving(tmp_path) as one:
        words = ("render", scene, "-o", tmp_path / "a.exr", *SIZE, "--server", one, "--no-local", "-v", "--json")
        client = start_dr(tmp_path, *words)
        wait_for_line(client, "tile 0 from")
        owner = next(child for child in psutil.Process().children() if is_server(child))
        owner.kill()
        wait_for_line(client, "no server")
        client.send_signal(signal.SIGINT)
        stdout, _ = client.communicate(timeout=DEADLINE_S)
    assert client.returncode == 1
    assert len(json.loads(stdout.splitlines()[-1])["lost"]) == 1


# Servers of a spawner


@contextmanager
def spawning(folder: Path, ports: str) -> Iterator[psutil.Process]:
    """`dr spawner --per-node 2` as on a host of one node, with both servers ready."""
    write_host(folder / "sys", {0: ",".join(map(str, sorted(usable_cpus())))})
    spawner = start_dr(folder, "spawner", "--per-node", 2, f"-port={ports}", "--sysfs", folder / "sys")
    try:
        wait_for_line(spawner, "ready")
        wait_for_line(spawner, "ready")
        yield psutil.Process(spawner.pid)
    finally:
        spawner.terminate()
        try:
            spawner.communicate(timeout=DEADLINE_S)
        finally:
            spawner.kill()
    assert spawner.returncode == 0


@pytest.fixture
def announce_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Where spawners of this test announce."""
    (port,) = free_ports(1)
    monkeypatch.setenv("DR_ANNOUNCE_PORT", str(port))
    return port


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Two ports for servers, the first of which is the one that a client of this process dials on a bare host."""
    first, second = free_ports(2)
    monkeypatch.setattr(address, "DEFAULT_PORT", first)
    return first, second


def render_on(place: str, scene: Path, **options: object) -> dr.Result:
    """In this process, on these servers alone."""
    chosen: dict[str, object] = {"size": (96, 64), "samples": 4, "bucket_size": 16, "servers": [place], "local": False}
    return dr.render(scene, **{**chosen, **options})  # type: ignore[arg-type]


def places(image: dr.Result) -> set[str]:
    return {server.endpoint for server in image.statistics.servers}


@pytest.mark.usefixtures("announce_port")
def test_the_servers_of_a_spawner_render_together(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path, bucket_s=0.1), tmp_path / "a.exr"
    first = first_of_two_free_ports()
    with spawning(tmp_path, f"{first}"):
        where = ("--server", f"127.0.0.1:{first}-{first + 1}", "--no-local", "--json")
        facts = facts_of(run_dr(tmp_path, "render", scene, "-o", out, *SIZE, *where))
    assert {s["endpoint"] for s in facts["servers"]} == {f"tcp://127.0.0.1:{first + i}" for i in range(2)}
    assert facts["buckets"] >= 24  # the last ones may be split


def first_of_two_free_ports() -> int:
    """A free port whose successor is free, too."""
    for _ in range(100):
        (port,) = free_ports(1)
        with socket.socket() as probe:
            if port < 65535 and probe.connect_ex(("127.0.0.1", port + 1)):
                return port
    raise AssertionError("no two ports in a row are free")


@pytest.mark.usefixtures("announce_port")
def test_a_host_without_a_port_brings_all_servers_of_its_spawner(tmp_path: Path, host: tuple[int, int]) -> None:
    scene = write_scene(tmp_path, bucket_s=0.1)
    with spawning(tmp_path, f"{host[0]},{host[1]}"):
        image = render_on("127.0.0.1", scene)
    assert places(image) == {f"tcp://127.0.0.1:{port}" for port in host}
    assert sum("its host has 1 more server" in notice for notice in image.notices) == 1


@pytest.mark.usefixtures("announce_port")
def test_a_port_brings_that_server_alone(tmp_path: Path, host: tuple[int, int]) -> None:
    scene = write_scene(tmp_path, bucket_s=0.02)
    with spawning(tmp_path, f"{host[0]},{host[1]}"):
        image = render_on(f"127.0.0.1:{host[0]}", scene)
    assert places(image) == {f"tcp://127.0.0.1:{host[0]}"}


def test_a_sibling_that_is_not_there_costs_nothing_but_a_notice(tmp_path: Path, host: tuple[int, int]) -> None:
    scene = write_scene(tmp_path, bucket_s=0.02)
    with serving(tmp_path, "--port", host[0], "--siblings", host[1]) as one:
        image = render_on("127.0.0.1", scene)
    assert places(image) == {f"tcp://{one}"}
    assert image.complete
    assert any(f":{host[1]}: nobody listens there" in notice for notice in image.notices)


def test_servers_that_took_part_are_restarted_if_the_settings_say_so(
    tmp_path: Path, announce_port: int, host: tuple[int, int]
) -> None:
    scene = write_scene(tmp_path, bucket_s=0.05)
    with (
        spawning(tmp_path, f"{host[0]},{host[1]}") as spawner,
        Subscriber(announce_port) as listener,
    ):
        before = {port: listener.wait_state(port, Availability.READY).boot for port in host}
        processes = {child.pid for child in spawner.children()}
        assert render_on("127.0.0.1", scene).complete
        assert {child.pid for child in spawner.children()} == processes
        assert render_on("127.0.0.1", scene, settings=Settings(restart_servers_on_render_end=True)).complete
        for port in host:
            listener.wait_state(port, Availability.READY, but=before[port])
