"""Servers and clients as processes that tests make fail, and all that they say, with the time at which it was read.

Knows processes, signals and streams; knows not what a client or a server should do. Times are monotonic seconds.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

from tests.support.fake_server import FAULTS
from tests.support.farm import DEADLINE_S, ROOT, environment, run_dr, write_scene

SIZE = ("--size", "96x64", "--samples", "4", "--bucket-size", "16")
LOUD = (*SIZE, "-v")
BUCKETS = 24  # of that size; the last ones may be split
HELD = 6  # of them, those of the last row, end when the test allows it: until then the render lives
KILL_NOTICED_S, HANG_NOTICED_S = 0.1, 4.0  # as promised, on a machine that has nothing else to do
SLACK_S = 4.0  # of machines that do other things, too
SERVER, CLIENT = "tests.support.fake_server", "tests.support.fake_dr"
BLOCK_LOOP, HOLD_INTERPRETER = signal.SIGUSR1, signal.SIGUSR2  # what they do: tests.support.fake_server
MEASURED = "FAULTS_MEASURED"  # in the environment: a file for `tell_measured`


@dataclass(frozen=True)
class Line:
    text: str
    at_s: float


class Unsaid(AssertionError):
    """What was waited for was not said in time."""


class Voice:
    """What a stream says. A thread reads it, so that nobody who speaks waits for a test that looks elsewhere."""

    def __init__(self, stream: IO[str] | None) -> None:
        assert stream is not None
        self.lines: list[Line] = []
        self._passed: dict[tuple[str, ...], int] = {}  # lines that `wait` has gone by, by its words
        self._ended = False
        self._news = threading.Condition()
        self.thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self.thread.start()

    def wait(self, *words: str, within_s: float = DEADLINE_S) -> Line:
        """The first line that holds all of these words; the next such line each further time. Raises Unsaid."""
        with self._news:
            self._news.wait_for(lambda: self._ended or self._find(words) is not None, within_s)
            found = self._find(words)
            if found is None:
                raise Unsaid(f"{words} was not said within {within_s:g} s, only:\n{self.text()[-4000:]}")
            self._passed[words] = found + 1
            return self.lines[found]

    def heard(self, *words: str) -> list[str]:
        """All lines so far that hold all of these words."""
        return [line.text for line in self.lines if all(word in line.text for word in words)]

    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)

    def _find(self, words: tuple[str, ...]) -> int | None:
        fresh = range(self._passed.get(words, 0), len(self.lines))
        return next((i for i in fresh if all(word in self.lines[i].text for word in words)), None)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._news:
                self.lines.append(Line(line.rstrip("\n"), time.monotonic()))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Host(Protocol):
    """Where a process runs."""

    @property
    def folder(self) -> Path: ...

    @property
    def address(self) -> str: ...

    def start(
        self, *words: object, module: str = CLIENT, extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """`python -m MODULE WORDS` with these variables more, in a process group of its own; streams are pipes."""


@dataclass(frozen=True)
class Here:
    """This machine, without keys."""

    folder: Path
    address: str = "127.0.0.1"

    def start(
        self, *words: object, module: str = CLIENT, extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, *map(str, words)]
        env, pipe = {**environment(self.folder), **(extra or {})}, subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, cwd=ROOT, process_group=0)


class Process:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self.out, self.voice = Voice(process.stdout), Voice(process.stderr)

    def signal(self, number: signal.Signals) -> float:
        """To it and all that it started; gives the time."""
        now = time.monotonic()
        os.killpg(self.pid, number)
        return now

    def kill(self) -> float:
        """kill -9; gives the time."""
        now = self.signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        return now

    def end(self, within_s: float = DEADLINE_S) -> int:
        """Waits for its end and its last words; gives the exit status."""
        status = self.process.wait(within_s)
        for voice in (self.out, self.voice):
            voice.thread.join(DEADLINE_S)
        return status

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.end()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


class Server(Process):
    """A server. `faults`: words for its own engine, which win over those of the scene."""

    def __init__(self, host: Host, name: str, port: int, threads: int, faults: Mapping[str, Any]) -> None:
        words = ("--name", name, "--port", port, "--threads", threads)
        super().__init__(host.start(*words, module=SERVER, extra={FAULTS: json.dumps(faults)}))
        self.host, self.name, self.threads = host, name, threads

    @property
    def port(self) -> int:
        """Waits until it listens."""
        return int(self._ready.text.rpartition(":")[2])

    @property
    def listens_s(self) -> float:
        """Since when."""
        return self._ready.at_s

    @cached_property
    def _ready(self) -> Line:
        return self.out.wait("listening on")

    @property
    def place(self) -> str:
        return f"{self.host.address}:{self.port}"


class Client(Process):
    """`dr render`. Its log is what it says, unless the words are those of a user who does not want to see it.

    The last row of its picture is held back until `release` or `facts` is called.
    """

    def __init__(self, host: Host, words: tuple[object, ...], picture: Path) -> None:
        self.picture, self.bucket_log = picture, picture.with_suffix(".jsonl")
        super().__init__(host.start("render", *words, "-o", picture, "--bucket-log", self.bucket_log, "--json"))

    def join_s(self, server: Server, after_s: float) -> float:
        """Seconds from a moment until the server is known to render for us; the next time, until it does so again."""
        return self.voice.wait(f"joined {server.name}:").at_s - after_s

    def lose_s(self, server: Server, after_s: float) -> tuple[float, str]:
        """Seconds from a moment until the server is given up, and the cause that is told."""
        line = self.voice.wait(f"lost {server.name}:")
        return line.at_s - after_s, line.text.partition(f"lost {server.name}: ")[2]

    @staticmethod
    def gate(folder: Path) -> Path:
        """The file that ends the wait."""
        return folder / "go"

    def release(self) -> None:
        self.gate(self.picture.parent).touch()

    def facts(self, status: int = 0) -> dict[str, Any]:
        """What it knows at the end, which must come with this exit status."""
        self.release()
        found = self.end()
        assert found == status, self.voice.text()
        facts: dict[str, Any] = json.loads(self.out.lines[-1].text)
        return facts

    def buckets(self) -> list[dict[str, Any]]:
        """A record of each finished bucket, once it has ended."""
        return [json.loads(line) for line in self.bucket_log.read_text().splitlines()]


class FaultFarm:
    """The processes of a test; none outlives it."""

    def __init__(self, folder: Path) -> None:
        self.here = Here(folder)
        self.renders = 0
        self._processes = ExitStack()

    def __enter__(self) -> FaultFarm:
        return self

    def __exit__(self, *reason: object) -> None:
        self._processes.close()

    def serve(
        self, name: str, port: int = 0, *, host: Host | None = None, threads: int = 1, **faults: object
    ) -> Server:
        server = Server(host or self.here, name, port, threads, faults)
        self._processes.callback(server.close)
        return server

    def serve_again(self, server: Server, **faults: object) -> Server:
        """A new process at the place of one that is gone."""
        return self.serve(server.name, server.port, host=server.host, threads=server.threads, **faults)

    def render(
        self, *places: str, host: Host | None = None, words: tuple[object, ...] = LOUD, **scene: object
    ) -> Client:
        """On these servers alone. `scene`: how its buckets behave, see tests.support.fake_engine."""
        host = host or self.here
        self.renders += 1
        home = host.folder / f"render-{self.renders}"
        home.mkdir()
        where = [word for place in places for word in ("--server", place)]
        held = {"from_y": 48, "until": str(Client.gate(home))}
        scene_file = write_scene(home, held=held, **scene)
        client = Client(host, (scene_file, *words, *where, "--no-local"), home / "a.exr")
        self._processes.callback(client.close)
        return client


def picture_without_faults(folder: Path) -> bytes:
    """The file that every render of SIZE must give, from one server in this machine's own hands."""
    picture = folder / "reference.exr"
    words = (write_scene(folder), "-o", picture, *SIZE, "--local-servers", 1, "--threads", 1)
    done = run_dr(folder, "render", *words)
    assert done.returncode == 0, done.stderr
    return picture.read_bytes()


def buckets_of(facts: Mapping[str, Any]) -> dict[str, int]:
    """Tiles of the picture by the name of their server."""
    return {server["name"]: server["buckets"] for server in facts["servers"]}


def losses_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """The last cause by the name of each server that was lost."""
    return {server["name"]: server["reason"] for server in facts["lost"]}


def holder_in(line: str) -> int:
    """The process that holds a server, as a line about a busy one names it."""
    found = re.search(r"busy with .*process (\d+)", line)
    assert found, line
    return int(found[1])


def tell_measured(what: str, found: float, must: float, unit: str = "s") -> None:
    """Prints what was measured and, if the environment names a file, appends it there as a line of JSON."""
    print(f"measured: {what}: {found:.3f} {unit} (must {must:g} {unit})")
    if path := os.environ.get(MEASURED):
        with Path(path).open("a") as file:
            print(json.dumps({"what": what, "found": round(found, 4), "must": must, "unit": unit}), file=file)
