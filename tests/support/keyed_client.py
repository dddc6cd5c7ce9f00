"""A raw client with keys, or with none, that tells how its handshake went; and the key files of one machine."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import zmq

from dr.keys.changes import authorize, init_keys
from dr.keys.folder import KeyPlaces, key_places, load_keys
from dr.keys.key import KeyPair
from dr.keys.ring import KeyRing
from dr.keys.sockets import secure_client
from tests.support.server_process import PATIENCE_S, RawClient

IN = "HANDSHAKE_SUCCEEDED"
REFUSED = "HANDSHAKE_FAILED_AUTH"
FAILED = ("HANDSHAKE_FAILED_NO_DETAIL", "HANDSHAKE_FAILED_PROTOCOL", "DISCONNECTED")  # one of them, by chance
NOBODY = "CLOSED"  # listens there


class KeyedClient(RawClient):
    """`ring` is what its machine holds; None: it speaks without keys."""

    def __init__(self, endpoint: str, ring: KeyRing | None, routing_id: bytes = b"") -> None:
        self.ring = ring
        self.routing_id = routing_id
        super().__init__(endpoint)

    def prepare(self) -> None:
        if self.routing_id:
            self.socket.routing_id = self.routing_id
        if self.ring:
            secure_client(self.socket, self.ring)
        self.monitor = self.socket.get_monitor_socket()

    def __exit__(self, *reason: object) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        super().__exit__(*reason)

    def handshake(self) -> str:
        """How it ended."""
        deadline = time.monotonic() + PATIENCE_S
        while self.monitor.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            kind, _ = struct.unpack("=Hi", self.monitor.recv_multipart()[0])
            if (name := zmq.Event(kind).name) in (IN, REFUSED, NOBODY, *FAILED):
                return str(name)
        raise AssertionError(f"no handshake within {PATIENCE_S} s")


class Keys:
    """What lies in the configuration folder `home` of a machine."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.places: KeyPlaces = key_places({}, home / "dr" / "keys")

    def init(self) -> Keys:
        init_keys(self.places, "owner")
        return self

    @property
    def environment(self) -> dict[str, str]:
        return {"XDG_CONFIG_HOME": str(self.home)}

    @property
    def ring(self) -> KeyRing:
        """As of now."""
        return load_keys({}, self.places.farm.parent)

    def guest(self, pair: KeyPair, name: str = "") -> KeyRing:
        """Another machine with the farm's public half and a key of its own, admitted here if it gets a name."""
        if name:
            authorize(self.places, name, pair.public)
        return KeyRing(client=pair, farm_public=self.ring.farm_public)


def silent(client: RawClient, within_s: float) -> Any:
    """What came although nothing should have, or None."""
    return client.socket.recv_multipart() if client.socket.poll(within_s * 1000) else None
