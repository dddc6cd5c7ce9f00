"""Puts one render server together, says where it listens, and runs it to its end. Knows the process, not its work."""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
from contextlib import suppress
from pathlib import Path

from dr.errors import BadInput
from workers.numa.pin import pin_process
from workers.numa.topology import usable_cpus
from workers.prepare.folders import PrivateFolder, user_folder
from workers.prepare.lifeline import die_with_parent, lifeline_fd
from workers.server.engine import Engine
from workers.server.loop import Loop
from workers.server.state import Identity
from workers.server.words import READY_WORD, ServeOptions

MAX_THREADS = 4096
MAX_NAME = 256  # dr.protocol.messages.Name

log = logging.getLogger("dr.server")


def serve(options: ServeOptions, engine: Engine | None = None) -> int:
    """Serves until told to stop; prints `listening on ENDPOINT` on stdout once it may be dialled.

    Raises BadInput when it cannot listen there, Refused when that would need a key. Returns the exit status.
    """
    if options.parent_pid is not None and not die_with_parent(options.parent_pid, signal.SIGTERM):
        return 0
    if options.cpus is not None:
        pin_process(options.cpus)
    threads = len(usable_cpus()) if options.threads is None else options.threads
    if not 1 <= threads <= MAX_THREADS:
        raise BadInput(f"--threads: expected 1 to {MAX_THREADS}, found {threads}")
    engine = engine or _kernel_engine(threads)
    folder = PrivateFolder(user_folder("servers"))
    engine.start()
    try:
        loop = Loop(identity(options, threads), _endpoint(options), engine, folder, options.limits)
    except BaseException:
        engine.close()
        folder.close()
        raise
    fd = lifeline_fd() if options.parent_pid is not None else None
    if fd is not None:
        loop.watch_parent(fd)
    loop.run(announce)
    if options.parent_pid is not None and options.endpoint:
        _remove_empty_folder(options.endpoint)
    return 0


def _remove_empty_folder(endpoint: str) -> None:
    """The folder of our socket is our parent's; one that was killed cannot remove it, so the last server does."""
    if endpoint.startswith("ipc://"):
        with suppress(OSError):
            Path(endpoint.removeprefix("ipc://")).parent.rmdir()


def announce(endpoint: str) -> None:
    """One line for whoever started this server, and one for its log."""
    log.info("%s %s", READY_WORD, endpoint)
    print(f"{READY_WORD} {endpoint}", flush=True)


def identity(options: ServeOptions, threads: int) -> Identity:
    from dr.scene.code_digest import code_digest

    name = options.name or f"{platform.node() or 'server'}:{options.port}"
    if len(name) > MAX_NAME:
        raise BadInput(f"--name: expected at most {MAX_NAME} characters, found {len(name)}")
    return Identity(name=name, boot=os.urandom(8), kernels=code_digest(), threads=threads, cpu=cpu_model())


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


def log_to_stderr(verbose: bool) -> None:
    style = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format=style, stream=sys.stderr)
