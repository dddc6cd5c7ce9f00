"""Triangles to measure with: a hall made by formulas, and the positions in a .glb. Knows no materials.

The .glb reader takes what the kernels' bench needs and no more; the product's own is dr.scene.formats.gltf.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def sheet(surface: Callable[[Array, Array], tuple[Array, Array, Array]], nu: int, nv: int) -> Array:
    """Triangles f8[2 nu nv, 3, 3] of the parametric surface x, y, z = surface(u, v) over the unit square."""
    u, v = np.meshgrid(np.linspace(0, 1, nu + 1), np.linspace(0, 1, nv + 1), indexing="ij")
    points = np.stack(np.broadcast_arrays(*surface(u, v)), -1)
    a, b, c, d = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
    return np.concatenate([np.stack(corners, 2).reshape(-1, 3, 3) for corners in ((a, b, c), (a, c, d))])


def sphere(centre: Array, radius: float, n: int) -> Array:
    def surface(u: Array, v: Array) -> tuple[Array, Array, Array]:
        ring = np.sin(np.pi * v)
        return ring * np.cos(2 * np.pi * u), ring * np.sin(2 * np.pi * u), np.cos(np.pi * v)

    return sheet(surface, 2 * n, n) * radius + centre


def torus(centre: Array, radius: float, tube: float, n: int) -> Array:
    def surface(u: Array, v: Array) -> tuple[Array, Array, Array]:
        ring = radius + tube * np.cos(2 * np.pi * v)
        return ring * np.cos(2 * np.pi * u), ring * np.sin(2 * np.pi * u), tube * np.sin(2 * np.pi * v)

    return sheet(surface, 2 * n, n) + centre


def cylinder(foot: Array, radius: float, height: float, n: int) -> Array:
    def surface(u: Array, v: Array) -> tuple[Array, Array, Array]:
        return radius * np.cos(2 * np.pi * u), radius * np.sin(2 * np.pi * u), height * v

    return sheet(surface, n, n // 4) + foot


def hall() -> Array:
    """A closed hall of 40 x 24 x 16 with columns, rings, balls and a wavy floor: large triangles among small ones."""
    random = np.random.default_rng(1)
    size = np.array([40.0, 24.0, 16.0])
    parts = []
    for axis in range(3):
        for side in (0.0, 1.0):
            wall = sheet(lambda u, v, side=side: (side + 0 * u, u, v), 1, 1)  # type: ignore[misc]
            parts.append((np.roll(wall, axis, -1) - [0.5, 0.5, 0]) * size)
    parts.append(
        sheet(lambda u, v: (40 * u - 20, 24 * v - 12, 0.15 + 0.1 * np.sin(280 * u) * np.cos(120 * v)), 240, 120)
    )
    for x in np.linspace(-17, 17, 12):
        for y in (-8.0, -4.0, 4.0, 8.0):
            parts.append(cylinder(np.array([x, y, 0.0]), 0.55, 10.0, 64))
            parts.append(torus(np.array([x, y, 10.0]), 1.0, 0.3, 20))
    parts += [sphere(random.uniform((-17, -10, 0.5), (17, 10, 12)), random.uniform(0.2, 0.8), 24) for _ in range(40)]
    return np.concatenate(parts).astype(np.float32)


def glb_triangles(path: Path) -> Array:
    """The triangles f4[t, 3, 3] of a .glb of float32 positions with indices, moved by the matrices of its nodes."""
    blob = path.read_bytes()
    (length,) = struct.unpack_from("<I", blob, 12)
    gltf, binary = json.loads(blob[20 : 20 + length]), memoryview(blob)[28 + length :]

    def accessor(index: int) -> Array:
        item = gltf["accessors"][index]
        view = gltf["bufferViews"][item["bufferView"]]
        dtype = np.dtype({5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}[item["componentType"]])
        columns = {"SCALAR": 1, "VEC3": 3}[item["type"]]
        start = view.get("byteOffset", 0) + item.get("byteOffset", 0)
        strides = (view.get("byteStride", columns * dtype.itemsize), dtype.itemsize)
        return np.ndarray((item["count"], columns), dtype, binary, start, strides)

    def walk(index: int, parent: Array) -> list[Array]:
        node = gltf["nodes"][index]
        matrix = np.array(node.get("matrix", np.eye(4).reshape(-1))).reshape(4, 4).T
        if scale := node.get("scale"):
            matrix = matrix @ np.diag([*scale, 1.0])
        matrix = parent @ matrix
        found = []
        for primitive in gltf["meshes"][node["mesh"]]["primitives"] if "mesh" in node else ():
            points = accessor(primitive["attributes"]["POSITION"]) @ matrix[:3, :3].T + matrix[:3, 3]
            found.append(points[accessor(primitive["indices"]).reshape(-1)].reshape(-1, 3, 3))
        for child in node.get("children", ()):
            found += walk(child, matrix)
        return found

    roots = gltf["scenes"][gltf.get("scene", 0)]["nodes"]
    return np.concatenate([part for root in roots for part in walk(root, np.eye(4))]).astype(np.float32)
