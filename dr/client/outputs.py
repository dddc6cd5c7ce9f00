"""Which files a render writes, frame by frame. Knows names; the pictures come as they are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dr.client.frames import frame_path
from dr.errors import BadInput
from dr.image.framebuffer import Picture
from dr.image.journal import journal_path
from dr.image.output import write_picture
from dr.scene.model import ViewSettings


class Outputs:
    """The names that the user gave. With `numbered`, each frame has its own: `out.####.exr` is `out.0007.exr`."""

    def __init__(self, paths: Sequence[Path], numbered: bool) -> None:
        self.paths = tuple(paths)
        self.numbered = numbered

    def of(self, number: int) -> tuple[Path, ...]:
        """The files of the frame with this number."""
        return tuple(frame_path(path, number) for path in self.paths) if self.numbered else self.paths

    def journal(self, number: int) -> Path | None:
        """Where the finished buckets of the frame are kept while it is rendered."""
        return journal_path(self.of(number)[0]) if self.paths else None

    def partial(self, number: int) -> Path | None:
        """The only file that an incomplete picture is ever written to."""
        return self.of(number)[0].with_suffix(".partial.exr") if self.paths else None

    def exist(self, number: int) -> bool:
        """Whether every file of the frame is there."""
        return bool(self.paths) and all(path.exists() for path in self.of(number))

    def write(self, number: int, picture: Picture, view: ViewSettings) -> list[Path]:
        """Writes a complete picture to every file of its frame.

        One that cannot be written does not cost the others: BadInput comes when they are safe, and names them.
        """
        saved, failures = [], []
        for path in self.of(number):
            try:
                write_picture(path, picture, view)
                saved.append(path)
            except BadInput as error:
                failures.append(str(error))
        if failures:
            rest = f"; written: {', '.join(map(str, saved))}" if saved else ""
            raise BadInput("; ".join(failures) + rest)
        self._forget_partial(number)
        return saved

    def write_partial(self, number: int, picture: Picture, view: ViewSettings) -> list[Path]:
        """Writes a picture of which pixels are missing."""
        partial = self.partial(number)
        if partial:
            write_picture(partial, picture, view)
        return [partial] if partial else []

    def _forget_partial(self, number: int) -> None:
        """What an earlier try has left."""
        if partial := self.partial(number):
            with suppress(OSError):
                partial.unlink(missing_ok=True)
