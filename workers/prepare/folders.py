"""This user's folders on this host, private to the user, and locks that show who is alive. Knows not what lies in them.

A lock is an advisory one on an open file (flock): the system gives it back when its process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from dr.errors import BadInput

PRIVATE = 0o700


def user_folder(name: str) -> Path:
    """A folder below the user's cache folder, made if need be. Raises BadInput when others could write into it."""
    return private(platformdirs.user_cache_path("dr") / name)


def private(path: Path) -> Path:
    """Makes a folder that only this user may enter."""
    try:
        path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        found = path.stat()
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(PRIVATE)
    except OSError as error:
        choose = "choose another with DR_KERNEL_CACHE or XDG_CACHE_HOME"
        raise BadInput(f"{path}: cannot make this folder: {error.strerror}; {choose}") from error
    if found.st_uid != os.geteuid():
        raise BadInput(f"{path}: expected a folder of user {os.geteuid()}, found one of user {found.st_uid}")
    return path


class LockFile:
    """One lock that several processes share or exclude each other by."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def exclude(self, waiting: Callable[[], None] | None = None) -> None:
        """Waits until nobody else holds the lock; `waiting` is called once if that takes time."""
        if not self.try_exclude():
            if waiting:
                waiting()
            fcntl.flock(self.fd, fcntl.LOCK_EX)

    def try_exclude(self) -> bool:
        return self._try(fcntl.LOCK_EX)

    def try_share(self) -> bool:
        return self._try(fcntl.LOCK_SH)

    def share(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    @property
    def current(self) -> bool:
        """Whether the path still names the file that is locked: the last user of a lock removes it."""
        try:
            return os.path.samestat(os.fstat(self.fd), self.path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class PrivateFolder:
    """A folder of this process alone; what a killed process left behind goes with the next one's start."""

    def __init__(self, parent: Path) -> None:
        _remove_left_behind(parent)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix="server-", dir=parent))
            self.lock = LockFile(self.path / "lock")
            self.lock.exclude()
            if self.lock.current:
                return
            self.lock.close()  # another process that started just now took the folder for one left behind

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.lock.close()


def _remove_left_behind(parent: Path) -> None:
    for lock_path in parent.glob("server-*/lock"):
        with suppress(OSError):
            lock = LockFile(lock_path)
            if lock.try_exclude():
                shutil.rmtree(lock_path.parent, ignore_errors=True)
            lock.close()
