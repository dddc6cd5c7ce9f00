"""What must hold before a spawner starts anything: engine, CPUs, addresses, ports. Starts nothing, decides nothing."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Sequence

from dr.errors import BadInput
from dr.keys.security import Security
from dr.protocol.address import EVERY_INTERFACE
from dr.protocol.messages import EngineKind
from workers.numa.plan import Placement
from workers.numa.ranges import format_ranges
from workers.numa.topology import usable_cpus
from workers.server.door import Door, door_to
from workers.spawner.registry import RunningSpawner


def check_servers(servers: Sequence[Placement], bind: str, security: Security) -> Door:
    """Where they will listen. Raises BadInput or Refused, one line, when one of them could not be started here."""
    door = door_to(bind, security)
    for server in servers:
        if server.engine is EngineKind.RT:
            raise BadInput("-engine=rt: the interactive engine does not exist yet; leave -engine out")
        _check_cpus(server)
    return door


def check_ports(servers: Sequence[Placement], others: Iterable[RunningSpawner], door: Door) -> None:
    """Raises BadInput for a port that is taken, or another spawner's whose server is just being restarted."""
    bind = door.address.host
    owners = {port: other for other in others if _overlap(other.bind, bind) for port in other.ports}
    for server in servers:
        if owner := owners.get(server.port):
            has = f"the spawner with process {owner.pid} has this port"
            raise BadInput(f"-port={server.port}: {has}; choose another, or end it with dr spawner stop")
    for server in servers:
        check_port_free(bind, server.port)


def _overlap(one: str, other: str) -> bool:
    return one == other or EVERY_INTERFACE in (one, other)


def check_port_free(host: str, port: int) -> None:
    """Raises BadInput when a server could not listen there: binds as libzmq does and gives the port back."""
    try:
        with _probe(host) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.replace(EVERY_INTERFACE, ""), port))
            probe.listen(1)  # two sockets may be bound to one port until one of them listens
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BadInput(f"-port={port}: the port is taken by another program; choose another") from error
        reason = os.strerror(error.errno or 0)
        raise BadInput(f"-port={port}: cannot listen on {host} there: {reason}; choose another") from error


def _probe(host: str) -> socket.socket:
    """All interfaces are those of IPv6 and of IPv4 together, where this machine has both."""
    if host == EVERY_INTERFACE and socket.has_dualstack_ipv6():
        probe = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return probe
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def _check_cpus(server: Placement) -> None:
    usable = usable_cpus()
    if strange := [cpu for cpu in server.cpus if cpu not in usable]:
        found = f"expected CPUs among {format_ranges(sorted(usable))}, found {format_ranges(strange)}"
        raise BadInput(f"server {server.port}: {found}; a plan for another host can only be printed, with --plan")
