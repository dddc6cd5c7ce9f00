"""One digest of all code that decides pixels. Reads sources as bytes; imports neither workers nor numba.

Client and servers compare it in the handshake: servers that run other code would render other pixels into one frame.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from importlib import metadata, util
from pathlib import Path

from dr.errors import Impossible

PACKAGES = ("numba", "llvmlite", "numpy", "OpenImageIO")


@functools.cache
def code_digest() -> str:
    """The `digest_sources` of all code that decides pixels, and of the packages that compute with it."""
    return digest_sources(source_folders(), PACKAGES)


def digest_sources(folders: Iterable[Path], packages: Iterable[str]) -> str:
    """SHA-256, 64 hexadecimal digits, of the Python files in these folders and of the versions of these packages."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in source_files(folder):
            _feed(digest, f"{folder.parent.name}/{folder.name}/{path.relative_to(folder).as_posix()}".encode())
            _feed(digest, path.read_bytes())
    for package in packages:
        _feed(digest, f"{package} {_version(package)}".encode())
    return digest.hexdigest()


def source_files(folder: Path) -> list[Path]:
    """In a fixed order."""
    return sorted(folder.rglob("*.py"))


def source_folders() -> list[Path]:
    """The folders whose every source file counts."""
    spec = util.find_spec("workers")  # finds a top-level package without running it
    if spec is None or not spec.submodule_search_locations:
        raise Impossible("the package `workers` is not installed beside `dr`; install the project again")
    workers = Path(spec.submodule_search_locations[0])
    return [Path(__file__).parent, workers / "kernels", workers / "prepare"]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _feed(digest: hashlib._Hash, data: bytes) -> None:
    """With its length before it, so that no two lists of pieces feed the same bytes."""
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)
