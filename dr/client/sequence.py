"""Renders the frames of a request, one after the other: orders them, takes their tiles, has their pictures written.

The loop's observer. At most MAX_LIVE_FRAMES are in hand, so that the next one's buckets are there when the last ones of
this are still being rendered; pictures are written by another thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from types import TracebackType

from msgspec import Struct
from msgspec.structs import replace

from dr.broker.commands import FrameFinished, MergeTile, Notify
from dr.broker.events import CancelRequested, Event, FrameRequested
from dr.broker.frames import MAX_LIVE_FRAMES
from dr.broker.state import Broker
from dr.client.finisher import Finisher
from dr.client.frame import FrameInHand, Plan
from dr.client.outputs import Outputs
from dr.client.tally import Progress, Tally
from dr.errors import BadInput, DrError
from dr.image.framebuffer import Framebuffer, Picture
from dr.scene.model import ViewSettings

SNAPSHOT_S = 0.05  # between two calls of the user's progress callback
MAX_UNWRITTEN = 2  # pictures that may wait for the disk before no further frame is begun

ShowProgress = Callable[[Progress], None]


class Wish(Struct, frozen=True, kw_only=True):
    """What the user wants of the frames besides their pixels."""

    numbers: tuple[int, ...]
    outputs: Outputs
    view: ViewSettings
    resume: bool = False
    autosave_s: float = inf  # between two partial pictures of a frame
    show: ShowProgress | None = None


class FrameSequence:
    """All frames of one render."""

    def __init__(self, broker: Broker, plan: Plan, wish: Wish, tally: Tally) -> None:
        self.broker = broker
        self.plan = plan
        self.wish = wish
        self.tally = tally
        tally.numbers = wish.numbers
        self.finisher = Finisher()
        self.live: dict[int, FrameInHand] = {}
        self.last: FrameInHand | None = None  # that has ended
        self.written: list[Path] = []
        self._begun = 0
        self._next_snapshot = 0.0
        self._autosave_at = monotonic() + wish.autosave_s
        self._gave_up = False
        self._unsaved: list[str] = []  # why a picture was not saved meanwhile

    # The loop's observer

    def tile_arrived(self, tile: MergeTile) -> None:
        frame = self.live[tile.frame]
        frame.take(tile)
        self.tally.add_tile(tile)

    def frame_finished(self, command: FrameFinished) -> None:
        """Every bucket of it is done or given up."""
        frame = self.live.pop(command.frame)
        self._end_frame(frame)
        if command.poisoned:
            self._put_aside(frame)
        else:
            self.finisher.put(partial(self._write, frame))

    def notice_given(self, notice: Notify) -> None:
        self.tally.add_notice(notice, monotonic())

    def told(self, line: str) -> None:
        """Something that the user should know and that is about no server in particular."""
        self.tally.add_line(line)

    def turn_ended(self) -> list[Event]:
        now = monotonic()
        if self.wish.show and now >= self._next_snapshot:
            self._next_snapshot = now + SNAPSHOT_S
            self.show_now()
        unsaved, self._unsaved = self._unsaved, []
        for line in [*(frame.take_trouble() for frame in self.live.values()), *unsaved]:
            if line:
                self.told(line)
        if now >= self._autosave_at:
            self._autosave_at = now + self.wish.autosave_s
            self._autosave()
        return [*self._stop_if_unwritable(), *self.begin_frames()]

    # Frames

    def begin_frames(self) -> Iterator[FrameRequested]:
        """Orders as many frames as there is room for."""
        while self._begun < len(self.wish.numbers) and len(self.live) < MAX_LIVE_FRAMES:
            if self.finisher.backlog >= MAX_UNWRITTEN:
                return
            settings = replace(self.plan.settings, frame=self.wish.numbers[self._begun])
            frame = FrameInHand(self.plan, self._begun, settings)
            self._begun += 1
            self._keep_journal(frame)
            self.live[frame.index] = frame
            yield FrameRequested(frame.order())

    def check_journals(self) -> None:
        """BadInput when a frame, however late, cannot go on from its journal."""
        for number in self.wish.numbers if self.wish.resume else ():
            path = self.wish.outputs.journal(number)
            if path and path.exists():
                self.plan.check_journal(path, number)

    def _keep_journal(self, frame: FrameInHand) -> None:
        """The first frame's journal is part of the bargain; one that fails later does not end a render of hours."""
        path = self.wish.outputs.journal(frame.number)
        if path is None:
            return
        if self.wish.resume and not path.exists():
            self.told(f"there is no journal {path.name}: frame {frame.number} begins anew")
        try:
            for line in frame.keep_journal(path, self.wish.resume):
                self.told(line)
        except BadInput as error:
            if not frame.index:
                raise
            self.told(f"{error}; this frame has no journal")

    def end(self) -> None:
        """The render is over: pictures of frames that are not complete are written, too. Raises BadInput."""
        for frame in reversed(self.live.values()):  # the picture is that of the first one
            self._end_frame(frame)
            self._put_aside(frame)
        self.live.clear()
        self.finisher.finish()
        if self.finisher.failures:
            raise BadInput("; ".join(self.finisher.failures))

    def _end_frame(self, frame: FrameInHand) -> None:
        self.last = frame
        self.tally.end_frame(frame.number)

    def __enter__(self) -> FrameSequence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Whatever has happened, what there is comes to the disk; but who presses Ctrl-C twice does not wait for it."""
        if kind and not issubclass(kind, KeyboardInterrupt):
            with suppress(DrError):  # the first error is the one to tell
                self.end()

    def picture(self) -> Picture:
        """Of the frame that ended last."""
        assert self.last is not None
        return self.last.picture()

    def show_now(self) -> None:
        if self.wish.show:
            self.wish.show(self.tally.progress(self.broker.report(), monotonic()))

    def _write(self, frame: FrameInHand) -> None:
        """In the finisher's thread."""
        try:
            self.written += self.wish.outputs.write(frame.number, frame.picture(), self.wish.view)
        except BadInput as error:
            frame.close(safe=False)
            raise BadInput(f"{error}{frame.describe_rescue()}") from error
        frame.close(safe=True)

    def _put_aside(self, frame: FrameInHand) -> None:
        """The frame is not complete: what there is is kept."""
        self.finisher.put(partial(self._write_partial, frame))

    def _write_partial(self, frame: FrameInHand) -> None:
        """In the finisher's thread. The journal is safe, whatever becomes of the picture."""
        frame.close(safe=not frame.has_pixels)
        if frame.has_pixels:
            self.written += self.wish.outputs.write_partial(frame.number, frame.picture(), self.wish.view)

    def _autosave(self) -> None:
        """A copy of each picture so far, unless the last one is still being written."""
        for frame in self.live.values():
            if frame.has_pixels and not self.finisher.backlog:
                self.finisher.put(partial(self._save, frame.number, frame.freeze()))

    def _save(self, number: int, frozen: Framebuffer) -> None:
        """In the finisher's thread. What cannot be saved meanwhile may be written in the end."""
        try:
            self.wish.outputs.write_partial(number, frozen.picture(), self.wish.view)
        except BadInput as error:
            self._unsaved.append(f"--autosave: {error}")

    def _stop_if_unwritable(self) -> list[Event]:
        """Frames that cannot be written are not worth rendering."""
        if not self.finisher.failures or self._gave_up:
            return []
        self._gave_up = True
        return [CancelRequested(self.finisher.failures[0])]
