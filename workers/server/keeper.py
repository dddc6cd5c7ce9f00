"""Holds the keys of this process as the files have them now, and answers libzmq's questions about them.

Knows files of keys and the ZAP handler; knows no message, no lease, and nothing of what follows when a key is revoked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Container
from typing import Any

import zmq
from msgspec.structs import replace

from dr.keys.folder import default_folder
from dr.keys.ring import KeyRing
from dr.keys.security import Security
from dr.keys.watch import KeyWatch
from dr.keys.zap import Zap
from dr.protocol.messages import ClientMessage, Hello

MAX_NAME = 256  # dr.protocol.messages.Name


class Keeper:
    """One per process and context. Everything is called from the thread of its loop, which polls `sources`."""

    def __init__(self, watch: KeyWatch | None = None, insecure: bool = False) -> None:
        """Without files to watch there are no keys, and there will be none."""
        self._watch = watch
        self._zap: Zap | None = None
        self.insecure = insecure

    @property
    def ring(self) -> KeyRing:
        return self._watch.ring if self._watch else KeyRing()

    @property
    def security(self) -> Security:
        return Security(ring=self.ring, insecure=self.insecure)

    @property
    def farm(self) -> str | None:
        """The public half of the farm key if this machine can be a server of that farm."""
        return self.ring.farm_public if self.ring.farm else None

    def open(self, context: zmq.Context[Any]) -> None:
        """From now on keys of clients are checked there; before that nobody with a key enters."""
        self._zap = Zap(context, lambda public: self.ring.admit_client(public))

    def sources(self) -> list[zmq.Socket[Any]]:
        return [self._zap.socket] if self._zap else []

    def answer(self, ready: Container[Any], now: float) -> None:
        """`ready`: those of the sources, among others, that have something to read."""
        if self._zap and self._zap.socket in ready:
            self._zap.answer(now)

    def look(self, now: float) -> bool:
        """Whether `ring` is another one now."""
        return self._watch is not None and self._watch.look(now)

    def next_deadline(self) -> float | None:
        """When to look again."""
        return self._watch.due_s if self._watch else None

    def close(self) -> None:
        if self._zap:
            self._zap.close()


def load_keeper(insecure: bool) -> Keeper:
    """With the keys of this user. Raises BadInput for broken files and Refused for unsafe ones, if keys are used."""
    if insecure:
        return Keeper(insecure=True)
    return Keeper(KeyWatch(os.environ, default_folder(), time.monotonic()))


def named_by_key(message: ClientMessage, name: str) -> ClientMessage:
    """A client's `hello` with what its key is called before what it calls itself: `anna (ws7)`.

    Everybody who reads a name reads this one, so nobody poses as another; without a key it stays as it is.
    """
    if not name or not isinstance(message, Hello) or message.name == name:
        return message
    return replace(message, name=f"{name} ({message.name})"[:MAX_NAME])
