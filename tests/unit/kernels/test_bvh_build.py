"""Whatever the triangles, the tree holds each usable one once, its boxes hold what is below, threads change nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dr.errors import Impossible
from tests.support.rays import NO_INSTANCES, Floats, random_rays, scene_of, soup, trace, trace_naively
from workers.kernels.bvh.build import CHILD_ROW, CHILDREN, MAX_COORDINATE, MAX_DEPTH
from workers.kernels.records import ALPHA_FLAG, ID_MASK, NODE_FLOATS, PACK_FLOATS
from workers.prepare import bvh


def build(positions: Floats, threads: int = 1) -> bvh.Tree:
    return bvh.build(positions, np.arange(len(positions), dtype=np.int32), NO_INSTANCES, threads)


def pack_contents(tree: bvh.Tree, pack: int) -> tuple[list[int], Floats]:
    """Ids of the lanes in use (those with any corner off the origin) and their corners [lane, 3, 3]."""
    corners = tree.packs[pack, :72].reshape(3, 3, 8).transpose(2, 0, 1)
    used = corners.any((1, 2))
    return tree.packs.view(np.int32)[pack, 72:][used].tolist(), corners[used]


def walk(tree: bvh.Tree) -> tuple[list[int], list[int], int]:
    """Checks boxes and the order of children below every node; returns triangle ids, instances and the depth."""
    triangles: list[int] = []
    instances: list[int] = []
    links = tree.nodes.view(np.int32)[:, CHILD_ROW : CHILD_ROW + CHILDREN]
    seen_packs: set[int] = set()

    def visit(node: int) -> tuple[Floats, Floats, int]:
        lo, hi = tree.nodes[node, :48].reshape(3, 2, 8)[:, 0].T, tree.nodes[node, :48].reshape(3, 2, 8)[:, 1].T
        used = lo[:, 0] < np.inf
        assert np.all(lo[~used] == np.inf)
        assert np.all(hi[~used] == -np.inf)
        sides = (hi - lo)[used].astype(np.float64)
        areas = (sides * np.roll(sides, 1, 1)).sum(1)
        assert np.all(np.diff(areas) >= -1e-5 * areas.max(initial=0))
        deepest = 0
        for lane in np.flatnonzero(used):
            child = int(links[node, lane])
            if child >= 0:
                below_lo, below_hi, depth = visit(child)
                assert np.all(lo[lane] <= below_lo)
                assert np.all(hi[lane] >= below_hi)
                deepest = max(deepest, depth)
                continue
            first, count = ~child >> 4, ~child & 15
            if count == 0:
                instances.append(first - 1)
            for pack in range(first, first + count):
                assert pack not in seen_packs
                seen_packs.add(pack)
                ids, corners = pack_contents(tree, pack)
                assert ids == sorted(ids)
                assert np.all(corners >= lo[lane])
                assert np.all(corners <= hi[lane])
                triangles.extend(ids)
        return lo[used].min(0), hi[used].max(0), deepest + 1

    depth = visit(0)[2] if len(tree.nodes) else 0
    assert len(seen_packs) == len(tree.packs)
    return triangles, instances, depth


def nested(count: int) -> Floats:
    """Each triangle 1.5 times the one before, around one corner: no cut is fair."""
    return (soup(1, 1.0, seed=1) * 1.5 ** np.arange(-count // 2, count // 2)[:, None, None]).astype(np.float32)


CASES = {
    "one": soup(1, 0.1, seed=0),
    "one pack": soup(8, 0.1, seed=0),
    "two packs": soup(9, 0.1, seed=0),
    "soup": soup(5000, 0.1, seed=0),
    "long": soup(3000, 2.0, seed=0),
    "the same one many times": np.repeat(soup(1, 0.5, seed=4), 5000, axis=0),
    "nested": nested(120),
    "nested many times": np.repeat(nested(120), 40, axis=0),
    "flat": soup(3000, 0.1, seed=2) * np.array([1, 1, 0], np.float32),
    "points": np.repeat(soup(3000, 0.0, seed=3)[:, :1], 3, axis=1),
    "huge and tiny": np.concatenate(
        [soup(500, 1.0, seed=5) * np.float32(1e11), soup(500, 1.0, seed=6) * np.float32(1e-20)]
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_triangle_is_in_the_tree_once(name: str) -> None:
    triangles, instances, depth = walk(build(CASES[name]))
    assert sorted(triangles) == list(range(len(CASES[name])))
    assert instances == []
    assert depth <= MAX_DEPTH


@pytest.mark.parametrize("name", ["nested", "nested many times", "the same one many times", "huge and tiny"])
def test_unfair_trees_still_find_every_hit(name: str) -> None:
    rays = random_rays(300, seed=3)
    expected = trace_naively(CASES[name], np.arange(len(CASES[name])), *rays)
    found = trace(scene_of(CASES[name]), *rays)
    np.testing.assert_array_equal(found.triangles, expected.triangles)
    np.testing.assert_array_equal(found.distances, expected.distances)


@pytest.mark.parametrize("count", [0, 1, 4097, 60000])
def test_the_tree_does_not_depend_on_the_number_of_threads(count: int) -> None:
    triangles = soup(count, 0.02, seed=7)
    trees = [build(triangles, threads) for threads in (1, 2, 3)]
    for tree in trees[1:]:
        np.testing.assert_array_equal(tree.nodes.view(np.int32), trees[0].nodes.view(np.int32))
        np.testing.assert_array_equal(tree.packs.view(np.int32), trees[0].packs.view(np.int32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2 * MAX_COORDINATE])
def test_triangles_that_are_not_finite_are_left_out(bad: float) -> None:
    triangles = soup(200, 0.1, seed=8)
    broken = np.arange(0, 200, 7)
    for row in broken:
        triangles[row, row % 3, row % 2] = bad
    found, _, _ = walk(build(triangles))
    assert sorted(found) == sorted(set(range(200)) - set(broken.tolist()))


def test_a_tree_over_nothing_usable_has_no_nodes() -> None:
    nothing = np.full((3, 3, 3), np.nan, np.float32)
    tree = build(nothing)
    assert (tree.nodes.shape, tree.packs.shape) == ((0, NODE_FLOATS), (0, PACK_FLOATS))


def test_unused_lanes_have_no_area_and_id_zero() -> None:
    tree = bvh.build(soup(3, 0.1, seed=9), np.array([4, 5, 6], np.int32), NO_INSTANCES)
    lanes = tree.packs.reshape(-1, 10, 8)
    np.testing.assert_array_equal(lanes[0, :, 3:].view(np.int32), 0)
    assert lanes.view(np.int32)[0, 9, :3].tolist() == [4, 5, 6]


def test_flags_travel_with_ids_and_do_not_change_their_order() -> None:
    ids = np.array([2 | ALPHA_FLAG, 1, 0 | ALPHA_FLAG], np.int32)
    tree = bvh.build(soup(3, 0.1, seed=9), ids, NO_INSTANCES)
    stored = tree.packs.view(np.int32)[0, 72:75]
    assert (stored & ID_MASK).tolist() == [0, 1, 2]
    assert (stored < 0).tolist() == [True, False, True]


@pytest.mark.parametrize(("n_triangles", "n_instances"), [(0, 1), (0, 30), (5, 3), (4, 4), (500, 60)])
def test_a_leaf_holds_triangles_or_one_instance(n_triangles: int, n_instances: int) -> None:
    random = np.random.default_rng(n_instances)
    lo = random.uniform(-1, 1, (n_instances, 3))
    bounds = np.concatenate([lo, lo + random.uniform(0, 0.5, lo.shape)], 1).astype(np.float32)
    tree = bvh.build(soup(n_triangles, 0.1, seed=1), np.arange(n_triangles, dtype=np.int32), bounds)
    triangles, instances, _ = walk(tree)
    assert sorted(triangles) == list(range(n_triangles))
    assert sorted(instances) == list(range(n_instances))


def test_empty_and_endless_instance_bounds_are_left_out() -> None:
    bounds = np.array([[0, 0, 0, 1, 1, 1], [1, 0, 0, 0, 1, 1], [0, 0, 0, 1, np.inf, 1], [np.nan] * 6], np.float32)
    tree = bvh.build(np.zeros((0, 3, 3), np.float32), np.zeros(0, np.int32), bounds)
    assert walk(tree)[1] == [0]


def test_joined_trees_keep_their_contents_under_new_roots() -> None:
    bounds = np.array([[0, 0, 0, 1, 1, 1]], np.float32)
    parts = [soup(n, 0.1, seed=n) for n in (40, 0, 100)]
    trees = [bvh.build(part, np.arange(len(part), dtype=np.int32), bounds) for part in parts]
    trees[1] = build(parts[1])
    forest = bvh.concatenate(trees)
    assert forest.roots.tolist() == [0, bvh.NO_ROOT, len(trees[0].nodes)]
    assert forest.nodes.ctypes.data % 64 == forest.packs.ctypes.data % 64 == 0
    links = forest.nodes.view(np.int32)[:, CHILD_ROW : CHILD_ROW + CHILDREN]

    def below(node: int) -> tuple[set[int], set[int]]:
        packs: set[int] = set()
        instances: set[int] = set()
        for lane in np.flatnonzero(forest.nodes[node, :8] < np.inf):
            child = int(links[node, lane])
            if child >= 0:
                more_packs, more_instances = below(child)
                packs |= more_packs
                instances |= more_instances
            elif ~child & 15:
                packs |= set(range(~child >> 4, (~child >> 4) + (~child & 15)))
            else:
                instances.add((~child >> 4) - 1)
        return packs, instances

    boundary = len(trees[0].packs)
    assert below(0) == (set(range(boundary)), {0})
    assert below(int(forest.roots[2])) == (set(range(boundary, len(forest.packs))), {0})


def test_memory_stays_below_seventy_bytes_per_triangle() -> None:
    triangles = soup(20000, 0.03, seed=11)
    assert build(triangles).nbytes / len(triangles) < 70


def test_shapes_that_do_not_fit_are_our_own_bug() -> None:
    wrong: npt.NDArray[np.float32] = np.zeros((2, 3), np.float32)
    with pytest.raises(Impossible, match=r"expected positions \[t, 3, 3\]"):
        bvh.build(wrong, np.zeros(2, np.int32), NO_INSTANCES)
