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
from workers.server.engine import Engine
from workers.server.identity import Identity
from workers.server.loop import Loop
from workers.server.parent import LogHandler
from workers.server.title import show_title
from workers.server.words import READY_WORD, ServeOptions

MAX_THREADS = 4096
MAX_NAME = 256  # dr.protocol.messages.Name

log = logging.getLogger("dr.server")


def serve(options: ServeOptions, engine: Engine | None = None) -> int:
    """Serves until told to stop; prints `listening on ENDPOINT` on stdout once it may be dialled.

    Raises BadInput when it cannot listen there, Refused when that would need a key. Returns the exit status.
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
    fd = lifeline_fd() if options.parent_pid is not None else None
    if fd is not None:
        loop.watch_parent(fd)
    status = loop.run(say_listening)
    if options.parent_pid is not None and options.endpoint:
        _remove_empty_folder(options.endpoint)
    return status


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
    engine = engine or _kernel_engine(threads)
    folder = PrivateFolder(user_folder("servers"))
    engine.start()
    try:
        return Loop(identity(options, threads), _endpoint(options), engine, folder, options.limits)
    except BaseException:
        engine.close()
        folder.close()
        raise


def _remove_empty_folder(endpoint: str) -> None:
    """The folder of our socket is our parent's; one that was killed cannot remove it, so the last server does."""
    if endpoint.startswith("ipc://"):
        with suppress(OSError):
            Path(endpoint.removeprefix("ipc://")).parent.rmdir()


def say_listening(endpoint: str) -> None:
    """One line for whoever started this server, and one for its log."""
    log.info("%s %s", READY_WORD, endpoint)
    with suppress(OSError):  # whoever started it is gone
        print(f"{READY_WORD} {endpoint}", flush=True)


def identity(options: ServeOptions, threads: int) -> Identity:
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
    )


def cpu_model() -> str:
    """What the CPU calls itself, for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _endpoint(options: ServeOptions) -> str:
    if options.endpoint is not None:
        return options.endpoint
    host = f"[{options.bind}]" if ":" in options.bind and not options.bind.startswith("[") else options.bind
    return f"tcp://{host}:{options.port}"


def _kernel_engine(threads: int) -> Engine:
    from workers.prepare.warmup import use_kernel_cache
    from workers.server.kernel_engine import KernelEngine

    use_kernel_cache()
    return KernelEngine(user_folder("scenes"), threads)


def log_to_stderr(verbose: bool, supervised: bool = False) -> None:
    """A line per action, with its time; the parent of a supervised server adds the time itself."""
    level = logging.DEBUG if verbose else logging.INFO
    if supervised and sys.stderr is not None:
        logging.basicConfig(level=level, handlers=[LogHandler(sys.stderr.fileno())])
    else:
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
