"""Turns a tile's pixels into payload frames and back. Knows layout and size; knows no codec of headers and no image.

Pixels are float32, little-endian, `[layer, height, width, plane]`; the planes are those of the tile's channels in the
order of `Channel`. A tile whose samples begin at 0 is ONE layer: all of its chunks of 16 samples, merged in order.
A tile that begins later holds one layer per chunk, because the image must add its chunks one by one to those before.
Sums of floats depend on their order; this rule keeps the bits of a split bucket equal to those of a whole one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dr.errors import ProtocolError
from dr.protocol.messages import CHANNEL_WIDTHS, BucketWork, Channel
from dr.protocol.version import PAYLOAD_FRAME_BYTES, SAMPLE_CHUNK

Pixels: TypeAlias = npt.NDArray[np.float32]
_ITEM = np.dtype("<f4")


def plane_count(channels: Sequence[Channel]) -> int:
    return sum(CHANNEL_WIDTHS[channel] for channel in channels)


def channel_slices(channels: Sequence[Channel]) -> dict[Channel, slice]:
    """Where each channel's planes lie in the last axis of a tile."""
    slices, begin = {}, 0
    for channel in channels:
        slices[channel] = slice(begin, begin + CHANNEL_WIDTHS[channel])
        begin += CHANNEL_WIDTHS[channel]
    return slices


def layer_count(bucket: BucketWork) -> int:
    if bucket.sample_begin == 0:
        return 1
    return -((bucket.sample_begin - bucket.sample_end) // SAMPLE_CHUNK)


def tile_shape(bucket: BucketWork, channels: Sequence[Channel]) -> tuple[int, int, int, int]:
    """(layers, height, width, planes)"""
    return layer_count(bucket), bucket.height, bucket.width, plane_count(channels)


def tile_bytes(bucket: BucketWork, channels: Sequence[Channel]) -> int:
    return prod(tile_shape(bucket, channels)) * _ITEM.itemsize


def pack(pixels: Pixels) -> tuple[memoryview, ...]:
    """Payload frames of `pixels[layer, height, width, plane]`; views where these are contiguous and little-endian."""
    data = np.ascontiguousarray(pixels, dtype=_ITEM).reshape(-1).view(np.uint8).data
    return tuple(data[begin : begin + PAYLOAD_FRAME_BYTES] for begin in range(0, len(data), PAYLOAD_FRAME_BYTES))


def unpack(bucket: BucketWork, channels: Sequence[Channel], payload: Sequence[bytes | memoryview]) -> Pixels:
    """`pixels[layer, height, width, plane]`, read-only and without a copy where one frame holds them all."""
    shape = tile_shape(bucket, channels)
    data = payload[0] if len(payload) == 1 else b"".join(payload)
    if len(data) != prod(shape) * _ITEM.itemsize:
        raise ProtocolError(f"tile: expected {prod(shape) * _ITEM.itemsize} bytes of pixels, found {len(data)}")
    return np.frombuffer(data, dtype=_ITEM).reshape(shape).view(np.float32)
