"""Starts the render servers of this host for one render and stops them all. Knows processes; knows no bucket.

Each server is a child process that listens on a Unix socket in a private folder: no port, no key. A child says
`listening on ENDPOINT` on its stdout when it may be dialled; the end of that stream is its death, which whoever polls
the descriptors notices at once. Its stdin is a pipe that we hold: when we die, even by
kill -9, it reads the end and leaves.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from dr.errors import BadInput, DrError
from dr.scene.survey import child_environment
from dr.settings import Settings, as_environment

SERVER_COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "workers.server")  # -P: nothing from the current folder
STOP_S = 1.5  # a server that has not left by then is killed
DYING_S = 0.05  # between the end of its stdout or connection and its exit status
STDERR_LINES = 40  # kept of each server, for the reason of its death
SOCKET_PATH_BYTES = 100  # the kernel's limit is 107, ours leaves room for the file name
READY_WORD = "listening on "


class ServerPlan(Struct, frozen=True, kw_only=True):
    """One local server: its name, how many render threads it has and the CPUs it may run on."""

    name: str
    threads: int
    cpus: tuple[int, ...]


class ServerListening(Struct, frozen=True):
    name: str
    endpoint: str


class ServerExited(Struct, frozen=True):
    name: str
    endpoint: str
    reason: str


class ServerSaid(Struct, frozen=True):
    """A line that a server wrote to its stderr."""

    name: str
    line: str


LocalEvent = ServerListening | ServerExited | ServerSaid


def plan_servers(nodes: Sequence[Sequence[int]], count: int | None, threads: int | None) -> list[ServerPlan]:
    """Deals this host's CPUs, `nodes` being its NUMA nodes, to `count` servers (None: one per node).

    `threads` is the total of render threads (None: one per CPU); every server has at least one. CPUs are dealt in
    the order of their nodes and as evenly as possible, so that a server crosses as few nodes as it can.
    """
    cpus = [cpu for node in nodes for cpu in node]
    total = len(cpus) if threads is None else threads
    count = min(len(nodes), total) if count is None else count
    groups = [tuple(node) for node in nodes] if count == len(nodes) else _deal(cpus, count)
    shares = [max(1, total // count + (i < total % count)) for i in range(count)]
    return [ServerPlan(name=f"local-{i + 1}", threads=shares[i], cpus=groups[i]) for i in range(count)]


def _deal(cpus: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Consecutive runs of CPUs, larger ones first; with more servers than CPUs they share."""
    if count == 0:
        return []
    if count > len(cpus):
        return [(cpus[i % len(cpus)],) for i in range(count)]
    size, larger = divmod(len(cpus), count)
    ends = [0]
    for i in range(count):
        ends.append(ends[-1] + size + (i < larger))
    return [tuple(cpus[a:b]) for a, b in pairwise(ends)]


def host_nodes() -> list[list[int]]:
    """The CPUs that this process may use, by NUMA node."""
    from workers.numa.topology import read_topology

    return [list(node.cpus) for node in read_topology().nodes]


class _Server:
    """One child process and what it has said so far."""

    def __init__(self, plan: ServerPlan, endpoint: str, process: subprocess.Popen[bytes]) -> None:
        self.plan = plan
        self.endpoint = endpoint
        self.process = process
        self.announced = False
        self.last_lines: deque[str] = deque(maxlen=STDERR_LINES)
        self.partial: dict[int, bytes] = {}

    def read_lines(self, fd: int) -> list[str] | None:
        """The whole lines that have arrived on one of its streams, empty ones left out; None at the end."""
        data = os.read(fd, 65536)
        *lines, self.partial[fd] = (self.partial.get(fd, b"") + data).split(b"\n")
        if not data:
            return None
        return [text for line in lines if (text := line.decode("utf-8", "replace").rstrip())]

    def announce(self) -> list[LocalEvent]:
        first = not self.announced
        self.announced = True
        return [ServerListening(self.plan.name, self.endpoint)] if first else []

    def reason(self) -> str:
        """Why it ended, in words for a person."""
        status = self.process.returncode
        if status == -signal.SIGKILL:
            return "killed by SIGKILL"  # what it said before has nothing to do with that
        if status is None:
            how = "closed its output"
        elif status < 0:
            how = f"killed by {signal.Signals(-status).name}"
        else:
            how = f"ended with status {status}"
        return f"{how}: {self.last_lines[-1]}" if self.last_lines else how


class LocalServers:
    """The servers of one render on this host. Leaving its context stops them, whatever happened inside."""

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self.command = tuple(SERVER_COMMAND if command is None else command)
        self.folder: Path | None = None
        self.servers: list[_Server] = []
        self.environment: dict[str, str] = {}
        self._readers: dict[int, Callable[[], list[LocalEvent]]] = {}
        self._exits: list[LocalEvent] = []

    def __enter__(self) -> LocalServers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, plans: Sequence[ServerPlan], settings: Settings | None = None) -> None:
        """Starts every process and returns; `take` reports who listens and who has died. They get our settings."""
        self.environment = child_environment() | (as_environment(settings) if settings else {})
        self.folder = private_folder()
        for i, plan in enumerate(plans):
            endpoint = f"ipc://{self.folder}/{i + 1}"
            server = _Server(plan, endpoint, self._spawn(plan, endpoint))
            self.servers.append(server)
            self._watch(server)

    def _spawn(self, plan: ServerPlan, endpoint: str) -> subprocess.Popen[bytes]:
        options = ["--endpoint", endpoint, "--name", plan.name, "--threads", str(plan.threads)]
        cpus = ["--cpus", ",".join(map(str, plan.cpus))] if plan.cpus else []
        words = [*self.command, *options, *cpus, "--parent-pid", str(os.getpid())]
        pipe = subprocess.PIPE
        try:
            # A process group of its own, because the terminal's Ctrl-C is ours to handle.
            return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment, process_group=0)
        except OSError as error:
            raise DrError(f"cannot start a local server: {error.strerror}: {words[0]}") from error

    def _watch(self, server: _Server) -> None:
        for stream, take in ((server.process.stdout, self._take_stdout), (server.process.stderr, self._take_stderr)):
            if stream is not None:
                self._readers[stream.fileno()] = partial(take, server, stream.fileno())

    def watched(self) -> list[int]:
        """The descriptors to poll for reading; ask again after each `take`."""
        return list(self._readers)

    def take(self, fd: int) -> list[LocalEvent]:
        """What a readable descriptor has to say. Each server listens before it exits, as far as its events tell."""
        reader = self._readers.get(fd)
        return self._with_exits(reader() if reader else [])

    def take_death(self, endpoint: str) -> list[LocalEvent]:
        """What there is to say of a server whose connection was lost because it has died; else nothing."""
        server = next((each for each in self.servers if each.endpoint == endpoint), None)
        fd = server.process.stdout.fileno() if server and server.process.stdout else -1
        if server is None or fd not in self._readers:
            return []
        try:
            server.process.wait(DYING_S)
        except subprocess.TimeoutExpired:
            return []
        del self._readers[fd]
        return self._with_exits(self._bury(server))

    def _with_exits(self, said: list[LocalEvent]) -> list[LocalEvent]:
        """Exits are held back while another server is still starting: nobody shall think that none is left."""
        if all(server.announced for server in self.servers):
            said, self._exits = [*said, *self._exits], []
        return said

    def _take_stdout(self, server: _Server, fd: int) -> list[LocalEvent]:
        lines = server.read_lines(fd)
        if lines is None:
            del self._readers[fd]
            return self._bury(server)
        return server.announce() if any(line.startswith(READY_WORD) for line in lines) else []

    def _take_stderr(self, server: _Server, fd: int) -> list[LocalEvent]:
        lines = server.read_lines(fd)
        if lines is None:
            del self._readers[fd]
            return []
        server.last_lines.extend(lines)
        return [ServerSaid(server.plan.name, line) for line in lines]

    def _bury(self, server: _Server) -> list[LocalEvent]:
        """The process is dead or, because its stdout has ended, as good as dead. Its last words are read first."""
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(DYING_S)
        said: list[LocalEvent] = []
        fd = server.process.stderr.fileno() if server.process.stderr else -1
        while fd in self._readers and select.select([fd], [], [], 0)[0]:
            said += self._take_stderr(server, fd)
        self._exits.append(ServerExited(server.plan.name, server.endpoint, server.reason()))
        return [*said, *server.announce()]

    def ask_to_stop(self) -> None:
        """Tells every server to leave, without waiting for it."""
        for server in self.servers:
            with suppress(OSError):
                server.process.terminate()

    def stop(self) -> None:
        """Ends every server, by force if need be, and removes the private folder. May be called twice."""
        self.ask_to_stop()
        for server in self.servers:
            _end(server.process)
        self.servers.clear()
        self._readers.clear()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_S)
    except BaseException as error:
        process.kill()
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def private_folder() -> Path:
    """A new folder that only this user may enter, with a path short enough for a Unix socket."""
    for parent in (None, "/tmp"):
        folder = Path(tempfile.mkdtemp(prefix=f"dr-{os.getpid()}-", dir=parent))
        if len(bytes(folder)) <= SOCKET_PATH_BYTES:
            return folder
        folder.rmdir()
    raise BadInput(f"TMPDIR: expected a path of at most {SOCKET_PATH_BYTES} bytes for Unix sockets, found {folder}")
