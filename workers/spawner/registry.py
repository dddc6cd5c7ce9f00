"""Where running spawners of this user are found and stopped: one locked file each. Knows processes, not servers.

A spawner holds the lock of its file while it lives, so a file without a holder is a dead one's, and a number that
another process got later stops nobody. Files of other hosts (a home folder may be shared) are left alone.
"""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from workers.prepare.folders import LockFile, user_folder
from workers.spawner.host import host_id

STOP_S = 8.0  # more than servers get to finish what they render
LOOK_S = 0.02  # between two looks at whether it has gone
PREFIX, SUFFIX = "spawner-", ".json"


class RunningSpawner(Struct, frozen=True, kw_only=True):
    """A spawner that runs now."""

    pid: int
    ports: tuple[int, ...]  # of its servers
    announce: int
    bind: str
    place: str = ""  # where `pid` is its number: the host, and on Linux the PID namespace (a container has its own)
    path: str = ""  # of its file


class Registration:
    """This process's own entry; `close` takes it back."""

    def __init__(self, ports: tuple[int, ...], announce: int, bind: str) -> None:
        """Raises BadInput when this user's folder cannot be written."""
        folder = user_folder("spawners")
        while True:
            fd, name = tempfile.mkstemp(prefix=PREFIX, suffix=SUFFIX, dir=folder)
            os.close(fd)
            self.lock = LockFile(Path(name))
            self.lock.exclude()
            if self.lock.current:
                break
            self.lock.close()  # another process took it for one left behind
        facts = RunningSpawner(pid=os.getpid(), ports=ports, announce=announce, bind=bind, place=_place(), path=name)
        os.write(self.lock.fd, msgspec.json.encode(facts))

    def close(self) -> None:
        self.lock.path.unlink(missing_ok=True)
        self.lock.close()


@contextmanager
def start_alone() -> Iterator[None]:
    """One spawner of this user starts at a time: what it finds free is free until it is registered."""
    lock = LockFile(user_folder("spawners").with_name("spawners.lock"))
    try:
        lock.exclude()
        yield
    finally:
        lock.close()


def running() -> list[RunningSpawner]:
    """This user's spawners on this host, the one with the lowest port first. Files of dead ones are removed."""
    found = [_look(path) for path in user_folder("spawners").glob(f"{PREFIX}*{SUFFIX}")]
    return sorted((each for each in found if each), key=lambda each: (each.ports, each.pid))


def stop(spawner: RunningSpawner, within_s: float = STOP_S) -> bool:
    """Asks it to end and waits: whether it has gone by then, the process itself and not its lock alone."""
    deadline = time.monotonic() + within_s
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(spawner.pid)  # with the time of its start: a later one of that number is another
        if not _is_held(Path(spawner.path)):
            return True
        process.send_signal(signal.SIGTERM)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S)
    return True


def _look(path: Path) -> RunningSpawner | None:
    """What a file tells, if its spawner runs here."""
    try:
        facts = msgspec.json.decode(path.read_bytes(), type=RunningSpawner)
    except (OSError, msgspec.DecodeError):
        facts = None  # it is just being made, or was damaged
    if not _is_held(path):
        if facts is None or facts.place.split()[:1] == [host_id()]:
            path.unlink(missing_ok=True)
        return None
    return msgspec.structs.replace(facts, path=str(path)) if facts and facts.place == _place() else None


def _is_held(path: Path) -> bool:
    """Whether a living process holds the lock of this file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _place() -> str:
    try:
        return f"{host_id()} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{host_id()} -"
