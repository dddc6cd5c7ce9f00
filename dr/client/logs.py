"""Where a process writes what it did, one line per action. Knows files and formats; knows nothing of what is logged."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from dr.client.terminal import TerminalHandler

KEPT = 50  # log files of one kind; older ones are deleted
ROTATED_BYTES = 5_000_000  # a log that goes on for months begins a new file then,
ROTATED_KEPT = 4  # and keeps so many old ones

_FILE = logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
_TERMINAL = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
_JOURNAL = logging.Formatter("%(levelname)-7s %(message)s")  # it has a clock of its own


@contextmanager
def log_file(folder: Path, kind: str, loud: bool = False) -> Iterator[Path | None]:
    """Sends the `dr` loggers to a new file `KIND-DATE-PID.log`, and with `loud` to stderr, too.

    A folder that cannot be written is no reason not to render: the log is left out, and the path is None.
    """
    path, handlers = _open(folder, kind)
    terminal = [_stderr(_FILE)] if loud else []
    with _attached([*handlers, *terminal]):
        yield path


@contextmanager
def rotating_log(folder: Path, name: str, loud: bool = False) -> Iterator[Path | None]:
    """Sends the `dr` loggers to stderr and to `NAME.log`, whose older parts are `NAME.log.1` to `.4`.

    A folder that cannot be written is said in one line and is no reason not to go on: the path is None.
    """
    path = folder / f"{name}.log"
    refusal = _why_not_writable(path)
    kept = [] if refusal else [_Rotating(path)]
    terminal = _stderr(_JOURNAL if is_journal(2) else _TERMINAL)
    with _attached([*kept, terminal], logging.DEBUG if loud else logging.INFO):
        if refusal:
            logging.getLogger("dr.log").warning("no log file: cannot write %s: %s", path, refusal)
        yield None if refusal else path


def is_journal(fd: int) -> bool:
    """Whether what is written there goes to systemd's journal. A shell may inherit the variable, but not the stream."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


@contextmanager
def _attached(handlers: Sequence[logging.Handler], level: int = logging.INFO) -> Iterator[None]:
    root = logging.getLogger("dr")
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    root.propagate = False
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


class _Rotating(RotatingFileHandler):
    """A full disk is told once, not with each line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=ROTATED_BYTES, backupCount=ROTATED_KEPT, encoding="utf-8", delay=True)
        self.setFormatter(_FILE)
        self.failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        if not self.failed:
            self.failed = True
            print(f"dr: cannot write {self.baseFilename}: {sys.exc_info()[1]}; lines are missing", file=sys.stderr)

    def close(self) -> None:
        with suppress(OSError):  # told before
            super().close()


def _stderr(style: logging.Formatter) -> logging.Handler:
    terminal = TerminalHandler(sys.stderr)
    terminal.addFilter(lambda record: record.exc_info is None)  # the command line tells errors in its own words
    terminal.setFormatter(style)
    return terminal


def _why_not_writable(path: Path) -> str:
    """One line, or nothing where it can be written. Makes the folder but no file: there may be nothing to tell."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    found = path if path.exists() else path.parent
    return "" if os.access(found, os.W_OK) else "not writable by this user"


def _open(folder: Path, kind: str) -> tuple[Path | None, list[logging.Handler]]:
    path = folder / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", delay=False)
    except OSError:
        return None, [logging.NullHandler()]
    handler.setFormatter(_FILE)
    _prune(folder, kind)
    return path, [handler]


def _prune(folder: Path, kind: str) -> None:
    for old in sorted(folder.glob(f"{kind}-*.log"))[:-KEPT]:
        with suppress(OSError):
            old.unlink()
