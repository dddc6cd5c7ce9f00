"""Notices that key files have changed. Knows the files and the keys in them; knows no clock: `now` comes in (seconds).

The loop that serves calls `look` when `due_s` has come: no thread, and two stat calls when nothing changed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from dr.errors import BadInput, DrError
from dr.keys.folder import key_places, load_keys

LOOK_S = 1.0  # a change takes effect within twice that

_Mark: TypeAlias = tuple[int, ...] | None  # differs when a file was written, replaced, given away or deleted
_Marks: TypeAlias = tuple[_Mark, ...]

log = logging.getLogger("dr.keys")


class KeyWatch:
    """`ring` holds the keys as of the last look. Files that are broken, unsafe or gone leave it as it is."""

    def __init__(self, environ: Mapping[str, str], folder: Path, now: float) -> None:
        """Raises BadInput and Refused like `load_keys`."""
        self._source = dict(environ), folder
        places = key_places(*self._source)
        self._paths = places.client, places.farm
        self._marks = self._read_marks()
        self.ring = load_keys(*self._source)
        self.due_s = now + LOOK_S  # when to look again
        self._warning = ""

    def look(self, now: float) -> bool:
        """Whether `ring` is another one now. May be called at any time; looks at most once per LOOK_S."""
        if now < self.due_s:
            return False
        self.due_s = now + LOOK_S
        marks = self._read_marks()  # before the files: what is written meanwhile is seen next time
        if marks == self._marks:
            return False
        return self._load(marks)

    def _load(self, marks: _Marks) -> bool:
        """A file that did not load is tried again at each look, and complained about once."""
        try:
            self._check_there(marks)
            ring = load_keys(*self._source)
        except DrError as error:
            if str(error) != self._warning:
                log.warning("the keys stay as they were: %s", error)
            self._warning = str(error)
            return False
        changed = ring != self.ring
        if changed or self._warning:
            log.info("keys loaded, clients that are admitted: %d", len(ring.clients))
        self.ring, self._marks, self._warning = ring, marks, ""
        return changed

    def _check_there(self, marks: _Marks) -> None:
        """A file that is moved away for a moment, or by mistake, must not end a farm."""
        for path, before, now in zip(self._paths, self._marks, marks, strict=True):
            if before and not now:
                raise BadInput(f"{path}: expected the key file that was here, found none")

    def _read_marks(self) -> _Marks:
        return tuple(map(_read_mark, self._paths))


def _read_mark(path: Path) -> _Mark:
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return None
    return facts.st_ino, facts.st_dev, facts.st_size, facts.st_mode, facts.st_uid, facts.st_mtime_ns, facts.st_ctime_ns
