"""Gives a socket its keys before it binds or connects. Knows CURVE options of libzmq; knows no address and no message.

A socket is either a CURVE server or a CURVE client. One ROUTER can be both only with its options set in one certain
order: take two.
"""

from __future__ import annotations

from typing import Any

import zmq

from dr.errors import Refused
from dr.keys.key import KeyPair
from dr.keys.ring import KeyRing, require_client, require_farm
from dr.keys.zap import DOMAIN


def secure_server(socket: zmq.Socket[Any], ring: KeyRing) -> None:
    """Of a render server or spawner that listens. The context's Zap must ask `admit_client` of the newest ring.

    Raises Refused, with the command that helps, when the farm key is not here.
    """
    _listen(socket, require_farm(ring))


def secure_client(socket: zmq.Socket[Any], ring: KeyRing) -> None:
    """Of a client that dials servers. Raises Refused, with the command that helps, when keys are missing."""
    pair, farm_public = require_client(ring)
    _dial(socket, pair, farm_public)


def secure_listener(socket: zmq.Socket[Any], ring: KeyRing) -> None:
    """Of a client that waits for servers which dial out. The context's Zap must ask `admit_server` of the newest ring.

    Raises Refused, with the command that helps, when keys are missing.
    """
    pair, _ = require_client(ring)
    _listen(socket, pair)


def secure_dial_out(socket: zmq.Socket[Any], ring: KeyRing, client_public: str) -> None:
    """Of a server that dials a client which has the key `client_public`: one of `dial_out_keys`.

    Raises Refused when the farm key is not here or that client is not admitted (any more).
    """
    pair = require_farm(ring)
    if ring.client_name(client_public) is None:
        raise Refused(f"the client key {client_public} is not admitted here; `dr keys list` shows those that are")
    _dial(socket, pair, client_public)


def _listen(socket: zmq.Socket[Any], pair: KeyPair) -> None:
    _set_pair(socket, pair)
    socket.zap_domain = DOMAIN
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # no handler: nobody enters
    socket.curve_server = 1


def _dial(socket: zmq.Socket[Any], pair: KeyPair, server_public: str) -> None:
    _set_pair(socket, pair)
    socket.curve_serverkey = server_public.encode()


def _set_pair(socket: zmq.Socket[Any], pair: KeyPair) -> None:
    socket.curve_publickey = pair.public.encode()
    socket.curve_secretkey = pair.secret.reveal().encode()
