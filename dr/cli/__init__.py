"""The command line's door: words in, exit status out. Knows every error's status; knows no command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from dr.errors import BadInput, DrError, PeerLost, Refused

COMPLETE, INCOMPLETE, BAD_INPUT, REFUSED, BUG = 0, 1, 2, 3, 70
STATUSES: tuple[tuple[type[DrError], int], ...] = (
    (BadInput, BAD_INPUT),
    (Refused, REFUSED),
    (PeerLost, INCOMPLETE),
)


def main(words: Sequence[str] | None = None) -> int:
    """Runs `dr WORDS` and gives its exit status. Whatever goes wrong ends in one line on stderr that begins `dr: `."""
    words = sys.argv[1:] if words is None else words
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start a thread per CPU that nobody needs
    try:
        open_standard_streams()
        from dr.cli.app import run  # it takes a while: Ctrl-C may come here

        return run(words)
    except KeyboardInterrupt:
        return say("interrupted", INCOMPLETE)
    except BrokenPipeError:
        return INCOMPLETE
    except DrError as error:
        return _report(error, words)
    except Exception as error:
        return _report_bug(error, words)


def open_standard_streams() -> None:
    """Those that were closed (`2>&-`) lead nowhere; else a socket would get their number and our words."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            setattr(sys, name, open(null, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def say(text: str, status: int) -> int:
    """One line for the user, whatever `text` holds; gives the status back."""
    print(f"dr: {' '.join(text.split())}", file=sys.stderr)
    return status


def _report(error: DrError, words: Sequence[str]) -> int:
    for kind, status in STATUSES:
        if isinstance(error, kind):
            return say(str(error), status)
    return _report_bug(error, words)


def _report_bug(error: Exception, words: Sequence[str]) -> int:
    """70: our own bug. The story is in the log file that a note of the error names, and with -v on the terminal."""
    if is_loud(words):
        import traceback

        traceback.print_exception(error)
    notes = getattr(error, "__notes__", ["run it again with -v for the whole story"])
    return say(f"internal error, please report it: {type(error).__name__}: {error}; {notes[-1]}", BUG)


def is_loud(words: Sequence[str]) -> bool:
    return any(word == "--verbose" or (word[:1] == "-" and word[:2] != "--" and "v" in word) for word in words)
