"""Cuts a frame into buckets and puts them in order. Knows rectangles and sample counts; knows no server.

Coordinates are pixels of the full frame, also for a region. Which size and order is chosen decides no pixel's value.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from itertools import count
from math import prod
from typing import TypeAlias

from msgspec.structs import replace

from dr.errors import BadInput
from dr.protocol.messages import BucketWork
from dr.scene.model import Region, RenderSettings

MAX_SIZE = 1024  # pixels, the wire's limit
MAX_BUCKETS = 1 << 20

# What `choose_size` aims at: buckets of 50 ms to 1 s keep the traffic and the wait for the last one small.
AIM_S = 0.25
BUCKETS_PER_THREAD = 16
MAX_BUCKETS_PER_S = 5000
SAMPLES_PER_S = 250_000.0  # of one thread, before anything was measured
AUTO_SIZES = range(8, 257, 8)
LEAST_SIDE = 8  # pixels, below which no bucket is split

Cell: TypeAlias = tuple[int, int]  # column and row of the grid


class Order(StrEnum):
    SPIRAL = "spiral"
    HILBERT = "hilbert"
    ROWS = "rows"
    COLUMNS = "columns"
    CHECKER = "checker"
    RANDOM = "random"


def cut_frame(settings: RenderSettings, size: int, order: Order, seed: int = 0) -> tuple[BucketWork, ...]:
    """Buckets of size x size pixels (smaller at the right and lower edge) with all samples each, ids from 0 in `order`.

    `seed` matters to the order RANDOM alone. Raises BadInput for a size that makes no or far too many buckets.
    """
    if not 1 <= size <= MAX_SIZE:
        raise BadInput(f"bucket size: expected 1 to {MAX_SIZE} pixels, found {size}")
    region = region_of(settings)
    columns, rows = _grid(region, size)
    if columns * rows > MAX_BUCKETS:
        enough = next(side for side in count(size) if prod(_grid(region, side)) <= MAX_BUCKETS)
        found = f"{columns * rows}; use a size of {enough} or more"
        raise BadInput(f"bucket size {size}: expected at most {MAX_BUCKETS} buckets, found {found}")
    cells = order_cells(columns, rows, order, seed)
    return tuple(_bucket(index, cell, size, region, settings.samples) for index, cell in enumerate(cells))


def region_of(settings: RenderSettings) -> Region:
    """The rectangle that is rendered. Raises BadInput when the settings' region leaves the frame."""
    region = settings.region or Region(0, 0, settings.width, settings.height)
    if region.x + region.width > settings.width or region.y + region.height > settings.height:
        found = f"{region.x},{region.y},{region.width},{region.height}"
        raise BadInput(f"region: expected a rectangle inside {settings.width}x{settings.height}, found {found}")
    return region


def choose_size(settings: RenderSettings, threads: int, samples_per_s: float = SAMPLES_PER_S) -> int:
    """A bucket size in pixels for `threads` render threads of the farm, each of which renders `samples_per_s`.

    Aims at AIM_S per bucket, made smaller so that each thread gets a fair number of them, but never so small that
    the farm would hand out more than MAX_BUCKETS_PER_S, or the frame have more than MAX_BUCKETS.
    """
    region = region_of(settings)
    pixels_per_s = samples_per_s / settings.samples
    fair = region.width * region.height / (BUCKETS_PER_THREAD * max(1, threads))
    fewest = pixels_per_s * threads / MAX_BUCKETS_PER_S
    pixels = max(min(AIM_S * pixels_per_s, fair), fewest)
    size = next((size for size in AUTO_SIZES if (size + 4) ** 2 >= pixels), AUTO_SIZES[-1])
    while prod(_grid(region, size)) > MAX_BUCKETS:
        size += AUTO_SIZES.step
    return size


def choose_cell(settings: RenderSettings, threads: int, samples_per_s: float = SAMPLES_PER_S) -> int:
    """The size in pixels that an adaptive frame is cut into first; buckets are split down from there as they go out.

    A bucket should have to be split, since it cannot grow: four times the size that `choose_size` would take.
    """
    return max(AUTO_SIZES[0], min(AUTO_SIZES[-1], 4 * choose_size(settings, threads, samples_per_s)))


def halve(work: BucketWork) -> tuple[BucketWork, BucketWork] | None:
    """The two halves of a bucket across its longer side, cut at a multiple of 8 pixels; None: it is too small for that.

    Both keep its id: whoever takes them into a ledger gives them their own.
    """
    across = work.width >= work.height
    half = (max(work.width, work.height) // 2 + LEAST_SIDE - 1) // LEAST_SIDE * LEAST_SIDE
    if half >= max(work.width, work.height):
        return None
    if across:
        return replace(work, width=half), replace(work, x=work.x + half, width=work.width - half)
    return replace(work, height=half), replace(work, y=work.y + half, height=work.height - half)


def order_cells(columns: int, rows: int, order: Order, seed: int = 0) -> list[Cell]:
    """Every cell of a grid once, in the order that buckets are handed out."""
    cells = [(column, row) for row in range(rows) for column in range(columns)]
    cells.sort(key=_KEYS[order](columns, rows, seed))
    return cells


def _grid(region: Region, size: int) -> tuple[int, int]:
    """Columns and rows of buckets."""
    return -(-region.width // size), -(-region.height // size)


def _bucket(index: int, cell: Cell, size: int, region: Region, samples: int) -> BucketWork:
    x, y = cell[0] * size, cell[1] * size
    width, height = min(size, region.width - x), min(size, region.height - y)
    return BucketWork(index, region.x + x, region.y + y, width, height, 0, samples)


_Key: TypeAlias = Callable[[Cell], tuple[int, ...]]


def _rows(columns: int, rows: int, seed: int) -> _Key:
    return lambda cell: (cell[1], cell[0])


def _columns(columns: int, rows: int, seed: int) -> _Key:
    return lambda cell: cell


def _checker(columns: int, rows: int, seed: int) -> _Key:
    return lambda cell: ((cell[0] + cell[1]) % 2, cell[1], cell[0])


def _spiral(columns: int, rows: int, seed: int) -> _Key:
    """A walk in square rings around the middle, clockwise; each ring starts where the one before it ends."""
    middle_x, middle_y = (columns - 1) // 2, (rows - 1) // 2

    def key(cell: Cell) -> tuple[int, ...]:
        dx, dy = cell[0] - middle_x, cell[1] - middle_y
        ring = max(abs(dx), abs(dy))
        if dx == -ring and dy < ring:
            return ring, ring - 1 - dy
        if dy == -ring:
            return ring, 3 * ring - 1 + dx
        if dx == ring:
            return ring, 5 * ring - 1 + dy
        return ring, 7 * ring - 1 - dx

    return key


def _hilbert(columns: int, rows: int, seed: int) -> _Key:
    """Distance along the Hilbert curve of the smallest power-of-two square around the grid."""
    side = 1 << (max(columns, rows) - 1).bit_length()

    def key(cell: Cell) -> tuple[int, ...]:
        (x, y), distance, step = cell, 0, side // 2
        while step:
            right, down = int(x & step > 0), int(y & step > 0)
            distance += step * step * (3 * right ^ down)
            if not down:
                if right:
                    x, y = step - 1 - (x & (step - 1)), step - 1 - (y & (step - 1))
                x, y = y, x
            step //= 2
        return (distance,)

    return key


def _random(columns: int, rows: int, seed: int) -> _Key:
    """Sorts by SplitMix64 of seed and cell (Steele, Lea, Flood 2014): a bijection, so that no two cells tie."""
    mask = (1 << 64) - 1

    def key(cell: Cell) -> tuple[int, ...]:
        z = (seed * 0xD1342543DE82EF95 + (cell[1] * columns + cell[0] + 1) * 0x9E3779B97F4A7C15) & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return (z ^ z >> 31,)

    return key


_KEYS: dict[Order, Callable[[int, int, int], _Key]] = {
    Order.SPIRAL: _spiral,
    Order.HILBERT: _hilbert,
    Order.ROWS: _rows,
    Order.COLUMNS: _columns,
    Order.CHECKER: _checker,
    Order.RANDOM: _random,
}
