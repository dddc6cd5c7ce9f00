"""Carries out what the state decides: processes, signals, sockets and the clock. Knows nothing of when to do it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

import zmq
from msgspec import Struct
from msgspec.structs import replace

from dr.errors import DrError, Impossible, Refused
from dr.scene.survey import child_environment
from dr.settings import Settings, as_environment
from workers.numa.plan import Placement, Plan
from workers.numa.ranges import format_ranges
from workers.prepare.folders import private
from workers.server.dialout_target import parse_targets
from workers.server.door import door_to, log_guard
from workers.server.keeper import Keeper, load_keeper
from workers.server.words import READY_WORD, ServeOptions, as_words, read_report
from workers.spawner import commands as do
from workers.spawner.announcer import Announcer
from workers.spawner.checks import check_ports, check_servers
from workers.spawner.child import Child
from workers.spawner.events import (
    Event,
    ReloadRequested,
    ServerExited,
    ServerListening,
    ServerReported,
    SettingsRead,
    SettingsRefused,
    StopRequested,
)
from workers.spawner.registry import Registration, running, start_alone
from workers.spawner.state import Patience, Slot, SpawnerState

SERVER_COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "workers.server")  # -P: nothing from the current folder
STDERR = 2
STORY_LENGTH = 50  # events that a report of our own bug shows
LEVELS = {name: logging.getLevelName(name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}

log = logging.getLogger("dr.spawner")


class SpawnerOptions(Struct, frozen=True, kw_only=True):
    """What to start, where it listens, and how to read the settings again."""

    plan: Plan
    bind: str  # none: all interfaces where there is a farm key, else loopback
    settings: Settings
    reread: Callable[[], Settings]  # may raise BadInput
    insecure: bool = False  # use no keys
    dial: tuple[str, ...] = ()  # HOST:PORT of clients that listen; each server dials them
    patience: Patience = Patience()


def run_spawner(options: SpawnerOptions) -> int:
    """Starts the servers of the plan and keeps them running until told to stop; gives the exit status.

    Call it from the main thread: signals arrive there, and servers die with the thread that started them. Raises
    BadInput or Refused, and has started nothing, when one of the servers could not run here.
    """
    keeper = load_keeper(options.insecure)
    bind = keeper.security.bind(options.bind)  # as it is now: keys that come later do not open a port
    door = check_servers(options.plan.servers, bind, keeper.security)
    parse_targets(options.dial, keeper.security)
    private(options.settings.kernel_cache)  # here it is one line, in a server it would be a death
    with ExitStack() as stack:
        with start_alone():
            others = running()
            check_ports(options.plan.servers, others, door)
            foreign = frozenset(port for other in others for port in other.ports)
            loop = Loop(replace(options, bind=bind), keeper, foreign, stack)
        return loop.run()


class Loop:
    """One spawner; whoever owns `stack` closes it and so ends every server."""

    def __init__(self, options: SpawnerOptions, keeper: Keeper, foreign: frozenset[int], stack: ExitStack) -> None:
        """`foreign`: ports of other spawners, which are never announced on."""
        self.options = options
        self.keeper = keeper
        self.settings = options.settings
        self.servers = options.plan.servers
        self.state = SpawnerState([Slot(each.port, _label(each)) for each in self.servers], options.patience)
        self.children: dict[int, Child] = {}  # by slot
        self.pending: deque[Event] = deque()
        self.story: deque[str] = deque(maxlen=STORY_LENGTH)
        self.status: int | None = None
        self.poller = zmq.Poller()
        ports = tuple(each.port for each in self.servers)
        context: zmq.Context[Any] = stack.enter_context(zmq.Context())
        keeper.open(context)
        stack.callback(keeper.close)
        door = door_to(options.bind, keeper.security)
        self.announcer = Announcer(self.poller, context, door, options.plan.announce, foreign.union(ports))
        stack.callback(self.announcer.close)
        registration = Registration(ports, self.announcer.port, options.bind)
        stack.callback(registration.close)
        self.wake = stack.enter_context(self._signals())
        stack.callback(self._end_children)
        for source in (self.wake, *keeper.sources()):
            self.poller.register(source, zmq.POLLIN)

    def run(self) -> int:
        wanted = self.options.plan.announce
        log_guard(log, self.announcer.door.guard)
        moved = "" if self.announcer.port == wanted else f": {wanted} is taken"
        log.info("announcing on port %d%s", self.announcer.port, moved)
        self._carry_out(self.state.start(time.monotonic()))
        self._settle()
        while self.status is None:
            self._turn()
        return self.status

    def _turn(self) -> None:
        ready = dict(self.poller.poll(self._patience_ms()))
        if self.wake in ready:
            os.read(self.wake, 4096)
        self._keep_keys(ready)
        self.announcer.hear(time.monotonic())
        for slot, child in list(self.children.items()):
            self._hear(slot, child, ready)
            self._bury(slot, child)
        self._settle()
        self._carry_out(self.state.tick(time.monotonic()))
        self._settle()

    def _keep_keys(self, ready: dict[Any, int]) -> None:
        """Lets in who has a key, and acts on keys that have changed: servers look after their own."""
        now = time.monotonic()
        self.keeper.answer(ready, now)
        before = self.keeper.ring
        if not self.keeper.look(now):
            return
        ring = self.keeper.ring
        if self.announcer.door.ring.farm == ring.farm and set(before.clients) <= set(ring.clients):
            return
        try:
            door = door_to(self.options.bind, self.keeper.security)
        except Refused as error:
            log.error("announcements keep the key that they had: %s", error)
            return
        if door.guard is not self.announcer.door.guard:
            log_guard(log, door.guard)
        self.announcer.door = door
        self.announcer.start_over()

    def _patience_ms(self) -> int | None:
        if self.pending:
            return 0
        deadlines = (self.state.next_deadline(), self.announcer.next_deadline(), self.keeper.next_deadline())
        waits = [max(0.0, time_s - time.monotonic()) for time_s in deadlines if time_s is not None]
        return int(min(waits) * 1000) + 1 if waits else None

    def _settle(self) -> None:
        """Lets the state answer all that has happened."""
        while self.pending:
            event = self.pending.popleft()
            self.story.append(repr(event)[:200])
            try:
                self._carry_out(self.state.handle(event, time.monotonic()))
                self.state.check()
            except Impossible as error:
                raise Impossible(f"{error}; the last events were:\n" + "\n".join(self.story)) from error

    def _carry_out(self, commands: list[do.Command]) -> None:
        for command in commands:
            event = _DEEDS[type(command)](self, command)
            if event is not None:
                self.pending.append(event)

    # -- what servers say -----------------------------------------------------------------------------------------

    def _hear(self, slot: int, child: Child, ready: dict[Any, int]) -> None:
        for fd, take in ((child.stdout, self._take_stdout), (child.stderr, self._take_stderr)):
            if fd in ready:
                lines, ended = child.read_lines(fd)
                take(slot, lines)
                if ended:
                    self.poller.unregister(fd)

    def _bury(self, slot: int, child: Child) -> None:
        """Looks whether a server has ended; its streams may stay open, if something that it started holds them."""
        status = child.status
        if status is None:
            return
        self._take_stdout(slot, child.read_rest(child.stdout))
        self._take_stderr(slot, child.read_rest(child.stderr))
        self._let_go(slot)
        self.pending.append(ServerExited(slot, status, child.reason()))

    def _let_go(self, slot: int) -> None:
        child = self.children.pop(slot)
        for fd in (child.stdout, child.stderr):
            with suppress(KeyError):  # its end has been read
                self.poller.unregister(fd)
        child.close()

    def _take_stdout(self, slot: int, lines: list[str]) -> None:
        for line in lines:
            if line.startswith(READY_WORD):
                self.pending.append(ServerListening(slot, line.removeprefix(READY_WORD).strip()))
            elif report := read_report(line):
                self.pending.append(ServerReported(slot, report))
            else:
                log.info("%d: %s", self.servers[slot].port, line)

    def _take_stderr(self, slot: int, lines: list[str]) -> None:
        """Its log, with a level before each line; what has none comes from a library or from a crash."""
        for line in lines:
            word, _, rest = line.partition(" ")
            level, text = (LEVELS[word], rest) if word in LEVELS else (logging.WARNING, line)
            if text.startswith(READY_WORD):
                continue  # the state says so, and which node
            log.log(level, "%d: %s", self.servers[slot].port, text)
            if level >= logging.WARNING:
                self.children[slot].last_words.append(text)

    # -- deeds ----------------------------------------------------------------------------------------------------

    def _start_server(self, command: do.StartServer) -> Event | None:
        words = [*SERVER_COMMAND, *as_words(self._serve_options(self.servers[command.slot]))]
        try:
            child = Child(words, child_environment() | as_environment(self.settings))
        except OSError as error:
            return ServerExited(command.slot, None, f"{words[0]}: {os.strerror(error.errno or 0)}")
        self.children[command.slot] = child
        for fd in (child.stdout, child.stderr):
            self.poller.register(fd, zmq.POLLIN)
        return None

    def _serve_options(self, server: Placement) -> ServeOptions:
        return ServeOptions(
            bind=self.options.bind,
            port=server.port,
            engine=server.engine,
            threads=len(server.cpus),
            cpus=server.cpus,
            nodes=server.nodes,
            memory_nodes=server.memory_nodes,
            announce=self.announcer.port,
            siblings=tuple(each.port for each in self.servers if each is not server),
            supervised=True,
            parent_pid=os.getpid(),
            insecure=self.options.insecure,
            dial=self.options.dial,
        )

    def _ask_to_stop(self, command: do.AskToStop) -> None:
        self._signal(command.slot, signal.SIGTERM)

    def _ask_to_restart(self, command: do.AskToRestart) -> None:
        self._signal(command.slot, signal.SIGHUP)

    def _kill(self, command: do.Kill) -> None:
        if child := self.children.get(command.slot):
            child.kill()

    def _signal(self, slot: int, number: signal.Signals) -> None:
        """One that has ended hears nothing, also while the state has yet to be told of its end."""
        if child := self.children.get(slot):
            child.send_signal(number)

    def _announce(self, command: do.Announce) -> None:
        self.announcer.publish(command.announcement)

    def _reread_settings(self, command: do.RereadSettings) -> Event:
        try:
            new = self.options.reread()
        except DrError as error:
            return SettingsRefused(str(error))
        old, self.settings = self.settings, new
        names = (name for name in Settings.__struct_fields__ if getattr(old, name) != getattr(new, name))
        return SettingsRead(tuple(sorted(names)))

    def _log(self, command: do.Log) -> None:
        server = "" if command.slot is None else f"{self.servers[command.slot].port}: "
        log.log(command.level, "%s%s", server, command.text)

    def _exit(self, command: do.Exit) -> None:
        self.status = command.status

    # -- the process ----------------------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[int]:
        """Signals become events, and end the poll through the descriptor that this gives."""
        reader, writer = socket.socketpair()
        on_terminal = os.isatty(STDERR)

        def hear(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGHUP and on_terminal and not os.isatty(STDERR):
                self.pending.append(StopRequested("the terminal was closed"))
            elif event := _SIGNALS[number]:
                self.pending.append(event)

        with reader, writer:
            writer.setblocking(False)
            before = {number: signal.signal(number, hear) for number in _SIGNALS}
            signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # as an odd parent may have left them
            try:
                yield reader.fileno()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
                signal.set_wakeup_fd(-1)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _end_children(self) -> None:
        """Those that are left: there are some only if we end by an error."""
        for slot in list(self.children):
            self._let_go(slot)


def _label(server: Placement) -> str:
    """What people read about a server: the nodes that it runs on."""
    return f"node {format_ranges(server.nodes)}"


_SIGNALS: dict[int, Event | None] = {
    signal.SIGTERM: StopRequested("SIGTERM"),
    signal.SIGINT: StopRequested("SIGINT"),
    signal.SIGHUP: ReloadRequested(),
    signal.SIGCHLD: None,  # each turn looks after the servers
}
_DEEDS: dict[type, Callable[[Loop, Any], Event | None]] = {
    do.StartServer: Loop._start_server,
    do.AskToStop: Loop._ask_to_stop,
    do.AskToRestart: Loop._ask_to_restart,
    do.Kill: Loop._kill,
    do.Announce: Loop._announce,
    do.RereadSettings: Loop._reread_settings,
    do.Log: Loop._log,
    do.Exit: Loop._exit,
}
