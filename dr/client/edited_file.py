"""Replaces a text file that a person wrote, whole or not at all, one writer at a time. Knows files; knows no contents.

The new text is written under another name in the same folder, brought to the disk and renamed. A link stays a link, a
mode stays a mode, and who reads meanwhile sees the old text or the new one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dr.errors import BadInput

READ_WRITE = 0o666  # of a new file, less what the umask takes


def edit_file(path: Path, change: Callable[[str], str], check: Callable[[Path], None]) -> bool:
    """Gives the file the text that `change` makes of its own; False, and nothing is touched, when that is the same.

    A missing file is an empty text, and is made with its folder. `check` looks at the new file before it gets its name.
    BadInput names the file and why it cannot be read or written.
    """
    try:
        place = path.resolve()
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise BadInput(f"{path}: expected a file's name, found a link that leads to itself") from error
    old = read_text(path)
    if change(old) == old:
        return False
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place):
            old = read_text(path)  # as the writer before us left it
            new = change(old)
            if new == old:
                return False
            _replace(place, new, check)
    except OSError as error:
        raise BadInput(f"{path}: cannot write it: {error.strerror or error}; nothing was changed") from error
    return True


def read_text(path: Path) -> str:
    """With line ends as they are; empty for a missing file. BadInput for what is no UTF-8 text."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise BadInput(f"{path}: cannot read it: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from error


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Waits until no other writer has the lock file beside `place`, and takes that away in the end."""
    lock = place.with_name(f".{place.name}.lock")
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, READ_WRITE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_named(descriptor, lock):  # whoever had it has taken it away: another may have made a new one
                continue
            try:
                yield
            finally:
                with suppress(OSError):
                    lock.unlink()
            return
        finally:
            os.close(descriptor)


def _is_named(descriptor: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False


def _replace(place: Path, text: str, check: Callable[[Path], None]) -> None:
    facts = place.stat() if place.exists() else None
    if facts and not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, "it is write-protected")
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, READ_WRITE)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text.encode())
            stream.flush()
            if facts:
                _take_over(descriptor, facts)
            os.fsync(descriptor)
        check(temporary)
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(place.parent)


def _take_over(descriptor: int, facts: os.stat_result) -> None:
    """The file keeps its owner, where we may give files away, and its mode."""
    with suppress(PermissionError):
        os.fchown(descriptor, facts.st_uid, facts.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(facts.st_mode))


def _sync_folder(folder: Path) -> None:
    """After a power cut the old file is there or the new one."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
