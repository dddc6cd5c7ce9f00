"""`python -m workers.server`: how a parent starts a render server. Knows exit statuses; knows no work."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dr.errors import BadInput, Impossible, Refused
from dr.settings import load_settings, settings_part
from workers.prepare.warmup import import_less
from workers.server.serving import log_to_stderr, serve
from workers.server.words import ServeOptions, read_options
from workers.server.work import Limits

NO_FILE = Path(os.devnull)  # the parent has read the settings file and passes each value in the environment


def main(words: list[str], run: Callable[[ServeOptions], int] = serve) -> int:
    try:
        limits = settings_part(load_settings(NO_FILE, os.environ).values, Limits)
        options, verbose = read_options(words, limits)
        log_to_stderr(options, verbose)
        return run(options)
    except BadInput as error:
        print(f"dr: {error}", file=sys.stderr)
        return 2
    except Refused as error:
        print(f"dr: {error}", file=sys.stderr)
        return 3
    except Impossible as error:
        print(f"dr: our own bug: {error}", file=sys.stderr)
        return 70


def leave(status: int) -> None:
    """Ends the process at once: a render thread inside a kernel cannot hold it up."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError, ValueError):  # nobody reads, or it was closed before we began
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    import_less()
    leave(main(sys.argv[1:]))
