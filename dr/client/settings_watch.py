"""Notices that the settings file has another list of servers. Knows that file; knows no clock: `now` comes in (s).

The loop calls `look` when `due_s` has come: no thread, and one stat call when nothing changed. A file that is being
written is read when it rests, or after FLUX_S; one that is broken or gone leaves the list as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from dr.errors import DrError
from dr.settings import ServerAddress

LOOK_S = 0.25
FLUX_S = 0.6  # a file that changes all the time is read all the same

_Mark: TypeAlias = tuple[int, ...] | None  # differs when the file was written, replaced or deleted
_UNREAD: _Mark = ()


class SettingsWatch:
    """`load` reads the list out of the file, with whatever checks there are, and raises DrError where it cannot."""

    def __init__(self, path: Path, load: Callable[[], Sequence[ServerAddress]], now: float) -> None:
        """The first look reads the file: it may have changed since the list in use was read."""
        self.path = path
        self.due_s = now + LOOK_S  # when to look again
        self._load = load
        self._read: _Mark = _UNREAD  # what was read last
        self._seen = _read_mark(path)
        self._since_s = now  # when it began to differ from what was read
        self._told = ""
        self._complaint = ""

    def look(self, now: float) -> Sequence[ServerAddress] | None:
        """The list, where there is something new to read. May be called at any time; looks once per LOOK_S."""
        if now < self.due_s:
            return None
        self.due_s = now + LOOK_S
        mark, before = _read_mark(self.path), self._seen
        self._seen = mark
        if mark == self._read:
            self._since_s = now
            return None
        rests = mark == before
        if not rests and now < self._since_s + FLUX_S:
            return None
        self._since_s = now
        return self._try_load(mark, rests)

    def take_complaint(self) -> str:
        """One line about a file that is broken or gone, the first time; empty when there is nothing to say."""
        complaint, self._complaint = self._complaint, ""
        return complaint

    def _try_load(self, mark: _Mark, rests: bool) -> Sequence[ServerAddress] | None:
        """What is broken while it is being written is no news."""
        if mark is None:
            self._complain(f"{self.path} is gone" if self._read else "")
            self._read = mark
            return None
        try:
            servers = self._load()
        except DrError as error:
            self._complain(str(error) if rests else "")
            self._read = mark if rests else self._read
            return None
        self._read, self._told = mark, ""
        return servers

    def _complain(self, reason: str) -> None:
        if reason and reason != self._told:
            self._told = reason
            self._complaint = f"{reason}; this render keeps the servers that it has"


def _read_mark(path: Path) -> _Mark:
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return None
    return facts.st_ino, facts.st_dev, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
