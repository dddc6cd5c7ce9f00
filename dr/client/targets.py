"""Turns the words by which a user asks about the farm into gates to ask. Knows addresses and settings; asks nobody."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from dr.client.addresses import resolve_servers, saved_words
from dr.client.roster import Place, Row
from dr.protocol.address import TcpAddress, parse_address
from dr.settings import Settings

THIS_MACHINE = "localhost"


class Target(Struct, frozen=True):
    """What one word names. `bare`: a host alone; all its servers are meant, and its places are only guesses."""

    text: str
    places: tuple[Place, ...]
    name: str = ""  # of its host, to be shown; empty: its address
    bare: bool = False

    def is_answered(self, rows: Iterable[Row]) -> bool:
        """Whether one of the servers meant by it answers."""
        hosts = {place.host for place in self.places}
        found = (row for row in rows if row.answers)
        return any(row.address in hosts if self.bare else (row.address, row.port) in self.places for row in found)


def find_targets(texts: Iterable[str], settings: Settings) -> tuple[Target, ...]:
    """The targets that a user named, else the enabled servers of the settings, else this machine.

    Raises BadInput and Refused like dr.client.addresses.
    """
    named = dict.fromkeys(texts) or dict.fromkeys(saved_words(settings.servers))
    return tuple(map(_find_target, named)) or (_this_machine(settings),)


def endpoint_of(place: Place) -> str:
    """What ZeroMQ connects to."""
    return TcpAddress(place.host, (place.port, place.port)).endpoints()[0] if place.port else place.host


def _find_target(text: str) -> Target:
    address = parse_address(text)
    places = tuple(map(_place, resolve_servers([text])))
    if not isinstance(address, TcpAddress):
        return Target(text, places)
    return Target(text, places, "" if address.every else address.host, bare=address.whole_host)


def _this_machine(settings: Settings) -> Target:
    """Besides the usual port the one where a server of our own settings would listen."""
    target = _find_target(THIS_MACHINE)
    ours = Place(target.places[0].host, settings.port)
    return Target(target.text, tuple(dict.fromkeys((*target.places, ours))), target.name, bare=True)


def _place(endpoint: str) -> Place:
    address = parse_address(endpoint.removeprefix("tcp://"))
    if isinstance(address, TcpAddress) and address.ports:
        return Place(address.host, address.ports[0])
    return Place(endpoint, 0)
