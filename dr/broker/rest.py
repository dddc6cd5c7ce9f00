"""Which rectangles are left of buckets when some of their pixels are done. Knows rectangles; knows no journal.

Two grids may cross each other anywhere: what was done may come from another bucket size or region, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import TypeAlias

from dr.errors import Impossible
from dr.protocol.messages import BucketWork

Box: TypeAlias = tuple[int, int, int, int]  # left, top, right and bottom: plain tuples, because there are many
Run: TypeAlias = tuple[int, int]  # begin and end of free pixels in a row


def cut_rest(buckets: Sequence[BucketWork], done: Iterable[BucketWork]) -> tuple[BucketWork, ...]:
    """The pixels of `buckets` that are not `done`, as buckets with all samples, ids from 0 in the order of `buckets`.

    The buckets do not overlap. The pieces of one that is partly done follow each other from the top down. Raises
    Impossible for a done rectangle, or a bucket, without all the samples of the frame.
    """
    if not buckets:
        return ()
    samples = buckets[0].sample_end
    for work in buckets:
        _check_samples(work, samples)
    rest: list[BucketWork] = []
    for work, holes in zip(buckets, _find_holes(buckets, done, samples), strict=True):
        for box in _free_boxes(_box(work), holes) if holes else [_box(work)]:
            left, top, right, bottom = box
            rest.append(BucketWork(len(rest), left, top, right - left, bottom - top, 0, samples))
    return tuple(rest)


def _check_samples(work: BucketWork, samples: int) -> None:
    if (work.sample_begin, work.sample_end) != (0, samples):
        raise Impossible(f"expected all samples, 0 to {samples}, found {work}")


def _find_holes(buckets: Sequence[BucketWork], done: Iterable[BucketWork], samples: int) -> list[list[Box]]:
    """Per bucket the parts of it that are done. A grid of cells, as large as the largest bucket, is the index."""
    cell = max(max(work.width, work.height) for work in buckets)
    left, top = min(work.x for work in buckets), min(work.y for work in buckets)
    boxes = [_box(work) for work in buckets]
    index: dict[tuple[int, int], list[int]] = {}
    for number, box in enumerate(boxes):
        for place in _cells(box, left, top, cell):
            index.setdefault(place, []).append(number)
    holes: list[list[Box]] = [[] for _ in buckets]
    for work in done:
        _check_samples(work, samples)
        hole = _box(work)
        for number in {number for place in _cells(hole, left, top, cell) for number in index.get(place, ())}:
            common = _common(boxes[number], hole)
            if common:
                holes[number].append(common)
    return holes


def _box(work: BucketWork) -> Box:
    return work.x, work.y, work.x + work.width, work.y + work.height


def _cells(box: Box, left: int, top: int, cell: int) -> list[tuple[int, int]]:
    columns = range((box[0] - left) // cell, (box[2] - 1 - left) // cell + 1)
    rows = range((box[1] - top) // cell, (box[3] - 1 - top) // cell + 1)
    return [(column, row) for row in rows for column in columns]


def _common(a: Box, b: Box) -> Box | None:
    left, top, right, bottom = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _free_boxes(box: Box, holes: list[Box]) -> list[Box]:
    """Of the cuts along rows and along columns the one with fewer rectangles, or else the squarer ones."""
    if holes[0] == box:
        return []
    by_rows = _cut_in_bands(box, holes)
    if len(by_rows) < 2:
        return by_rows
    by_columns = [_turned(piece) for piece in _cut_in_bands(_turned(box), [_turned(hole) for hole in holes])]
    chosen = by_rows if _awkwardness(by_rows) <= _awkwardness(by_columns) else by_columns
    return sorted(chosen, key=itemgetter(1, 0))


def _turned(box: Box) -> Box:
    left, top, right, bottom = box
    return top, left, bottom, right


def _awkwardness(boxes: list[Box]) -> tuple[int, int]:
    """How many, and how long their outlines are: of equal areas the square has the shortest."""
    return len(boxes), sum([right - left + bottom - top for left, top, right, bottom in boxes])


def _cut_in_bands(box: Box, holes: list[Box]) -> list[Box]:
    """Cuts at each top and bottom of a hole, from left to right; equal runs of neighbouring bands are one rectangle."""
    holes = sorted(holes)
    first, last = box[1], box[3]
    edges = sorted({first, *[hole[1] for hole in holes], *[hole[3] for hole in holes]} - {last})
    pieces: list[Box] = []
    growing: dict[Run, int] = {}  # to where each began
    for top in edges:
        runs = _free_runs(box, [hole for hole in holes if hole[1] <= top < hole[3]])
        if runs != list(growing):
            pieces += [(run[0], begun, run[1], top) for run, begun in growing.items() if run not in runs]
            growing = {run: growing.get(run, top) for run in runs}
    return pieces + [(left, begun, right, last) for (left, right), begun in growing.items()]


def _free_runs(box: Box, holes: list[Box]) -> list[Run]:
    """What these holes, sorted and all across one row, leave of it."""
    runs: list[Run] = []
    begin = box[0]
    for left, _, right, _ in holes:
        if left > begin:
            runs.append((begin, left))
        begin = max(begin, right)
    return [*runs, (begin, box[2])] if begin < box[2] else runs
