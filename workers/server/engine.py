"""What a server needs of whatever makes pixels, and where prepared scenes stand. Knows no wire and no kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from dr.protocol.messages import BucketWork
from workers.server.inside import PrepareJob

Say: TypeAlias = Callable[[str], None]
Film: TypeAlias = npt.NDArray[np.float32]  # [layer, height, width, plane], all channels in the order of `Channel`
CancelFlag: TypeAlias = npt.NDArray[np.uint8]  # [1], not 0: give up


class Scene(Protocol):
    """A scene that can be rendered. `close` gives back what is shared with other processes; memory follows later."""

    def close(self) -> None: ...


class Engine(Protocol):
    """Each method is called from a thread of its own; `prepare` is called for one job at a time."""

    def start(self) -> None:
        """Starts what takes time. Called from the main thread, first of all and whenever a frame is about to come."""

    def warm_up(self, say: Say) -> None:
        """Makes rendering possible at full speed. Raises DrError when this machine cannot."""

    def prepare(self, job: PrepareJob, say: Say) -> Scene:
        """Raises BadInput when the scene is bad, DrError when only this server cannot prepare it."""

    def abandon(self, ticket: int) -> None:
        """Ends the `prepare` of the job with this ticket soon, if it runs; it then raises. From another thread."""

    def render(self, scene: Any, bucket: BucketWork, cancel: CancelFlag) -> Film | None:
        """The bucket's film, or None when it was given up. Called from several threads at once."""

    def close(self) -> None:
        """Gives everything back; nothing is called after."""


class Shelf:
    """Prepared scenes by epoch, shared by the loop, the preparing thread and the render threads.

    A ticket names one preparation: a client that lost its lease comes back with the same epoch while the first
    preparation of it may still be ending.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tickets: dict[int, int] = {}  # of the wanted epochs
        self._scenes: dict[int, Scene] = {}
        self._issued = 0

    def expect(self, epoch: int) -> int:
        """The ticket of a new preparation."""
        with self._lock:
            self._issued += 1
            self._tickets[epoch] = self._issued
            return self._issued

    def wants(self, epoch: int, ticket: int) -> bool:
        with self._lock:
            return self._tickets.get(epoch) == ticket

    def put(self, epoch: int, ticket: int, scene: Scene) -> bool:
        """Keeps the scene, or closes it when its frame was dropped meanwhile."""
        with self._lock:
            if self._tickets.get(epoch) == ticket:
                self._scenes[epoch] = scene
                return True
        scene.close()
        return False

    def get(self, epoch: int) -> Scene | None:
        with self._lock:
            return self._scenes.get(epoch)

    def drop(self, epoch: int) -> int | None:
        """Forgets the epoch; the ticket of its preparation when that has not brought a scene."""
        with self._lock:
            ticket = self._tickets.pop(epoch, None)
            scene = self._scenes.pop(epoch, None)
        if scene is None:
            return ticket
        scene.close()
        return None

    def clear(self) -> None:
        for epoch in tuple(self._tickets):
            self.drop(epoch)
