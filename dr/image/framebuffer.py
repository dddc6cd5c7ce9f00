"""Sums tiles into a picture, the same bits in whatever order they arrive. Knows no server, no wire and no file.

A tile whose samples begin at 0 is one layer; a later one holds a layer per chunk (see dr.protocol.tiles). Each pixel
adds its layers in the order of their samples: a tile that comes before an earlier one of the same pixels waits. How
samples and rectangles were split is therefore free, as long as every split in samples is at a chunk boundary.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from dr.errors import BadInput, Impossible
from dr.protocol.messages import CHANNEL_WIDTHS, BucketWork, Channel
from dr.protocol.tiles import channel_slices, plane_count, tile_shape
from dr.scene.model import F32, I32, Region, RenderSettings

FIRST_SAMPLE_CHANNELS = frozenset({Channel.DEPTH, Channel.OBJECT_ID})  # not means: what sample 0 saw


class Picture(Struct, frozen=True, kw_only=True, eq=False):
    """A linear picture: the `region` of a frame of `width` x `height` pixels.

    `channels` are float32, [region.height, region.width] or the same with a third axis of 3. Beauty is the mean
    radiance over black, that is multiplied by coverage; a depth or id of a miss is +inf or 0; missing pixels are 0.
    """

    width: int
    height: int
    region: Region
    channels: dict[str, F32]


class PendingTile(NamedTuple):
    work: BucketWork
    layers: F32


class Framebuffer:
    """The sums of one frame while its tiles come in."""

    def __init__(self, settings: RenderSettings, channels: Iterable[Channel]) -> None:
        self.width, self.height, self.samples = settings.width, settings.height, settings.samples
        self.region = settings.region or Region(0, 0, settings.width, settings.height)
        wanted = set(channels)
        self.planes = channel_slices([channel for channel in Channel if channel in wanted])
        shape = self.region.height, self.region.width
        self.sums = _allocate((*shape, plane_count(list(self.planes))))
        self.done: I32 = np.zeros(shape, np.int32)  # samples in `sums`
        self.pending: dict[int, list[PendingTile]] = {}  # by the sample they begin with
        self.summed = [plane for channel, plane in self.planes.items() if channel not in FIRST_SAMPLE_CHANNELS]

    @property
    def complete(self) -> bool:
        """Whether every pixel has all its samples."""
        return bool((self.done == self.samples).all())

    def merge(self, work: BucketWork, layers: F32) -> None:
        """Adds a tile, f4[layer, height, width, plane], planes in the order of Channel.

        Impossible when a pixel already has these samples, or when the tile does not fit the frame: the broker counts
        each bucket once and the codec checks shapes, so either is our own bug.
        """
        self._check(work, layers)
        ready = [PendingTile(work, layers)]
        while ready:
            tile = ready.pop()
            if (self.done[self._window(tile.work)] == tile.work.sample_begin).all():
                self._add(tile)
                ready += self._take_pending(tile.work)
            else:
                self._wait(tile)

    def channels(self) -> dict[str, F32]:
        """The picture so far: means, sample 0's depth and id; pixels without samples are 0. See Picture for shapes."""
        count = np.maximum(self.done, 1).astype(np.float32)
        return {str(channel): self._plane(channel, count) for channel in self.planes}

    def copy(self) -> Framebuffer:
        """The sums so far, which later tiles do not change; tiles that wait for earlier ones are left out."""
        copied = copy(self)
        copied.sums, copied.done, copied.pending = self.sums.copy(), self.done.copy(), {}
        return copied

    def picture(self) -> Picture:
        return Picture(width=self.width, height=self.height, region=self.region, channels=self.channels())

    def _plane(self, channel: Channel, count: F32) -> F32:
        plane = self.sums[..., self.planes[channel]]
        if channel not in FIRST_SAMPLE_CHANNELS:
            plane = plane / count[..., None]
        return plane[..., 0].copy() if CHANNEL_WIDTHS[channel] == 1 else np.ascontiguousarray(plane)

    def _check(self, work: BucketWork, layers: F32) -> None:
        left, top = work.x - self.region.x, work.y - self.region.y
        inside = 0 <= left <= self.region.width - work.width and 0 <= top <= self.region.height - work.height
        if not inside or work.sample_end > self.samples:
            raise Impossible(f"framebuffer: {work} does not fit {self.region} with {self.samples} samples")
        shape = tile_shape(work, list(self.planes))
        if layers.shape != shape or layers.dtype != np.float32:
            raise Impossible(f"framebuffer: {work} needs f4{list(shape)}, found {layers.dtype}{list(layers.shape)}")

    def _window(self, work: BucketWork) -> tuple[slice, slice]:
        left, top = work.x - self.region.x, work.y - self.region.y
        return slice(top, top + work.height), slice(left, left + work.width)

    def _add(self, tile: PendingTile) -> None:
        window = self._window(tile.work)
        sums = self.sums[window]
        if tile.work.sample_begin == 0:
            sums += tile.layers[0]
        else:
            for layer in tile.layers:
                for plane in self.summed:
                    sums[..., plane] += layer[..., plane]
        self.done[window] = tile.work.sample_end

    def _wait(self, tile: PendingTile) -> None:
        waiting = self.pending.setdefault(tile.work.sample_begin, [])
        begun = (self.done[self._window(tile.work)] > tile.work.sample_begin).any()
        if begun or any(_overlap(tile.work, other.work) for other in waiting):
            raise Impossible(f"framebuffer: {tile.work} was merged before")
        waiting.append(tile)

    def _take_pending(self, added: BucketWork) -> list[PendingTile]:
        """The waiting tiles that go on where `added` ends."""
        waiting = self.pending.pop(added.sample_end, [])
        rest = [tile for tile in waiting if not _overlap(tile.work, added)]
        if rest:
            self.pending[added.sample_end] = rest
        return [tile for tile in waiting if _overlap(tile.work, added)]


def _allocate(shape: tuple[int, int, int]) -> F32:
    try:
        return np.zeros(shape, np.float32)
    except MemoryError:
        height, width, planes = shape
        raise BadInput(
            f"size: a picture of {width}x{height} with {planes} planes needs {4e-9 * height * width * planes:.0f} GB "
            "of memory, more than there is: render a region of it, or fewer channels"
        ) from None


def _overlap(a: BucketWork, b: BucketWork) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height
