"""The framebuffer: any order of arrival and any legal split gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.errors import Impossible
from dr.image.framebuffer import Framebuffer
from dr.protocol.messages import CHANNEL_WIDTHS, BucketWork, Channel
from dr.protocol.tiles import tile_shape
from dr.protocol.version import SAMPLE_CHUNK
from dr.scene.model import F32, Region, RenderSettings

ALL = tuple(Channel)
WIDTH = sum(CHANNEL_WIDTHS.values())


def frame_chunks(width: int, height: int, samples: int, seed: int = 7) -> F32:
    """A renderer's sums per chunk, f4[chunk, height, width, plane]: magnitudes differ, so that order shows in bits."""
    dice = np.random.default_rng(seed)
    chunks = -(-samples // SAMPLE_CHUNK)
    values = dice.normal(size=(chunks, height, width, WIDTH)) * 10.0 ** dice.uniform(-4, 4, (chunks, height, width, 1))
    return values.astype(np.float32)


def tile(chunks: F32, work: BucketWork, origin: tuple[int, int] = (0, 0)) -> F32:
    """The tile that a server would send for `work`."""
    x, y = work.x - origin[0], work.y - origin[1]
    first, last = work.sample_begin // SAMPLE_CHUNK, -(-work.sample_end // SAMPLE_CHUNK)
    layers = chunks[first:last, y : y + work.height, x : x + work.width]
    if work.sample_begin:
        return layers
    total = np.zeros_like(layers[0])
    for layer in layers:
        total += layer
    total[..., 4], total[..., 11] = layers[0, ..., 4], layers[0, ..., 11]
    return total[None]


def merged(works: list[BucketWork], chunks: F32, settings: RenderSettings) -> Framebuffer:
    framebuffer = Framebuffer(settings, ALL)
    for work in works:
        framebuffer.merge(work, tile(chunks, work))
    return framebuffer


@st.composite
def splits(draw: st.DrawFn, width: int, height: int, samples: int) -> list[BucketWork]:
    """The frame cut by chance: each time along x, y or the samples; in any order."""
    todo = [(0, 0, width, height, 0, samples)]
    done: list[BucketWork] = []
    while todo:
        x, y, w, h, begin, end = todo.pop()
        axis = draw(st.sampled_from("xys."))
        if axis == "x" and w > 1:
            cut = draw(st.integers(1, w - 1))
            todo += [(x, y, cut, h, begin, end), (x + cut, y, w - cut, h, begin, end)]
        elif axis == "y" and h > 1:
            cut = draw(st.integers(1, h - 1))
            todo += [(x, y, w, cut, begin, end), (x, y + cut, w, h - cut, begin, end)]
        elif axis == "s" and end - begin > SAMPLE_CHUNK:
            cut = begin + SAMPLE_CHUNK * draw(st.integers(1, (end - begin - 1) // SAMPLE_CHUNK))
            todo += [(x, y, w, h, begin, cut), (x, y, w, h, cut, end)]
        else:
            done.append(BucketWork(len(done), x, y, w, h, begin, end))
    return draw(st.permutations(done))


@given(splits(width=7, height=5, samples=70))
def test_any_split_and_order_gives_the_bits_of_the_whole(works: list[BucketWork]) -> None:
    settings = RenderSettings(width=7, height=5, samples=70)
    chunks = frame_chunks(7, 5, 70)
    whole = merged([BucketWork(0, 0, 0, 7, 5, 0, 70)], chunks, settings)
    cut = merged(works, chunks, settings)
    assert cut.complete
    assert not any(cut.pending.values())
    for name, expected in whole.channels().items():
        assert cut.channels()[name].tobytes() == expected.tobytes(), name


def test_a_mean_is_one_float32_division() -> None:
    settings = RenderSettings(width=2, height=1, samples=48)
    chunks = frame_chunks(2, 1, 48)
    channels = merged([BucketWork(0, 0, 0, 2, 1, 0, 48)], chunks, settings).channels()
    total = np.zeros((1, 2, WIDTH), np.float32) + chunks[0] + chunks[1] + chunks[2]
    assert np.array_equal(channels["beauty"], total[..., 0:3] / np.float32(48))
    assert np.array_equal(channels["alpha"], total[..., 3] / np.float32(48))
    assert np.array_equal(channels["depth"], chunks[0, ..., 4])
    assert np.array_equal(channels["normal"], total[..., 5:8] / np.float32(48))
    assert np.array_equal(channels["albedo"], total[..., 8:11] / np.float32(48))
    assert np.array_equal(channels["object_id"], chunks[0, ..., 11])
    assert all(plane.dtype == np.float32 for plane in channels.values())


def test_depth_and_id_come_from_sample_0_alone_and_a_miss_stays_infinite() -> None:
    settings = RenderSettings(width=1, height=1, samples=32)
    framebuffer = Framebuffer(settings, [Channel.OBJECT_ID, Channel.DEPTH])
    framebuffer.merge(BucketWork(1, 0, 0, 1, 1, 16, 32), np.full((1, 1, 1, 2), 5, np.float32))
    framebuffer.merge(BucketWork(0, 0, 0, 1, 1, 0, 16), np.array([[[[np.inf, 3]]]], np.float32))
    assert framebuffer.complete
    assert framebuffer.channels() == {"depth": np.float32(np.inf), "object_id": np.float32(3)}


def test_missing_pixels_are_0_with_alpha_0_and_half_sampled_ones_are_means_so_far() -> None:
    settings = RenderSettings(width=2, height=1, samples=32)
    framebuffer = Framebuffer(settings, [Channel.BEAUTY, Channel.ALPHA])
    framebuffer.merge(BucketWork(0, 0, 0, 1, 1, 0, 16), np.full((1, 1, 1, 4), 16, np.float32))
    assert not framebuffer.complete
    channels = framebuffer.channels()
    assert channels["alpha"].tolist() == [[1.0, 0.0]]
    assert channels["beauty"].tolist() == [[[1.0] * 3, [0.0] * 3]]


def test_a_region_holds_only_its_own_pixels_in_full_frame_coordinates() -> None:
    settings = RenderSettings(width=100, height=80, samples=16, region=Region(30, 20, 4, 3))
    framebuffer = Framebuffer(settings, ALL)
    chunks = frame_chunks(4, 3, 16)
    for work in (BucketWork(0, 30, 20, 3, 3, 0, 16), BucketWork(1, 33, 20, 1, 3, 0, 16)):
        framebuffer.merge(work, tile(chunks, work, origin=(30, 20)))
    picture = framebuffer.picture()
    assert framebuffer.complete
    assert (picture.width, picture.height, picture.region) == (100, 80, Region(30, 20, 4, 3))
    assert np.array_equal(picture.channels["beauty"], chunks[0, ..., 0:3] / np.float32(16))
    with pytest.raises(Impossible, match="does not fit"):
        framebuffer.merge(BucketWork(2, 29, 20, 1, 1, 0, 16), np.zeros((1, 1, 1, WIDTH), np.float32))


@pytest.mark.parametrize(
    ("first", "second"),
    [((0, 16), (0, 16)), ((16, 32), (16, 32)), ((0, 32), (0, 16)), ((0, 32), (16, 32))],
    ids=["the first samples", "samples that wait", "a part of the first", "a part of the rest"],
)
def test_samples_merged_twice_are_impossible(first: tuple[int, int], second: tuple[int, int]) -> None:
    framebuffer = Framebuffer(RenderSettings(width=4, height=4, samples=48), ALL)
    chunks = frame_chunks(4, 4, 48)
    works = [BucketWork(0, 0, 0, 4, 4, *first), BucketWork(1, 1, 1, 2, 2, *second)]
    framebuffer.merge(works[0], tile(chunks, works[0]))
    with pytest.raises(Impossible, match="merged before"):
        framebuffer.merge(works[1], tile(chunks, works[1]))


@pytest.mark.parametrize(
    "work",
    [BucketWork(0, 3, 0, 2, 1, 0, 16), BucketWork(0, 0, 0, 1, 1, 0, 65)],
    ids=["outside", "too many samples"],
)
def test_a_tile_that_does_not_fit_the_frame_is_impossible(work: BucketWork) -> None:
    framebuffer = Framebuffer(RenderSettings(width=4, height=1, samples=64), ALL)
    with pytest.raises(Impossible, match="does not fit"):
        framebuffer.merge(work, np.zeros(tile_shape(work, ALL), np.float32))


def test_a_tile_of_another_shape_or_type_is_impossible() -> None:
    framebuffer = Framebuffer(RenderSettings(width=4, height=4, samples=64), [Channel.BEAUTY])
    work = BucketWork(0, 0, 0, 4, 4, 16, 64)
    for layers in (np.zeros((1, 4, 4, 3), np.float32), np.zeros((3, 4, 4, 3)), np.zeros((3, 4, 4, 4), np.float32)):
        with pytest.raises(Impossible, match="needs f4"):
            framebuffer.merge(work, layers)
