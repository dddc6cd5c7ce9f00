"""Who holds a server, who waits for it, and how its process ends, as plain values. Decides nothing."""

from __future__ import annotations

from math import inf

from msgspec import Struct


class Holder(Struct):
    peer: bytes
    name: str
    lease: bytes
    heard_s: float
    beat_s: float  # when the next beat is due
    key: str = ""  # public, of its connection


class Waiter(Struct):
    name: str
    heard_s: float
    key: str = ""


class Ending(Struct, frozen=True):
    """This process leaves with `status` when its last words have arrived, at `deadline_s` at the latest."""

    status: int
    deadline_s: float
    begun_s: float = -inf  # when the holder was told
    dismissed_s: float = -inf  # when those were told who waited
