"""Which frames are being rendered, and the sums over all of them. Knows no server's state, no clock and no wire."""

from __future__ import annotations

from msgspec import Struct, field

from dr.broker.commands import FrameFinished, Poisoned
from dr.broker.job import Frame, Job, State
from dr.errors import Impossible

MAX_LIVE_FRAMES = 2  # what a server holds at a time


class LiveFrame(Struct, eq=False):
    """A frame that is not finished."""

    frame: Frame
    epoch: int
    job: Job
    ready: set[bytes] = field(default_factory=set)  # boots of the servers that may be handed its buckets
    waiting: set[bytes] = field(default_factory=set)  # of them, those that get nothing until they can take a suspect


class Sums(Struct):
    """What is known of all frames that were requested. Samples are pixels times samples."""

    buckets: int = 0
    done: int = 0
    poisoned: int = 0
    samples: int = 0
    samples_done: int = 0
    rendered: int = 0  # samples that were rendered in this run

    def add(self, live: LiveFrame) -> None:
        job, before = live.job, live.frame.samples_done
        self.buckets += job.buckets
        self.done += job.counts[State.DONE]
        self.poisoned += job.counts[State.POISONED]
        self.samples += job.samples + before
        self.samples_done += job.samples_done + before
        self.rendered += job.samples_done


class Frames:
    """All frames of a render, in their order: at most MAX_LIVE_FRAMES are live, those before are finished."""

    def __init__(self, total: int) -> None:
        if total < 1:
            raise Impossible(f"expected a render of at least one frame, found {total}")
        self.total = total
        self.live: list[LiveFrame] = []
        self.finished = 0
        self.poisoned: list[Poisoned] = []  # of finished frames
        self._epochs: dict[int, LiveFrame] = {}
        self._sums = Sums()  # of finished frames
        self._last_index = -1

    @property
    def requested(self) -> int:
        return self.finished + len(self.live)

    @property
    def is_over(self) -> bool:
        return self.finished == self.total

    def begin(self, frame: Frame, epoch: int) -> None:
        if self.requested == self.total or len(self.live) == MAX_LIVE_FRAMES or frame.index <= self._last_index:
            state = f"{self.finished} of {self.total} are finished, {len(self.live)} live, index {self._last_index}"
            raise Impossible(f"frame {frame.index} was requested when {state} was the last")
        live = LiveFrame(frame, epoch, Job(frame.buckets))
        self.live.append(live)
        self._epochs[epoch] = live
        self._last_index = frame.index

    def find(self, epoch: int) -> LiveFrame | None:
        """The live frame with this epoch."""
        return self._epochs.get(epoch)

    def end_first(self) -> FrameFinished | None:
        """The oldest live frame, if every bucket of it is done or poisoned: it is live no more."""
        if not self.live or not self.live[0].job.is_over:
            return None
        live = self.live.pop(0)
        del self._epochs[live.epoch]
        self.finished += 1
        self._sums.add(live)
        poisoned = _poisoned(live)
        self.poisoned += poisoned
        return FrameFinished(live.frame.index, tuple(poisoned))

    def all_poisoned(self) -> tuple[Poisoned, ...]:
        """The buckets that were given up, of all frames."""
        return (*self.poisoned, *(each for live in self.live for each in _poisoned(live)))

    def sums(self) -> Sums:
        sums = Sums(*(getattr(self._sums, name) for name in Sums.__struct_fields__))
        for live in self.live:
            sums.add(live)
        return sums


def _poisoned(live: LiveFrame) -> list[Poisoned]:
    if not live.job.counts[State.POISONED]:
        return []
    return [Poisoned(entry.work, entry.error) for entry in live.job.poisoned()]
