"""Decides when which name is looked up, and what the user is told about those without an address. Asks nobody itself.

Knows no clock: time comes in as `now` (seconds). A name that fails is asked again after 2, 4, 8 ... 30 s, one that has
addresses every 30 s, and where all its addresses are wanted every 5 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from msgspec import Struct

from dr.client.addresses import complain
from dr.client.resolver import LOOK_UP_S, no_answer

RETRY_FIRST_S = 2.0
RETRY_LAST_S = 30.0
RENEW_S = 30.0
RENEW_EVERY_S = 5.0  # of dns+any names
SILENT_S = 0.5  # without an answer: then stored addresses are as good as it gets
GATHER_S = 1.0  # complaints wait so long for others with the same reason
_WAITS = (SILENT_S, LOOK_UP_S)


class _Name(Struct):
    every: bool  # all its addresses are wanted
    due_s: float  # when to ask
    asked_s: float | None = None  # since when an answer is awaited
    pause_s: float = RETRY_FIRST_S  # after the next failure
    waits: int = 0  # of _WAITS, over without an answer
    resolved: bool = False  # ever
    failed: bool = False  # the last time
    told: str = ""  # the user knows this reason


class Lookups:
    """All names that are wanted. An answer to a name that is wanted no more is ignored."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._complaints: dict[str, str] = {}  # not told yet
        self._gather_until_s = inf

    def want(self, names: Mapping[str, bool], now: float) -> None:
        """These are the names now; True for those of which all addresses are wanted. New ones are due at once."""
        known = self._names
        self._names = {name: known.get(name) or _Name(every, now) for name, every in names.items()}
        for name, every in names.items():
            self._names[name].every = every
        self._complaints = {name: reason for name, reason in self._complaints.items() if name in names}

    def take_due(self, now: float) -> list[str]:
        """The names to ask now."""
        due = [name for name, each in self._names.items() if each.asked_s is None and each.due_s <= now]
        for name in due:
            self._names[name].asked_s = now
        return due

    def take_silent(self, now: float) -> list[str]:
        """Names that have no answer for so long that one should do without; each once."""
        silent = []
        for name, each in self._names.items():
            if now >= _silent_at(each):
                each.waits += 1
                silent += [name] if each.waits == 1 else []
                if each.waits == len(_WAITS):
                    self.complain(name, no_answer(LOOK_UP_S).trouble, now)
        return silent

    def answered(self, name: str, resolved: bool, now: float) -> None:
        """It has an address, or it has none."""
        if (each := self._names.get(name)) is None:
            return
        each.asked_s = None
        each.failed = not resolved
        each.resolved |= resolved
        if resolved:
            each.due_s = now + (RENEW_EVERY_S if each.every else RENEW_S)
            each.pause_s, each.told = RETRY_FIRST_S, ""
            self._complaints.pop(name, None)
        else:
            each.due_s = now + each.pause_s
            each.pause_s = min(2 * each.pause_s, RETRY_LAST_S)

    def lacks(self, name: str) -> bool:
        """Whether the name fails, or is silent for too long."""
        each = self._names.get(name)
        return each is not None and (each.failed or each.waits > 0) and not each.resolved

    def complain(self, name: str, reason: str, now: float) -> None:
        """The user shall know, once, unless the name had an address before."""
        each = self._names.get(name)
        if each is None or each.resolved or each.told == reason:
            return
        each.told = reason
        if not self._complaints:
            self._gather_until_s = now + GATHER_S
        self._complaints[name] = reason

    def take_complaints(self, now: float) -> list[str]:
        """A line for each reason that is not told yet, once nobody else is expected to share it."""
        if self._complaints and (now >= self._gather_until_s or not self.awaits_first):
            return self.take_all_complaints()
        return []

    def take_all_complaints(self) -> list[str]:
        """The same at once."""
        complaints, self._complaints = self._complaints, {}
        return complain(complaints)

    @property
    def awaits_first(self) -> bool:
        """Whether a name is still without its first answer."""
        return any(not each.resolved and not each.told for each in self._names.values())

    def give_up(self, waited_s: float, now: float) -> list[str]:
        """Why not one name has an address, by reason, also where that is only silence."""
        for name, each in self._names.items():
            if not each.told:
                self.complain(name, no_answer(waited_s).trouble, now)
        return self.take_all_complaints()

    def next_look(self) -> float:
        """When a name is to be asked, or its silence means something."""
        return min(map(_next, self._names.values()), default=inf)

    def next_deadline(self) -> float:
        """The same, or when complaints are due."""
        return min(self.next_look(), self._gather_until_s if self._complaints else inf)


def _next(name: _Name) -> float:
    return name.due_s if name.asked_s is None else _silent_at(name)


def _silent_at(name: _Name) -> float:
    """When its silence means something; inf if it is known already, or the name has addresses anyway."""
    if name.asked_s is None or name.resolved or name.waits >= len(_WAITS):
        return inf
    return name.asked_s + _WAITS[name.waits]
