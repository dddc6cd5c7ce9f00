"""Decides when a render has waited long enough for a server. Knows no server: whether it is served comes in."""

from __future__ import annotations

from math import inf


class Patience:
    """`wait_s` without any server that renders or prepares is too much; inf: it never is."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self.deadline = inf  # when it is too much

    def look(self, is_served: bool, now: float) -> None:
        """To be called whenever that may have changed."""
        self.deadline = inf if is_served else min(self.deadline, now + self.wait_s)
