"""Decides where a server or a spawner may listen, and gives its socket keys. Knows places and keys; binds nothing."""

from __future__ import annotations

import logging
from typing import Any

import zmq
from msgspec import Struct

from dr.keys.ring import KeyRing
from dr.keys.security import Guard, Security
from dr.keys.sockets import secure_server
from dr.protocol.address import IpcAddress, ListenAddress, parse_bind, parse_listen

ANY_PORT = 0
GUARD_LINES = {
    Guard.CURVE: (logging.INFO, "clients need a key that the farm key here admits; `dr keys list` shows them"),
    Guard.OPEN: (logging.INFO, "open: any user of this machine can connect; `dr keys init` closes it"),
    Guard.INSECURE: (
        logging.WARNING,
        "INSECURE: no keys are used (--insecure): whoever reaches the port can connect, and others can listen in",
    ),
}


class Door(Struct, frozen=True):
    """A TCP place to listen that is allowed."""

    address: ListenAddress
    guard: Guard
    ring: KeyRing

    def secure(self, socket: zmq.Socket[Any]) -> None:
        """Call it before the socket binds. The context needs its Zap by then (workers.server.keeper)."""
        if self.guard is Guard.CURVE:
            secure_server(socket, self.ring)


def door_of(endpoint: str, security: Security) -> Door | IpcAddress:
    """Of tcp://HOST:PORT, or of ipc://PATH, a private Unix socket, where there is nothing to guard.

    Raises BadInput, and Refused when other machines could come in without a key.
    """
    address = parse_listen(endpoint)
    if isinstance(address, IpcAddress):
        return address
    return Door(address, security.guard_listener(endpoint, address.is_loopback), security.ring)


def door_to(bind: str, security: Security) -> Door:
    """The same for an address without a port; none means all interfaces where there is a farm key, else loopback."""
    place = f"--bind {bind}" if bind else "--bind"
    address = ListenAddress(parse_bind(security.bind(bind), place), ANY_PORT)
    return Door(address, security.guard_listener(place, address.is_loopback), security.ring)


def log_guard(log: logging.Logger, guard: Guard) -> None:
    """One line about who can come in."""
    level, text = GUARD_LINES[guard]
    log.log(level, "%s", text)
