from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.errors import ProtocolError
from dr.protocol.messages import BucketWork, Channel
from dr.protocol.tiles import channel_slices, layer_count, pack, tile_bytes, tile_shape, unpack
from dr.protocol.version import PAYLOAD_FRAME_BYTES

BEAUTY_AND_ID = (Channel.BEAUTY, Channel.OBJECT_ID)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3), st.integers(1, 60))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_pixels_pass_the_wire_bit_for_bit(width: int, height: int, chunk: int, samples: int) -> None:
    bucket = BucketWork(0, 0, 0, width, height, 16 * chunk, 16 * chunk + samples)
    shape = tile_shape(bucket, BEAUTY_AND_ID)
    pixels = np.random.default_rng(width).integers(0, 1 << 32, shape, np.uint32).view(np.float32)  # NaNs too
    frames = pack(pixels)
    assert sum(len(frame) for frame in frames) == tile_bytes(bucket, BEAUTY_AND_ID)
    assert unpack(bucket, BEAUTY_AND_ID, frames).tobytes() == pixels.tobytes()


def test_a_large_tile_travels_in_frames_of_a_mebibyte() -> None:
    bucket = BucketWork(0, 0, 0, 512, 300, 0, 16)
    pixels = np.arange(512 * 300 * 4, dtype=np.float32).reshape(tile_shape(bucket, BEAUTY_AND_ID))
    frames = pack(pixels)
    assert [len(frame) for frame in frames] == [PAYLOAD_FRAME_BYTES, PAYLOAD_FRAME_BYTES, 360448]
    assert (unpack(bucket, BEAUTY_AND_ID, [bytes(frame) for frame in frames]) == pixels).all()


def test_a_tile_of_one_frame_is_never_copied() -> None:
    bucket = BucketWork(0, 0, 0, 16, 16, 0, 16)
    pixels = np.ones(tile_shape(bucket, BEAUTY_AND_ID), np.float32)
    seen = unpack(bucket, BEAUTY_AND_ID, pack(pixels))
    assert np.shares_memory(seen, pixels)


@pytest.mark.parametrize(
    ("begin", "end", "layers"), [(0, 1, 1), (0, 64, 1), (16, 17, 1), (16, 32, 1), (16, 33, 2), (64, 100, 3)]
)
def test_later_samples_come_in_a_layer_per_chunk(begin: int, end: int, layers: int) -> None:
    assert layer_count(BucketWork(0, 0, 0, 1, 1, begin, end)) == layers


def test_channels_stand_in_the_order_of_a_film_pixel() -> None:
    slices = channel_slices(list(Channel))
    assert [(c.value, s.start, s.stop) for c, s in slices.items()] == [
        ("beauty", 0, 3),
        ("alpha", 3, 4),
        ("depth", 4, 5),
        ("normal", 5, 8),
        ("albedo", 8, 11),
        ("object_id", 11, 12),
    ]


def test_a_tile_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ProtocolError, match="expected 48 bytes of pixels, found 44"):
        unpack(BucketWork(0, 0, 0, 2, 2, 0, 16), [Channel.BEAUTY], [b"x" * 44])
