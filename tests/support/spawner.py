"""A spawner as a real process, its servers without kernels, and who listens to its announcements.

`python -m tests.support.spawner JSON` starts one: see `SpawnerProcess`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import zmq

from dr.errors import DrError
from dr.protocol.envelope import TOPIC, Frame, split_announcement
from dr.protocol.messages import Announcement, Availability, EngineKind
from dr.settings import Settings, load_settings
from tests.support.farm import ROOT, environment
from tests.support.sysfs import write_host
from workers.numa.plan import PlanOptions, make_plan
from workers.numa.topology import read_topology, usable_cpus
from workers.spawner import loop
from workers.spawner.state import Patience

DEADLINE_S = 30.0
FAKE_SERVER = (sys.executable, "-m", "tests.support.fake_server")


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody has now."""
    with ExitStack() as stack:
        holders = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [holder.getsockname()[1] for holder in holders]


class Subscriber:
    """A SUB of its own context. `heard`: the frames of each announcement so far."""

    def __init__(self, port: int, topic: bytes = TOPIC, host: str = "127.0.0.1") -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.SUB)
        self.socket.linger = 0
        self.socket.ipv6 = 1
        self.socket.sndhwm = 0  # subscriptions beyond a limit would be dropped
        self.socket.subscribe(topic)
        self.prepare()
        self.socket.connect(f"tcp://{host}:{port}")
        self.heard: list[list[Frame]] = []

    def prepare(self) -> None:
        """Sets what must be set before the socket connects."""

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def take(self) -> list[list[Frame]]:
        """All that was heard, with what has arrived just now."""
        with suppress(zmq.Again):
            while True:
                self.heard.append([*self.socket.recv_multipart(zmq.DONTWAIT)])
        return self.heard

    def wait(self, count: int = 1) -> list[list[Frame]]:
        """The same, once there are so many."""
        deadline = time.monotonic() + DEADLINE_S
        while len(self.take()) < count:
            assert self.socket.poll(max(0, int((deadline - time.monotonic()) * 1000))), f"only {self.heard}"
        return self.heard

    def wait_for(self, wanted: Callable[[Announcement], bool], what: str) -> Announcement:
        """The next announcement that is wanted; those before it are forgotten."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            while self.heard:
                found = split_announcement(self.heard.pop(0))
                if wanted(found):
                    return found
            self.wait()
        raise AssertionError(f"never heard: {what}")

    def wait_state(self, port: int, state: Availability, but: bytes = b"") -> Announcement:
        """The next announcement of a port in this state, from another process than the one that booted as `but`."""
        return self.wait_for(
            lambda each: (each.port, each.state) == (port, state) and each.boot != but, f"{port} {state}"
        )

    def close(self) -> None:
        self.socket.close(0)
        self.context.term()


class SpawnerProcess:
    """Use as a context manager. `folder` holds everything that this user has: settings, caches, the registry."""

    def __init__(self, folder: Path, ports: Iterable[int], **given: Any) -> None:
        """`given`: `nodes` (as for write_host), `patience`, `bind`, `insecure`, `command` (of a server), and fields of
        PlanOptions.
        """
        self.folder = folder
        self.ports = tuple(ports)
        here = ",".join(map(str, sorted(usable_cpus())))
        sysfs = folder / "sys"
        write_host(sysfs, given.pop("nodes", dict.fromkeys(range(len(self.ports)), here)))
        self.facts = {
            "sysfs": str(sysfs),
            "bind": given.pop("bind", "127.0.0.1"),
            "insecure": given.pop("insecure", False),
            "patience": given.pop("patience", {}),
            "command": given.pop("command", FAKE_SERVER),
            "bug": given.pop("bug", False),  # the first SIGHUP meets an error of our own
            "plan": {"numa": 0, "ports": self.ports, "announce": free_ports(1)[0], **given},
        }
        self.wanted_announce: int = self.facts["plan"]["announce"]

    def __enter__(self) -> SpawnerProcess:
        words = [sys.executable, "-m", "tests.support.spawner", json.dumps(self.facts)]
        self.log = (self.folder / "spawner.log").open("w+b")
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stderr=self.log, env=environment(self.folder), cwd=ROOT, process_group=0
        )
        self.seen: list[psutil.Process] = []
        return self

    def __exit__(self, *reason: object) -> None:
        everyone = [*self.seen, *(self.family() if self.process.poll() is None else [])]
        for each in everyone:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(everyone, timeout=DEADLINE_S)
        self.log.close()

    def said(self) -> str:
        return (self.folder / "spawner.log").read_text()

    def subscriber(self) -> Subscriber:
        return Subscriber(self.wanted_announce)

    def family(self) -> list[psutil.Process]:
        """The spawner and all that it started, and what that started."""
        spawner = psutil.Process(self.process.pid)
        return [spawner, *spawner.children(recursive=True)]

    def wait_ready(self) -> dict[int, Announcement]:
        """Waits until every server is ready; gives what was announced, by port."""
        with self.subscriber() as subscriber:
            found: dict[int, Announcement] = {}
            while set(found) != set(self.ports):
                one = subscriber.wait_for(lambda each: each.state is Availability.READY, "ready servers")
                found[one.port] = one
        self.seen = self.family()
        return found

    def server(self, port: int) -> psutil.Process:
        """The process of the server on a port, by its words."""
        for each in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if listens_on(each) == [port]:
                    return each
        raise AssertionError(f"no server listens on {port}")

    def exit_status(self) -> int:
        return self.process.wait(DEADLINE_S)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def registered(self) -> list[Path]:
        return [*(self.folder / "xdg_cache_home" / "dr" / "spawners").glob("*")]


def listens_on(process: psutil.Process) -> list[int]:
    """The TCP ports that a process listens on, and nothing of what it started."""
    found = process.net_connections("tcp")
    return sorted({each.laddr.port for each in found if each.status == psutil.CONN_LISTEN})


def wait_gone(processes: Iterable[psutil.Process], within_s: float = DEADLINE_S) -> None:
    _, alive = psutil.wait_procs([*processes], timeout=within_s)
    assert alive == [], f"still there after {within_s} s: {alive}"


def assert_ports_free(ports: Iterable[int]) -> None:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            probe.listen(1)


def main(text: str) -> int:
    facts = json.loads(text)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    loop.SERVER_COMMAND = tuple(facts["command"])

    def reread() -> Settings:
        if facts["bug"]:
            raise RuntimeError("a bug of ours")
        return load_settings(None, os.environ).values

    words = {name: tuple(value) if isinstance(value, list) else value for name, value in facts["plan"].items()}
    try:
        words["engine"] = EngineKind(words.get("engine", "production"))
        plan = make_plan(read_topology(Path(facts["sysfs"]), None), PlanOptions(**words))
        options = loop.SpawnerOptions(
            plan=plan,
            bind=facts["bind"],
            settings=load_settings(None, os.environ).values,
            reread=reread,
            insecure=facts["insecure"],
            patience=Patience(**facts["patience"]),
        )
        return loop.run_spawner(options)
    except DrError as error:
        print(f"dr: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
