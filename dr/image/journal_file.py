"""Opens a journal's file for one process alone, and brings names to the disk. Knows no format."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from io import FileIO
from pathlib import Path

from dr.errors import BadInput

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCKED_BYTE = 1 << 62  # where Windows locks: far behind all that is ever written


def open_alone(path: Path, make: bool) -> FileIO:
    """The file for reading and writing, locked until it is closed; with `make`, an empty one where there is none.

    Raises BadInput when another process has it or it cannot be opened, FileNotFoundError without `make` alone.
    """
    while True:
        file = _open(path, make)
        try:
            _check_regular(file, path)
            _lock(file, path)
            if _is_current(os.fstat(file.fileno()), path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # another process moved or removed it between the two steps


def keep_aside(file: FileIO, path: Path) -> Path:
    """Renames the open file to NAME.old, in the place of an older one, closes it, and tells the new name."""
    aside = path.with_name(f"{path.name}.old")
    try:
        if sys.platform == "win32":
            file.close()
        path.replace(aside)
        sync_folder(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot keep it as {aside.name}: {reason(error)}; move it away") from error
    finally:
        file.close()
    return aside


def remove(file: FileIO, identity: os.stat_result, path: Path) -> None:
    """Closes the file and deletes it, but none that took its name since. Raises OSError."""
    try:
        is_current = _is_current(identity, path)
        if sys.platform == "win32":
            file.close()
        if is_current:
            path.unlink(missing_ok=True)
    finally:
        file.close()


def sync_folder(path: Path) -> None:
    """Brings the names in the folder of `path` to the disk, where the system knows how."""
    with suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def size_of(file: FileIO) -> int:
    return os.fstat(file.fileno()).st_size


def reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _open(path: Path, make: bool) -> FileIO:
    try:
        if make:
            with suppress(FileExistsError):
                return FileIO(path, "x+b")
        return FileIO(path, "r+b")
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        if isinstance(error, FileNotFoundError) and not make:
            raise
        raise BadInput(f"{path}: cannot open the journal: {reason(error)}") from error


def _check_regular(file: FileIO, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise BadInput(f"{path}: expected a journal, found a pipe or device: move it away")


def _lock(file: FileIO, path: Path) -> None:
    """The system gives the lock back when the file is closed, however its process ends."""
    try:
        if sys.platform == "win32":
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise BadInput(
            f"{path}: another render writes this journal: wait until it ends, or choose another output"
        ) from None
    except OSError:
        pass  # a file system without locks is no reason not to render


def _is_current(identity: os.stat_result, path: Path) -> bool:
    """Whether the name still means the file that was opened."""
    try:
        return os.path.samestat(identity, path.stat())
    except FileNotFoundError:
        return False
