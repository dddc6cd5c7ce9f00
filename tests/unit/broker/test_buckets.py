from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.broker.buckets import (
    AIM_S,
    LEAST_SIDE,
    MAX_BUCKETS,
    MAX_BUCKETS_PER_S,
    SAMPLES_PER_S,
    Order,
    choose_cell,
    choose_size,
    cut_frame,
    halve,
    order_cells,
)
from dr.errors import BadInput
from dr.protocol.messages import BucketWork
from dr.scene.model import Region, RenderSettings

ORDERS = list(Order)


@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(1, 80), st.sampled_from(ORDERS), st.integers(0, 9), st.data()
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_buckets_cover_each_pixel_once(
    width: int, height: int, size: int, order: Order, seed: int, data: st.DataObject
) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    region = Region(x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    picture = RenderSettings(width=width, height=height, samples=20, region=region)
    counts = np.zeros((height, width), int)
    buckets = cut_frame(picture, size, order, seed)
    for work in buckets:
        counts[work.y : work.y + work.height, work.x : work.x + work.width] += 1
        assert (work.sample_begin, work.sample_end) == (0, 20)
    expected = np.zeros_like(counts)
    expected[y : y + region.height, x : x + region.width] = 1
    assert (counts == expected).all()
    assert [work.id for work in buckets] == list(range(len(buckets)))


def test_buckets_at_the_right_and_lower_edge_are_smaller() -> None:
    picture = RenderSettings(width=40, height=20, samples=8)
    assert cut_frame(picture, 16, Order.ROWS) == (
        BucketWork(0, 0, 0, 16, 16, 0, 8),
        BucketWork(1, 16, 0, 16, 16, 0, 8),
        BucketWork(2, 32, 0, 8, 16, 0, 8),
        BucketWork(3, 0, 16, 16, 4, 0, 8),
        BucketWork(4, 16, 16, 16, 4, 0, 8),
        BucketWork(5, 32, 16, 8, 4, 0, 8),
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", [(1, 1), (5, 3), (1, 9), (16, 16)])
def test_every_order_names_each_cell_once(order: Order, grid: tuple[int, int]) -> None:
    cells = order_cells(*grid, order, seed=4)
    assert sorted(cells) == [(column, row) for column in range(grid[0]) for row in range(grid[1])]


def test_rows_and_columns_and_checker_go_as_they_say() -> None:
    assert order_cells(3, 2, Order.ROWS) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert order_cells(3, 2, Order.COLUMNS) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert order_cells(3, 2, Order.CHECKER) == [(0, 0), (2, 0), (1, 1), (1, 0), (0, 1), (2, 1)]


def test_the_spiral_walks_from_the_middle_without_a_jump() -> None:
    cells = order_cells(9, 9, Order.SPIRAL)
    assert cells[:4] == [(4, 4), (3, 4), (3, 3), (4, 3)]
    assert steps(cells) == {1}


def test_the_hilbert_curve_walks_without_a_jump() -> None:
    assert steps(order_cells(16, 16, Order.HILBERT)) == {1}


def test_the_random_order_is_the_seeds() -> None:
    assert order_cells(8, 8, Order.RANDOM, 1) == order_cells(8, 8, Order.RANDOM, 1)
    assert order_cells(8, 8, Order.RANDOM, 1) != order_cells(8, 8, Order.RANDOM, 2)


def steps(cells: list[tuple[int, int]]) -> set[int]:
    return {abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairwise(cells)}


@pytest.mark.parametrize("size", [0, 1025])
def test_a_size_that_no_bucket_can_have_is_refused(size: int) -> None:
    with pytest.raises(BadInput, match=f"expected 1 to 1024 pixels, found {size}"):
        cut_frame(RenderSettings(), size, Order.ROWS)


def test_a_size_that_makes_too_many_buckets_names_one_that_does_not() -> None:
    huge = RenderSettings(width=65536, height=65536)
    with pytest.raises(BadInput, match="expected at most 1048576 buckets, found 4294967296; use a size of 64 or more"):
        cut_frame(huge, 1, Order.ROWS)


def test_the_size_that_is_named_is_the_smallest_that_will_do() -> None:
    strip = RenderSettings(width=65536, height=65521)
    with pytest.raises(BadInput, match="use a size of 64 or more"):
        cut_frame(strip, 63, Order.ROWS)
    assert len(cut_frame(strip, 64, Order.ROWS)) == MAX_BUCKETS


@pytest.mark.parametrize("side", [8200, 16384, 65536])
def test_the_automatic_size_is_one_that_the_largest_frames_may_have(side: int) -> None:
    picture = RenderSettings(width=side, height=side, samples=4096)
    assert prod(-(-side // choose_size(picture, 64)) for _ in range(2)) <= MAX_BUCKETS


def test_a_region_outside_the_frame_is_refused() -> None:
    with pytest.raises(BadInput, match="inside 960x540, found 900,0,100,10"):
        cut_frame(RenderSettings(region=Region(900, 0, 100, 10)), 32, Order.ROWS)


@pytest.mark.parametrize("samples", [1, 16, 64, 256, 4096])
@pytest.mark.parametrize("threads", [1, 8, 64, 1000])
def test_the_automatic_size_keeps_buckets_short_and_the_farm_quiet(samples: int, threads: int) -> None:
    picture = RenderSettings(width=1920, height=1080, samples=samples)
    size = choose_size(picture, threads)
    seconds = size * size * samples / SAMPLES_PER_S
    # the step of 8 pixels may enlarge a small bucket's area by at most (12 / 8) squared
    assert seconds <= AIM_S * 2.25 or size == 8 or threads / seconds >= MAX_BUCKETS_PER_S / 2.25
    assert threads / seconds <= MAX_BUCKETS_PER_S * 2.25 or size == 256


@given(st.integers(1, 1024), st.integers(1, 1024), st.integers(0, 99), st.integers(0, 99))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_halves_cover_the_whole_and_are_cut_at_multiples_of_8_across_the_longer_side(
    width: int, height: int, x: int, y: int
) -> None:
    whole = BucketWork(5, x, y, width, height, 0, 16)
    parts = halve(whole)
    if parts is None:
        assert max(width, height) <= LEAST_SIDE
        return
    first, second = parts
    assert (first.x, first.y) == (x, y)
    if width >= height:
        assert (second.x - x, second.y, first.width + second.width) == (first.width, y, width)
        assert (first.height, second.height, first.width % 8) == (height, height, 0)
    else:
        assert (second.y - y, second.x, first.height + second.height) == (first.height, x, height)
        assert (first.width, second.width, first.height % 8) == (width, width, 0)
    assert max(first.width * first.height, second.width * second.height) <= max(width * height * 2 / 3, 8 * 1024)


@pytest.mark.parametrize(("samples", "expected"), [(1, 256), (64, 128), (4096, 32)])
def test_an_adaptive_frame_is_cut_into_cells_four_times_as_wide_as_its_buckets_may_be(
    samples: int, expected: int
) -> None:
    picture = RenderSettings(width=1920, height=1080, samples=samples)
    assert choose_cell(picture, 8) == expected == min(256, 4 * choose_size(picture, 8))
