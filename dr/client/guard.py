"""Gives a client's socket its keys before it dials, and says what a failed handshake means. Knows keys; dials nobody.

libzmq takes over a socket's options when it connects, so one ROUTER may dial local servers on Unix sockets without
keys and others with them, as long as the options are set anew for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zmq

from dr.errors import BadInput, Refused
from dr.keys.folder import default_folder, load_keys
from dr.keys.security import Guard, Security
from dr.keys.sockets import secure_client
from dr.protocol.address import parse_address

WARNING = (
    "WARNING: --insecure: no keys are used; whoever is on the network can read and change scenes and pictures, "
    "and pose as a server"
)


def load_security(environ: Mapping[str, str], insecure: bool) -> Security:
    """This user's keys. Files that are broken or unsafe trouble only who dials a server that needs keys."""
    if insecure:
        return Security(insecure=True)
    try:
        return Security(ring=load_keys(environ, default_folder()))
    except (BadInput, Refused) as error:
        return Security(trouble=error)


def prepare_dial(socket: zmq.Socket[Any], endpoint: str, security: Security) -> Guard | None:
    """Sets the keys, or none, for the next `connect`. None: a private Unix socket, where there is nothing to guard.

    Raises Refused and BadInput like `Security.guard_dial`.
    """
    guard = guard_of(endpoint, security)
    if guard is Guard.CURVE:
        secure_client(socket, security.ring)
    else:
        socket.curve_server = 0  # which chooses the mechanism NULL again, whatever keys are set
    return guard


def guard_of(endpoint: str, security: Security) -> Guard | None:
    address = parse_address(endpoint.removeprefix("tcp://"))
    return security.guard_dial(endpoint, address.is_loopback) if endpoint.startswith("tcp://") else None


def explain_refusal(security: Security) -> str:
    """Why HANDSHAKE_FAILED_AUTH: final, until somebody over there admits our key."""
    own = security.ring.identity
    key = f"'{own.public}'" if own else "KEY"
    return f"your key is not admitted there; ask for `dr keys authorize NAME {key}`"


def explain_failure(guard: Guard | None, security: Security) -> str:
    """Why another handshake may have failed: libzmq does not tell a wrong key from a missing one or another program."""
    if guard is Guard.CURVE:
        return "no render server of this farm answers there: another farm key, or a server without keys"
    if guard is None:
        return "no render server answers there"
    hint = "leave --insecure out" if security.insecure else "`dr keys import-farm FILE` brings them"
    return f"no render server answers there, or one that needs keys: {hint}"
