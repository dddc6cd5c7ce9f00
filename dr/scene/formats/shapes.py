"""Builds the meshes of simple shapes. Knows corners, faces and texture coordinates; no material, no transform."""

from __future__ import annotations

import numpy as np

from dr.errors import BadInput
from dr.scene.formats.scene_toml_schema import Box, Quad
from dr.scene.model import Mesh

# Of each face of a box: which corners (bit 0: x, bit 1: y, bit 2: z at its maximum), counter-clockwise from outside
_FACES = ((4, 5, 7, 6), (1, 0, 2, 3), (5, 1, 3, 7), (0, 4, 6, 2), (6, 7, 3, 2), (0, 1, 5, 4))
_CORNER_UVS = ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0))  # the image stands upright on the face


def quad_mesh(quad: Quad) -> Mesh:
    """Two triangles; the front is the side of edge_u x edge_v, the image's bottom left is `corner`."""
    corner, u, v = (np.array(vector, np.float64) for vector in (quad.corner, quad.edge_u, quad.edge_v))
    return Mesh(
        name="quad",
        positions=np.array([corner, corner + u, corner + u + v, corner + v], np.float32),
        triangles=np.array([(0, 1, 2), (0, 2, 3)], np.int32),
        uv0=np.array(_CORNER_UVS, np.float32),
    )


def box_mesh(box: Box, place: str) -> Mesh:
    """Twelve triangles that face outwards; the whole image on each face."""
    if not all(low < high for low, high in zip(box.min, box.max, strict=True)):
        raise BadInput(f"{place}: expected min below max on each axis, found {list(box.min)} and {list(box.max)}")
    bounds = (box.min, box.max)
    corners = [tuple(bounds[corner >> axis & 1][axis] for axis in range(3)) for face in _FACES for corner in face]
    triangles = [(4 * face + a, 4 * face + b, 4 * face + c) for face in range(6) for a, b, c in ((0, 1, 2), (0, 2, 3))]
    return Mesh(
        name="box",
        positions=np.array(corners, np.float32),
        triangles=np.array(triangles, np.int32),
        uv0=np.array(_CORNER_UVS * 6, np.float32),
    )
