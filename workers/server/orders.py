"""How a server hears that it shall end or begin anew: signals, `stop`, its parent's death. Knows not what follows."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from workers.server.events import OrderEvent, RestartRequested, StopRequested

STOP = 0  # among the numbers of signals: no signal has it
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Orders:
    """Whoever waits for orders polls `sources` and then calls `hear`."""

    def __init__(self, restarts: bool) -> None:
        """`restarts`: SIGHUP asks for a fresh process; else it means what it always means."""
        self.numbers = (*STOP_SIGNALS, *((signal.SIGHUP,) if restarts else ()))
        self.reader, self.writer = socket.socketpair()
        self.reader.setblocking(False)
        self.writer.setblocking(False)
        self.parent_fd: int | None = None

    def watch_parent(self, fd: int) -> None:
        """The end of this stream is the parent's death."""
        self.parent_fd = fd

    def sources(self) -> list[int]:
        return [self.reader.fileno(), *([] if self.parent_fd is None else [self.parent_fd])]

    def stop(self) -> None:
        """May be called from any thread and from a signal handler."""
        with suppress(OSError):  # full: whoever waits is awake already; closed: it has ended
            self.writer.send(bytes([STOP]))

    def hear(self, ready: Container[int]) -> list[OrderEvent]:
        """What has been ordered, in order. A parent that is dead waits for no tile, and its successor for our port."""
        heard: list[OrderEvent] = []
        if self.reader.fileno() in ready:
            heard += [event for number in self.reader.recv(4096) if (event := _order(number))]
        if self.parent_fd in ready and self.parent_fd is not None and not os.read(self.parent_fd, 4096):
            self.parent_fd = None
            heard.append(StopRequested("the parent process is gone", at_once=True))
        return heard

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Signals are orders here, and mean nothing afterwards: the process is leaving, and with a status of its own.

        Other threads than the main one cannot ask for that and use `stop`.
        """

        def ignore(number: int, frame: FrameType | None) -> None:
            pass  # what counts is the byte

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for number in self.numbers:
            signal.signal(number, ignore)
        # Python writes the signal's number there at once: a poll ends, also when it begins just after the signal.
        signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            for number in self.numbers:
                signal.signal(number, signal.SIG_IGN)
            signal.set_wakeup_fd(-1)

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


def _order(number: int) -> OrderEvent | None:
    if number == STOP:
        return StopRequested("told to stop")
    if number in STOP_SIGNALS:
        return StopRequested(signal.Signals(number).name)
    return RestartRequested("SIGHUP") if number == signal.SIGHUP else None  # others are somebody else's
