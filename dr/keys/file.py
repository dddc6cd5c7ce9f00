"""Files that are this user's alone: how one is read, written and replaced. Knows modes and disks; knows no key."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from dr.errors import BadInput, Refused

MAX_BYTES = 1 << 20
PRIVATE, PUBLIC = 0o600, 0o644
_LOCK = ".dr-keys.lock"


class Found(Struct, frozen=True):
    """A file as it was read: what it holds, and who else can touch it."""

    data: bytes
    mode: int
    owner: int


def read_file(path: Path) -> Found | None:
    """None where there is no file, or none that this user can reach.

    Raises BadInput for what cannot be read or is far too large to be a key file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not make us wait
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        if isinstance(error, PermissionError) and not os.access(path.parent, os.X_OK):
            return None  # a service whose account has no home that it may enter
        raise BadInput(f"{path}: cannot read it: {_reason(error)}") from error
    try:
        facts = os.fstat(descriptor)  # of the very file that is read, whatever the name means by now
        if not stat.S_ISREG(facts.st_mode):
            raise BadInput(f"{path}: expected a file, found a folder, pipe or device")
        data = _read_all(descriptor, path)
    finally:
        os.close(descriptor)
    return Found(data, stat.S_IMODE(facts.st_mode), facts.st_uid)


def check_private(path: Path, found: Found, is_secret: bool) -> None:
    """Refused, with the command that helps, unless the file is this user's and others can neither read nor change it.

    One that holds no secret may be read by others.
    """
    if found.owner != os.geteuid():
        raise Refused(
            f"{path}: expected a file of yours (user {os.geteuid()}), found one of user {found.owner}; "
            f"copy it, or: chown {os.geteuid()} {path}"
        )
    if found.mode & (0o077 if is_secret else 0o022):
        may = "read or change" if is_secret else "change"
        raise Refused(f"{path}: expected a file that only you can {may}, found mode {found.mode:o}; chmod 600 {path}")


def write_file(path: Path, text: str, mode: int, replace: bool) -> None:
    """Writes under another name in the same folder, brings it to the disk and renames: there is never half a file.

    BadInput when that fails, and without `replace` when something is there already; whoever comes first, wins.
    """
    try:
        with _claimed(path, replace):
            _write_and_rename(path, text.encode(), mode)
    except FileExistsError:
        raise BadInput(f"{path}: exists already; choose another name, or --force to replace it") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot write it: {_reason(error)}") from error


def keep_aside(path: Path) -> Path | None:
    """Gives the file a second name `NAME.old-1`, `-2`, ... in its folder, and tells it; None where there is no file."""
    number = 1
    while True:
        aside = path.with_name(f"{path.name}.old-{number}")
        try:
            os.link(path, aside)
            return aside
        except FileExistsError:
            number += 1
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadInput(f"{path}: cannot keep it as {aside.name}: {_reason(error)}; nothing was changed") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder where it is missing (for this user alone), and waits until no other `dr keys` changes it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
    except OSError as error:
        raise BadInput(f"{folder}: cannot write in that folder: {_reason(error)}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _claimed(path: Path, replace: bool) -> Iterator[None]:
    """Holds the name with an empty file, unless what is there may be replaced; gives it back when the block fails."""
    if replace:
        yield
        return
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
    try:
        yield
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _write_and_rename(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".dr-{secrets.token_hex(8)}.tmp")
    # Never more than 0600 until it is whole: no umask is asked, and the process's own one is not touched
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(descriptor, mode)
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & ~mode:
                raise OSError(errno.EPERM, "that file system cannot keep a file private")
            os.fsync(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """After a power cut the old file is there or the new one."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, path: Path) -> bytes:
    parts, size = [], 0
    while part := os.read(descriptor, MAX_BYTES):
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            raise BadInput(f"{path}: expected a key file of at most {MAX_BYTES} bytes, found a larger file")
    return b"".join(parts)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
