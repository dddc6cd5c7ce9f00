"""Traces many rays through built trees, and through every triangle without a tree: traversal's slow, obvious twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from workers.kernels.bvh.traverse import any_hit, closest_hit
from workers.kernels.jit import f32, fma, i32, kernel
from workers.kernels.records import CULL_FLAG, ID_MASK, INSTANCE, SCENE
from workers.kernels.vec3 import load3
from workers.prepare import bvh

Floats = npt.NDArray[np.float32]
NO_INSTANCES = np.zeros((0, 6), np.float32)


class Hits(NamedTuple):
    """One row per ray."""

    triangles: npt.NDArray[np.int32]  # [n, 3]: id or -1, instance or -1, flags
    distances: Floats  # [n, 3]: t, u, v
    any: npt.NDArray[np.bool_]  # [n]


class Scene(NamedTuple):
    record: Any
    memory: tuple[Any, ...]  # what the record points to


@kernel
def _trace(scene, origins, directions, tmin, tmax, triangles, distances, occluded):  # type: ignore[no-untyped-def]
    for i in range(len(origins)):
        o, d = load3(origins, i), load3(directions, i)
        triangle, instance, t, u, v, flags = closest_hit(scene, o, d, f32(tmin), f32(tmax))
        triangles[i, 0], triangles[i, 1], triangles[i, 2] = triangle, instance, flags
        distances[i, 0], distances[i, 1], distances[i, 2] = t, u, v
        occluded[i] = any_hit(scene, o, d, f32(tmin), f32(tmax))


@kernel
def _edge(ax, ay, bx, by):  # type: ignore[no-untyped-def]
    product = ay * bx
    return fma(ax, by, -product) + fma(-ay, bx, product)


@kernel
def _naive(positions, ids, origins, directions, tmin, tmax, triangles, distances, occluded):  # type: ignore[no-untyped-def]
    for i in range(len(origins)):
        o, d = origins[i], directions[i]
        kz = 0
        if abs(d[1]) > abs(d[kz]):
            kz = 1
        if abs(d[2]) > abs(d[kz]):
            kz = 2
        kx, ky = (kz + 1) % 3, (kz + 2) % 3
        scale = f32(1.0) / d[kz]
        shear_x, shear_y = d[kx] * scale, d[ky] * scale
        triangles[i, 0], triangles[i, 1], triangles[i, 2] = -1, -1, 0
        distances[i, 0], distances[i, 1], distances[i, 2] = tmax, 0.0, 0.0
        occluded[i] = False
        for j in range(len(positions)):
            p = positions[j]
            az, bz, cz = p[0, kz] - o[kz], p[1, kz] - o[kz], p[2, kz] - o[kz]
            ax, ay = fma(-shear_x, az, p[0, kx] - o[kx]), fma(-shear_y, az, p[0, ky] - o[ky])
            bx, by = fma(-shear_x, bz, p[1, kx] - o[kx]), fma(-shear_y, bz, p[1, ky] - o[ky])
            cx, cy = fma(-shear_x, cz, p[2, kx] - o[kx]), fma(-shear_y, cz, p[2, ky] - o[ky])
            u, v, w = _edge(cx, cy, bx, by), _edge(ax, ay, cx, cy), _edge(bx, by, ax, ay)
            total = u + v + w
            if total == 0.0 or not (min(u, min(v, w)) >= 0.0 or max(u, max(v, w)) <= 0.0):
                continue
            t = fma(u, az, fma(v, bz, w * cz)) * scale / total
            if not (t > f32(tmin) and t < f32(tmax)) or (ids[j] & CULL_FLAG and total * scale < 0.0):
                continue
            occluded[i] |= ids[j] >= 0
            number = ids[j] & ID_MASK
            if t < distances[i, 0] or (t == distances[i, 0] and number < triangles[i, 0]):
                triangles[i, 0], triangles[i, 2] = number, ids[j] & ~i32(ID_MASK)
                inverse = f32(1.0) / total
                distances[i, 0], distances[i, 1], distances[i, 2] = t, v * inverse, w * inverse


def _room(count: int) -> Hits:
    return Hits(np.empty((count, 3), np.int32), np.empty((count, 3), np.float32), np.empty(count, np.bool_))


def trace(scene: Scene, origins: Floats, directions: Floats, tmin: float = 0.0, tmax: float = np.inf) -> Hits:
    hits = _room(len(origins))
    _trace(scene.record, origins, directions, tmin, tmax, *hits)
    return hits


def trace_naively(
    positions: Floats, ids: Any, origins: Floats, directions: Floats, tmin: float = 0.0, tmax: float = np.inf
) -> Hits:
    """The same arithmetic on every triangle, one after the other, in a single world."""
    hits = _room(len(origins))
    _naive(positions, np.asarray(ids, np.int32), origins, directions, tmin, tmax, *hits)
    return hits


def scene_of(positions: Floats, ids: Any = None, threads: int = 1) -> Scene:
    """A world of triangles without instances; ids count from 0 unless given."""
    numbers = np.arange(len(positions), dtype=np.int32) if ids is None else np.asarray(ids, np.int32)
    return joined([bvh.build(positions, numbers, NO_INSTANCES, threads)])


def joined(trees: Sequence[bvh.Tree], instances: Sequence[tuple[int, Any]] = ()) -> Scene:
    """The world is trees[0]; `instances` are (index into trees, to_world f8[3, 4])."""
    forest = bvh.concatenate(trees)
    rows = np.zeros(len(instances), INSTANCE)
    for row, (tree, to_world) in zip(rows, instances, strict=True):
        matrix = np.vstack([to_world, [0, 0, 0, 1]])
        row["to_world"], row["to_object"] = matrix[:3].reshape(-1), np.linalg.inv(matrix)[:3].reshape(-1)
        row["root"] = forest.roots[tree]
    scene = np.zeros(1, SCENE)
    scene["nodes"], scene["packs"], scene["root"] = forest.nodes.ctypes.data, forest.packs.ctypes.data, forest.roots[0]
    scene["instances"], scene["n_instances"] = rows.ctypes.data, len(rows)
    return Scene(scene[0], (scene, rows, forest))


def bounds_of(positions: Floats, to_world: Any) -> Floats:
    """World bounds f4[6] of transformed triangles, a little larger than they are."""
    points = positions.reshape(-1, 3) @ to_world[:, :3].T + to_world[:, 3]
    return np.concatenate([points.min(0) - 1e-4, points.max(0) + 1e-4]).astype(np.float32)


def transformed(positions: Floats, to_world: Any) -> Floats:
    return np.asarray(positions @ to_world[:, :3].T + to_world[:, 3], np.float32)


def soup(count: int, size: float, seed: int) -> Floats:
    """Random triangles of about `size` in the cube -1..1."""
    random = np.random.default_rng(seed)
    corners = random.uniform(-1, 1, (count, 1, 3)) + random.normal(size=(count, 3, 3)) * size
    return corners.astype(np.float32)


def random_rays(count: int, seed: int, extent: float = 2.0) -> tuple[Floats, Floats]:
    """Origins in the cube of half width `extent`, directions everywhere, lengths not 1."""
    random = np.random.default_rng(seed)
    origins, directions = random.uniform(-extent, extent, (count, 3)), random.normal(size=(count, 3))
    return origins.astype(np.float32), directions.astype(np.float32)
