"""`dr spawner install`, `uninstall`, `status`: the spawner as a service. Knows words, accounts and folders."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from dr.cli import COMPLETE, INCOMPLETE, say
from dr.cli import spawner_options as o
from dr.cli.options import Dial, Insecure, SettingsFile
from dr.cli.service_order import Order, make_folders, make_order
from dr.cli.spawner import describe
from dr.errors import BadInput

EXAMPLES = """\
Examples:

dr spawner install -numa=4

sudo dr spawner install --account render -node=0-3

dr spawner install --user --print
"""
LINGER = Path("/var/lib/systemd/linger")  # a file for each user whose services start at boot


def _flag(help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, metavar="", show_default=False)


System: TypeAlias = Annotated[
    bool | None, _flag("For the machine, or for this user alone. Default: --system for root.", "--system/--user")
]


def install(
    numa: o.Numa = None,
    node: o.NodeList = None,
    port: o.PortList = None,
    engine: o.Engine = None,
    per_node: o.PerNode = None,
    bind: o.Bind = None,
    dial: Dial = None,
    insecure: Insecure = False,
    settings: SettingsFile = None,
    verbose: o.Verbose = False,
    system: System = None,
    account: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="Whom a system service runs as.")
    ] = None,
    only_print: Annotated[bool, _flag("Print what would be installed; change nothing.", "--print")] = False,
) -> int:
    """Keep a spawner with these options as a service that starts at boot."""
    wanted = o.Wanted(
        numa=numa,
        node=node,
        port=port,
        engine=engine,
        per_node=per_node,
        bind=bind,
        settings=settings,
        verbose=verbose,
        insecure=insecure,
        dial=tuple(dial or ()),
    )
    order = make_order(wanted, is_for_system(system), account)
    for line in _remarks(order):
        say(line, COMPLETE)
    if only_print:
        print(show_service(order), end="")
        return COMPLETE
    return _install(order)


def uninstall(system: System = None) -> int:
    """Stop the service and remove it."""
    from workers.spawner.service import uninstall_service, unit_path

    path = unit_path(is_for_system(system))
    if not path.exists():
        return say(f"no such service is installed: there is no {path}", INCOMPLETE)
    _check_root(is_for_system(system))
    uninstall_service(is_for_system(system))
    print(f"stopped and removed {path}")
    return COMPLETE


def service_status() -> int:
    """Show whether a service is installed and which spawners of this user run."""
    from workers.spawner.registry import running
    from workers.spawner.service import service_state

    states = {name: service_state(name == "system") for name in ("system", "user")}
    for name, state in states.items():
        said = ", ".join(filter(None, (state.active, state.enabled))) or "systemd does not answer"
        print(f"{name} service: {f'{said} ({state.path})' if state.installed else 'not installed'}")
    spawners = running()
    for spawner in spawners:
        print(f"running: {describe(spawner)}")
    if not spawners:
        print("running: no spawner of this user")
    return COMPLETE if spawners or any(state.is_alive for state in states.values()) else INCOMPLETE


def show_service(order: Order) -> str:
    """The text for whatever starts programs on this system."""
    from workers.spawner.service import launchd_text, unit_text, windows_text

    texts = {"darwin": launchd_text, "win32": windows_text}
    return texts.get(sys.platform, unit_text)(order.service)


def is_for_system(system: bool | None) -> bool:
    return _is_root() if system is None else system


def _remarks(order: Order) -> list[str]:
    """What may surprise whoever installs this."""
    lines = [*order.plan.notices]
    if order.variables:
        lines.append(f"the service keeps what this shell sets: {', '.join(order.variables)}")
    if order.service.system and order.account.uid == 0:
        lines.append("the servers will run as root; --account NAME chooses an account that may do less")
    return lines


def _install(order: Order) -> int:
    from workers.spawner.service import check_systemd, install_service, unit_path, wait_settled

    system = order.service.system
    _check_root(system)
    check_systemd(system)
    _check_ports(order)
    make_folders(order.service.writable, order.account)
    if notice := install_service(order.service):
        say(notice, COMPLETE)
    journal = f"journalctl {'' if system else '--user '}-u dr-spawner"
    state = wait_settled(system)
    if state.active != "active":
        print(f"installed {unit_path(system)}")
        found = state.active or "nothing"
        return say(f"the service does not run: expected active, found {found}; {journal} -n 20 shows why", INCOMPLETE)
    ports = ", ".join(str(server.port) for server in order.plan.servers)
    print(f"installed {unit_path(system)}; it runs as {order.account.name}, with servers on {ports}")
    print(f"how it does: dr spawner status, {journal}, {order.service.environment['DR_LOG_FOLDER']}")
    if not system and not (LINGER / order.account.name).exists():
        print(f"it starts when {order.account.name} logs in; `loginctl enable-linger` makes that at boot")
    return COMPLETE


def _check_ports(order: Order) -> None:
    """Raises BadInput for a port that somebody else has than the service as it runs now, which will give its back."""
    from workers.spawner.checks import check_ports, check_servers
    from workers.spawner.registry import running
    from workers.spawner.service import main_process

    servers = order.plan.servers
    door = check_servers(servers, order.security.bind(order.settings.values.bind), order.security)
    old = main_process(order.service.system)
    own = _ports_of(old)
    others = [each for each in running() if each.pid != old]
    check_ports([server for server in servers if server.port not in own], others, door)


def _ports_of(pid: int) -> set[int]:
    """Where a process, and whatever it started, listens; nothing where there is none."""
    import psutil

    found: set[int] = set()
    if not pid:
        return found
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            sockets = each.net_connections("tcp")
            found |= {one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN}
    return found


def _is_root() -> bool:
    return os.geteuid() == 0


def _check_root(system: bool) -> None:
    if system and not _is_root():
        raise BadInput("--system: expected root, found another user; say it with sudo, or say --user")
