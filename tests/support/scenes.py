"""Small scenes made in code, for tests: quads, boxes and spheres with plain materials."""

from __future__ import annotations

from typing import Any

import numpy as np

from dr.scene.matrix import look_at
from dr.scene.model import Camera, Instance, Light, Material, Mesh, Scene

IDENTITY = np.eye(4)


def matte(albedo: float = 0.5, **fields: Any) -> Material:
    """A purely diffuse, two-sided material."""
    color = fields.pop("base_color", (albedo, albedo, albedo))
    return Material(base_color=color, metallic=0.0, specular=0.0, **{"double_sided": True, **fields})


def glowing(radiance: float) -> Material:
    return matte(0.0, emission=(radiance, radiance, radiance))


def quad(corner: Any, edge_u: Any, edge_v: Any, **fields: Any) -> Mesh:
    """A parallelogram whose front is the side of edge_u x edge_v; uv0 runs along the edges."""
    c, u, v = (np.array(part, np.float64) for part in (corner, edge_u, edge_v))
    return Mesh(
        positions=np.array([c, c + u, c + u + v, c + v]).astype(np.float32),
        triangles=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        uv0=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32),
        **fields,
    )


def floor(half: float = 1.0, y: float = 0.0) -> Mesh:
    """A square around the y axis that faces up."""
    return quad((-half, y, half), (2 * half, 0, 0), (0, 0, -2 * half))


def box(half: float = 1.0, inside_out: bool = False) -> Mesh:
    """A cube around the origin whose faces look outwards, or inwards."""
    faces = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            n, u, v = np.zeros(3), np.zeros(3), np.zeros(3)
            n[axis], u[(axis + 1) % 3], v[(axis + 2) % 3] = sign * half, sign * 2 * half, 2 * half
            faces.append(quad(n - u / 2 - v / 2, u, v))
    points = np.concatenate([face.positions for face in faces])
    triangles = np.concatenate([face.triangles + 4 * number for number, face in enumerate(faces)]).astype(np.int32)
    return Mesh(positions=points, triangles=triangles[:, ::-1].copy() if inside_out else triangles)


def sphere(radius: float = 1.0, rings: int = 24, smooth: bool = True) -> Mesh:
    """A latitude-longitude sphere around the origin."""
    theta = np.linspace(0, np.pi, rings + 1)[:, None]
    phi = np.linspace(0, 2 * np.pi, 2 * rings + 1)[None, :]
    unit = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta) + 0 * phi, -np.sin(theta) * np.sin(phi)], -1)
    a = np.arange(rings)[:, None] * (2 * rings + 1) + np.arange(2 * rings)[None, :]
    b, c, d = a + 2 * rings + 1, a + 2 * rings + 2, a + 1
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    uv = np.stack([phi / (2 * np.pi) + 0 * theta, theta / np.pi + 0 * phi], -1)
    return Mesh(
        positions=(unit.reshape(-1, 3) * radius).astype(np.float32),
        triangles=triangles.astype(np.int32),
        normals=unit.reshape(-1, 3).astype(np.float32) if smooth else None,
        uv0=uv.reshape(-1, 2).astype(np.float32),
    )


def looking(eye: Any, target: Any, fov: float = 0.1, up: Any = (0.0, 1.0, 0.0), **fields: Any) -> Camera:
    """A camera at `eye`; its narrow default field of view makes the whole picture one measurement."""
    return Camera(transform=look_at(eye, target, up), fov=fov, **fields)


def scene(parts: list[tuple[Mesh, Material]], camera: Camera, lights: tuple[Light, ...] = (), **fields: Any) -> Scene:
    """One instance per part, at the origin."""
    return Scene(
        meshes=tuple(mesh for mesh, _ in parts),
        materials=tuple(material for _, material in parts),
        instances=tuple(
            Instance(mesh=number, material=number, transform=IDENTITY, object_id=number + 1)
            for number in range(len(parts))
        ),
        cameras=(camera,),
        lights=lights,
        **fields,
    )
