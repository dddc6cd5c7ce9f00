"""Pictures whose buckets cost ten times more in some places than in others, for farms with servers of unlike speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from msgspec.structs import replace

from dr.broker.buckets import Order, choose_cell, choose_size, cut_frame
from dr.broker.events import FrameRequested
from dr.broker.job import Frame
from dr.protocol.messages import BucketWork
from tests.support.simulated_farm import Held, SimulatedServer, make_frame
from tests.support.timed_farm import TimedFarm

WIDTH, HEIGHT, SAMPLES = 1280, 720, 64
TILE = 8  # pixels a side over which the cost is constant
COST_RATIO = 10.0

Speeds = Mapping[str, float]  # endpoint to the speed of a thread
Hangs = Callable[[str, float], bool]  # whether a thread of this server hangs on what it begins at this time


def cost_map(seed: int) -> np.ndarray:
    """Relative cost per tile, from 1 to COST_RATIO: smooth, with the hard edges of a few objects."""
    rng = np.random.default_rng(seed)
    rows, columns = HEIGHT // TILE, WIDTH // TILE
    coarse = rng.uniform(0, 1, (rows // 10 + 2, columns // 10 + 2))
    y, x = np.linspace(0, len(coarse) - 1.001, rows), np.linspace(0, coarse.shape[1] - 1.001, columns)
    (y0, fy), (x0, fx) = (y.astype(int), y[:, None] % 1), (x.astype(int), x[None] % 1)
    upper = coarse[y0][:, x0] * (1 - fx) + coarse[y0][:, x0 + 1] * fx
    lower = coarse[y0 + 1][:, x0] * (1 - fx) + coarse[y0 + 1][:, x0 + 1] * fx
    level = upper * (1 - fy) + lower * fy
    for _ in range(6):
        top, left = rng.integers(0, rows), rng.integers(0, columns)
        level[top : top + 12, left : left + 20] = rng.uniform()
    return COST_RATIO ** ((level - level.min()) / (level.max() - level.min()))


class Picture:
    """How many seconds a thread of speed 1 needs for each bucket of a frame that takes `seconds` in all."""

    def __init__(self, seed: int, seconds: float) -> None:
        costs = cost_map(seed)
        self._sums = np.zeros((costs.shape[0] + 1, costs.shape[1] + 1))
        self._sums[1:, 1:] = (costs * (seconds / costs.sum())).cumsum(0).cumsum(1)
        self.rate = WIDTH * HEIGHT * SAMPLES / seconds  # samples per second of a thread, on average

    def seconds(self, work: BucketWork) -> float:
        sums, left, top = self._sums, work.x // TILE, work.y // TILE
        right, bottom = -(-(work.x + work.width) // TILE), -(-(work.y + work.height) // TILE)
        return float(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])


class UnevenFarm(TimedFarm):
    """Renders frames that would take `frame_s` each if nobody ever waited."""

    def __init__(
        self, seed: int, speeds: Speeds, threads: int, *, frame_s: float, frames: int = 1, latency_s: float = 0.0005
    ) -> None:
        super().__init__(lambda endpoint, work: 0.0, latency_s, frames)
        self.speeds = speeds
        self.threads = threads
        self.frame_s = frame_s
        power = threads * sum(speeds.values())
        self.pictures_s = [Picture(seed + index, frame_s * power) for index in range(frames)]
        self.hangs: Hangs = lambda endpoint, now: False
        self.lies: dict[str, float] = {}  # endpoint to the seconds that it says of each bucket
        self.sizes: list[int] = []  # how many buckets each frame was cut into
        self._indices: dict[int, int] = {}  # epoch to frame

    def cut(self, index: int, adaptive: bool) -> Frame:
        """The frame as a client would cut it that knows the farm (or for an adaptive one does not)."""
        frame = make_frame(WIDTH, HEIGHT, 16, SAMPLES, index=index, adaptive=adaptive)
        threads = self.threads * len(self.speeds)
        rate = self.pictures_s[index].rate
        size = choose_cell(frame.settings, threads) if adaptive else choose_size(frame.settings, threads, rate)
        buckets = cut_frame(frame.settings, size, Order.HILBERT)
        self.sizes.append(len(buckets))
        return replace(frame, buckets=buckets)

    def render_all(self, adaptive: bool) -> float:
        """Seconds of all frames, from the request of the first one to servers that hold nothing yet."""
        for endpoint in self.speeds:
            self.add(SimulatedServer(endpoint, self.threads))
        self._run_until(lambda: len(self.broker.fleet.holders) == len(self.speeds))
        began, requested = self.now, 0
        while self.finished is None:
            finished = len(self.frames_finished)
            while requested < len(self.pictures_s) and requested < finished + 2:
                self.tell(FrameRequested(self.cut(requested, adaptive)))
                self._indices[self.broker.frames.live[-1].epoch] = requested
                requested += 1
            self._run_until(lambda before=finished: self.finished or len(self.frames_finished) > before)
        return self.now - began

    def _begin(self, server: SimulatedServer, peer: bytes, held: Held) -> None:
        if self.hangs(server.endpoint, self.now):
            server.works.remove(held)
            server.threads -= 1  # this one never comes back
            return
        seconds = self.pictures_s[self._indices[held.epoch]].seconds(held.work) / self.speeds[server.endpoint]
        self._end_later(server, peer, held, seconds, self.lies.get(server.endpoint))
