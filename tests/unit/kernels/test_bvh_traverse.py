"""Traversal against its naive twin, bit for bit, and against geometry whose answers are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.rays import (
    Floats,
    Hits,
    Scene,
    bounds_of,
    joined,
    random_rays,
    scene_of,
    soup,
    trace,
    trace_naively,
    transformed,
)
from workers.kernels.records import ALPHA_FLAG, CULL_FLAG
from workers.prepare import bvh

NO_TRIANGLES = np.zeros((0, 3, 3), np.float32)
NO_IDS = np.zeros(0, np.int32)
# in the plane z = 0, counter-clockwise seen from +z
FACING_UP = np.array([[[-1, -1, 0], [1, -1, 0], [0, 1, 0]]], np.float32)
DOWN = np.array([[0, 0, -1]], np.float32)
UP = -DOWN
ABOVE, BELOW = np.array([[0, 0, 1]], np.float32), np.array([[0, 0, -1]], np.float32)


def assert_same(found: Hits, expected: Hits) -> None:
    np.testing.assert_array_equal(found.triangles, expected.triangles)
    np.testing.assert_array_equal(found.distances, expected.distances)
    np.testing.assert_array_equal(found.any, expected.any)


@pytest.mark.parametrize(("count", "size"), [(1, 1.0), (7, 1.0), (50, 0.5), (3000, 0.05), (3000, 0.5)])
def test_the_tree_finds_exactly_what_a_loop_over_all_triangles_finds(count: int, size: float) -> None:
    triangles, rays = soup(count, size, seed=count), random_rays(3000, seed=1)
    expected = trace_naively(triangles, np.arange(count), *rays)
    assert_same(trace(scene_of(triangles), *rays), expected)
    assert count < 50 or 0.05 < (expected.triangles[:, 0] >= 0).mean() < 1


def test_flags_choose_the_same_hits_as_in_a_loop() -> None:
    triangles, rays = soup(1000, 0.3, seed=5), random_rays(3000, seed=2)
    flags = np.random.default_rng(6).choice([0, CULL_FLAG, ALPHA_FLAG, CULL_FLAG | ALPHA_FLAG], 1000)
    ids = np.arange(1000) | flags
    expected = trace_naively(triangles, ids, *rays, tmin=0.25, tmax=1.5)
    assert_same(trace(scene_of(triangles, ids), *rays, tmin=0.25, tmax=1.5), expected)
    assert len(np.unique(expected.triangles[:, 2])) == 4


def test_a_hit_is_the_point_that_its_barycentrics_name() -> None:
    triangles, (o, d) = soup(500, 0.4, seed=3), random_rays(2000, seed=4)
    hits = trace(scene_of(triangles), o, d)
    hit = hits.triangles[:, 0] >= 0
    corners = triangles[hits.triangles[hit, 0]].astype(np.float64)
    t, u, v = hits.distances[hit].astype(np.float64).T[:, :, None]
    on_triangle = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
    # a few roundings of coordinates below 8: the ray is known to 2^-24 of them, seen at a slant of at most 1 / cosine
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    cosine = np.abs((normal * d[hit]).sum(1)) / np.linalg.norm(normal, axis=1) / np.linalg.norm(d[hit], axis=1)
    error = np.linalg.norm(on_triangle - (o[hit] + t * d[hit]), axis=1)
    assert np.all(error < 8 * 2.0**-24 * 8 / cosine)
    assert np.all((u >= 0) & (v >= 0) & (u + v <= 1 + 2.0**-22))


def ball(n: int, centre: tuple[float, float, float], radius: float) -> tuple[Floats, Floats]:
    """A closed mesh of shared corners: triangles and the corners themselves."""
    theta = np.pi * np.arange(1, n) / n
    phi = 2 * np.pi * np.arange(2 * n) / (2 * n)
    rings = np.stack(
        [
            np.outer(np.sin(theta), np.cos(phi)),
            np.outer(np.sin(theta), np.sin(phi)),
            np.outer(np.cos(theta), 1 + 0 * phi),
        ],
        -1,
    )
    points = np.concatenate([[[0, 0, 1]], rings.reshape(-1, 3), [[0, 0, -1]]])
    points = (points * radius + centre).astype(np.float32)
    last, faces = len(points) - 1, []
    for column in range(2 * n):
        after = (column + 1) % (2 * n)
        faces += [(0, 1 + column, 1 + after), (last, last - 2 * n + after, last - 2 * n + column)]
        for ring in range(n - 2):
            a, b = 1 + ring * 2 * n + column, 1 + ring * 2 * n + after
            faces += [(a, a + 2 * n, b + 2 * n), (a, b + 2 * n, b)]
    return points[np.array(faces)], points


@pytest.mark.parametrize("radius", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("centre", [(0, 0, 0), (0.1, -0.2, 0.3), (10, 20, -5)])
def test_no_ray_escapes_a_closed_mesh(radius: float, centre: tuple[float, float, float]) -> None:
    triangles, corners = ball(24, centre, radius)
    middles = (triangles + np.roll(triangles, 1, axis=1)).reshape(-1, 3) / 2
    random = np.random.default_rng(9)
    targets = np.concatenate([corners, middles, corners[random.integers(0, len(corners), 20000)]])
    inside = random.uniform(-0.4, 0.4, targets.shape) * radius + centre
    inside[: len(corners) + len(middles)] = centre
    o = inside.astype(np.float32)
    hits = trace(scene_of(triangles), o, targets.astype(np.float32) - o)
    assert np.all(hits.triangles[:, 0] >= 0)
    assert np.all(hits.any)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("height", [0.0, 0.3])
def test_axis_parallel_rays_hit_a_flat_grid_at_corners_edges_and_faces(axis: int, height: float) -> None:
    n = 16
    x, y = np.meshgrid(np.arange(n + 1) / n, np.arange(n + 1) / n, indexing="ij")
    points = np.stack([x - 0.5, y - 0.5, np.full_like(x, height)], -1)
    a, b, c, d = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
    triangles = np.concatenate([np.stack(part, 2).reshape(-1, 3, 3) for part in ((a, b, c), (a, c, d))])
    s, t = np.meshgrid(np.linspace(-0.5, 0.5, 4 * n + 1), np.linspace(-0.5, 0.5, 4 * n + 1))
    o = np.stack([s, t, np.full_like(s, height + 1)], -1).reshape(-1, 3)
    for zero in (0.0, -0.0):
        down = np.tile([zero, zero, -1.0], (len(o), 1))
        scene = scene_of(np.roll(triangles, axis, -1).astype(np.float32))
        hits = trace(scene, np.roll(o, axis, -1).astype(np.float32), np.roll(down, axis, -1).astype(np.float32))
        assert np.all(hits.any)
        np.testing.assert_allclose(hits.distances[:, 0], 1, rtol=2.0**-22)


def test_a_ray_inside_the_plane_of_a_box_sees_what_stands_in_it() -> None:
    wall = np.array([[[0, 2, -1], [0, 2, 1], [1, 2, 0]], [[0, 4, -1], [0, 4, 1], [-1, 4, 0]]], np.float32)
    o, d = np.zeros((1, 3), np.float32), np.array([[0, 1, 0]], np.float32)
    hits = trace(scene_of(wall), o, d)
    assert (hits.triangles[0, 0], hits.distances[0, 0]) == (0, 2)
    assert trace(scene_of(wall), o, d, tmin=3).triangles[0, 0] == 1
    for side in (wall[:1], wall[1:]):  # its edge lies in the ray's path, and its box ends there
        for axis in range(3):
            rolled = scene_of(np.roll(side, axis, -1))
            assert trace(rolled, o, np.roll(d, axis, -1), tmin=1).triangles[0, 0] == 0


def test_limits_are_open_on_both_sides() -> None:
    scene = scene_of(FACING_UP)
    below, above = np.nextafter(np.float32(1), np.float32(0)), np.nextafter(np.float32(1), np.float32(2))
    for tmin, tmax, expected in ((0, 1, False), (1, 2, False), (below, above, True), (0, np.inf, True), (0, 0, False)):
        hits = trace(scene, ABOVE, DOWN, tmin, tmax)
        assert (bool(hits.triangles[0, 0] >= 0), bool(hits.any[0])) == (expected, expected)
    assert trace(scene, ABOVE, DOWN, 0, 1).distances[0, 0] == 1


@pytest.mark.parametrize(
    ("flags", "from_above", "from_below", "opaque_above", "opaque_below"),
    [
        (0, 0, 0, True, True),
        (CULL_FLAG, 0, -1, True, False),
        (ALPHA_FLAG, 0, 0, False, False),
        (CULL_FLAG | ALPHA_FLAG, 0, -1, False, False),
    ],
)
def test_flags_decide_what_is_passed(
    flags: int, from_above: int, from_below: int, opaque_above: bool, opaque_below: bool
) -> None:
    for shift in range(3):  # along every axis
        scene = scene_of(np.ascontiguousarray(np.roll(FACING_UP, shift, -1)), [flags])
        above = trace(scene, np.roll(ABOVE, shift, -1), np.roll(DOWN, shift, -1))
        below = trace(scene, np.roll(BELOW, shift, -1), np.roll(UP, shift, -1))
        assert (above.triangles[0, 0], below.triangles[0, 0]) == (from_above, from_below)
        assert (above.any[0], below.any[0]) == (opaque_above, opaque_below)
        assert above.triangles[0, 2] == flags


def test_a_passed_back_does_not_hide_what_is_behind_it() -> None:
    stack = np.concatenate([FACING_UP, FACING_UP + np.array([0, 0, 1], np.float32)])
    hits = trace(scene_of(stack, [0 | CULL_FLAG, 1]), BELOW, UP)
    assert (hits.triangles[0, 0], hits.distances[0, 0]) == (1, 2)
    assert hits.any[0]


@pytest.mark.parametrize("count", [2, 8, 9, 100])
def test_at_equal_distance_the_smallest_id_wins(count: int) -> None:
    ids = np.random.default_rng(count).permutation(count) + 5
    scene = scene_of(np.repeat(FACING_UP, count, axis=0), ids)
    assert trace(scene, ABOVE, DOWN).triangles[0].tolist() == [5, -1, 0]


def test_at_equal_distance_the_world_wins_and_then_the_first_instance() -> None:
    mesh = bvh.build(FACING_UP, np.array([3], np.int32), np.zeros((0, 6), np.float32))
    place = np.eye(3, 4)
    bounds = np.repeat(bounds_of(FACING_UP, place)[None], 3, axis=0)
    instances = [(1, place)] * 3
    world = bvh.build(FACING_UP, np.array([7], np.int32), bounds)
    assert trace(joined([world, mesh], instances), ABOVE, DOWN).triangles[0].tolist() == [7, -1, 0]
    only_instances = bvh.build(NO_TRIANGLES, NO_IDS, bounds)
    assert trace(joined([only_instances, mesh], instances), ABOVE, DOWN).triangles[0].tolist() == [3, 0, 0]


def placements(count: int, seed: int) -> list[npt.NDArray[np.float64]]:
    """Rotations with uneven scales, mirrored ones among them, and a translation each."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
        scale = random.uniform(0.3, 1.2, 3) * random.choice([-1, 1], 3)
        found.append(np.column_stack([rotation * scale, random.uniform(-2, 2, 3)]))
    return found


def two_level(mesh: Floats, ids: npt.NDArray[np.int32], places: list[npt.NDArray[np.float64]], world: Floats) -> Scene:
    bounds = np.stack([bounds_of(mesh, place) for place in places])
    none = np.zeros((0, 6), np.float32)
    trees = [bvh.build(world, np.arange(len(world), dtype=np.int32), bounds), bvh.build(mesh, ids, none)]
    return joined(trees, [(1, place) for place in places])


@pytest.mark.parametrize("count", [1, 2, 40])
def test_instances_look_like_their_flattened_copies(count: int) -> None:
    mesh, world, places = soup(60, 0.4, seed=1), soup(50, 0.3, seed=2), placements(count, seed=3)
    scene = two_level(mesh, np.arange(len(mesh), dtype=np.int32), places, world)
    flat = np.concatenate([world, *(transformed(mesh, place) for place in places)])
    o, d = random_rays(4000, seed=4, extent=3)
    found, expected = trace(scene, o, d), trace_naively(flat, np.arange(len(flat)), o, d)
    instance, number = found.triangles[:, 1], found.triangles[:, 0]
    as_flat = np.where(instance < 0, number, len(world) + instance * len(mesh) + number)
    same = as_flat == expected.triangles[:, 0]
    # rounding moves edges by about 1e-6 of triangles that are 0.4 wide: a ray in 1e4 may see the neighbour
    assert same.mean() > 0.999
    hit = same & (expected.triangles[:, 0] >= 0)
    distances = found.distances[hit, 0], expected.distances[hit, 0]
    np.testing.assert_allclose(*distances, rtol=1e-3)
    assert np.quantile(np.abs(distances[0] / distances[1] - 1), 0.99) < 2e-5
    np.testing.assert_array_equal(found.any, found.triangles[:, 0] >= 0)
    assert (found.triangles[:, 1] >= 0).any()


def test_a_mirrored_instance_still_shows_its_front() -> None:
    mirror = np.column_stack([np.diag([-1.0, 1.0, 1.0]), [0, 0, 0]])
    scene = two_level(FACING_UP, np.array([CULL_FLAG], np.int32), [mirror], NO_TRIANGLES)
    assert trace(scene, ABOVE, DOWN).triangles[0].tolist() == [0, 0, CULL_FLAG]
    assert trace(scene, BELOW, UP).triangles[0].tolist() == [-1, -1, 0]


def test_an_instance_of_an_empty_mesh_is_passed() -> None:
    empty = bvh.build(NO_TRIANGLES, NO_IDS, np.zeros((0, 6), np.float32))
    bounds = np.array([[-1, -1, 0.2, 1, 1, 0.5]], np.float32)
    world = bvh.build(FACING_UP, np.zeros(1, np.int32), bounds)
    hits = trace(joined([world, empty], [(1, np.eye(3, 4))]), ABOVE, DOWN)
    assert hits.triangles[0].tolist() == [0, -1, 0]
    assert hits.any[0]


def test_an_empty_world_is_missed() -> None:
    hits = trace(scene_of(NO_TRIANGLES), ABOVE, DOWN, tmax=7)
    assert hits.triangles[0].tolist() == [-1, -1, 0]
    assert hits.distances[0, 0] == 7
    assert not hits.any[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_ray_that_is_no_ray_misses(bad: float) -> None:
    scene = scene_of(soup(500, 0.3, seed=8))
    for axis in range(3):
        broken = np.zeros((1, 3), np.float32)
        broken[0, axis] = bad
        for o, d in ((broken, DOWN), (ABOVE, broken)):
            trace(scene, o, d)  # ends
    still = trace(scene, ABOVE, np.zeros((1, 3), np.float32))
    assert still.triangles[0, 0] == -1
    nowhere = trace(scene, np.full((1, 3), np.nan, np.float32), DOWN)
    assert nowhere.triangles[0, 0] == -1


def test_triangles_without_area_are_never_hit() -> None:
    point, line = np.zeros((1, 3, 3), np.float32), np.array([[[-1, 0, 0], [0, 0, 0], [1, 0, 0]]], np.float32)
    hits = trace(scene_of(np.concatenate([point, line])), ABOVE, DOWN)
    assert hits.triangles[0, 0] == -1
    assert not hits.any[0]


def test_a_triangle_seen_edge_on_is_missed() -> None:
    hits = trace(scene_of(FACING_UP), np.array([[-3, 0, 0]], np.float32), np.array([[1, 0, 0]], np.float32))
    assert hits.triangles[0, 0] == -1


def test_a_tiny_triangle_does_not_catch_rays_that_pass_beside_it() -> None:
    random = np.random.default_rng(12)
    wall = np.array([[[-9, -9, 5], [9, -9, 5], [0, 9, 5]]], np.float32)  # makes the leaf's box as large as the view
    o = np.tile(np.array([0.1, 0.2, -3.0], np.float32), (200, 1))
    d = random.uniform(-0.2, 0.15, (200, 3)).astype(np.float32) + np.array([0, 0, 1], np.float32)
    for _ in range(50):
        # as small as the coordinates' roundings: the edge functions are nothing but the last bits of products
        tiny = random.uniform(1, 2, (7, 1, 3)) + random.normal(size=(7, 3, 3)) * 2e-7
        hits = trace(scene_of(np.concatenate([tiny.astype(np.float32), wall])), o, d)
        assert np.all(hits.triangles[:, 0] == 7)
