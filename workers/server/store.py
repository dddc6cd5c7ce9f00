"""Where a frame's fetched assets lie: one private folder per frame, a file per digest, gone with the frame."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from dr.errors import BadInput, DrError


class _Incoming:
    """An asset that is being written. Its digest is computed on the way, as far as the bytes lie without a gap."""

    def __init__(self, path: Path) -> None:
        self.file: BinaryIO = path.open("w+b")
        self.hash: Any = hashlib.sha256()
        self.hashed = 0
        self.ahead: dict[int, int] = {}  # offset -> size of what arrived before its predecessor

    def write(self, offset: int, data: bytes) -> None:
        self.file.seek(offset)
        self.file.write(data)
        if offset != self.hashed:
            self.ahead[offset] = len(data)
            return
        self._add(data)
        while self.hashed in self.ahead:
            self.file.seek(self.hashed)
            self._add(self.file.read(self.ahead.pop(self.hashed)))

    def _add(self, data: bytes) -> None:
        self.hash.update(data)
        self.hashed += len(data)


class Store:
    """The assets of all live frames."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[int, Path] = {}
        self.incoming: dict[tuple[int, bytes], _Incoming] = {}

    def path(self, epoch: int, digest: bytes) -> Path:
        """Assets are named by hash: no name from the wire reaches the file system."""
        if epoch not in self.folders:
            self.folders[epoch] = Path(tempfile.mkdtemp(prefix="frame-", dir=self.root))
        return self.folders[epoch] / digest.hex()

    def write(self, epoch: int, digest: bytes, offset: int, data: bytes) -> None:
        """Raises DrError when the disk refuses."""
        with self._disk():
            self._open(epoch, digest).write(offset, data)

    def seal(self, epoch: int, digest: bytes) -> None:
        """Ends the writing of an asset. BadInput: its bytes are not those that were promised; DrError: as `write`."""
        with self._disk():
            incoming = self._open(epoch, digest)
            del self.incoming[epoch, digest]
            incoming.file.close()  # writes what is still in its buffer
        found = incoming.hash.digest()
        if found != digest:
            raise BadInput(
                f"asset: expected SHA-256 {digest.hex()[:16]}, found {found.hex()[:16]}; was the file changed?"
            )

    def drop(self, epoch: int) -> None:
        for key in [key for key in self.incoming if key[0] == epoch]:
            with suppress(OSError):  # a full disk: the file goes anyway
                self.incoming.pop(key).file.close()
        folder = self.folders.pop(epoch, None)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        for epoch in tuple(self.folders):
            self.drop(epoch)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DrError(f"cannot store an asset in {self.root}: {error.strerror}; free some space there") from error

    def _open(self, epoch: int, digest: bytes) -> _Incoming:
        if (epoch, digest) not in self.incoming:
            self.incoming[epoch, digest] = _Incoming(self.path(epoch, digest))
        return self.incoming[epoch, digest]
