"""Turns a server's address into what can be dialled: IP literals, loopback only while there are no keys.

Knows the resolver; knows no socket. libzmq would resolve names in its I/O thread, where a dead resolver silences every
peer, so names are resolved here, before anything is dialled.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator, Mapping

from dr.errors import BadInput, Refused
from dr.protocol.address import TcpAddress, parse_address
from dr.settings import ServerAddress


def resolve_servers(texts: Iterable[str]) -> Mapping[str, bool]:
    """ZeroMQ endpoints of the servers that a user named, in order, each once. Raises BadInput or Refused.

    The value tells whether the endpoint stands for all servers of its host: the user named no port.
    """
    found: dict[str, bool] = {}
    for text in texts:
        for endpoint, whole_host in _resolve(text):
            found[endpoint] = found.get(endpoint, False) or whole_host
    return found


def saved_words(servers: Iterable[ServerAddress]) -> list[str]:
    """The enabled servers of a saved list in a user's words. One without a port means its whole host, as there."""
    hosts = ((f"[{each.host}]" if ":" in each.host else each.host, each.port) for each in servers if each.enabled)
    return [host if port is None else f"{host}:{port}" for host, port in hosts]


def _resolve(text: str) -> Iterator[tuple[str, bool]]:
    address = parse_address(text)
    if not address.is_loopback:
        raise Refused(
            f"server {text!r}: expected an address of this machine such as 127.0.0.1:20204: servers on other machines "
            "need keys (`dr keys`), which come with a later version"
        )
    places = _literals(address) if isinstance(address, TcpAddress) else [address]
    return ((endpoint, address.whole_host) for place in places for endpoint in place.endpoints())


def _literals(address: TcpAddress) -> list[TcpAddress]:
    """The same with IP literals for its host."""
    hosts = _look_up(address.host)
    return [TcpAddress(host, address.ports) for host in (hosts if address.every else hosts[:1])]


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
