"""Gives a mesh the tangents that its normal map was baked for (MikkTSpace). Knows one mesh at a time, no material."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from dr.scene.model import F32, Mesh
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
    normals = mesh.normals
    assert normals is not None
    count = len(mesh.positions)
    uv = mesh.uv1 if uv_set == 1 else mesh.uv0
    if uv is None:
        uv = np.zeros((count, 2), np.float32)
    attributes = np.column_stack([mesh.positions, normals, uv]) + np.float32(0.0)  # -0 and 0 are the same place
    welded = loops.weld(attributes.view(np.uint32))[mesh.triangles]

    directions, kinds = loops.measure_triangles(mesh.positions, uv, welded)
    across = loops.link_edges(welded, kinds, count)
    groups, founders = loops.grow_groups(welded, across, kinds)
    averages = loops.average_tangents(mesh.positions, normals, welded, directions, kinds, groups, len(founders))
    loops.adopt_corners(welded, groups, count)
    triangles, olds, group_of = loops.split_vertices(mesh.triangles, groups, count)
    upright = (kinds[founders] & loops.UPRIGHT) != 0
    tangents = loops.write_tangents(normals[olds], group_of, averages, upright)
    return replace(_with_rows(mesh, olds), triangles=triangles, tangents=tangents)


def with_flat_normals(mesh: Mesh) -> Mesh:
    """Every triangle gets vertices of its own with its geometric normal; one without area gets +Z."""
    corners = mesh.positions[mesh.triangles].astype(np.float64)
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normals = np.column_stack([a[:, i - 2] * b[:, i - 1] - a[:, i - 1] * b[:, i - 2] for i in range(3)])
    squared = normals[:, 0] ** 2 + normals[:, 1] ** 2 + normals[:, 2] ** 2
    flat = squared == 0.0
    normals[flat], squared[flat] = (0.0, 0.0, 1.0), 1.0
    normals = (normals / np.sqrt(squared)[:, None]).astype(np.float32)
    separate = np.arange(3 * len(mesh.triangles), dtype=np.int32).reshape(-1, 3)
    rows = _with_rows(mesh, mesh.triangles.reshape(-1))
    return replace(rows, triangles=separate, normals=np.repeat(normals, 3, axis=0))


def _with_rows(mesh: Mesh, rows: np.ndarray[tuple[int], np.dtype[np.int32]]) -> Mesh:
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
