"""Gives a mesh the tangents that its normal map was baked for (MikkTSpace). Knows one mesh at a time, no material."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from dr.scene.model import F32, I32, Mesh
from workers.kernels.shapes import tangents as loops


def with_tangents(mesh: Mesh, uv_set: int = 0) -> Mesh:
    """The mesh with tangents for the texture coordinates that its normal map uses; existing ones are replaced.

    A vertex whose corners need different tangents (a mirrored texture) becomes several. A mesh without normals gets
    those of its flat triangles. Where texture coordinates give no direction, or are missing, the tangent is any one
    at right angles to the normal. The handedness w is glTF's: cross(normal, tangent) * w points up the image,
    against v.
    """
    if mesh.normals is None:
        mesh = with_flat_normals(mesh)
    uv = mesh.uv1 if uv_set == 1 else mesh.uv0
    positions, normals = _plain(mesh.positions), _plain(mesh.normals)
    uv = np.zeros((len(positions), 2), np.float32) if uv is None else _plain(uv)
    welded = _weld(np.column_stack([positions, normals, uv]))[mesh.triangles]
    shape = welded.shape

    directions, kinds = np.zeros(shape), np.zeros(len(welded), np.uint8)
    loops.measure_triangles(positions, uv, welded, directions, kinds)
    across = _link_edges(welded, kinds, len(normals))
    groups, founders = np.full(shape, -1, np.int32), np.empty(welded.size, np.int32)
    founders = founders[: loops.grow_groups(welded, across, kinds, groups, founders)]
    averages = np.zeros((len(founders), 4))
    loops.average_tangents(positions, normals, welded, directions, kinds, groups, averages)
    loops.adopt_corners(welded, groups, np.full(len(normals), -1, np.int32))

    triangles, olds, group_of = _split_vertices(mesh.triangles, groups, len(normals))
    tangents = np.empty((len(olds), 4), np.float32)
    loops.write_tangents(normals[olds], group_of, averages, (kinds[founders] & loops.UPRIGHT) != 0, tangents)
    return replace(_with_rows(mesh, olds), triangles=triangles, tangents=tangents)


def _plain(attribute: F32 | None) -> F32:
    """Writable and contiguous: one kind of array, so that each loop is compiled once."""
    return np.require(attribute, np.float32, ["C", "W"])


def _weld(attributes: F32) -> I32:
    """For each vertex the lowest one that has the same attributes."""
    words = (attributes + np.float32(0.0)).view(np.uint32)  # -0 and 0 are the same place
    first = np.empty(len(words), np.int32)
    loops.weld(words, np.full(1 << (2 * len(words)).bit_length(), -1, np.int32), first)
    return first


def _link_edges(triangles: I32, kinds: npt.NDArray[np.uint8], n_vertices: int) -> I32:
    """The triangle across each edge, -1 where there is none."""
    lows, highs, order = (np.empty(triangles.size, np.int32) for _ in range(3))
    order = order[: loops.list_edges(triangles, kinds, lows, highs, order)]
    order = loops.sort_by(loops.sort_by(order, highs, n_vertices), lows, n_vertices)
    across = np.full(triangles.shape, -1, np.int32)
    loops.link_edges(triangles, lows, highs, order, across)
    return across


def _split_vertices(triangles: I32, groups: I32, n_vertices: int) -> tuple[I32, I32, I32]:
    """New triangles, and each new vertex's old one and its group (-1: none)."""
    corners = np.arange(triangles.size, dtype=np.int32)
    by_group = loops.sort_by(corners, groups.reshape(-1) + np.int32(1), triangles.size + 1)
    order = loops.sort_by(by_group, triangles.reshape(-1), n_vertices)
    triangles = triangles.copy()
    olds = np.arange(n_vertices + triangles.size, dtype=np.int32)
    group_of = np.full(len(olds), -1, np.int32)
    count = loops.split_vertices(triangles, groups, order, olds, group_of)
    return triangles, olds[:count], group_of[:count]


def with_flat_normals(mesh: Mesh) -> Mesh:
    """Every triangle gets vertices of its own with its geometric normal; one without area gets +Z."""
    corners = mesh.positions[mesh.triangles].astype(np.float64)
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normals = np.column_stack([a[:, i - 2] * b[:, i - 1] - a[:, i - 1] * b[:, i - 2] for i in range(3)])
    squared = normals[:, 0] * normals[:, 0] + normals[:, 1] * normals[:, 1] + normals[:, 2] * normals[:, 2]
    flat = squared == 0.0
    normals[flat], squared[flat] = (0.0, 0.0, 1.0), 1.0
    normals = (normals / np.sqrt(squared)[:, None]).astype(np.float32)
    separate = np.arange(3 * len(mesh.triangles), dtype=np.int32).reshape(-1, 3)
    rows = _with_rows(mesh, mesh.triangles.reshape(-1))
    return replace(rows, triangles=separate, normals=np.repeat(normals, 3, axis=0))


def _with_rows(mesh: Mesh, rows: I32) -> Mesh:
    """The mesh with its vertices picked by number."""

    def pick(attribute: F32 | None) -> F32 | None:
        return None if attribute is None else np.ascontiguousarray(attribute[rows])

    return replace(
        mesh,
        positions=mesh.positions[rows],
        normals=pick(mesh.normals),
        uv0=pick(mesh.uv0),
        uv1=pick(mesh.uv1),
        colors=pick(mesh.colors),
    )
