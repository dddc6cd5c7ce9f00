"""Which render thread does what, and which does not come back from its kernel. Knows no client's message, no clock."""

from __future__ import annotations

from msgspec import Struct

from dr.protocol.messages import BucketWork
from workers.server.frame import Frame


class Running(Struct):
    """What a render thread is doing, and for which client."""

    frame: Frame
    bucket: BucketWork
    client: str
    begun_s: float
    stopped_s: float | None = None  # since when nobody waits for its tile any more

    @property
    def wanted(self) -> bool:
        return self.stopped_s is None


class Threads:
    """All `count` render threads. One that does not come back within `stuck_s` when asked to is stuck."""

    def __init__(self, count: int, stuck_s: float) -> None:
        self.count = count
        self.stuck_s = stuck_s
        self.idle: list[int] = []
        self.running: dict[int, Running] = {}
        self.stuck: set[int] = set()

    @property
    def usable(self) -> int:
        """How many a client may reckon with."""
        return self.count - len(self.stuck)

    @property
    def all_stuck(self) -> bool:
        return bool(self.stuck) and not self.usable

    @property
    def wanted(self) -> int:
        """How many buckets are being rendered that somebody waits for."""
        return sum(run.wanted for run in self.running.values())

    def free(self, thread: int) -> Running:
        """The thread is idle again; gives what it was doing."""
        self.idle.append(thread)
        self.stuck.discard(thread)
        return self.running.pop(thread)

    def find_stuck(self, now: float) -> list[int]:
        """Those that are stuck since the last call."""
        late = [thread for thread, due_s in self._stuck_at().items() if now >= due_s]
        self.stuck.update(late)
        return late

    def next_deadline(self) -> float | None:
        """When `find_stuck` may find one."""
        return min(self._stuck_at().values(), default=None)

    def _stuck_at(self) -> dict[int, float]:
        """When those that were asked to stop count as stuck."""
        waited = ((thread, run.stopped_s) for thread, run in self.running.items() if thread not in self.stuck)
        return {thread: stopped_s + self.stuck_s for thread, stopped_s in waited if stopped_s is not None}
