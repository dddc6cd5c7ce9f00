"""The finished picture becomes a file, whole or not at all. Knows folders and extensions; knows no pixel.

A picture is written under another name in the same folder, brought to the disk and then renamed: an existing file is
replaced only by a complete one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import disk_usage
from typing import Any, NamedTuple

from dr.errors import BadInput
from dr.image.exr import encode_exr
from dr.image.framebuffer import Picture
from dr.image.journal_file import sync_folder
from dr.image.png import encode_jpeg, encode_png
from dr.protocol.messages import Channel
from dr.scene.model import ViewSettings

LITTLE_BYTES = 1 << 30  # of free disk: worth a word when a picture cannot be written


class Format(NamedTuple):
    """`name` is OpenImageIO's; `encode` gives its description of the file and the pixels."""

    name: str
    side_limit: int  # pixels
    needs: Channel | None
    encode: Callable[[Picture, ViewSettings], tuple[Any, Any]]


EXR = Format("openexr", 1 << 20, None, lambda picture, view: encode_exr(picture))
PNG = Format("png", 1 << 20, Channel.BEAUTY, encode_png)
JPEG = Format("jpeg", 65500, Channel.BEAUTY, encode_jpeg)  # JPEG_MAX_DIMENSION of libjpeg
FORMATS = {".exr": EXR, ".png": PNG, ".jpg": JPEG, ".jpeg": JPEG}


def check_output(path: Path, size: tuple[int, int] = (1, 1), channels: Collection[str] = tuple(Channel)) -> None:
    """BadInput, before the render starts, when a picture of `size` with these channels cannot be written to `path`."""
    form = _format(path)
    if max(size) > form.side_limit:
        raise BadInput(f"{path}: a {path.suffix} holds at most {form.side_limit} pixels a side, found {size}: use .exr")
    if form.needs and form.needs not in channels:
        raise BadInput(f"{path}: a {path.suffix} shows the channel {form.needs}, which is not rendered: use .exr")
    check_place(path)


def check_place(path: Path) -> None:
    """BadInput when no file can be written at `path`, found out by making one beside it."""
    try:
        if path.is_dir() or (path.exists() and not path.is_file()):
            raise BadInput(f"{path}: expected a file's name, found a folder or device")
        folder = path.resolve().parent
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise BadInput(f"{path}: expected a file's name, found one that leads nowhere: {error}") from error
    if not folder.is_dir():
        raise BadInput(f"{path}: the folder {folder} does not exist: make it first")
    probe = _temporary_beside(path.resolve())
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise BadInput(f"{path}: cannot write in the folder {folder}: {error.strerror}") from error


def _temporary_beside(path: Path) -> Path:
    return path.with_name(f".dr-{secrets.token_hex(8)}.tmp")


def write_picture(path: Path, picture: Picture, view: ViewSettings) -> None:
    """Writes in the format of the extension. BadInput names the reason when the file could not be written."""
    form = _format(path)
    spec, pixels = form.encode(picture, view)
    try:
        with replacing(path) as temporary:
            _write(form.name, temporary, spec, pixels)
    except OSError as error:
        raise BadInput(f"{path}: cannot write the picture: {_explain(error, path)}") from error


_unfinished: set[Path] = set()  # temporary files of this process


def abandon_unfinished() -> None:
    """Removes what other threads are still writing: the process is about to leave."""
    for temporary in tuple(_unfinished):
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a temporary file that takes the place of `path` when the block ends well, and vanishes otherwise."""
    target = path.resolve()  # a symbolic link stays one
    temporary = _temporary_beside(target)
    temporary.touch(exist_ok=False)  # an OSError with a reason, which image libraries do not give
    _unfinished.add(temporary)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(target)
        sync_folder(target)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


def _format(path: Path) -> Format:
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise BadInput(
            f"{path}: expected a name that ends in {', '.join(FORMATS)}, found {path.suffix or 'no extension'}"
        )
    return form


def _write(name: str, path: Path, spec: Any, pixels: Any) -> None:
    import OpenImageIO

    file = OpenImageIO.ImageOutput.create(name)
    if file is None:
        raise OSError(OpenImageIO.geterror())
    if not (file.open(str(path), spec) and file.write_image(pixels) and file.close()):
        raise OSError(file.geterror())


def _explain(error: OSError, path: Path) -> str:
    """Image libraries do not say that the disk is full."""
    reason = error.strerror or str(error)
    try:
        free = disk_usage(path.resolve().parent).free
    except OSError:
        return reason
    return f"{reason} ({free / 1e6:.0f} MB are free there)" if free < LITTLE_BYTES else reason


def _sync(path: Path) -> None:
    """Brings the file to the disk, so that after a power cut there is the old picture or the new one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
