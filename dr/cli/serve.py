"""`dr serve`: one render server, started by hand. Knows its options; knows no client."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dr.cli.options import SettingsFile
from dr.settings import load_settings, settings_part

EXAMPLES = """\
Examples:

dr serve

dr serve -port=30000 --threads 8
"""


def serve(
    port: Annotated[
        int | None, typer.Option(metavar="P", min=1, max=65535, show_default=False, help="TCP port. Default: 20204.")
    ] = None,
    bind: Annotated[
        str | None, typer.Option(metavar="ADDRESS", show_default=False, help="Where to listen. Default: 127.0.0.1.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=4096, show_default=False, help="Render threads. Default: one per CPU."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="What clients call it. Default: HOST:PORT.")
    ] = None,
    settings: SettingsFile = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log every event of the connections.", metavar="")
    ] = False,
) -> int:
    """Start one render server; `dr render --server HOST:PORT` uses it. Ctrl-C stops it."""
    from workers.prepare.warmup import import_less
    from workers.server.__main__ import leave
    from workers.server.serving import log_to_stderr
    from workers.server.serving import serve as run
    from workers.server.words import ServeOptions
    from workers.server.work import Limits

    options = {"port": port, "bind": bind, "threads": threads}
    values = load_settings(settings, os.environ, options).values
    import_less()
    log_to_stderr(verbose)
    os.environ["DR_KERNEL_CACHE"] = str(values.kernel_cache)
    limits = settings_part(values, Limits)
    serving = ServeOptions(bind=values.bind, port=values.port, threads=values.threads or None, name=name, limits=limits)
    leave(run(serving))
    return 0
