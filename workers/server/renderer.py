"""Render threads: each takes one bucket at a time from the loop and gives its tile back. Know no client."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import numpy as np

from dr.protocol.messages import Channel
from dr.protocol.tiles import Pixels, channel_slices, pack
from workers.server.commands import RenderBucket
from workers.server.engine import Engine, Film, Shelf
from workers.server.events import BucketFailed, BucketStopped, ThreadStarted, TileRendered
from workers.server.inside import Inside, Leave, Line

FILM_PLANES = channel_slices(tuple(Channel))  # a film holds every channel
JOIN_S = 0.3  # a kernel gives up within a pixel row

log = logging.getLogger("dr.server")


class Renderer:
    """`count` render threads, named by their numbers. Its methods belong to the loop's thread."""

    def __init__(self, engine: Engine, shelf: Shelf, inside: Inside, count: int) -> None:
        self.engine = engine
        self.shelf = shelf
        self.inside = inside
        # Only the loop writes these flags, and clears one before it hands out a bucket: no late cancel hits the next.
        self.cancels = np.zeros((count, 64), np.uint8)  # a cache line each
        self.threads = [self._thread(number) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def render(self, order: RenderBucket) -> None:
        self.cancels[order.thread, 0] = 0
        self.inside.send(_name(order.thread), order)

    def stop(self, thread: int) -> None:
        self.cancels[thread, 0] = 1

    def close(self) -> bool:
        """Ends all threads; False when one is still inside a kernel."""
        self.cancels[:, 0] = 1
        for thread in self.threads:
            self.inside.send(thread.name, Leave())
        deadline = time.monotonic() + JOIN_S
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self.threads)

    def _thread(self, number: int) -> threading.Thread:
        line = self.inside.line(_name(number))
        return threading.Thread(target=self._run, args=(number, line), name=_name(number), daemon=True)

    def _run(self, number: int, line: Line) -> None:
        line.send(ThreadStarted(number))
        while isinstance(order := line.receive(), RenderBucket):
            try:
                self._render_one(order, line)
            except Exception as error:
                log.exception("bucket %d failed", order.bucket.id)
                text = f"{type(error).__name__}: {error}"
                line.send(BucketFailed(number, order.epoch, order.bucket, text))
        line.close()

    def _render_one(self, order: RenderBucket, line: Line) -> None:
        begun = time.perf_counter()
        scene = self.shelf.get(order.epoch)
        film = None
        if scene is not None:
            film = self.engine.render(scene, order.bucket, self.cancels[order.thread, :1])
        if film is None:
            line.send(BucketStopped(order.thread, order.epoch, order.bucket))
            return
        seconds = time.perf_counter() - begun
        payload = pack(select_planes(film, order.channels))
        line.send(TileRendered(order.thread, order.epoch, order.bucket, seconds), payload)


def select_planes(film: Film, channels: Sequence[Channel]) -> Pixels:
    """The planes of `channels`, in their order."""
    if tuple(channels) == tuple(Channel):
        return film
    return np.concatenate([film[..., FILM_PLANES[channel]] for channel in channels], axis=-1)


def _name(number: int) -> str:
    return f"render-{number}"
