"""What must hold before a spawner starts anything: engine, CPUs, addresses, ports. Starts nothing, decides nothing."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from dr.errors import BadInput
from dr.protocol.address import TcpAddress
from dr.protocol.messages import EngineKind
from workers.numa.plan import Placement
from workers.numa.ranges import format_ranges
from workers.numa.topology import usable_cpus
from workers.server.gate import _allowed

ANY_PORT = 0


def check_servers(servers: Sequence[Placement], bind: str) -> None:
    """Raises BadInput or Refused, one line, when one of these servers could not be started here."""
    host = bindable_host(bind)
    for server in servers:
        if server.engine is EngineKind.RT:
            raise BadInput("-engine=rt: the interactive engine does not exist yet; leave -engine out")
        _check_cpus(server)
    for server in servers:
        check_port_free(host, server.port)


def bindable_host(bind: str) -> str:
    """The address as sockets take it, 127.0.0.1 or ::1. Raises Refused when listening there would need a key."""
    place = bind.strip().removeprefix("[").removesuffix("]")
    address, _ = _allowed(f"[{place}]:{ANY_PORT}" if ":" in place else f"{place}:{ANY_PORT}")
    if not isinstance(address, TcpAddress) or address.every:
        raise BadInput(f"--bind {bind}: expected an address such as 127.0.0.1")
    return "127.0.0.1" if address.host.lower().rstrip(".") == "localhost" else address.host


def endpoint(host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def check_port_free(host: str, port: int) -> None:
    """Raises BadInput when a server could not listen there: binds as libzmq does and gives the port back."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)  # two sockets may be bound to one port until one of them listens
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BadInput(f"-port={port}: the port is taken by another program; choose another") from error
        reason = os.strerror(error.errno or 0)
        raise BadInput(f"-port={port}: cannot listen on {host} there: {reason}; choose another") from error


def _check_cpus(server: Placement) -> None:
    usable = usable_cpus()
    if strange := [cpu for cpu in server.cpus if cpu not in usable]:
        found = f"expected CPUs among {format_ranges(sorted(usable))}, found {format_ranges(strange)}"
        raise BadInput(f"server {server.port}: {found}; a plan for another host can only be printed, with --plan")
