"""Checks a mesh's raw arrays and puts them into the model's form. Knows no file format."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from dr.errors import BadInput
from dr.scene.model import F32, I32, Mesh

_MAX_VERTICES = 1 << 30


class RawMesh(Struct, kw_only=True, eq=False):
    """Arrays as a file gave them: shapes are right, numbers are not yet checked. Shapes as in Mesh."""

    positions: F32
    triangles: npt.NDArray[np.integer]
    normals: F32 | None = None
    tangents: F32 | None = None
    uv0: F32 | None = None
    uv1: F32 | None = None
    colors: F32 | None = None


def checked_mesh(raw: RawMesh, name: str, place: str) -> Mesh:
    """The Mesh of `raw`: indices in range, all numbers finite, normals and tangents unit. BadInput names `place`."""
    triangles = _checked_triangles(raw.triangles, len(raw.positions), place)
    for attribute in ("positions", "normals", "tangents", "uv0", "uv1", "colors"):
        values = getattr(raw, attribute)
        if values is not None and not np.isfinite(values).all():
            raise BadInput(f"{place}: expected finite numbers in {attribute}, found infinity or NaN")
    normals = None if raw.normals is None else _unit_normals(raw.normals, raw.positions, triangles)
    return Mesh(
        name=name,
        positions=np.ascontiguousarray(raw.positions, np.float32),
        triangles=triangles,
        normals=normals,
        tangents=None if raw.tangents is None or normals is None else _unit_tangents(raw.tangents),
        uv0=raw.uv0,
        uv1=raw.uv1,
        colors=None if raw.colors is None else np.maximum(raw.colors, np.float32(0)),
    )


def _checked_triangles(triangles: npt.NDArray[np.integer], vertices: int, place: str) -> I32:
    if vertices > _MAX_VERTICES:
        raise BadInput(f"{place}: expected at most {_MAX_VERTICES} vertices in a mesh, found {vertices}")
    if triangles.size and (triangles.min() < 0 or triangles.max() >= vertices):
        wrong = triangles.min() if triangles.min() < 0 else triangles.max()
        raise BadInput(f"{place}: expected vertex indices below {vertices}, found {wrong}")
    return np.ascontiguousarray(triangles, np.int32)


def _unit_normals(normals: F32, positions: F32, triangles: I32) -> F32:
    """A normal of length zero becomes the mean of its triangles' normals, weighted by area."""
    unit, missing = _normalized(normals)
    if missing.any():
        faces = _face_normals(positions, triangles)
        sums = np.zeros((len(positions), 3))
        for corner in range(3):
            np.add.at(sums, triangles[:, corner], faces)
        means, lost = _normalized(sums)
        means[lost] = (0.0, 0.0, 1.0)
        unit[missing] = means[missing]
    return unit


def _unit_tangents(tangents: F32) -> F32 | None:
    """None when a tangent has no direction: then all of them are computed from the texture coordinates."""
    unit, missing = _normalized(tangents[:, :3])
    if missing.any():
        return None
    handedness = np.where(tangents[:, 3:] < 0, np.float32(-1), np.float32(1))
    return np.concatenate([unit, handedness], axis=1)


def _face_normals(positions: F32, triangles: I32) -> npt.NDArray[np.float64]:
    """The normal of each triangle, twice its area long."""
    p0, p1, p2 = (positions[triangles[:, corner]].astype(np.float64) for corner in range(3))
    (ax, ay, az), (bx, by, bz) = (p1 - p0).T, (p2 - p0).T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)


def _normalized(vectors: npt.NDArray[np.floating]) -> tuple[F32, npt.NDArray[np.bool_]]:
    """Unit vectors, and which ones had no direction to keep (their rows are arbitrary)."""
    x, y, z = vectors.astype(np.float64).T
    length = np.sqrt(x * x + y * y + z * z)
    missing = ~((length > 1e-20) & np.isfinite(length))
    scale = 1.0 / np.where(missing, 1.0, length)
    return np.stack([x * scale, y * scale, z * scale], axis=1).astype(np.float32), missing
