"""The render server as a process: real sockets, real signals, an engine without kernels."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import zmq

import dr
from dr.protocol.messages import (
    Availability,
    Beat,
    Bucket,
    BucketWork,
    Bye,
    Cancel,
    Channel,
    Drain,
    EngineKind,
    ErrorMessage,
    Failed,
    Grant,
    Hello,
    NoLease,
    Ping,
    Pong,
    Progress,
    Tile,
    Welcome,
)
from dr.protocol.version import CHUNK_BYTES
from tests.support.fake_engine import expected_film
from tests.support.server_process import CHANNELS, FAKE, PATIENCE_S, ROOT, SETTINGS, RawClient, ServerProcess
from workers.server.renderer import select_planes
from workers.server.words import RESTART_STATUS


@pytest.fixture
def server(tmp_path):
    with ServerProcess(tmp_path / "server") as process:
        yield process


@pytest.fixture
def client(server):
    with RawClient(server.endpoint()) as raw:
        raw.address = server
        yield raw


CHANCE = re.compile(r"[0-9]+\.[0-9]{3}(?= s$)|(?<=thread )[0-9]+")  # what a log line holds of it


def scene(**words):
    return {"scene.json": json.dumps(words).encode()}


def works(count, size=16, **fields):
    per_row = SETTINGS.width // size
    return [
        BucketWork(i, size * (i % per_row), size * (i // per_row), size, size, fields.get("begin", 0), 32)
        for i in range(count)
    ]


def exit_status(server):
    return server.process.wait(PATIENCE_S)


def test_a_frame_goes_from_hello_to_tiles_with_the_right_pixels(client):
    lease = client.take_lease()
    files = scene() | {"big.bin": random.Random(1).randbytes(5 * CHUNK_BYTES + 3), "empty.bin": b""}
    client.set_up(lease, files)
    wanted = works(40)
    pixels = client.render(lease, *wanted)
    assert len(pixels) == 40
    for work in wanted:
        assert pixels[work.id].tobytes() == select_planes(expected_film(work), CHANNELS).tobytes()


def test_a_tile_of_later_samples_has_a_layer_per_chunk_and_may_span_frames(client):
    lease = client.take_lease()
    settings = SETTINGS.__class__(width=256, height=128, samples=256)
    client.set_up(lease, scene(), settings=settings, channels=list(Channel))
    work = BucketWork(7, 0, 0, 128, 128, 16, 256)
    (pixels,) = client.render(lease, work).values()
    assert pixels.shape == (15, 128, 128, 12)
    assert pixels.tobytes() == expected_film(work).tobytes()


def test_two_frames_are_rendered_side_by_side(client):
    lease = client.take_lease()
    client.set_up(lease, scene(), epoch=1)
    client.set_up(lease, scene(bucket_s=0.0), epoch=2)
    assert len(client.render(lease, *works(3), epoch=1)) == 3
    assert len(client.render(lease, *works(3), epoch=2)) == 3


def test_progress_is_told_while_preparing(client):
    lease = client.take_lease()
    assert client.set_up(lease, scene(), until=Progress).text in (
        "reading the scene",
        "compiling kernels, first run only: 1 of 1",
    )


def test_a_bad_scene_is_fatal_and_the_server_goes_on(client):
    lease = client.take_lease()
    failed = client.set_up(lease, scene(bad="scene.json: line 1: no"), until=Failed)
    assert (failed.error, failed.fatal, failed.bucket) == ("scene.json: line 1: no", True, None)
    client.set_up(lease, scene(), epoch=2)


def test_a_lie_about_an_asset_fails_the_frame(client):
    lease = client.take_lease()
    files = scene()
    digests = {}

    def lie(message, payload=()):
        if payload and payload[0] == files["scene.json"]:
            payload = (b"[]",)
        digests["sent"] = True
        RawClient.say(client, message, payload)

    client.say = lie
    failed = client.set_up(lease, files, until=Failed)
    assert "expected SHA-256" in failed.error
    assert not failed.fatal


def test_a_kernel_that_raises_fails_its_bucket_alone(client):
    lease = client.take_lease()
    client.set_up(lease, scene(broken_buckets=[16]))
    client.say(Bucket(lease=lease, epoch=1, buckets=works(3)))
    heard = [client.hear(Tile, Failed) for _ in range(3)]
    (failed,) = [message for message in heard if isinstance(message, Failed)]
    assert (failed.bucket, failed.error) == (1, "ValueError: bucket at 16 is broken")


def test_cancel_stops_running_and_waiting_buckets(client):
    lease = client.take_lease()
    client.set_up(lease, scene(bucket_s=3600))
    client.say(Bucket(lease=lease, epoch=1, buckets=works(50)))
    client.say(Cancel(lease=lease, epoch=1, buckets=list(range(50))))
    deadline = time.monotonic() + PATIENCE_S
    while (beat := client.hear(Beat)).queued or beat.running:
        assert time.monotonic() < deadline


def test_bye_hands_over_to_the_waiting_client_within_50_ms(client):
    lease = client.take_lease("ada")
    client.set_up(lease, scene(bucket_s=3600))
    client.say(Bucket(lease=lease, epoch=1, buckets=works(8)))
    with RawClient(client.address.words[-1]) as other:
        other.say(Hello(version=1, want=True, name="bob"))
        welcome = other.hear(Welcome)
        assert (welcome.busy, welcome.holder, welcome.queue_pos) == (True, "ada", 1)
        begun = time.perf_counter()
        client.leave(lease)
        granted = other.hear(Grant)
        assert time.perf_counter() - begun <= 0.05
        other.set_up(granted.lease, scene())
        assert len(other.render(granted.lease, *works(4))) == 4


def test_a_killed_client_frees_the_server_for_the_next(server):
    endpoint = server.endpoint()
    script = (
        "import sys; from tests.support.server_process import RawClient\n"
        "client = RawClient(sys.argv[1]); client.take_lease('ada'); print('held', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script, endpoint], stdin=pipe, stdout=pipe, cwd=ROOT) as holder:
        assert holder.stdout.readline() == b"held\n"
        with RawClient(endpoint) as other:
            other.say(Hello(version=1, want=True))
            assert other.hear(Welcome).busy
            begun = time.perf_counter()
            holder.kill()
            other.hear(Grant)
            assert (
                time.perf_counter() - begun <= 1.0
            )  # a beat finds the connection gone: 0.25 s, and the machine's load


@pytest.mark.slow
def test_a_frozen_client_loses_its_lease(server):
    endpoint = server.endpoint()
    script = (
        "import sys; from tests.support.server_process import RawClient\n"
        "client = RawClient(sys.argv[1]); client.take_lease('ada'); print('held', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script, endpoint], stdin=pipe, stdout=pipe, cwd=ROOT) as holder:
        assert holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGSTOP)
        try:
            with RawClient(endpoint) as other:
                other.say(Hello(version=1, want=True))
                begun = time.perf_counter()
                granted = None
                while granted is None and time.perf_counter() - begun < PATIENCE_S:
                    other.say(Ping(n=1))
                    other.hear(Pong)
                    if other.socket.poll(500):
                        granted = other.hear(Grant)
                assert granted
                assert time.perf_counter() - begun <= 4.5
        finally:
            holder.kill()


def test_hostile_bytes_never_kill_the_gate(client):
    lease = client.take_lease()
    rng = random.Random(7)
    hostile = [
        [b""],
        [b"\xff" * 100],
        [b"\xdd\xff\xff\xff\xff"],
        [b"\x91" * 60000 + b"\x01"],
        [b"\x81\xa1t\xa5hello"],
        [b"x" * (64 * 1024 + 1)],
        [b"\x81\xa1t\xa6bucket"] * 70,
        *([rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(1, 4))] for _ in range(200)),
    ]
    for frames in hostile:
        client.say(Ping(n=0))  # the holder is alive all the while
        with RawClient(client.address.words[-1]) as stranger:
            stranger.socket.send_multipart(frames)
            assert stranger.hear(ErrorMessage).code == "protocol"
    with RawClient(client.address.words[-1]) as stranger:
        stranger.say(Bye(lease=lease))
        assert stranger.hear(NoLease) == NoLease()
    client.set_up(lease, scene())
    assert len(client.render(lease, *works(4))) == 4


def test_a_frame_above_the_limit_costs_its_sender_the_connection(client):
    lease = client.take_lease()
    with RawClient(client.address.words[-1]) as stranger:
        monitor = stranger.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        stranger.socket.send(b"x" * (2 << 20))
        assert monitor.poll(PATIENCE_S * 1000)
        stranger.socket.disable_monitor()
        monitor.close(0)
    client.set_up(lease, scene())


def test_raw_tcp_garbage_never_kills_the_gate(tmp_path):
    with ServerProcess(tmp_path / "server", "--port", "0") as server:
        endpoint = server.endpoint()
        host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
        for data in (b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 1000, b""):
            with socket.create_connection((host, int(port))) as strange:
                strange.sendall(data)
        with RawClient(endpoint) as client:
            lease = client.take_lease()
            client.set_up(lease, scene())
            assert len(client.render(lease, *works(2))) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_an_idle_server_within_a_second(server, number):
    path = Path(server.endpoint().removeprefix("ipc://"))
    assert path.exists()
    begun = time.perf_counter()
    server.process.send_signal(number)
    assert exit_status(server) == 0
    assert time.perf_counter() - begun <= 1.0
    assert not path.exists()
    assert not list((server.folder / "cache" / "dr" / "servers").iterdir())


def busy_client(server, bucket_s, count=8):
    """A client that knows that its buckets are being rendered; and its lease."""
    client = RawClient(server.endpoint())
    lease = client.take_lease()
    client.set_up(lease, scene(bucket_s=bucket_s))
    client.say(Bucket(lease=lease, epoch=1, buckets=works(count)))
    while not client.hear(Beat).running:
        pass
    return client, lease


def test_a_bucket_that_takes_too_long_does_not_keep_a_stopping_server(tmp_path):
    with ServerProcess(tmp_path / "server", DR_DRAIN_S="0.2") as server:
        client, lease = busy_client(server, bucket_s=3600)
        with client:
            begun = time.perf_counter()
            server.process.send_signal(signal.SIGTERM)
            assert client.hear(Drain) == Drain(lease=lease)
            assert exit_status(server) == 0
            assert time.perf_counter() - begun >= 0.2


def test_a_second_signal_stops_a_busy_server_at_once(server):
    client, lease = busy_client(server, bucket_s=3600)
    with client:
        server.process.send_signal(signal.SIGTERM)
        assert client.hear(Drain) == Drain(lease=lease)
        begun = time.perf_counter()
        server.process.send_signal(signal.SIGINT)
        assert exit_status(server) == 0
        assert time.perf_counter() - begun <= 3.0, "drain_s is 4"


def test_the_tiles_of_slow_buckets_leave_before_a_stopping_server_does(tmp_path):
    """Although the client goes on talking: a connection that closes with unread words drops what is on its way."""
    words = ("--port", "0", "--threads", "2")
    with ServerProcess(tmp_path / "server", *words, DR_DRAIN_S="20") as server, RawClient(server.endpoint()) as client:
        lease = client.take_lease()
        settings = SETTINGS.__class__(width=256, height=128, samples=256)
        client.set_up(lease, scene(bucket_s=1.0), settings=settings, channels=list(Channel))
        slow = [BucketWork(i, 128 * i, 0, 128, 128, 16, 256) for i in range(2)]  # tiles of 12 MB
        client.say(Bucket(lease=lease, epoch=1, buckets=[*slow, BucketWork(2, 0, 0, 16, 16, 0, 32)]))
        while not client.hear(Beat).running:
            pass
        server.process.send_signal(signal.SIGTERM)
        assert client.hear(Drain) == Drain(lease=lease)
        tiles = [client.hear_payload(Tile) for _ in slow]
        assert {tile.bucket.id for tile, _ in tiles} == {0, 1}, "what waited was not begun"
        for tile, payload in tiles:
            assert b"".join(payload) == expected_film(tile.bucket).tobytes()
        client.leave(lease)
        assert exit_status(server) == 0


def test_a_server_whose_preparation_hangs_still_stops(client):
    lease = client.take_lease()
    client.set_up(lease, scene(prepare="hang"), until=Progress)
    client.address.process.send_signal(signal.SIGTERM)
    assert exit_status(client.address) == 0


def test_a_server_abandons_a_preparation_whose_client_left(client):
    lease = client.take_lease()
    client.set_up(lease, scene(prepare="hang"), until=Progress)
    client.leave(lease)
    lease = client.take_lease()
    client.set_up(lease, scene(), epoch=2)


def test_no_server_survives_the_death_of_its_parent(tmp_path):
    """Once through the end of stdin and the parent's death signal together, as a client is killed."""
    folder = tmp_path / "server"
    folder.mkdir(mode=0o700)
    script = (
        "import os, subprocess, sys\n"
        "words = [*sys.argv[1:], '--parent-pid', str(os.getpid())]\n"
        "child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "print(child.pid, child.stdout.readline(), flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, *FAKE, "--endpoint", f"ipc://{folder}/gate"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, cwd=ROOT, env=environment) as parent:
        number, _, line = parent.stdout.readline().decode().partition(" ")
        assert "listening on" in line
        orphan = psutil.Process(int(number))
        parent.kill()
        _, alive = psutil.wait_procs([orphan], timeout=PATIENCE_S)
        assert not alive
        assert not (folder / "gate").exists()


def test_the_end_of_stdin_stops_a_server_with_a_parent(tmp_path):
    """The way out on systems without a parent's death signal."""
    folder = tmp_path / "server"
    with ServerProcess(folder, "--endpoint", f"ipc://{folder}/gate", "--parent-pid", str(os.getpid())) as server:
        server.endpoint()
        server.process.stdin.close()
        assert exit_status(server) == 0
        server.process.stdin = None


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("--bind", "0.0.0.0"), 3, "needs a farm key, here is none; make keys with `dr keys init`"),
        (("--endpoint", "tcp://192.0.2.1:20204"), 3, "needs a farm key, here is none; make keys with `dr keys init`"),
        (("--bind", "host.example"), 2, "expected an IP address of this machine"),
        (("--port", "65536"), 2, "expected a port from 1 to 65535"),
        (("--endpoint", "ipc://relative"), 2, "expected an absolute path"),
        (("--endpoint", "ipc:///no/such/folder/gate"), 2, "expected an existing folder"),
        (("--port", "0", "--threads", "0"), 2, "--threads: expected 1 to 4096"),
        (("--port", "0", "--cpus", "0-"), 2, "--cpus: expected numbers such as 0-3,8"),
        (("--port", "0", "--name", "x" * 257), 2, "--name: expected at most 256"),
        (("--port", "0", "--cpus", "99999"), 2, "--cpus: expected CPUs among"),
        (("--port", "0", "--engine", "rt"), 2, "-engine=rt: the interactive engine does not exist yet"),
        (("--endpoint", "ipc:///tmp/gate", "--supervised"), 2, "--supervised: expected --port"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_a_status(tmp_path, words, status, text):
    with ServerProcess(tmp_path / "server", *words) as server:
        _, stderr = server.process.communicate(timeout=PATIENCE_S)
        assert server.process.returncode == status
        (line,) = stderr.decode().splitlines()
        assert text in line
        assert not list(server.folder.glob("cache/dr/servers/*"))


def test_a_taken_port_is_bad_input(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        with ServerProcess(tmp_path / "server", "--port", port) as server:
            _, stderr = server.process.communicate(timeout=PATIENCE_S)
            assert server.process.returncode == 2
            assert f"{port}: the port is taken" in stderr.decode()


def test_a_socket_that_is_in_use_is_not_stolen(server):
    endpoint = server.endpoint()
    with ServerProcess(server.folder) as thief:
        _, stderr = thief.process.communicate(timeout=PATIENCE_S)
        assert thief.process.returncode == 2
        assert "another server listens there" in stderr.decode()
    with RawClient(endpoint) as client:
        client.take_lease()


def test_a_folder_that_others_may_enter_is_refused(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    with ServerProcess(folder) as server:
        _, stderr = server.process.communicate(timeout=PATIENCE_S)
        assert server.process.returncode == 3
        assert "mode 700" in stderr.decode()


def test_what_a_killed_server_left_behind_goes_with_the_next(server):
    server.endpoint()
    left = server.folder / "cache" / "dr" / "servers"
    (old,) = left.iterdir()
    server.process.kill()
    server.process.wait()
    with ServerProcess(server.folder) as fresh:
        fresh.endpoint()
        (new,) = left.iterdir()
        assert new != old


def supervised(folder, *words, **environment):
    """A server as a spawner starts it."""
    words = ("--port", "0", "--threads", "1", "--supervised", "--parent-pid", str(os.getpid()), *words)
    return ServerProcess(folder, *words, **environment)


def test_a_supervised_server_reports_each_change_of_its_state(tmp_path):
    with supervised(tmp_path / "server") as server:
        endpoint = server.endpoint()
        first = server.report()
        assert (first.version, first.state, first.holder) == (1, Availability.READY, "")
        assert endpoint.endswith(f":{first.port}")
        with RawClient(endpoint) as client:
            client.leave(client.take_lease("ada"))
            reports = [server.report() for _ in range(2)]
            server.process.send_signal(signal.SIGTERM)
            reports.append(server.report())
        assert [(report.state, report.holder) for report in reports] == [
            (Availability.BUSY, "ada"),
            (Availability.READY, ""),
            (Availability.DRAINING, ""),
        ]
        assert {(report.port, report.boot) for report in reports} == {(first.port, first.boot)}
        assert (server.line(), exit_status(server)) == ("", 0)


def test_a_server_by_itself_reports_nothing(server):
    with RawClient(server.endpoint()) as client:
        client.leave(client.take_lease())
        server.process.send_signal(signal.SIGTERM)
        assert server.line() == ""


def test_a_parent_that_does_not_read_holds_up_nothing_and_hears_the_last_state(tmp_path):
    with supervised(tmp_path / "server") as server:
        fcntl.fcntl(server.process.stdout, fcntl.F_SETPIPE_SZ, 4096)  # one write fills it
        fcntl.fcntl(server.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        with RawClient(server.endpoint()) as client:
            for name in ("ada", "bob", "eve"):
                lease = client.take_lease(name)
                client.set_up(lease, scene())
                client.leave(lease)
            client.take_lease("zoe")
            heard = server.report()
            while heard.holder != "zoe":
                heard = server.report()
            assert heard.state is Availability.BUSY


def test_a_parent_whose_pipes_are_closed_holds_up_nothing(tmp_path):
    with supervised(tmp_path / "server") as server:
        endpoint = server.endpoint()
        server.process.stdout.close()
        server.process.stderr.close()
        with RawClient(endpoint) as client:
            lease = client.take_lease()
            client.set_up(lease, scene())
            assert len(client.render(lease, *works(2))) == 2
            server.process.terminate()
            assert exit_status(server) == 0
        server.process.stdout = server.process.stderr = None


def test_a_local_server_waits_for_no_client_that_does_not_read_its_log_and_leaves_buckets_to_it(tmp_path):
    folder = tmp_path / "server"
    words = ("--endpoint", f"ipc://{folder}/gate", "--threads", "1", "--parent-pid", str(os.getpid()))
    with ServerProcess(folder, *words) as server:
        size = fcntl.fcntl(server.process.stderr, fcntl.F_SETPIPE_SZ, 1 << 14)
        with RawClient(server.endpoint()) as client:
            for _ in range(size // 40):  # each has two lines
                client.leave(client.take_lease())
            first = os.read(server.process.stderr.fileno(), 1 << 16).decode()
            lease = client.take_lease()
            client.set_up(lease, scene())
            assert len(client.render(lease, *works(8))) == 8
        server.process.terminate()
        assert exit_status(server) == 0
        log = first + server.process.stderr.read().decode()
    assert "INFO lease given to ada" in log
    assert "lines of this log are lost: nobody read them in time" in log
    assert "INFO bucket " not in log


def test_the_log_of_a_supervised_server_has_a_line_per_action_and_no_time(tmp_path):
    with supervised(tmp_path / "server") as server:
        with RawClient(endpoint := server.endpoint()) as client:
            lease = client.take_lease("ada")
            client.set_up(lease, scene())
            client.render(lease, *works(3))
            client.leave(lease, restart=True)
            assert exit_status(server) == RESTART_STATUS
        lines = server.process.stderr.read().decode().splitlines()
        kernels = {"INFO not ready yet: compiling kernels, first run only: 1 of 1", "INFO the kernels are ready"}
        assert kernels < set(lines), "another thread says so, before or after others"
        others = [CHANCE.sub("N", line) for line in lines if line not in kernels]
        buckets = [line for line in others if line.startswith("INFO bucket ")]
        assert sorted(buckets) == sorted(
            f"INFO bucket {work.id} (16x16 at {work.x},{work.y}, samples 0-32) of ada: {what}"
            for work in works(3)
            for what in ("started on thread N", "done in N s")
        )
        assert [line for line in others if line not in buckets] == [
            f"INFO listening on {endpoint}",
            "INFO lease given to ada",
            "INFO frame 000000000001 of ada: set up, 256x128, 32 samples",
            "INFO frame 000000000001 of ada: fetched 1 file, 0.0 MB in N s",
            "INFO preparing scene.json, 1 files",
            "INFO frame 000000000001 of ada: prepared in N s",
            "INFO lease ended after 3 buckets: the client says bye",
            "INFO restart: the client asks for it",
        ]


def test_the_status_is_told_while_another_client_holds_the_server(tmp_path):
    words = ("--port", "0", "--nodes", "2,4", "--siblings", "20204,20206", "--announce", "20205", "--threads", "2")
    with ServerProcess(tmp_path / "server", *words) as server:
        endpoint = server.endpoint()
        with RawClient(endpoint) as client, RawClient(endpoint) as watcher:
            _, free = watcher.ask_status(version=9)
            lease = client.take_lease("ada")
            client.set_up(lease, scene())
            client.render(lease, *works(4))
            welcome, busy = watcher.ask_status(kernels="of another release")
            assert (welcome.busy, welcome.holder, welcome.queue_pos) == (True, "ada", 0)
            assert (welcome.announce, welcome.siblings) == (20205, [20204, 20206])
            client.leave(lease)
            other = client.take_lease("bob")  # nobody else waited
            assert other != lease
    assert (free.state, free.holder, free.buckets) == (Availability.READY, "", 0)
    assert (busy.state, busy.holder, busy.buckets) == (Availability.BUSY, "ada", 4)
    assert (busy.engine, busy.nodes, busy.release) == (EngineKind.PRODUCTION, [2, 4], dr.__version__)
    assert busy.memory_bytes > 10 << 20
    assert busy.up_s >= free.up_s > 0
    assert 0 < busy.buckets_per_s <= 4 / 5


def test_bye_with_restart_ends_a_supervised_server_and_tells_who_waits(tmp_path):
    with supervised(tmp_path / "server") as server:
        endpoint = server.endpoint()
        with RawClient(endpoint) as client, RawClient(endpoint) as other:
            lease = client.take_lease()
            other.say(Hello(version=1, want=True, name="bob"))
            assert other.hear(Welcome).queue_pos == 1
            client.leave(lease, restart=True)
            assert other.hear(ErrorMessage).code == "draining"
            assert exit_status(server) == RESTART_STATUS


def test_bye_with_restart_leaves_a_server_that_nobody_would_start_again(client):
    client.leave(client.take_lease(), restart=True)
    client.take_lease()
    assert client.address.process.poll() is None


def hang_all(client, lease):
    """Every thread hangs in a bucket, and the client has cancelled it."""
    client.set_up(lease, scene(hangs=1))
    client.say(Bucket(lease=lease, epoch=1, buckets=works(1)))
    while not client.hear(Beat).running:
        pass
    client.say(Cancel(lease=lease, epoch=1, buckets=[0]))


def test_a_supervised_server_whose_kernels_hang_drains_its_client_and_restarts(tmp_path):
    with supervised(tmp_path / "server", DR_STUCK_S="0.2") as server, RawClient(server.endpoint()) as client:
        lease = client.take_lease()
        hang_all(client, lease)
        assert client.hear(Drain) == Drain(lease=lease)
        client.leave(lease)
        assert exit_status(server) == RESTART_STATUS
        log = server.process.stderr.read().decode()
    assert "WARNING bucket 0 (16x16 at 0,0, samples 0-32) of ada: was to stop 0.2 s ago" in log
    assert ": stopped" not in log, "it never did"


def test_a_lone_server_whose_kernels_hang_sends_clients_away(tmp_path):
    words = ("--port", "0", "--threads", "1")
    with ServerProcess(tmp_path / "server", *words, DR_STUCK_S="0.2") as server:
        endpoint = server.endpoint()
        with RawClient(endpoint) as client, RawClient(endpoint) as other:
            hang_all(client, client.take_lease())
            assert client.hear(ErrorMessage).code == "stuck"
            other.say(Hello(version=1, want=True, name="bob"))
            assert other.hear(Grant, ErrorMessage).code == "stuck"
            _, status = other.ask_status()
            assert status.state is Availability.DRAINING
        server.process.terminate()
        assert exit_status(server) == 0


def test_sighup_restarts_a_free_supervised_server_at_once(tmp_path):
    with supervised(tmp_path / "server") as server:
        server.endpoint()
        server.process.send_signal(signal.SIGHUP)
        assert exit_status(server) == RESTART_STATUS


def test_signals_that_keep_coming_change_no_exit_status(tmp_path):
    with supervised(tmp_path / "server") as server:
        server.endpoint()
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGHUP)
        assert exit_status(server) == RESTART_STATUS
        assert not list(server.folder.glob("cache/dr/servers/*"))


def test_sighup_restarts_a_held_supervised_server_when_the_lease_ends(tmp_path):
    with supervised(tmp_path / "server") as server, RawClient(server.endpoint()) as client:
        lease = client.take_lease()
        server.process.send_signal(signal.SIGHUP)
        client.set_up(lease, scene())
        assert len(client.render(lease, *works(4))) == 4
        client.leave(lease)
        assert exit_status(server) == RESTART_STATUS


def test_sighup_ends_a_server_without_a_spawner_as_it_ends_any_program(server):
    server.endpoint()
    server.process.send_signal(signal.SIGHUP)
    assert exit_status(server) == -signal.SIGHUP


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_servers_place_can_be_seen_from_outside(tmp_path):
    cpu = str(max(os.sched_getaffinity(0)))
    words = ("--cpus", cpu, "--nodes", "2,4", "--memory-nodes", "0")
    with supervised(tmp_path / "server", *words, OPENBLAS_NUM_THREADS="1") as server:
        with RawClient(server.endpoint()) as client:
            client.set_up(client.take_lease(), scene())
            process = Path(f"/proc/{server.process.pid}")
            statuses = [path.read_text() for path in process.glob("task/*/status")]
            assert len(statuses) >= 5, "its loop, a render thread, two that prepare, those of libzmq"
            assert all(f"Cpus_allowed_list:\t{cpu}\n" in status for status in statuses)
            assert (process / "comm").read_text() == "dr:0 n2,4\n"
            assert (process / "cmdline").read_text().rstrip("\0") == "dr:0 node 2,4"
        server.process.terminate()
        log = server.process.stderr.read().decode()
    assert "INFO pinned to node 2,4, CPUs " + cpu in log
