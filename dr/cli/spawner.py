"""`dr spawner`: shows the plan, starts it, stops it. Knows words and text; servers are started elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from dr.cli import COMPLETE, INCOMPLETE, say
from dr.cli import spawner_options as o
from dr.cli.options import Dial, Insecure, SettingsFile
from dr.cli.tables import make_console, print_lines
from dr.errors import BadInput, Refused

if TYPE_CHECKING:
    from workers.numa.plan import Plan
    from workers.spawner.registry import RunningSpawner

EXAMPLES = """\
Examples, on a host with 8 nodes:

dr spawner -numa

dr spawner -node=3,5,6 -ports=30000,40000

dr spawner -node=2,3,4,5,6 -numa=3 --plan

dr spawner stop -port=30000

dr spawner install -numa=4
"""

log = logging.getLogger("dr.spawner")


def spawner(
    context: typer.Context,
    numa: o.Numa = None,
    node: o.NodeList = None,
    port: o.PortList = None,
    engine: o.Engine = None,
    per_node: o.PerNode = None,
    bind: o.Bind = None,
    sysfs: o.Sysfs = None,
    plan: o.JustPlan = False,
    json: o.Json = False,
    dial: Dial = None,
    insecure: Insecure = False,
    settings: SettingsFile = None,
    verbose: o.Verbose = False,
) -> int:
    """Start this host's render servers and keep them running. Ctrl-C stops them all."""
    wanted = o.Wanted(
        numa=numa,
        node=node,
        port=port,
        engine=engine,
        per_node=per_node,
        bind=bind,
        settings=settings,
        sysfs=sysfs,
        verbose=verbose,
        insecure=insecure,
        dial=tuple(dial or ()),
    )
    if context.invoked_subcommand:
        return _check_nothing_before(context.invoked_subcommand, wanted != o.Wanted() or plan or json)
    if json and not plan:
        raise BadInput("--json: expected --plan with it, found it alone; write --plan --json")
    return show_plan(wanted, json) if plan else start(wanted)


def show_plan(wanted: o.Wanted, json: bool) -> int:
    """Prints which servers there would be, as a table or as one JSON object. Starts nothing and tries no port."""
    from workers.numa.plan import plan_facts

    found = o.plan_servers(wanted, wanted.load(), only_show=True)
    if json:
        print(msgspec.json.encode(plan_facts(found)).decode())
    else:
        _print_table(found)
        print(f"announcements: port {found.announce}")
    for notice in found.notices:
        say(notice, COMPLETE)
    return COMPLETE


def start(wanted: o.Wanted) -> int:
    """Runs the servers until a signal ends them; gives the exit status."""
    from dr.client.logs import rotating_log
    from workers.spawner.loop import SpawnerOptions, run_spawner

    loaded = wanted.load()
    values = loaded.values
    found = o.plan_servers(wanted, loaded)
    options = SpawnerOptions(
        plan=found,
        bind=values.bind,
        settings=values,
        reread=lambda: wanted.load().values,
        insecure=wanted.insecure,
        dial=wanted.dial,
    )
    with rotating_log(values.log_folder, f"spawner-{found.servers[0].port}", wanted.verbose) as path:
        for notice in found.notices:
            log.warning(notice)
        try:
            return run_spawner(options)
        except (BadInput, Refused):
            raise
        except Exception as error:
            log.exception("ended by an error")
            error.add_note(f"the whole story is in {path}" if path else "there is no log file")
            raise


def stop(
    port: Annotated[
        int | None,
        typer.Option(metavar="P", min=1, max=65535, show_default=False, help="The spawner that has this port."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", metavar="", help="All of this user's spawners on this host.")] = False,
) -> int:
    """Stop a running spawner and its servers; what they render is finished and sent first."""
    from workers.spawner import registry

    found = registry.running()
    chosen = [each for each in found if port is None or port in (*each.ports, each.announce)]
    if len(chosen) > 1 and not every:
        raise BadInput(f"{len(chosen)} spawners run: {_list(chosen)}; name one with -port=P, or all with --all")
    if chosen:
        gone = [_stop_one(each) for each in chosen]
        return COMPLETE if all(gone) else INCOMPLETE
    if port is not None:
        return say(
            f"-port={port}: no spawner of this user has this port; running: {_list(found) or 'none'}", INCOMPLETE
        )
    return _stop_services(every)


def _stop_one(spawner: RunningSpawner) -> bool:
    from workers.spawner import registry

    if registry.stop(spawner):
        print(f"stopped {describe(spawner)}")
        return True
    say(f"{describe(spawner)} has not gone within {registry.STOP_S:g} s; kill -9 {spawner.pid} ends it", INCOMPLETE)
    return False


def _stop_services(every: bool) -> int:
    """A service of another account, or one that waits to be started again, is systemd's to stop."""
    from workers.spawner.service import UNIT, service_state, systemctl

    systems = [system for system in (True, False) if service_state(system).is_alive]
    if len(systems) > 1 and not every:
        one = f"systemctl stop {UNIT} or systemctl --user stop {UNIT}"
        raise BadInput(f"2 services run: the system's and this user's; stop one with {one}, or both with --all")
    for system in systems:
        systemctl(system, "stop", UNIT)
        print(f"stopped the service {UNIT}")
    return COMPLETE if systems else say("no spawner of this user runs on this host", INCOMPLETE)


def describe(spawner: RunningSpawner) -> str:
    """`spawner 4711 with 3 servers on 30000,40000-40001, announcing on 20205`."""
    from workers.numa.ranges import format_ranges

    servers = "1 server" if len(spawner.ports) == 1 else f"{len(spawner.ports)} servers"
    ports = format_ranges(spawner.ports)
    return f"spawner {spawner.pid} with {servers} on {ports}, announcing on {spawner.announce}"


def _list(spawners: Sequence[RunningSpawner]) -> str:
    return "; ".join(map(describe, spawners))


def _check_nothing_before(command: str, is_given: bool) -> int:
    if is_given:
        raise BadInput(f"dr spawner {command}: expected its options after it, found some before; write them after it")
    return COMPLETE


def _print_table(plan: Plan) -> None:
    from rich.table import Table
    from rich.text import Text

    from workers.numa.ranges import format_ranges

    table = Table(box=None, pad_edge=False)
    for column in ("server", "nodes", "CPUs", "threads", "port", "engine"):
        is_number = column in ("server", "threads", "port")
        table.add_column(column, overflow="fold", justify="right" if is_number else "left")
    for i, server in enumerate(plan.servers):
        ranges = format_ranges(server.nodes), format_ranges(server.cpus)
        table.add_row(*map(Text, (str(i + 1), *ranges, str(len(server.cpus)), str(server.port), server.engine)))
    print_lines(make_console(), table)
