"""What is left of a frame when some of its pixels are done."""

from __future__ import annotations

from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.broker.buckets import Order, cut_frame
from dr.broker.rest import cut_rest
from dr.errors import Impossible
from dr.protocol.messages import BucketWork
from dr.scene.model import Region, RenderSettings

SAMPLES = 20


def bucket(number: int, x: int, y: int, width: int, height: int) -> BucketWork:
    return BucketWork(number, x, y, width, height, 0, SAMPLES)


def sizes(works: tuple[BucketWork, ...]) -> list[tuple[int, int, int, int]]:
    return [(work.x, work.y, work.width, work.height) for work in works]


def painted(works: tuple[BucketWork, ...], side: int = 64) -> np.ndarray:
    """How often each pixel is covered."""
    counts = np.zeros((side, side), int)
    for work in works:
        counts[work.y : work.y + work.height, work.x : work.x + work.width] += 1
    return counts


@st.composite
def rectangles(draw: st.DrawFn, side: int = 64) -> tuple[BucketWork, ...]:
    """Some parts of the square, cut by chance: of any size and place, no two overlap."""
    todo = [(0, 0, side, side)]
    found: list[BucketWork] = []
    while todo:
        x, y, width, height = todo.pop()
        fate = draw(st.sampled_from(["x", "y", "x", "y", "keep", "drop"]))
        if fate == "x" and width > 1:
            cut = draw(st.integers(1, width - 1))
            todo += [(x, y, cut, height), (x + cut, y, width - cut, height)]
        elif fate == "y" and height > 1:
            cut = draw(st.integers(1, height - 1))
            todo += [(x, y, width, cut), (x, y + cut, width, height - cut)]
        elif fate == "keep":
            found.append(bucket(len(found) + 7, x, y, width, height))
    return tuple(draw(st.permutations(found)))


@given(
    st.integers(1, 40), st.integers(0, 20), st.integers(0, 20), st.sampled_from(list(Order)), rectangles(), st.data()
)
@settings(max_examples=150, deadline=None)
def test_rest_and_done_are_the_buckets_each_pixel_once_and_in_their_order(
    size: int, x: int, y: int, order: Order, done: tuple[BucketWork, ...], data: st.DataObject
) -> None:
    region = Region(x, y, data.draw(st.integers(1, 64 - x)), data.draw(st.integers(1, 64 - y)))
    buckets = cut_frame(RenderSettings(width=64, height=64, samples=SAMPLES, region=region), size, order)
    rest = cut_rest(buckets, done)
    assert (painted(rest) == painted(buckets) * (1 - painted(done))).all()
    assert [work.id for work in rest] == list(range(len(rest)))
    assert all((work.sample_begin, work.sample_end) == (0, SAMPLES) for work in rest)
    owners = [next(each.id for each in buckets if lies_in(work, each)) for work in rest]
    assert owners == sorted(owners)


def lies_in(piece: BucketWork, whole: BucketWork) -> bool:
    across = whole.x <= piece.x and piece.x + piece.width <= whole.x + whole.width
    return across and whole.y <= piece.y and piece.y + piece.height <= whole.y + whole.height


@pytest.mark.parametrize(
    ("done", "rest"),
    [
        ([], [(0, 0, 32, 32)]),
        ([(0, 0, 32, 32)], []),
        ([(0, 0, 16, 32), (16, 0, 16, 32)], []),
        ([(40, 0, 8, 8)], [(0, 0, 32, 32)]),
        ([(0, 0, 32, 20)], [(0, 20, 32, 12)]),
        ([(24, 0, 20, 32)], [(0, 0, 24, 32)]),
        ([(0, 0, 32, 8), (0, 8, 8, 24)], [(8, 8, 24, 24)]),
        ([(0, 0, 16, 8)], [(16, 0, 16, 8), (0, 8, 32, 24)]),
        ([(0, 0, 8, 16)], [(8, 0, 24, 32), (0, 16, 8, 16)]),
        ([(8, 8, 16, 16)], [(0, 0, 32, 8), (0, 8, 8, 16), (24, 8, 8, 16), (0, 24, 32, 8)]),
    ],
    ids=[
        "nothing", "all", "all, in two parts", "beside it", "the top", "the right, and beyond",
        "all but a corner", "a wide corner", "a high corner", "the middle",
    ],
)  # fmt: skip
def test_the_rest_of_one_bucket(done: list[tuple[int, int, int, int]], rest: list[tuple[int, int, int, int]]) -> None:
    found = cut_rest([bucket(0, 0, 0, 32, 32)], [bucket(0, *each) for each in done])
    assert sorted(sizes(found)) == sorted(rest)


def test_no_buckets_leave_none() -> None:
    assert cut_rest((), [bucket(0, 0, 0, 4, 4)]) == ()


@pytest.mark.parametrize("samples", [(0, 16), (16, 20), (0, 32)], ids=["the first", "the last", "of another frame"])
def test_a_tile_without_all_its_samples_is_impossible(samples: tuple[int, int]) -> None:
    with pytest.raises(Impossible, match="expected all samples, 0 to 20"):
        cut_rest([bucket(0, 0, 0, 8, 8)], [BucketWork(0, 0, 0, 8, 8, *samples)])


def test_twenty_thousand_buckets_and_as_many_tiles_of_another_grid_take_no_time() -> None:
    picture = RenderSettings(width=32 * 200, height=32 * 100, samples=SAMPLES)
    buckets = cut_frame(picture, 32, Order.SPIRAL)
    others = cut_frame(picture, 23, Order.RANDOM)[: len(buckets)]
    began = process_time()
    rest = cut_rest(buckets, others)
    seconds = process_time() - began
    pixels = sum(work.width * work.height for work in (*rest, *others))
    assert pixels == picture.width * picture.height
    assert seconds < 5  # 0.4 s on an idle machine; comparing each with each would take minutes
