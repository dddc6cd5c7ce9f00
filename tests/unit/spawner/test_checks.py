"""What must hold before servers start: ports that are free where the servers will listen."""

from __future__ import annotations

import socket

import pytest

from dr.errors import BadInput, Refused
from dr.keys.ring import KeyRing
from dr.keys.security import Guard, Security
from tests.support.keys import pair_of
from tests.support.spawner import free_ports
from workers.numa.plan import Placement
from workers.numa.topology import usable_cpus
from workers.spawner.checks import check_port_free, check_ports, check_servers
from workers.spawner.registry import RunningSpawner

FARM = pair_of("farm")
KEYS = Security(ring=KeyRing(farm_public=FARM.public, farm_secret=FARM.secret))


def server(port: int) -> Placement:
    return Placement(nodes=(0,), cpus=(min(usable_cpus()),), memory_nodes=(), port=port)


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("wanted", ["*", "same"])
def test_a_port_that_one_interface_has_is_taken_for_all(taken: str, wanted: str) -> None:
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.create_server((taken, 0), family=family) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(BadInput, match=f"-port={port}: the port is taken by another program; choose another"):
            check_port_free(taken if wanted == "same" else wanted, port)


def test_an_address_that_this_machine_has_not_is_named() -> None:
    with pytest.raises(BadInput, match=r"-port=20204: cannot listen on 192\.0\.2\.1 there: "):
        check_port_free("192.0.2.1", 20204)


def test_servers_that_may_start_are_told_where_they_will_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    door = check_servers([server(port)], "", Security())
    assert (door.address.host, door.guard) == ("127.0.0.1", Guard.OPEN)
    assert check_servers([server(port)], "127.0.0.1", KEYS).guard is Guard.CURVE
    assert check_servers([], "", KEYS).address.host == "*"


def test_other_machines_are_refused_before_any_port_is_tried() -> None:
    with pytest.raises(Refused, match=r"--bind 192\.0\.2\.1: a server that other machines reach needs a farm key"):
        check_servers([server(1)], "192.0.2.1", Security())


@pytest.mark.parametrize(
    ("bind", "other", "refused"),
    [("127.0.0.1", "127.0.0.1", True), ("*", "127.0.0.1", True), ("127.0.0.2", "*", True), ("::1", "127.0.0.1", False)],
)
def test_a_port_of_another_spawner_is_refused_where_both_would_listen(bind: str, other: str, refused: bool) -> None:
    mine, theirs = free_ports(2)
    others = [RunningSpawner(pid=7, ports=(theirs,), announce=20205, bind=other)]
    door = check_servers([], bind, Security(insecure=True))
    check_ports([server(mine)], others, door)
    if refused:
        with pytest.raises(BadInput, match=f"-port={theirs}: the spawner with process 7 has this port; choose another"):
            check_ports([server(theirs)], others, door)
    else:
        check_ports([server(theirs)], others, door)
