"""Writes log lines where a person reads them, and never waits for that person. Knows descriptors, not what is logged.

Ctrl-S stops a terminal, and a pager may not read on: a program whose loop waits for them would stop, too. Lines that
find no room are lost and counted, and the next one that finds some says how many.
"""

from __future__ import annotations

import logging
import os
import select
from contextlib import suppress
from typing import Any, TextIO

PIECE_BYTES = select.PIPE_BUF  # a pipe that polls as writable takes so many at once


class TerminalHandler(logging.Handler):
    """Lines for a stream; one without a descriptor (in a notebook, under test) is simply written to."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self.lost = 0
        self._rest = b""  # of a line that was written in part
        self._fd, self._is_ours = _open(stream)

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + "\n"
        if self._fd is None:
            self.stream.write(line)
            self.stream.flush()
            return
        if self._say_lost():
            self._write(line)
        else:
            self.lost += 1

    def close(self) -> None:
        if self._fd is not None:
            self._say_lost()
            if self._is_ours:
                os.close(self._fd)
            self._fd = -1
        super().close()

    def _say_lost(self) -> bool:
        """Whether all that was to be said before the next line has been written."""
        self._push()
        if self.lost and not self._rest:
            lost, self.lost = self.lost, 0
            if not self._write(f"... {lost} lines of this log are lost here: nobody read them in time\n"):
                self.lost = lost
        return not (self.lost or self._rest)

    def _write(self, line: str) -> bool:
        """Whether it was begun: what is left of it comes first next time."""
        data = line.encode(errors="backslashreplace")
        self._rest = data
        self._push()
        if self._rest is not data:
            return True
        self._rest = b""
        return False
