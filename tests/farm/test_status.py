"""The farm's status from real servers on this machine, and from programs that are none. Every wait has a deadline."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zmq

from dr.client.roster import Place, Row
from dr.client.status import NONSENSE, OLD_SERVER, ask_farm, watch_farm
from dr.client.targets import Target
from dr.protocol.envelope import join, join_announcement
from dr.protocol.messages import (
    Announcement,
    AnyMessage,
    Availability,
    Bucket,
    BucketWork,
    ErrorMessage,
    Pong,
    Welcome,
)
from dr.protocol.version import PROTOCOL_VERSION
from dr.settings import Settings
from tests.support.server_process import PATIENCE_S, RawClient, ServerProcess

HOST = "127.0.0.1"
SLOW = {"scene.json": json.dumps({"bucket_s": 60.0}).encode()}
WORK = BucketWork(0, 0, 0, 16, 16, 0, 32)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def nobody() -> int:
    """A port where nobody listens."""
    return free_port()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts a server with the given words, on the port that it gets; waits until it listens."""
    with ExitStack() as stack:

        def start(port: int, *words: object) -> ServerProcess:
            options = ("--port", str(port), "--threads", "2", *map(str, words))
            server = ServerProcess(tmp_path / f"server{port}", *options, DR_DEAD_S="60", DR_DRAIN_S="60")
            stack.enter_context(server)
            assert server.endpoint() == f"tcp://{HOST}:{port}"
            return server

        yield start


def target(*ports: int, bare: bool = False) -> Target:
    return Target(f"{HOST}:{ports}", tuple(Place(HOST, port) for port in ports), bare=bare)


def ask(*targets: Target, announce: int | None = None, within_s: float = PATIENCE_S) -> dict[int, Row]:
    rows = ask_farm(targets, Settings(announce_port=announce or free_port()), within_s)
    return {row.port: row for row in rows}


def wait_for_row(watching: Iterator[list[Row]], port: int, wanted: Callable[[Row], bool]) -> Row:
    """Goes on watching until the row of a port is as wanted."""
    seen = None
    for rows in watching:
        for seen in (row for row in rows if row.port == port):
            if wanted(seen):
                return seen
    raise AssertionError(f"never seen; last: {seen}")


@contextmanager
def watching(*ports: int, announce: int | None = None, welcome_s: float = PATIENCE_S) -> Iterator[Iterator[list[Row]]]:
    settings = Settings(announce_port=announce or free_port(), welcome_s=welcome_s)
    rows = watch_farm([target(*ports, bare=announce is not None)], settings, PATIENCE_S)
    try:
        yield rows
    finally:
        rows.close()  # type: ignore[attr-defined]


class Stranger:
    """A program of ours on a port of its own, which answers in a thread until the test is over."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self) -> Any:
        self.thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.done.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def run(self) -> None:
        raise NotImplementedError


class FakeGate(Stranger):
    """Says the same frames to each message that it gets."""

    def __init__(self, *answers: Sequence[bytes | memoryview]) -> None:
        super().__init__()
        self.answers = answers
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.port = self.socket.bind_to_random_port(f"tcp://{HOST}")

    def run(self) -> None:
        while not self.done.is_set():
            if self.socket.poll(20):
                peer, *_ = self.socket.recv_multipart()
                for answer in self.answers:
                    self.socket.send_multipart([peer, *answer])
        self.socket.close()
        self.context.term()


class Announcer(Stranger):
    """Publishes the same frames again and again, as anybody could."""

    def __init__(self, *announced: Sequence[bytes | memoryview]) -> None:
        super().__init__()
        self.announced = announced
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.PUB)
        self.socket.linger = 0
        self.port = self.socket.bind_to_random_port(f"tcp://{HOST}")

    def run(self) -> None:
        while not self.done.wait(0.01):
            for frames in self.announced:
                self.socket.send_multipart(frames)
        self.socket.close()
        self.context.term()


class Babbler(Stranger):
    """Sends bytes to whoever connects, without end, and reads nothing."""

    def __init__(self, words: bytes) -> None:
        super().__init__()
        self.words = words
        self.listener = socket.create_server((HOST, 0))
        self.listener.settimeout(0.02)
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        callers: list[socket.socket] = []
        while not self.done.is_set():
            try:
                callers.append(self.listener.accept()[0])
                callers[-1].setblocking(False)
            except TimeoutError:
                callers = [caller for caller in callers if self.babble(caller)]
        for each in (*callers, self.listener):
            each.close()

    def babble(self, caller: socket.socket) -> bool:
        try:
            caller.send(self.words)
        except BlockingIOError:
            return True
        except OSError:
            caller.close()
            return False
        return True


def welcome(**fields: Any) -> Welcome:
    return Welcome(version=PROTOCOL_VERSION, kernels="k", boot=b"bootboot", name="vault", threads=3, **fields)


def announced(port: int, state: Availability, boot: bytes = b"bootboot", holder: str = "") -> list[Any]:
    told = Announcement(version=PROTOCOL_VERSION, port=port, boot=boot, state=state, holder=holder)
    return join_announcement("0123456789abcdef", told)


def test_a_free_server_tells_all_about_itself(start, nobody):
    server = start(free_port(), "--nodes", "2,3", "--name", "vault:1")
    port = int(server.words[server.words.index("--port") + 1])
    row = ask(target(port))[port]
    assert (row.host, row.port, row.address, row.name) == (HOST, port, HOST, "vault:1")
    assert (row.answers, row.state, row.holder, row.reason, row.silent_s) == (True, "ready", "", "", None)
    assert (row.engine, row.nodes, row.threads, row.buckets, row.buckets_per_s) == ("production", [2, 3], 2, 0, 0.0)
    assert row.memory_bytes is not None
    assert row.memory_bytes > 1 << 20
    assert row.version == "0.1.0"


def test_a_busy_server_names_its_holder_and_counts_buckets(start):
    port = free_port()
    start(port)
    with RawClient(f"tcp://{HOST}:{port}") as client:
        lease = client.take_lease("ada@vault")
        client.set_up(lease, {"scene.json": b"{}"})
        client.render(lease, WORK)
        row = ask(target(port))[port]
    assert (row.state, row.holder, row.buckets) == ("busy", "ada@vault", 1)


def test_a_server_that_drains_says_so(start):
    port = free_port()
    server = start(port)
    with RawClient(f"tcp://{HOST}:{port}") as client, watching(port) as rows:
        lease = client.take_lease()
        client.set_up(lease, SLOW)
        client.say(Bucket(lease=lease, epoch=1, buckets=[WORK]))
        wait_for_row(rows, port, lambda row: row.state == "busy")
        server.process.send_signal(signal.SIGTERM)
        assert wait_for_row(rows, port, lambda row: row.state == "draining").answers
        client.leave(lease)
        assert wait_for_row(rows, port, lambda row: not row.answers).state == "no answer"


def test_a_server_that_is_killed_while_watched_falls_silent_and_its_successor_is_found(start):
    port = free_port()
    server = start(port)
    with watching(port) as rows:
        first = wait_for_row(rows, port, lambda row: row.version is not None)
        server.process.kill()
        silent = wait_for_row(rows, port, lambda row: not row.answers)
        assert (silent.state, silent.boot) == ("no answer", first.boot)
        assert silent.reason in ("the connection was closed", "nobody listens there")
        server.process.wait(PATIENCE_S)
        start(port)
        again = wait_for_row(rows, port, lambda row: row.answers)
        assert (again.state, again.reason) == ("ready", "")
        assert again.boot != first.boot


def test_a_server_that_is_frozen_while_watched_falls_silent_and_comes_back(start):
    port = free_port()
    server = start(port)
    with watching(port, welcome_s=1.0) as rows:
        wait_for_row(rows, port, lambda row: row.answers)
        server.process.send_signal(signal.SIGSTOP)
        assert "no answer within" in wait_for_row(rows, port, lambda row: not row.answers).reason
        server.process.send_signal(signal.SIGCONT)
        assert wait_for_row(rows, port, lambda row: row.answers).state == "ready"


def test_the_siblings_that_a_server_names_are_asked_too(start, nobody):
    first, second = free_port(), free_port()
    start(first, "--siblings", f"{second},{nobody}")
    start(second, "--siblings", first)
    rows = ask(target(first))
    assert {port: row.state for port, row in rows.items()} == {
        first: "ready",
        second: "ready",
        nobody: "no answer",
    }


def test_a_host_without_a_port_is_found_by_its_announcements(start, nobody):
    port = free_port()
    start(port)
    with Announcer(announced(port, Availability.READY)) as announcer:
        rows = ask(target(nobody, bare=True), announce=announcer.port)
    assert {port: row.state for port, row in rows.items()} == {port: "ready"}  # the wrong guess is no server


def test_a_change_between_two_askings_is_announced(start):
    port, announce = free_port(), free_port()
    start(port, "--announce", announce)
    with watching(port) as rows:
        boot = bytes.fromhex(wait_for_row(rows, port, lambda row: row.answers).boot or "")
        context: zmq.Context[Any] = zmq.Context()
        with context.socket(zmq.PUB) as publisher:
            publisher.bind(f"tcp://{HOST}:{announce}")  # the announcer comes late: it is dialled again
            deadline = monotonic() + PATIENCE_S
            seen = Row(host="", port=0, address="")
            while seen.holder != "bob" and monotonic() < deadline:
                publisher.send_multipart(announced(port, Availability.BUSY, boot, "bob"))
                (seen,) = next(rows)
            assert (seen.state, seen.holder) == ("busy", "bob")
        context.destroy(linger=0)


def test_a_server_that_is_announced_gone_is_gone(nobody):
    with Announcer(announced(nobody, Availability.GONE)) as announcer:
        rows = ask(target(free_port(), bare=True), announce=announcer.port)
    assert {port: row.state for port, row in rows.items()} == {nobody: "gone"}


def test_forged_and_malformed_announcements_change_nothing_about_a_server_that_answers(start):
    port = free_port()
    start(port)
    nonsense = [[b"server.x.1"], [b"server.x.1", b"\xc1"], [b"server.x.1", b"\x80", b"more"], [b"server.", b"x" * 9999]]
    forged = [announced(port, state, b"forgedit", "mallory") for state in Availability]
    with Announcer(*nonsense, *forged) as announcer, watching(port, announce=announcer.port) as rows:
        row = wait_for_row(rows, port, lambda row: row.answers)
        for _ in range(5):
            (row,) = next(rows)
            assert (row.answers, row.state, row.holder) == (True, "ready", "")


def test_a_listener_that_says_nothing_costs_the_time_given_and_no_more():
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        begun = monotonic()
        row = ask(target(port), within_s=0.3)[port]
        assert 0.3 <= monotonic() - begun < PATIENCE_S
    assert (row.answers, row.state, row.reason) == (False, "no answer", "no answer within 0.3 s")


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" + b"\0" * 8 + b"\x7f\x03", bytes(4096)])
def test_a_program_that_is_no_server_is_no_answer(words):
    with Babbler(words) as babbler:
        row = ask(target(babbler.port), within_s=2.0)[babbler.port]
    assert (row.answers, row.state) == (False, "no answer")
    assert row.reason.startswith(("no render server answers there", "the connection was closed", "no answer within"))


def test_a_server_that_sends_rubbish_is_hung_up_on():
    with FakeGate([b"\xc1 rubbish"], [b"more"] * 3) as gate:
        row = ask(target(gate.port))[gate.port]
    assert (row.answers, row.state) == (False, "no answer")
    assert row.reason == NONSENSE


def test_an_announcer_that_is_taken_for_a_gate_is_no_answer():
    with Announcer(announced(1, Availability.READY)) as announcer:
        row = ask(target(announcer.port), within_s=2.0)[announcer.port]
    assert (row.answers, row.state) == (False, "no answer")


def test_a_gate_that_is_taken_for_an_announcer_does_no_harm(start):
    port = free_port()
    start(port)
    begun = monotonic()
    row = ask(target(port, bare=True), announce=port)[port]
    assert (row.answers, row.state) == (True, "ready")
    assert monotonic() - begun < PATIENCE_S / 2


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([Pong(n=0)], OLD_SERVER),
        ([ErrorMessage(code="protocol", text="what is a status?")], "it refuses to tell more: what is a status?"),
    ],
)
def test_an_older_server_shows_what_its_welcome_tells(answers: list[AnyMessage], reason: str):
    messages = [welcome(busy=True, holder="ada"), *answers]
    with FakeGate(*(join(message) for message in messages)) as gate:
        row = ask(target(gate.port))[gate.port]
    assert (row.answers, row.state, row.holder, row.threads, row.reason) == (True, "busy", "ada", 3, reason)
    assert (row.version, row.memory_bytes) == (None, None)


def test_a_server_that_refuses_without_a_welcome_says_why():
    with FakeGate(join(ErrorMessage(code="version", text="update one"))) as gate:
        row = ask(target(gate.port))[gate.port]
    assert (row.answers, row.reason) == (False, "it refuses: update one")


def test_a_lying_server_cannot_send_us_elsewhere_or_keep_us_for_ever(nobody):
    lies = welcome(siblings=list(range(1, 200)), announce=nobody)
    with FakeGate(join(lies), join(Pong(n=0))) as gate:
        rows = ask(target(gate.port), within_s=5.0)
    assert {row.address for row in rows.values()} == {HOST}
    assert len(rows) == 200


def test_a_server_on_a_unix_socket_can_be_asked(tmp_path):
    with ServerProcess(tmp_path / "server") as server:
        endpoint = server.endpoint()
        (row,) = ask_farm([Target(endpoint, (Place(endpoint, 0),))], Settings(), PATIENCE_S)
    assert (row.host, row.port, row.answers, row.state) == (endpoint, 0, True, "ready")


def test_a_server_on_a_unix_socket_cannot_send_us_to_ports(tmp_path):
    """It has no host: whatever ports it names, there is nobody to ask and nobody to listen to."""
    folder = tmp_path / "server"
    words = ("--endpoint", f"ipc://{folder}/gate", "--announce", "20205", "--siblings", "20206,20207")
    with ServerProcess(folder, *words) as server:
        endpoint = server.endpoint()
        with closing(watch_farm([Target(endpoint, (Place(endpoint, 0),))], Settings(), PATIENCE_S)) as rows:
            for _ in range(2):
                (row,) = next(rows)
    assert (row.host, row.port, row.answers, row.state) == (endpoint, 0, True, "ready")


def test_asking_leaves_no_descriptor_open(nobody):
    ask(target(nobody))
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        ask(target(nobody, bare=True))
    assert len(os.listdir("/dev/fd")) <= before
