"""How a server's process is called in `ps` and `top`. Knows names; knows nothing of what the process does."""

from __future__ import annotations

from pathlib import Path

from setproctitle import setproctitle, setthreadtitle

from workers.numa.ranges import format_ranges
from workers.server.words import ServeOptions

SHORT_CHARS = 15  # of `ps -o comm`, `top` and /proc/PID/comm


def show_title(options: ServeOptions) -> None:
    """`dr:20204 node 2,3` for `ps -ef`, `dr:20204 n2,3` for `ps -o comm`; a local server keeps its words in `ps -ef`.

    Threads that start later have the short name, too.
    """
    if options.endpoint is None:
        setproctitle(long_title(options))
    setthreadtitle(short_title(options))


def long_title(options: ServeOptions) -> str:
    nodes = format_ranges(options.nodes)
    return f"dr:{options.port} node {nodes}" if nodes else f"dr:{options.port}"


def short_title(options: ServeOptions) -> str:
    """Cut with a `+`, so that a list of nodes never looks complete when it is not."""
    if options.endpoint is not None:
        title = f"dr:{options.name or Path(options.endpoint).name}"
    else:
        title = long_title(options).replace(" node ", " n")
    return title if len(title) <= SHORT_CHARS else title[: SHORT_CHARS - 1] + "+"
