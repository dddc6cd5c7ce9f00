"""How often something has happened lately. Knows no clock: `now` (seconds) comes in and never goes back."""

from __future__ import annotations

from math import exp

LATELY_S = 5.0
NOTHING = 0.05  # of what happened once is left after 15 s: no longer lately


class Rate:
    """Each thing that happens counts 1 and fades by the factor e in LATELY_S seconds."""

    def __init__(self) -> None:
        self._count = 0.0
        self._at_s = 0.0  # when `_count` was right

    def add(self, now: float) -> None:
        self._count = self._faded(now) + 1.0
        self._at_s = now

    def per_s(self, now: float) -> float:
        """Things per second; exactly 0 when nothing has happened for long enough."""
        count = self._faded(now)
        return count / LATELY_S if count >= NOTHING else 0.0

    def _faded(self, now: float) -> float:
        return self._count * exp((self._at_s - now) / LATELY_S)
