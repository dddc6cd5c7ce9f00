"""What a server tells the parent that supervises it, on stdout and stderr. Never waits: a stopped parent is not ours.

A pipe that polls as writable takes PIPE_BUF bytes without blocking, so that is the most that is written at once.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from contextlib import suppress

from dr.protocol.messages import Announcement
from workers.server.words import report_line

LINE_BYTES = select.PIPE_BUF


class Reports:
    """The latest report that the parent has not got yet; older ones say nothing any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.waiting: Announcement | None = None

    def put(self, announcement: Announcement) -> None:
        self.waiting = announcement
        self.send()

    def send(self) -> None:
        """Tries again."""
        if self.waiting and has_room(self.fd):
            line, self.waiting = line_of(self.waiting), None
            with suppress(OSError):  # the parent is gone
                os.write(self.fd, line)


class LogHandler(logging.Handler):
    """Writes a line as `LEVEL text`, with its time before it if `timed`. What finds no room is lost, and counted."""

    def __init__(self, fd: int, timed: bool = False) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(("%(asctime)s " if timed else "") + "%(levelname)s %(message)s"))
        self.fd = fd
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not has_room(self.fd):
            self.lost += 1
            return
        if self.lost:
            lost, self.lost = self.lost, 0
            self._write(f"WARNING {lost} lines of this log are lost: nobody read them in time")
            self.emit(record)
            return
        self._write(self.format(record))

    def _write(self, text: str) -> None:
        with suppress(OSError):
            os.write(self.fd, text.encode(errors="replace")[: LINE_BYTES - 1] + b"\n")


def line_of(announcement: Announcement) -> bytes:
    """At most LINE_BYTES, because names are short (dr.protocol.messages.Name)."""
    return report_line(announcement).encode() + b"\n"


def has_room(fd: int) -> bool:
    """Whether LINE_BYTES can be written there now; also when nobody will ever read them."""
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def stdout_fd() -> int:
    """-1 where it is closed: whatever is written there goes nowhere."""
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return -1
