"""Reads pieces of a scene's files for servers that ask by digest. Knows paths and sizes; knows no wire."""

from __future__ import annotations

import hashlib
from pathlib import Path

from msgspec import Struct

from dr.errors import BadInput
from dr.scene.assets import Manifest


class _File(Struct, frozen=True):
    path: Path
    size: int
    modified_ns: int


class SceneFiles:
    """The manifest and the files that it names, readable by digest.

    A file that is no longer what was hashed (other size, or written since) is refused by name: servers would have found
    out at the last byte.
    """

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self.manifest_bytes = manifest.encode()
        self.manifest_digest = hashlib.sha256(self.manifest_bytes).digest()
        self._files: dict[bytes, _File] = {}
        for asset in manifest.assets:
            path = folder / asset.name
            self._files.setdefault(asset.digest, _File(path, asset.size, _modified_ns(path)))

    def sizes(self) -> dict[bytes, int]:
        """Bytes of each file by digest, the manifest's own included."""
        sizes = {digest: file.size for digest, file in self._files.items()}
        return {**sizes, self.manifest_digest: len(self.manifest_bytes)}

    def read(self, digest: bytes, offset: int, count: int) -> bytes:
        """Bytes [offset, offset + count), fewer at the end of the file. Raises BadInput when they cannot be had."""
        if digest == self.manifest_digest:
            return self.manifest_bytes[offset : offset + count]
        if digest not in self._files:
            raise BadInput(f"no file of this scene has the digest {digest.hex()[:16]}")
        return _read(self._files[digest], offset, count)


def _read(file: _File, offset: int, count: int) -> bytes:
    try:
        with file.path.open("rb", buffering=0) as stream:
            if file.path.stat().st_size != file.size or _modified_ns(file.path) != file.modified_ns:
                raise BadInput(f"{file.path}: changed while it was being rendered; render again")
            stream.seek(offset)
            return stream.read(count)
    except OSError as error:
        raise BadInput(f"{file.path}: cannot be read any more: {error.strerror}") from error


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
