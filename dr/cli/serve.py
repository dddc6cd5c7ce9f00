"""`dr serve`: one render server, started by hand. Knows its options; knows no client."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from dr.cli.options import Dial, Insecure, SettingsFile
from dr.errors import BadInput, Refused
from dr.protocol.messages import EngineKind
from dr.settings import load_settings, settings_part

if TYPE_CHECKING:
    from workers.numa.plan import Placement

EXAMPLES = """\
Examples:

dr serve

dr serve -port=30000 --threads 8

dr serve -node=2,3

dr serve --dial render-client:20300
"""

log = logging.getLogger("dr.server")


def serve(
    port: Annotated[
        int | None, typer.Option(metavar="P", min=1, max=65535, show_default=False, help="TCP port. Default: 20204.")
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            show_default=False,
            help="Where to listen. Default: all interfaces with a farm key, else 127.0.0.1.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=4096, show_default=False, help="Render threads. Default: one per CPU."),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(metavar="A,B", show_default=False, help="NUMA nodes to run on: their CPUs and memory."),
    ] = None,
    engine: Annotated[
        EngineKind, typer.Option(show_default=False, help="Default: production; rt is for interactive work.")
    ] = EngineKind.PRODUCTION,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="What clients call it. Default: HOST:PORT.")
    ] = None,
    dial: Dial = None,
    insecure: Insecure = False,
    settings: SettingsFile = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log every event of the connections.", metavar="")
    ] = False,
) -> int:
    """Start one render server; `dr render --server HOST:PORT` uses it. Ctrl-C stops it."""
    from dr.client.logs import rotating_log
    from workers.prepare.warmup import import_less
    from workers.server.__main__ import leave
    from workers.server.serving import serve as run
    from workers.server.title import show_title
    from workers.server.words import ServeOptions
    from workers.server.work import Limits

    options = {"port": port, "bind": bind, "threads": threads}
    values = load_settings(settings, os.environ, options).values
    serving = ServeOptions(
        bind=values.bind,
        port=values.port,
        engine=engine,
        threads=values.threads or None,
        name=name,
        dial=tuple(dial or ()),
        insecure=insecure,
        limits=settings_part(values, Limits),
    )
    if node is not None:
        server = _place(node)
        serving = replace(serving, nodes=server.nodes, cpus=server.cpus, memory_nodes=server.memory_nodes)
    import_less()
    os.environ["DR_KERNEL_CACHE"] = str(values.kernel_cache)
    show_title(serving)
    with rotating_log(values.log_folder, f"server-{serving.port}", verbose) as path:
        try:
            status = run(serving)
        except (BadInput, Refused):
            raise
        except Exception as error:
            log.exception("ended by an error")
            error.add_note(f"the whole story is in {path}" if path else "there is no log file")
            raise
    leave(status)
    return status


def _place(node: str) -> Placement:
    """What `-node` says about CPUs and memory. Raises BadInput naming the nodes that there are."""
    from workers.numa.plan import PlanOptions, make_plan
    from workers.numa.ranges import parse_ranges
    from workers.numa.topology import read_topology

    (server,) = make_plan(read_topology(), PlanOptions(numa=1, nodes=parse_ranges(node, "-node"))).servers
    return server
