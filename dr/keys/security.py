"""Decides whether a socket may listen or dial, and how it is guarded. Knows the keys at hand; opens no socket.

Private Unix sockets are no matter of this file: whoever may enter their folder owns what is behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

from dr.errors import BadInput, Refused
from dr.keys.ring import KeyRing, require_client, require_farm

ALL_INTERFACES = "*"
LOOPBACK = "127.0.0.1"


class Guard(StrEnum):
    """How a TCP connection is guarded."""

    CURVE = "keys"  # encrypted, and both sides have proved who they are
    OPEN = "open"  # neither: who reaches the port may come in
    INSECURE = "insecure"  # of a listener: the same because the user asked for it, so it may be any port


class Security(Struct, frozen=True, kw_only=True):
    """What a process knows about keys, and whether the user asked to do without (`--insecure`)."""

    ring: KeyRing = KeyRing()
    insecure: bool = False
    trouble: BadInput | Refused | None = None  # why the files could not be loaded: only who needs keys is told

    def guard_listener(self, place: str, loopback: bool) -> Guard:
        """For a server or a spawner. Raises Refused when other machines could come in without a key."""
        if self.insecure:
            return Guard.INSECURE
        if self.ring.farm is None and loopback:
            return Guard.OPEN
        return _need(place, require_farm, self.ring)

    def guard_dial(self, place: str, loopback: bool) -> Guard:
        """For a client, also one that listens for servers. Raises Refused for another machine without keys.

        Where files are broken it raises their `trouble`, for loopback, too: it must not fall back to no keys.
        """
        if self.insecure:
            return Guard.OPEN
        if self.trouble:
            raise type(self.trouble)(f"{place}: {self.trouble}")
        if self.ring.farm_public is None and loopback:
            return Guard.OPEN
        return _need(place, require_client, self.ring)

    def bind(self, wished: str) -> str:
        """Where to listen: the user's wish, else all interfaces where there is a farm key, else loopback."""
        return wished or (ALL_INTERFACES if self.ring.farm and not self.insecure else LOOPBACK)


def _need(place: str, require: Callable[[KeyRing], object], ring: KeyRing) -> Guard:
    try:
        require(ring)
    except Refused as error:
        raise Refused(f"{place}: {error}; --insecure does without, in a closed lab network") from error
    return Guard.CURVE
