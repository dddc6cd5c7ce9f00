"""Where a process writes what it did, one line per action. Knows files and formats; knows nothing of what is logged."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

KEPT = 50  # log files of one kind; older ones are deleted

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"


@contextmanager
def log_file(folder: Path, kind: str, loud: bool = False) -> Iterator[Path | None]:
    """Sends the `dr` loggers to a new file `KIND-DATE-PID.log`, and with `loud` to stderr, too.

    A folder that cannot be written is no reason not to render: the log is left out, and the path is None.
    """
    root = logging.getLogger("dr")
    path, handlers = _open(folder, kind)
    if loud:
        terminal = logging.StreamHandler(sys.stderr)
        terminal.addFilter(lambda record: record.exc_info is None)  # the command line tells errors in its own words
        handlers.append(terminal)
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT, "%Y-%m-%d %H:%M:%S"))
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = False
    try:
        yield path
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def _open(folder: Path, kind: str) -> tuple[Path | None, list[logging.Handler]]:
    path = folder / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", delay=False)
    except OSError:
        return None, [logging.NullHandler()]
    _prune(folder, kind)
    return path, [handler]


def _prune(folder: Path, kind: str) -> None:
    for old in sorted(folder.glob(f"{kind}-*.log"))[:-KEPT]:
        with suppress(OSError):
            old.unlink()
