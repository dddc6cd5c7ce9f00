"""The keys that one process holds, and what follows: who is admitted, who one is. Knows no file and no socket."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct, field

from dr.errors import Refused
from dr.keys.key import KeyPair, Secret

FARM_NAME = "farm"  # what a holder of the farm key is called when it comes as a client
HOW_TO_MAKE = "make keys with `dr keys init`, or bring those of a farm with `dr keys import-farm FILE`"


class KeyRing(Struct, frozen=True, kw_only=True):
    """All that a process knows of keys; public halves are Z85 text. Another ring takes its place when files change.

    `farm_public` alone: this machine can be a client of the farm. With `farm_secret` it can be any server of it.
    """

    client: KeyPair | None = None
    farm_public: str | None = None
    farm_secret: Secret | None = None
    clients: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # name by public key

    @property
    def farm(self) -> KeyPair | None:
        """What a server of the farm proves itself with; None when only the public half is here, or nothing."""
        if self.farm_public is None or self.farm_secret is None:
            return None
        return KeyPair(self.farm_public, self.farm_secret)

    @property
    def identity(self) -> KeyPair | None:
        """What this machine proves itself with as a client.

        The user's own key, unless the farm key is here and does not list it: then the farm key, which every server
        admits. So a machine needs no more than the farm key file to render.
        """
        if self.farm and not (self.client and self.client.public in self.clients):
            return self.farm
        return self.client

    def admit_client(self, public: str) -> str | None:
        """For a server: the User-Id of a client with this key, or None when it may not enter.

        The User-Id is the key itself, not its name: a name that is revoked and given to a new key must not let the
        messages of the old one pass.
        """
        return public if self.client_name(public) else None

    def client_name(self, user_id: str) -> str | None:
        """What people call the client whose messages carry `user_id`; None: drop them, its key was revoked."""
        if self.farm and user_id == self.farm_public:
            return FARM_NAME
        return self.clients.get(user_id)

    def admit_server(self, public: str) -> str | None:
        """For a client that listens: a server that dials in must hold the farm key."""
        return public if public == self.farm_public else None


def require_farm(ring: KeyRing) -> KeyPair:
    """The farm's pair, for who wants to be a server. Refused, with the command that helps, when it is not here."""
    if ring.farm:
        return ring.farm
    if ring.farm_public:
        raise Refused(
            "a server needs the whole farm key, here is only its public half; "
            "`dr keys export-farm FILE` where the whole one is, then `dr keys import-farm FILE` here"
        )
    raise Refused(f"a server that other machines reach needs a farm key, here is none; {HOW_TO_MAKE}")


def require_client(ring: KeyRing) -> tuple[KeyPair, str]:
    """(own pair, the farm's public key), for who wants to be a client. Refused, with the command that helps."""
    if ring.farm_public is None:
        raise Refused(f"a server on another machine needs a farm key, here is none; {HOW_TO_MAKE}")
    if ring.identity is None:
        raise Refused("expected a key of this user beside the farm's public key, found none; `dr keys init` makes it")
    return ring.identity, ring.farm_public


def dial_out_keys(ring: KeyRing) -> tuple[str, ...]:
    """Public keys that a client may have to which a server dials out: the farm's own, then the listed ones by name.

    A CURVE connection names the one key it expects, so the server tries one after the other.
    """
    require_farm(ring)
    listed = sorted(ring.clients, key=lambda public: (ring.clients[public], public))
    farm = [ring.farm_public] if ring.farm_public else []
    return (*farm, *(public for public in listed if public != ring.farm_public))
