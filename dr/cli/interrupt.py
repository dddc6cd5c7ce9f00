"""What Ctrl-C means while a render runs. Knows signals; knows nothing of what is cancelled."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def cancel_on_signals(quiet: bool = False) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM, SIGHUP) sets. The second one raises KeyboardInterrupt."""
    cancel = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()
        if not quiet:
            print("dr: cancelling; press Ctrl-C again to leave at once", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
