"""Turns a server's address into what can be dialled: IP literals, loopback only while there are no keys.

Knows the resolver; knows no socket. libzmq would resolve names in its I/O thread, where a dead resolver silences every
peer, so names are resolved here, before anything is dialled.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from dr.errors import BadInput, Refused
from dr.protocol.address import TcpAddress, parse_address


def resolve_servers(texts: Iterable[str]) -> tuple[str, ...]:
    """ZeroMQ endpoints of the servers that a user named, in order, each once. Raises BadInput or Refused."""
    return tuple(dict.fromkeys(endpoint for text in texts for endpoint in _resolve(text)))


def _resolve(text: str) -> tuple[str, ...]:
    address = parse_address(text)
    if not address.is_loopback:
        raise Refused(
            f"server {text!r}: expected an address of this machine such as 127.0.0.1:20204: servers on other machines "
            "need keys (`dr keys`), which come with a later version"
        )
    if not isinstance(address, TcpAddress):
        return address.endpoints()
    hosts = _look_up(address.host)
    chosen = hosts if address.every else hosts[:1]
    return tuple(endpoint for host in chosen for endpoint in TcpAddress(host, address.ports).endpoints())


def _look_up(host: str) -> list[str]:
    """IP literals of a host, IPv4 first (that is where `dr serve` listens)."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise BadInput(f"server: cannot resolve {host!r}: {error.strerror or error}; use its IP address") from error
    hosts = dict.fromkeys(str(entry[4][0]) for entry in found)
    return sorted(hosts, key=lambda literal: ":" in literal)
