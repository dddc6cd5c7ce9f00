"""Turns the words by which a user asks about the farm into gates to ask. Knows addresses and settings; asks nobody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from dr.client.addresses import NO_KEYS, Servers, resolve_servers, saved_words
from dr.client.roster import Place, Row
from dr.errors import Refused
from dr.keys.security import Security
from dr.protocol.address import EVERY_INTERFACE, TcpAddress, parse_address, parse_bind
from dr.settings import Settings

THIS_MACHINE = "localhost"
LOOPBACKS = {EVERY_INTERFACE: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # where all interfaces can be dialled


class RunningSpawner(Struct, frozen=True, kw_only=True):
    """A spawner of this user on this machine: the ports of its servers, where it announces, where all that listens."""

    ports: tuple[int, ...]
    announce: int
    bind: str


class Target(Struct, frozen=True):
    """What one word names. `bare`: a host alone; all its servers are meant, and its places are only guesses.

    `sure` and `announcers`: gates and announcers of that host that are no guesses. `trouble`: why there are no places.
    """

    text: str
    places: tuple[Place, ...]
    name: str = ""  # of its host, to be shown; empty: its address
    bare: bool = False
    trouble: str = ""
    sure: tuple[Place, ...] = ()
    announcers: tuple[Place, ...] = ()

    def is_answered(self, rows: Iterable[Row]) -> bool:
        """Whether one of the servers meant by it answers."""
        return any(row.answers for row in self.pick(rows))

    def pick(self, rows: Iterable[Row]) -> list[Row]:
        """Those of the servers meant by it."""
        hosts = {place.host for place in (*self.places, *self.sure)}
        return [row for row in rows if self._means(row, hosts)]

    def _means(self, row: Row, hosts: Collection[str]) -> bool:
        return row.address in hosts if self.bare else (row.address, row.port) in self.places


def find_targets(
    texts: Iterable[str], settings: Settings, security: Security = NO_KEYS, spawners: Sequence[RunningSpawner] = ()
) -> tuple[Target, ...]:
    """The targets that a user named, else the enabled servers of the settings, else this machine with its `spawners`.

    Raises BadInput and Refused like dr.client.addresses, and BadInput when not one name has an address.
    """
    named = dict.fromkeys(texts) or dict.fromkeys(saved_words(settings.servers))
    if not named:
        return (_add_spawners(_this_machine(settings, security), spawners, security),)
    servers = resolve_servers(named, security).require()
    return tuple(_make_target(text, servers) for text in named)


def endpoint_of(place: Place) -> str:
    """What ZeroMQ connects to."""
    return TcpAddress(place.host, (place.port, place.port)).endpoints()[0] if place.port else place.host


def _make_target(text: str, servers: Servers) -> Target:
    address = parse_address(text)
    places = tuple(map(_place, servers.words[text]))
    if not isinstance(address, TcpAddress):
        return Target(text, places)
    if address.host in servers.unresolved:
        return Target(text, (), address.host, trouble=f"cannot resolve it: {servers.unresolved[address.host]}")
    return Target(text, places, "" if address.every else address.host, bare=address.whole_host)


def _this_machine(settings: Settings, security: Security) -> Target:
    """Besides the usual port the one where a server of our own settings would listen."""
    target = _make_target(THIS_MACHINE, resolve_servers([THIS_MACHINE], security).require())
    ours = Place(target.places[0].host, settings.port)
    return Target(target.text, tuple(dict.fromkeys((*target.places, ours))), target.name, bare=True)


def _add_spawners(target: Target, spawners: Sequence[RunningSpawner], security: Security) -> Target:
    """Those that keys of ours do not let us dial are named as a trouble."""
    places: list[Place] = []
    announcers: list[Place] = []
    troubles: list[str] = []
    for spawner in spawners:
        bind = parse_bind(spawner.bind, "--bind")
        host = LOOPBACKS.get(bind, bind)
        try:
            security.guard_dial(f"the spawner on {host}", TcpAddress(host).is_loopback)
        except Refused as error:
            troubles.append(str(error))
            continue
        places += [Place(host, port) for port in spawner.ports]
        announcers.append(Place(host, spawner.announce))
    return replace(target, sure=tuple(places), announcers=tuple(announcers), trouble="; ".join(troubles))


def _place(endpoint: str) -> Place:
    address = parse_address(endpoint.removeprefix("tcp://"))
    if isinstance(address, TcpAddress) and address.ports:
        return Place(address.host, address.ports[0])
    return Place(endpoint, 0)
