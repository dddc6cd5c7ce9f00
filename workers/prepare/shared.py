"""One prepared file per scene and host: the first server makes it, the others wait and map it, the last one removes it.

`KEY.lock` says who uses `KEY.scene`: its maker excludes everybody, its users share. Knows not what is in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from dr.scene.model import RenderSettings
from workers.prepare.folders import LockFile


def scene_key(manifest: bytes, animated: bool, settings: RenderSettings, code: str) -> str:
    """The name of a prepared scene: which files, what preparation reads of the settings, and which code."""
    # The picture's shape decides how a camera that the scene lacks is placed.
    moment_s = settings.time_s if animated else None
    parts = (manifest, settings.width, settings.height, settings.default_light, moment_s, code)
    return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()[:40]


def scene_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.scene"


def make_once(folder: Path, key: str, make: Callable[[Path], None], waiting: Callable[[], None]) -> LockFile:
    """Calls `make(path)` unless the prepared file is there. The lock that comes back keeps the file from removal."""
    path = scene_path(folder, key)
    while True:
        lock = LockFile(folder / f"{key}.lock")
        if lock.try_exclude():
            _make_missing(path, lock, make)
        elif not lock.try_share():
            waiting()
        lock.share()  # waits for the maker, not for other users; between two locks the last user may remove the file
        if lock.current and path.exists():
            return lock
        lock.close()


def _make_missing(path: Path, lock: LockFile, make: Callable[[Path], None]) -> None:
    if not lock.current or path.exists():
        return
    try:
        make(path)
    except BaseException:
        _remove(path, lock)  # with what was written of it
        lock.close()
        raise


class SharedScene:
    """A use of a prepared file. The file is removed when its last user closes."""

    def __init__(self, folder: Path, key: str) -> None:
        """Raises FileNotFoundError when the file is not there (any more)."""
        self.path = scene_path(folder, key)
        self.lock = LockFile(folder / f"{key}.lock")
        self.lock.share()
        if not (self.lock.current and self.path.exists()):
            self.lock.close()
            raise FileNotFoundError(self.path)

    def close(self) -> None:
        if self.lock.fd >= 0 and self.lock.try_exclude():
            _remove(self.path, self.lock)
        self.lock.close()


def remove_unused(folder: Path) -> None:
    """Removes prepared files that nobody uses: those of servers that were killed."""
    for lock_path in folder.glob("*.lock"):
        with suppress(OSError):
            lock = LockFile(lock_path)
            if lock.try_exclude() and lock.current:
                _remove(lock_path.with_suffix(".scene"), lock)
            lock.close()


def _remove(path: Path, lock: LockFile) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".partial").unlink(missing_ok=True)
    if lock.current:
        lock.path.unlink(missing_ok=True)
