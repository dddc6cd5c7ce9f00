"""Wakes whoever wants to be woken at a time: one alarm per name, however often it is set. Knows no clock."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf


class Alarms:
    """Costs the logarithm of their number for each alarm that rings, and nothing for those that do not."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []  # an entry counts while `_times` says the same

    def set(self, name: str, time: float) -> None:
        """Rings at `time` (seconds) or earlier: an alarm that is set for an earlier time stays."""
        if time < self.time_of(name):
            self._times[name] = time
            heappush(self._heap, (time, name))

    def time_of(self, name: str) -> float:
        """inf: no alarm is set."""
        return self._times.get(name, inf)

    def next(self) -> float:
        """When the first one rings; inf: never."""
        while self._heap and self.time_of(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else inf

    def take(self, until: float) -> list[str]:
        """The names whose alarm rings by then, in the order of ringing; their alarms are gone."""
        taken = []
        while self.next() <= until and self._heap:
            _, name = heappop(self._heap)
            del self._times[name]
            taken.append(name)
        return taken

    def drop(self, name: str) -> None:
        self._times.pop(name, None)
