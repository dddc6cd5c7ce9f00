"""How soon a client learns what the servers of a host have to offer. Knows `dr spawner` and the wire; renders nothing.

Spawners are child processes as a user starts them; subscribers and the client that takes and leaves a server are ours.
Part of bench.farm.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import zmq

from bench.table import print_table
from dr.protocol.envelope import TOPIC, join, split_announcement, split_server
from dr.protocol.messages import Announcement, Availability, Bye, ClientMessage, Grant, Hello, Kind, Welcome
from dr.protocol.version import PROTOCOL_VERSION

PER_NODE = 4  # servers; on few CPUs they share them
JOINS = 20
MUST_JOIN_MS = 50.0
PATIENCE_S = 60.0
IDLE_S, IDLE_CPU_S = 1.0, 0.05  # who takes no more CPU time than this in so long is idle
RETRY_MS = 2  # between two dials of a subscriber that waits for its spawner
HOST = "127.0.0.1"

T = TypeVar("T")


class Subscriber:
    """A SUB that keeps the last value of each port."""

    def __init__(self, context: zmq.Context[Any], port: int) -> None:
        self.last: dict[int, Announcement] = {}
        self.socket = context.socket(zmq.SUB)
        self.socket.linger = 0
        self.socket.reconnect_ivl = RETRY_MS
        self.socket.subscribe(TOPIC)
        self.socket.connect(f"tcp://{HOST}:{port}")

    def wait(self, is_reached: Callable[[dict[int, Announcement]], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_reached(self.last):
            if not self.socket.poll(max(0.0, deadline - time.monotonic()) * 1000):
                sys.exit(f"expected announcements within {PATIENCE_S:g} s, found {sorted(self.last)}")
            announcement = split_announcement(self.socket.recv_multipart())
            self.last[announcement.port] = announcement

    def wait_ready(self, ports: Sequence[int]) -> None:
        """Until all of these are ready."""
        self.wait(lambda last: all(port in last and last[port].state is Availability.READY for port in ports))


class Gate:
    """A client's connection to one server."""

    def __init__(self, context: zmq.Context[Any], port: int) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(f"tcp://{HOST}:{port}")

    def ask(self, message: ClientMessage, kind: type[T]) -> T:
        """Says something and gives the first answer of this kind."""
        self.socket.send_multipart(join(message))
        while self.socket.poll(PATIENCE_S * 1000):
            answer, _ = split_server(self.socket.recv_multipart())
            if isinstance(answer, kind):
                return answer
        sys.exit(f"expected {kind.__name__} within {PATIENCE_S:g} s, found nothing")


class Spawner:
    """One running `dr spawner` of this bench; `first_s` and `all_s` count from its launch."""

    def __init__(self, dr: Path, ports: Sequence[int], announce: int) -> None:
        self.ports = ports
        self.announce = announce
        self.words = [str(dr), "spawner", "--per-node", str(PER_NODE), f"-port={ports[0]}"]
        self.first_s = self.all_s = 0.0

    @contextmanager
    def running(self, context: zmq.Context[Any], wanted: int, folder: Path) -> Iterator[None]:
        """From the launch to the end; inside, all servers are ready and idle. `wanted`: the settings' announce port."""
        environment = {**os.environ, "DR_ANNOUNCE_PORT": str(wanted), "DR_LOG_FOLDER": str(folder)}
        listener, launched = Subscriber(context, self.announce), time.perf_counter()
        with (folder / f"{self.ports[0]}.txt").open("wb") as log:
            process = subprocess.Popen(self.words, env=environment, stderr=log)
        try:
            listener.wait(lambda last: any(port in last for port in self.ports))
            self.first_s = time.perf_counter() - launched
            listener.wait_ready(self.ports)
            self.all_s = time.perf_counter() - launched
            wait_idle(process.pid)
            yield
        finally:
            listener.socket.close()
            process.terminate()
            process.wait(PATIENCE_S)


def measure_announce(dr: Path) -> None:
    """Announcements of one spawner, of one whose server owns the announce port, of the second on a host."""
    count = len(plan(dr, 20204))
    first = free_ports(3 * count + 3)
    ports, others, spare = range(first, first + count), range(first + count, first + 2 * count), first + 2 * count
    alone, beside = Spawner(dr, ports, spare), Spawner(dr, others, spare + 1)
    moved = Spawner(dr, ports, ports[-1] + 1)
    with tempfile.TemporaryDirectory() as name, zmq.Context() as context:
        rows = [measure(context, "one spawner", [(alone, spare)], Path(name))]
        rows += [measure(context, "a server owns the announce port", [(moved, ports[1])], Path(name))]
        rows += [measure(context, "a second spawner on the host", [(alone, spare), (beside, spare)], Path(name))]
    print_table(
        ("announcements", "join ms", "worst", "must", "free again ms", "worst", "first server s", "all s"),
        rows,
        f"{count} servers a spawner, idle; medians of {JOINS}. `join`: a fresh SUB connects and has the last values\n"
        "of all servers; one comes right after another, so most wait for the announcer's 10 ms between two rounds.\n"
        "`free again`: from a client's `bye` to the word that the server is ready. `first server`, `all`: from the\n"
        "launch of `dr spawner` to its first word about a server that is ready, and about the last one.",
    )


def measure(
    context: zmq.Context[Any], label: str, spawners: Sequence[tuple[Spawner, int]], folder: Path
) -> tuple[str, ...]:
    """A row about the last of these spawners, all of them running; each with the announce port of its settings."""
    with ExitStack() as stack:
        for spawner, wanted in spawners:
            stack.enter_context(spawner.running(context, wanted, folder))
        check_announce(context, spawner)
        joins = [time_join(context, spawner) for _ in range(JOINS)]
        frees = time_frees(context, spawner)
    times = [f"{1000 * value:.1f}" for value in (statistics.median(joins), max(joins))]
    free = [f"{1000 * value:.1f}" for value in (statistics.median(frees), max(frees))]
    return (label, *times, f"{MUST_JOIN_MS:g}", *free, f"{spawner.first_s:.2f}", f"{spawner.all_s:.2f}")


def check_announce(context: zmq.Context[Any], spawner: Spawner) -> None:
    """Every welcome names the port that we listened to."""
    for port in spawner.ports:
        gate = Gate(context, port)
        found = gate.ask(Hello(version=PROTOCOL_VERSION, kind=Kind.STATUS, name="bench"), Welcome).announce
        gate.socket.close()
        if found != spawner.announce:
            sys.exit(f"{port}: expected the announce port {spawner.announce} in its welcome, found {found}")


def time_join(context: zmq.Context[Any], spawner: Spawner) -> float:
    """Seconds from a fresh subscriber's connect to the last values of all servers."""
    began = time.perf_counter()
    subscriber = Subscriber(context, spawner.announce)
    subscriber.wait(lambda last: len(last) == len(spawner.ports))
    seconds = time.perf_counter() - began
    subscriber.socket.close()
    return seconds


def time_frees(context: zmq.Context[Any], spawner: Spawner) -> list[float]:
    """Seconds from the end of a lease to the announcement that the server is ready, several times."""
    port = spawner.ports[0]
    gate, listener = Gate(context, port), Subscriber(context, spawner.announce)
    time_free(gate, listener, port)  # the first client makes the server load its kernels
    wait_idle(os.getpid())
    seconds = [time_free(gate, listener, port) for _ in range(JOINS)]
    gate.socket.close()
    listener.socket.close()
    return seconds


def time_free(gate: Gate, listener: Subscriber, port: int) -> float:
    lease = gate.ask(Hello(version=PROTOCOL_VERSION, name="bench", want=True), Grant).lease
    listener.wait(lambda last: port in last and last[port].state is Availability.BUSY)
    began = time.perf_counter()
    gate.socket.send_multipart(join(Bye(lease=lease)))
    listener.wait_ready([port])
    return time.perf_counter() - began


def wait_idle(pid: int) -> None:
    """Until a process and all that it started have done next to nothing for a while."""
    spent, before = cpu_seconds_of(pid), -1.0
    deadline = time.monotonic() + PATIENCE_S
    while spent > before + IDLE_CPU_S and time.monotonic() < deadline:
        time.sleep(IDLE_S)
        spent, before = cpu_seconds_of(pid), spent


def cpu_seconds_of(pid: int) -> float:
    """CPU time of a process and of all that it started and that lives."""
    process, seconds = psutil.Process(pid), 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            seconds += times.user + times.system
    return seconds


def plan(dr: Path, port: int) -> list[int]:
    """The ports of the servers that `dr spawner` would start here."""
    words = [str(dr), "spawner", "--per-node", str(PER_NODE), f"-port={port}", "--plan", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [server["port"] for server in json.loads(done.stdout)["servers"]]


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        with ExitStack() as stack:
            first: int = stack.enter_context(socket.create_server((HOST, 0))).getsockname()[1]
            if first + count > 65535:
                continue
            try:
                for port in range(first + 1, first + count):
                    stack.enter_context(socket.create_server((HOST, port)))
            except OSError:
                continue
            return first
