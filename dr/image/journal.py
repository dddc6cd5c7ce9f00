"""Keeps finished tiles beside the output, so that a render that ended early can go on. Knows no server and no queue.

The format is that of dr.image.journal_format. Tiles are written as they come and brought to the disk at least once a
second: a killed process loses those that were not written yet, a power cut those of the last second.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dr.errors import BadInput, Impossible
from dr.image.journal_file import keep_aside, open_alone, reason, remove, size_of, sync_folder
from dr.image.journal_format import (
    NONCE_BYTES,
    Binding,
    Start,
    encode_start,
    find_differences,
    read_start,
    scan_tiles,
)
from dr.image.journal_writer import Writer
from dr.protocol.envelope import Payload
from dr.protocol.messages import BucketWork
from dr.scene.model import F32, Region

__all__ = ["Binding", "Journal", "journal_path"]

_GOES_ON = "the render goes on, but later tiles are not kept for --resume"


def journal_path(output: Path) -> Path:
    """Where the journal of a picture lies: `chair.exr.journal` beside `chair.exr`."""
    return output.with_name(f"{output.name}.journal")


class Journal:
    """One open journal: `begin` one, or `resume` one and read its `tiles`; then `append`, and `close` or `remove`.

    `replaced` and `dropped` are empty, or one line for the user: which journal was moved aside for this one, and what
    of this one was found damaged (known when `tiles` has ended).
    """

    def __init__(self, path: Path, file: FileIO, start: Start, replaced: str = "") -> None:
        self.path = path
        self.replaced = replaced
        self.dropped = ""
        self._file = file
        self._identity = os.fstat(file.fileno())
        self._start = start
        self._writer: Writer | None = None
        self._trouble = ""

    @classmethod
    def begin(cls, path: Path, binding: Binding) -> Journal:
        """A new one. What has its name and is no journal without tiles is renamed to NAME.old.

        Raises BadInput when it cannot be written, or another render writes it.
        """
        file = open_alone(path, make=True)
        replaced = ""
        while not _is_empty(file):
            aside = keep_aside(file, path)
            replaced = f"{path}: the journal of an earlier render is kept as {aside.name}; --resume would have gone on"
            file = open_alone(path, make=True)
        nonce = os.urandom(NONCE_BYTES)
        head = encode_start(nonce, binding)
        _write_start(file, path, head)
        journal = cls(path, file, Start(nonce, binding, len(head)), replaced)
        journal._writer = Writer(file, nonce, len(head))
        return journal

    @classmethod
    def resume(cls, path: Path, binding: Binding) -> Journal:
        """The one that is there; read its `tiles` before anything is appended.

        Raises BadInput when there is none, when it belongs to another picture (with all that differs), or when another
        render writes it.
        """
        try:
            file = open_alone(path, make=False)
        except FileNotFoundError:
            raise BadInput(f"{path}: there is no journal to resume: render without --resume") from None
        try:
            file.seek(0)
            start = read_start(file, size_of(file))
            _check_binding(start.binding, binding)
        except (BadInput, OSError) as error:
            file.close()
            raise BadInput(f"{path}: {reason(error)}; render without --resume to begin anew") from None
        return cls(path, file, start)

    def tiles(self) -> Iterator[tuple[BucketWork, F32]]:
        """What it holds: each pixel once, layers read-only and as dr.protocol.tiles.unpack gives them. Read it once.

        One tile is in memory at a time. The first record that is not whole ends it; the file is cut off there. Where
        the disk cannot be read it ends, too, and then there is `trouble`: nothing is cut off and nothing appended.
        """
        if self._writer:  # a new one
            return
        seen, end, count = _Seen(self._start.binding), self._start.end, 0
        try:
            size = size_of(self._file)
            self._file.seek(end)
            for work, layers, record_end in scan_tiles(self._file, self._start, size):
                end, count = record_end, count + 1
                if seen.add(work):
                    yield work, layers
            if end < size:
                self.dropped = self._describe_loss(end, size, count)
                self._file.truncate(end)
                os.fsync(self._file.fileno())
        except OSError as error:
            self._trouble = f"{self.path}: cannot read the journal: {reason(error)}; {_GOES_ON}"
        else:
            self._writer = Writer(self._file, self._start.nonce, end)

    def append(self, work: BucketWork, payload: Payload) -> None:
        """Hands a finished tile to the thread that writes. Waits for no disk; after `close` it does nothing.

        Raises Impossible for a tile without all samples, or when `tiles` of a resumed journal were not read.
        """
        samples = self._start.binding.settings.samples
        if (work.sample_begin, work.sample_end) != (0, samples):
            raise Impossible(f"journal: expected a tile with all {samples} samples, found {work}")
        if self._file.closed or self._trouble:
            return
        if self._writer is None:
            raise Impossible("journal: a tile was appended before those that are there were read")
        self._writer.give(work, payload)

    def close(self) -> None:
        """Everything appended is on the disk afterwards, unless there is `trouble`."""
        self._stop(keep=True)
        try:
            self._file.close()
        except OSError as error:
            self._trouble = f"{self.path}: cannot write the journal: {reason(error)}; its last tiles may be missing"

    def remove(self) -> None:
        """Closes and deletes it: the picture is safe."""
        self._stop(keep=False)
        try:
            remove(self._file, self._identity, self.path)
        except OSError as error:
            self._trouble = f"{self.path}: cannot delete the journal: {reason(error)}; delete it yourself"

    @property
    def trouble(self) -> str:
        """One line when tiles are not kept any more, or not all of them; the render goes on."""
        if self._trouble or self._writer is None:
            return self._trouble
        if self._writer.fault:
            return f"{self.path}: cannot write the journal: {self._writer.fault}; {_GOES_ON}"
        if self._writer.left_out:
            return f"{self.path}: the disk is slower than the render: --resume would render some tiles again"
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stop(self, keep: bool) -> None:
        if self._writer and not self._file.closed:
            self._writer.stop(keep)

    def _describe_loss(self, end: int, size: int, count: int) -> str:
        """Records behind a broken one are not looked for: their number is judged by the size of the whole ones."""
        tiles = max(1, round((size - end) * count / (end - self._start.end))) if count else 0
        lost = {0: "all its tiles", 1: "its last tile"}.get(tiles, f"its last tiles, about {tiles},")
        return f"{self.path}: {lost} ({size - end} bytes) did not reach the disk whole and will be rendered again"


class _Seen:
    """Which pixels had a tile: one byte each, a small part of what the picture itself takes."""

    def __init__(self, binding: Binding) -> None:
        settings = binding.settings
        self.region = settings.region or Region(0, 0, settings.width, settings.height)
        self.pixels = np.zeros((self.region.height, self.region.width), np.bool_)

    def add(self, work: BucketWork) -> bool:
        """Whether all of its pixels are new."""
        left, top = work.x - self.region.x, work.y - self.region.y
        window = self.pixels[top : top + work.height, left : left + work.width]
        if window.any():
            return False
        window[:] = True
        return True


def _is_empty(file: FileIO) -> bool:
    """Whether nothing is lost when it is written over: an empty file, or a journal without tiles."""
    try:
        size = size_of(file)
        file.seek(0)
        return size == 0 or read_start(file, size).end == size
    except (BadInput, OSError):
        return False


def _check_binding(was: Binding, now: Binding) -> None:
    differences = find_differences(was, now)
    if differences:
        raise BadInput(f"expected the journal of this very picture, found that of another: {'; '.join(differences)}")


def _write_start(file: FileIO, path: Path, head: bytes) -> None:
    try:
        file.seek(0)
        file.truncate(0)
        rest = memoryview(head)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            remove(file, os.fstat(file.fileno()), path)
        raise BadInput(f"{path}: cannot write the journal: {reason(error)}") from error
    sync_folder(path)
