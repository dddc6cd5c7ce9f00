"""Puts one render server together, says where it listens, and runs it to its end. Knows the process, not its work."""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from dr.errors import BadInput
from dr.protocol.messages import EngineKind
from workers.numa.pin import pin_process, prefer_memory
from workers.numa.ranges import format_ranges
from workers.numa.topology import usable_cpus
from workers.prepare.folders import PrivateFolder, user_folder
from workers.prepare.lifeline import die_with_parent, lifeline_fd
from workers.server.dialout_target import parse_targets
from workers.server.door import Door, door_of, log_guard
from workers.server.engine import Engine
from workers.server.identity import Identity
from workers.server.keeper import Keeper, load_keeper
from workers.server.loop import Loop, Ways
from workers.server.parent import LogHandler
from workers.server.title import show_title
from workers.server.words import READY_WORD, ServeOptions

MAX_THREADS = 4096
MAX_NAME = 256  # dr.protocol.messages.Name

log = logging.getLogger("dr.server")


def serve(options: ServeOptions, engine: Engine | None = None) -> int:
    """Serves until told to stop; prints `listening on ENDPOINT` on stdout once it may be dialled.

    Raises BadInput when it cannot listen there, Refused when that would need a key or those here are unsafe. Returns
    the exit status.
    """
    _check(options)
    if options.parent_pid is not None and not die_with_parent(options.parent_pid, signal.SIGTERM):
        return 0
    if options.parent_pid is not None:
        show_title(options)
    _take_place(options)
    threads = len(usable_cpus()) if options.threads is None else options.threads
    if not 1 <= threads <= MAX_THREADS:
        raise BadInput(f"--threads: expected 1 to {MAX_THREADS}, found {threads}")
    loop = _make_loop(options, threads, engine)
    if options.parent_pid is not None:
        loop.gate.removes_folder = True  # it is our parent's, and one that was killed cannot
        fd = lifeline_fd()
        if fd is not None:
            loop.watch_parent(fd)
    return loop.run(say_listening)


def _check(options: ServeOptions) -> None:
    if options.engine is EngineKind.RT:
        raise BadInput("-engine=rt: the interactive engine does not exist yet; leave -engine out")
    if options.supervised and options.endpoint is not None:
        raise BadInput(f"--supervised: expected --port, because reports name a TCP port; found {options.endpoint}")


def _take_place(options: ServeOptions) -> None:
    """CPUs and memory of this process, before any thread starts: threads and children inherit both."""
    if options.cpus is not None:
        pin_process(options.cpus)
    problem = prefer_memory(options.memory_nodes)
    if problem:
        log.warning("%s", problem)
    words = [
        f"node {format_ranges(options.nodes)}" if options.nodes else "",
        f"CPUs {format_ranges(options.cpus)}" if options.cpus else "",
        f"memory of node {format_ranges(options.memory_nodes)}" if options.memory_nodes and not problem else "",
    ]
    if any(words):
        log.info("pinned to %s", ", ".join(filter(None, words)))


def _make_loop(options: ServeOptions, threads: int, engine: Engine | None) -> Loop:
    keeper = Keeper() if _is_private(options) and not options.dial else load_keeper(options.insecure)
    targets = parse_targets(options.dial, keeper.security)
    ways = Ways(endpoint=_endpoint(options, keeper), keeper=keeper, targets=targets)
    door = door_of(ways.endpoint, keeper.security)
    guard = door.guard if isinstance(door, Door) else None
    engine = engine or _kernel_engine(threads)
    folder = PrivateFolder(user_folder("servers"))
    engine.start()
    try:
        loop = Loop(identity(options, threads, guard or ""), ways, engine, folder, options.limits)
    except BaseException:
        engine.close()
        folder.close()
        raise
    if guard and not options.supervised:  # else our parent says so for all
        log_guard(log, guard)
    return loop


def say_listening(endpoint: str) -> None:
    """One line for whoever started this server, and one for its log."""
    log.info("%s %s", READY_WORD, endpoint)
    with suppress(OSError):  # whoever started it is gone
        print(f"{READY_WORD} {endpoint}", flush=True)


def identity(options: ServeOptions, threads: int, guard: str = "") -> Identity:
    from dr.scene.code_digest import code_digest

    name = options.name or f"{platform.node() or 'server'}:{options.port}"
    if len(name) > MAX_NAME:
        raise BadInput(f"--name: expected at most {MAX_NAME} characters, found {len(name)}")
    return Identity(
        name=name,
        boot=os.urandom(8),
        kernels=code_digest(),
        threads=threads,
        cpu=cpu_model(),
        release=import_module("dr").__version__,  # by name: the package's public face is the client, which is not ours
        engine=options.engine,
        nodes=options.nodes,
        announce=options.announce,
        siblings=options.siblings,
        supervised=options.supervised,
        guard=guard,
    )


def cpu_model() -> str:
    """What the CPU calls itself, for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _is_private(options: ServeOptions) -> bool:
    """Whether it listens on a Unix socket: then broken keys are no matter of this server."""
    return options.endpoint is not None and options.endpoint.startswith("ipc://")


def _endpoint(options: ServeOptions, keeper: Keeper) -> str:
    if options.endpoint is not None:
        return options.endpoint
    bind = keeper.security.bind(options.bind)
    host = f"[{bind}]" if ":" in bind and not bind.startswith("[") else bind
    return f"tcp://{host}:{options.port}"


def _kernel_engine(threads: int) -> Engine:
    from workers.prepare.warmup import use_kernel_cache
    from workers.server.kernel_engine import KernelEngine

    use_kernel_cache()
    return KernelEngine(user_folder("scenes"), threads)


def log_to_stderr(options: ServeOptions, verbose: bool) -> None:
    """A line per action, with its time, which a supervising parent adds itself. No parent is ever waited for.

    The client of a local server has lines of its own about each bucket.
    """
    level = logging.DEBUG if verbose else logging.INFO
    is_local = options.parent_pid is not None and not options.supervised
    if is_local and not verbose:
        logging.getLogger("dr.server.buckets").setLevel(logging.WARNING)
    if (is_local or options.supervised) and sys.stderr is not None:
        logging.basicConfig(level=level, handlers=[LogHandler(sys.stderr.fileno(), timed=is_local)])
    else:
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
