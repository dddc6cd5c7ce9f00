"""Which files a scene needs, and how a loader gets at them. Knows digests and names; knows no wire and no cache.

A loader never opens a path that a scene names. It asks a `Files` for a *name*: POSIX style, relative to the folder of
the main scene file, normalised (`textures/wood.png`, `../shared/tree.glb`). On the client names are files below or
beside the scene; on a server they are keys of a manifest and the bytes lie in a store under their digest.
"""

from __future__ import annotations

import hashlib
import posixpath
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Struct

from dr.errors import BadInput


class Role(StrEnum):
    SCENE = "scene"
    BUFFER = "buffer"
    MESH = "mesh"
    TEXTURE = "texture"
    ENVIRONMENT = "environment"


class Files(Protocol):
    """Where a loader's bytes come from. Both methods raise BadInput naming `place` when the file is not there."""

    def read(self, name: str, role: Role, place: str) -> bytes:
        """The whole file. `place` says who references it (`"chair.gltf: buffers[0]"`)."""

    def refer(self, name: str, role: Role, place: str) -> None:
        """Notes that the scene needs `name` without reading it now (textures)."""


class Asset(Struct, frozen=True, array_like=True):
    """One file of a manifest."""

    name: Annotated[str, Meta(min_length=1, max_length=1024)]
    role: Role
    size: Annotated[int, Meta(ge=0, lt=1 << 48)]
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]  # SHA-256


class Manifest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that a server needs to load a scene: `main` is the name to begin with.

    `animated`: each frame is prepared for itself. Frames of a scene where nothing moves share what is prepared.
    """

    main: str
    assets: Annotated[tuple[Asset, ...], Meta(min_length=1, max_length=65536)]
    animated: bool = False

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def decode(data: bytes) -> Manifest:
        """Raises BadInput when the bytes are not a manifest."""
        try:
            return msgspec.msgpack.decode(data, type=Manifest)
        except msgspec.DecodeError as error:
            raise BadInput(f"manifest: {error}") from error


def resolve_name(reference: str, referrer: str, place: str) -> str:
    """The normalised name of a URI-style `reference` that stands in the file `referrer`."""
    path = unquote(reference).replace("\\", "/")
    if "://" in path or path.startswith("/") or (len(path) > 1 and path[1] == ":"):
        raise BadInput(f"{place}: expected a relative file name, found {reference[:80]!r}")
    if "\0" in path or not 0 < len(path) <= 1024:
        raise BadInput(f"{place}: expected a file name, found {reference[:80]!r}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(referrer), path))


class Folder:
    """The client's Files: names are files relative to the folder of the main scene file. Remembers what was asked."""

    def __init__(self, main: Path) -> None:
        self.root = main.parent
        self.main = main.name
        self.asked: dict[str, tuple[Role, str]] = {}

    def path(self, name: str) -> Path:
        return self.root / name

    def refer(self, name: str, role: Role, place: str) -> None:
        try:
            found = self.path(name).is_file()
        except (OSError, ValueError):  # a name that no file can have
            found = False
        if not found:
            raise BadInput(f"{place}: file not found: {self.path(name)}")
        self.asked.setdefault(name, (role, place))

    def read(self, name: str, role: Role, place: str) -> bytes:
        self.refer(name, role, place)
        try:
            return self.path(name).read_bytes()
        except OSError as error:
            raise BadInput(f"{place}: cannot read {self.path(name)}: {error.strerror}") from error

    def manifest(self) -> Manifest:
        """All files asked for so far, hashed."""
        assets = tuple(
            Asset(name, role, self.path(name).stat().st_size, file_digest(self.path(name)))
            for name, (role, _) in sorted(self.asked.items())
        )
        return Manifest(main=self.main, assets=assets)


class Blobs:
    """A server's Files: names are keys of a manifest, `paths` says where each asset's bytes lie."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self.paths = paths

    def path(self, name: str) -> Path:
        return self.paths[name]

    def refer(self, name: str, role: Role, place: str) -> None:
        if name not in self.paths:
            raise BadInput(f"{place}: {name} is not in the manifest")

    def read(self, name: str, role: Role, place: str) -> bytes:
        self.refer(name, role, place)
        try:
            return self.paths[name].read_bytes()
        except OSError as error:
            raise BadInput(f"{place}: cannot read {name}: {error.strerror}") from error


def file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
