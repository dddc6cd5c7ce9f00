"""Turns the words that name servers into endpoints that may be dialled: IP literals, and nothing without its keys.

libzmq would resolve names in its I/O thread, where a dead resolver silences every peer, so names are resolved before
anything is dialled. Whether keys are needed is decided twice: by the word, before a name server hears of it, and by
what the name turned out to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from dr.client.resolver import LOOK_UP_S, Found, look_up
from dr.errors import BadInput
from dr.keys.security import Security
from dr.protocol.address import IpcAddress, TcpAddress, parse_address
from dr.settings import ServerAddress

NO_KEYS = Security()
EVERY = "dns+any:"  # before a host: each address of its name
NAMES_SHOWN = 3  # in one line about names that do not resolve


class Servers(Struct, frozen=True):
    """What words turned out to name.

    `endpoints`: for ZeroMQ, in order, each once; True where it stands for all servers of its host, because the user
    named no port. `words`: those that each word names. `unresolved`: hosts without an address, and why.
    """

    endpoints: Mapping[str, bool]
    words: Mapping[str, Sequence[str]]
    unresolved: Mapping[str, str]

    def complaints(self) -> list[str]:
        """A line for each reason why names do not resolve."""
        return complain(self.unresolved)

    def require(self) -> Servers:
        """The same. Raises BadInput when servers were named and not one of them has an address."""
        if self.unresolved and not self.endpoints:
            raise nowhere(self.complaints())
        return self


def resolve_servers(texts: Iterable[str], security: Security = NO_KEYS, within_s: float = LOOK_UP_S) -> Servers:
    """The servers that a user named. Raises BadInput for a word that is no address, Refused where keys are missing."""
    addresses = {text: parse_address(text) for text in texts}
    for text, address in addresses.items():
        if isinstance(address, TcpAddress):
            check_keys(text, address, security)
    found = look_up((each.host for each in addresses.values() if isinstance(each, TcpAddress)), within_s)
    endpoints: dict[str, bool] = {}
    words: dict[str, list[str]] = {}
    for text, address in addresses.items():
        places = _places(text, address, found, security)
        words[text] = [endpoint for place in places for endpoint in place.endpoints()]
        for endpoint in words[text]:
            endpoints[endpoint] = endpoints.get(endpoint, False) or address.whole_host
    return Servers(endpoints, words, {host: each.trouble for host, each in found.items() if not each.literals})


def saved_words(servers: Iterable[ServerAddress]) -> list[str]:
    """The enabled servers of a saved list in a user's words. One without a port means its whole host, as there."""
    return [saved_word(each) for each in servers if each.enabled]


def saved_word(server: ServerAddress) -> str:
    """An entry of a saved list in a user's words."""
    literal = ":" in server.host and not server.host.startswith(EVERY)
    host = f"[{server.host}]" if literal else server.host
    return host if server.port is None else f"{host}:{server.port}"


def check_keys(text: str, address: TcpAddress, security: Security) -> None:
    """Raises Refused and BadInput like `Security.guard_dial`, naming the word."""
    security.guard_dial(f"server {text!r}", address.is_loopback)


def complain(unresolved: Mapping[str, str]) -> list[str]:
    """A line for each reason why names do not resolve."""
    hosts: dict[str, list[str]] = {}
    for host, reason in unresolved.items():
        hosts.setdefault(reason, []).append(host)
    return [f"cannot resolve {_join(names)}: {reason}" for reason, names in hosts.items()]


def nowhere(complaints: Sequence[str]) -> BadInput:
    """The error when servers were named and not one of them has an address."""
    return BadInput(f"server: {'; '.join(complaints)}; use IP addresses, or check the names")


def _places(
    text: str, address: TcpAddress | IpcAddress, found: Mapping[str, Found], security: Security
) -> Iterator[TcpAddress | IpcAddress]:
    """The same with IP literals for its host, all of them or the first."""
    if isinstance(address, IpcAddress):
        yield address
        return
    literals = found[address.host].literals
    for literal in literals if address.every else literals[:1]:
        place = TcpAddress(literal, address.ports)
        check_keys(text, place, security)
        yield place


def _join(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:NAMES_SHOWN]))
    more = len(names) - NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
