"""Writes log lines where a person reads them, and never waits for that person. Knows descriptors, not what is logged.

Ctrl-S stops a terminal, and a pager may not read on: a program whose loop waits for them would stop, too. Lines that
find no room are lost and counted, and the next one that finds some says how many.
"""

from __future__ import annotations

import logging
import os
import select
from contextlib import suppress
from typing import TextIO

PIECE_BYTES = select.PIPE_BUF  # a pipe that polls as writable takes so many at once


class TerminalHandler(logging.Handler):
    """For a stream; one without a descriptor, as in a notebook, is simply written to."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self.fd, self.is_ours = _open(stream)
        self.lost = 0
        self._rest = b""  # of the last line that was taken

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if self.fd is None:
            print(line, file=self.stream, flush=True)
            return
        self._push()
        if self._rest:
            self.lost += 1
        else:
            self._put(line)

    def close(self) -> None:
        self._push()
        if self.lost and not self._rest:
            self._put("the log ends here")
        if self.fd is not None and self.is_ours:
            os.close(self.fd)
        self.fd = None
        super().close()

    def _put(self, line: str) -> None:
        gap = f"({self.lost} lines of this log are lost: nobody read them in time)\n" if self.lost else ""
        self.lost = 0
        self._rest = f"{gap}{line}\n".encode(errors="backslashreplace")
        self._push()

    def _push(self) -> None:
        """Writes what there is room for; what can never be written is forgotten."""
        while self.fd is not None and self._rest and _has_room(self.fd):
            try:
                written = os.write(self.fd, self._rest[:PIECE_BYTES])
            except BlockingIOError:
                return
            except OSError:
                written = len(self._rest)
            self._rest = self._rest[written:]


def _open(stream: TextIO) -> tuple[int | None, bool]:
    """A descriptor for the stream, and whether it is ours to close.

    A terminal with little room keeps a writer waiting although it polls as writable, and not to wait is a property that
    we would share with the user's shell: a terminal is opened anew.
    """
    try:
        fd = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None, False
    with suppress(OSError):
        return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK), True
    return fd, False


def _has_room(fd: int) -> bool:
    """Also when nobody will ever read it."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))
