"""Starts the render servers of this host for one render and stops them all. Knows processes; knows no bucket.

Each server is a child process that listens on a Unix socket in a private folder: no port, no key. A child says
`listening on ENDPOINT` on its stdout when it may be dialled; the end of that stream is its death, which whoever polls
the descriptors notices at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from dr.errors import BadInput, DrError
from dr.scene.survey import child_environment
from dr.settings import Settings, as_environment
from workers.numa.plan import deal
from workers.spawner.child import Child

SERVER_COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "workers.server")  # -P: nothing from the current folder
STOP_S = 1.5  # a server that has not left by then is killed
DYING_S = 0.05  # between the end of its stdout or connection and its exit status
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
    groups = [tuple(node) for node in nodes] if count == len(nodes) else _share_cpus(cpus, count)
    shares = [max(1, total // count + (i < total % count)) for i in range(count)]
    return [ServerPlan(name=f"local-{i + 1}", threads=shares[i], cpus=groups[i]) for i in range(count)]


def _share_cpus(cpus: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Consecutive runs of CPUs, larger ones first; with more servers than CPUs they share."""
    if count > len(cpus):
        return [(cpus[i % len(cpus)],) for i in range(count)]
    return deal(cpus, count) if count else []


def host_nodes() -> list[list[int]]:
    """The CPUs that this process may use, by NUMA node."""
    from workers.numa.topology import read_topology

    return [list(node.cpus) for node in read_topology().nodes]


class _Server:
    """One child process, and whether it was announced."""

    def __init__(self, plan: ServerPlan, endpoint: str, child: Child) -> None:
        self.plan = plan
        self.endpoint = endpoint
        self.child = child
        self.announced = False

    def announce(self) -> list[LocalEvent]:
        first = not self.announced
        self.announced = True
        return [ServerListening(self.plan.name, self.endpoint)] if first else []


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

    def _spawn(self, plan: ServerPlan, endpoint: str) -> Child:
        options = ["--endpoint", endpoint, "--name", plan.name, "--threads", str(plan.threads)]
        cpus = ["--cpus", ",".join(map(str, plan.cpus))] if plan.cpus else []
        words = [*self.command, *options, *cpus, "--parent-pid", str(os.getpid())]
        try:
            return Child(words, self.environment)
        except OSError as error:
            raise DrError(f"cannot start a local server: {error.strerror}: {words[0]}") from error

    def _watch(self, server: _Server) -> None:
        self._readers[server.child.stdout] = partial(self._take_stdout, server)
        self._readers[server.child.stderr] = partial(self._take_stderr, server)

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
        if server is None or server.child.stdout not in self._readers or not server.child.wait(DYING_S):
            return []
        del self._readers[server.child.stdout]
        return self._with_exits(self._bury(server))

    def _with_exits(self, said: list[LocalEvent]) -> list[LocalEvent]:
        """Exits are held back while another server is still starting: nobody shall think that none is left."""
        if all(server.announced for server in self.servers):
            said, self._exits = [*said, *self._exits], []
        return said

    def _take_stdout(self, server: _Server) -> list[LocalEvent]:
        lines, ended = server.child.read_lines(server.child.stdout)
        listens = any(line.startswith(READY_WORD) for line in lines)
        said = server.announce() if listens else []
        if ended:
            del self._readers[server.child.stdout]
            said += self._bury(server)
        return said

    def _take_stderr(self, server: _Server) -> list[LocalEvent]:
        lines, ended = server.child.read_lines(server.child.stderr)
        if ended:
            del self._readers[server.child.stderr]
        return self._heard(server, lines)

    def _heard(self, server: _Server, lines: list[str]) -> list[LocalEvent]:
        server.child.last_words.extend(lines)
        return [ServerSaid(server.plan.name, line) for line in lines]

    def _bury(self, server: _Server) -> list[LocalEvent]:
        """The process is dead or, because its stdout has ended, as good as dead. Its last words are read first."""
        server.child.wait(DYING_S)
        said: list[LocalEvent] = []
        if server.child.stderr in self._readers:
            said += self._heard(server, server.child.read_rest(server.child.stderr))
        self._exits.append(ServerExited(server.plan.name, server.endpoint, server.child.reason()))
        return [*said, *server.announce()]

    def ask_to_stop(self) -> None:
        """Tells every server to leave, without waiting for it."""
        for server in self.servers:
            server.child.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Ends every server, by force if need be, and removes the private folder. May be called twice."""
        self.ask_to_stop()
        deadline = time.monotonic() + STOP_S
        try:
            for server in self.servers:
                server.child.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for server in self.servers:
                server.child.close()
            self.servers.clear()
            self._readers.clear()
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = None


def private_folder() -> Path:
    """A new folder that only this user may enter, with a path short enough for a Unix socket."""
    for parent in (None, "/tmp"):
        folder = Path(tempfile.mkdtemp(prefix=f"dr-{os.getpid()}-", dir=parent))
        if len(bytes(folder)) <= SOCKET_PATH_BYTES:
            return folder
        folder.rmdir()
    raise BadInput(f"TMPDIR: expected a path of at most {SOCKET_PATH_BYTES} bytes for Unix sockets, found {folder}")
