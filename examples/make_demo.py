"""Makes the meshes, textures and sky of demo.scene.toml. Knows shapes and patterns; knows nothing of the renderer.

    python examples/make_demo.py [FOLDER]

FOLDER is `examples/demo` by default; its content is committed, so that nobody needs to run this. Lengths are metres,
+Y is up. Everything here is in the public domain (CC0).
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import OpenImageIO

F = npt.NDArray[np.float64]
Surface = Callable[[F, F], F]  # points [..., 3] at parameters s and t

TAU = 2 * np.pi


class Mesh(NamedTuple):
    """`uv` counts from the top left of the image, as glTF does."""

    points: F  # [vertex, 3]
    normals: F  # [vertex, 3]
    uv: F  # [vertex, 2]
    triangles: npt.NDArray[np.int64]  # [triangle, 3], counter-clockwise from outside


# --- shapes ---------------------------------------------------------------------------------------------------------


def unit(v: F) -> F:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)


def sheet(points: F, normals: F, uv: F) -> Mesh:
    """A grid [row, column, ...] of points as triangles, wound so that their fronts agree with the normals."""
    rows, columns = points.shape[:2]
    corner = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]
    triangles = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], axis=2).reshape(-1, 3)
    points, normals = points.reshape(-1, 3), normals.reshape(-1, 3)
    edges = points[triangles]
    areas = np.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0])
    triangles = triangles[np.linalg.norm(areas, axis=1) > 1e-12]
    if (areas * normals[corner[:-1, :-1].ravel().repeat(2)]).sum() < 0:
        triangles = triangles[:, ::-1]
    return Mesh(points, normals, uv.reshape(-1, 2), triangles)


def join(*meshes: Mesh) -> Mesh:
    first = np.cumsum([0, *(len(mesh.points) for mesh in meshes)])
    triangles = [mesh.triangles + offset for mesh, offset in zip(meshes, first, strict=False)]
    return Mesh(*(np.concatenate(parts) for parts in list(zip(*meshes, strict=True))[:3]), np.concatenate(triangles))


def surface(shape: Surface, rows: int, columns: int, repeat: tuple[float, float] = (1, 1)) -> Mesh:
    """A shape over s, t in 0..1 with normals by central differences; `repeat` is how often a texture fits on it."""
    s, t = np.meshgrid(np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
    step = 1e-5
    along_s, along_t = shape(s + step, t) - shape(s - step, t), shape(s, t + step) - shape(s, t - step)
    return sheet(shape(s, t), unit(np.cross(along_s, along_t)), np.stack([s * repeat[0], t * repeat[1]], -1))


def ball(radius: float, rows: int, repeat: tuple[float, float]) -> Mesh:
    s, t = np.meshgrid(np.linspace(0, 1, 2 * rows + 1), np.linspace(0, 1, rows + 1))
    out = np.stack([np.sin(np.pi * t) * np.cos(TAU * s), np.cos(np.pi * t), -np.sin(np.pi * t) * np.sin(TAU * s)], -1)
    return sheet(radius * out, out, np.stack([s * repeat[0], t * repeat[1]], -1))


def torus(radius: float, tube: float) -> Mesh:
    """A ring in the plane z = 0."""

    def shape(s: F, t: F) -> F:
        r = radius + tube * np.cos(TAU * t)
        return np.stack([r * np.cos(TAU * s), r * np.sin(TAU * s), tube * np.sin(TAU * t)], -1)

    return surface(shape, rows=12, columns=128)


def knot(radius: float, tube: float, turns: tuple[int, int] = (2, 3)) -> Mesh:
    """A torus knot that stands upright."""

    def centre(s: F) -> F:
        r = radius * (1 + 0.48 * np.cos(turns[1] * TAU * s))
        around = turns[0] * TAU * s
        return np.stack([r * np.cos(around), r * np.sin(around), 0.48 * radius * np.sin(turns[1] * TAU * s)], -1)

    def shape(s: F, t: F) -> F:
        before, after = centre(s - 1e-4), centre(s + 1e-4)
        side = unit(np.cross(after - before, after + before))
        up = unit(np.cross(side, after - before))
        return centre(s) + tube * (np.cos(TAU * t)[..., None] * side + np.sin(TAU * t)[..., None] * up)

    return surface(shape, rows=24, columns=360)


def cylinder(radius: float, height: float, bevel: float, texture_m: float) -> Mesh:
    """A round podium without a bottom; `texture_m` is the side of a texture on it."""
    angle = np.linspace(0, np.pi / 2, 7)
    r = np.concatenate([[radius], radius - bevel + bevel * np.cos(angle)])
    y = np.concatenate([[0], height - bevel + bevel * np.sin(angle)])
    slope = np.concatenate([[0], angle])
    around = np.linspace(0, TAU, 97)
    cos, sin, one = np.cos(around), -np.sin(around), np.ones_like(around)
    wall = np.stack([np.outer(r, cos), np.outer(y, one), np.outer(r, sin)], -1)
    normals = np.stack([np.outer(np.cos(slope), cos), np.outer(np.sin(slope), one), np.outer(np.cos(slope), sin)], -1)
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(r), np.diff(y)))])
    uv = np.stack([np.outer(np.ones_like(r), around * radius), np.outer(-length, one)], -1) / texture_m
    discs = np.array([radius - bevel, 0])
    top = np.stack([np.outer(discs, cos), np.full((2, 97), height), np.outer(discs, sin)], -1)
    up = np.broadcast_to([0.0, 1.0, 0.0], top.shape)
    return join(sheet(wall, normals, uv), sheet(top, up, top[..., [0, 2]] / texture_m))


def bevelled_cube(side: float, bevel: float) -> Mesh:
    """Six faces, each bent around its edges onto a quarter of a round edge; the cube is centred."""
    half = side / 2
    bend = bevel * np.tan(np.linspace(0, np.pi / 4, 6))
    steps = np.concatenate([-(half - bevel) - bend[::-1], half - bevel + bend])
    a, b = np.meshgrid(steps, steps)
    faces = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            cube = np.stack([np.full_like(a, sign * half), a, b], -1)[..., np.argsort(np.roll([0, 1, 2], -axis))]
            inner = np.clip(cube, -(half - bevel), half - bevel)
            normals = unit(cube - inner)
            faces.append(sheet(inner + bevel * normals, normals, np.stack([a, -b], -1) / side + 0.5))
    return join(*faces)


def arch(half_width: float, height: float, depth: float, bevel: float) -> Mesh:
    """A slab with a round top, its front at z = 0; its back and its foot stay open."""
    turn = np.linspace(np.pi, 0, 65)
    normals_2d = np.concatenate([[[-1, 0]], np.stack([np.cos(turn), np.sin(turn)], -1), [[1, 0]]])
    inset = normals_2d * (half_width - bevel) + np.array([0, height])
    inset[[0, -1], 1] = 0
    angle = np.concatenate([np.linspace(0, np.pi / 2, 7), [np.pi / 2]])
    z = np.concatenate([bevel * (np.cos(angle[:-1]) - 1), [-depth]])
    flat = inset + bevel * np.sin(angle)[:, None, None] * normals_2d
    rim = np.concatenate([flat, np.broadcast_to(z[:, None, None], (*flat.shape[:2], 1))], -1)
    out = np.sin(angle)[:, None, None] * normals_2d
    rim_normals = np.concatenate([out, np.broadcast_to(np.cos(angle)[:, None, None], (*out.shape[:2], 1))], -1)
    left, right = rim[0, :34], rim[0, :-35:-1]
    face = np.stack([left, right])
    face_normals = np.broadcast_to([0.0, 0.0, 1.0], face.shape)
    uv = np.array([1, -1])
    return join(sheet(rim, rim_normals, rim[..., :2] * uv), sheet(face, face_normals, face[..., :2] * uv))


def plane(edge_u: tuple[float, float, float], edge_v: tuple[float, float, float], texture_m: float) -> Mesh:
    """A rectangle around the origin; `texture_m` is the side of a texture on it."""
    u, v = np.array(edge_u), np.array(edge_v)
    s, t = np.meshgrid([-0.5, 0.5], [-0.5, 0.5])
    points = s[..., None] * u + t[..., None] * v
    uv = np.stack([s * np.linalg.norm(u), -t * np.linalg.norm(v)], -1) / texture_m
    return sheet(points, np.broadcast_to(unit(np.cross(u, v)), points.shape), uv)


def vase() -> Mesh:
    """A lathe-turned vase 0.5 high: up the outside, over the lip, down into the neck."""
    knots = np.array(
        [
            *([0.000, 0.000], [0.060, 0.000], [0.075, 0.006], [0.104, 0.060], [0.130, 0.130], [0.128, 0.200]),
            *([0.098, 0.270], [0.056, 0.330], [0.036, 0.385], [0.034, 0.430], [0.046, 0.475], [0.062, 0.497]),
            *([0.060, 0.501], [0.055, 0.498], [0.040, 0.470], [0.028, 0.430], [0.030, 0.370]),
        ]
    )
    ends = np.concatenate([[2 * knots[0] - knots[1]], knots, [2 * knots[-1] - knots[-2]]])

    def profile(t: F) -> F:
        """Catmull-Rom through the knots."""
        x = np.clip(t, 0, 1) * (len(knots) - 1)
        i = np.minimum(x.astype(int), len(knots) - 2)
        f = (x - i)[..., None]
        a, b, c, d = (ends[i + k] for k in range(4))
        return b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))

    def shape(s: F, t: F) -> F:
        r, y = np.moveaxis(profile(1 - t), -1, 0)
        return np.stack([r * np.cos(TAU * s), y, r * np.sin(TAU * s)], -1)

    return surface(shape, rows=96, columns=72)


# --- patterns -------------------------------------------------------------------------------------------------------


def noise(size: int, cells: tuple[int, int], dice: np.random.Generator) -> F:
    """Smooth noise -1..1 that repeats at the edges: random values on a grid of rows and columns, smoothly joined."""
    grid = dice.uniform(-1, 1, cells)
    for axis, count in enumerate(cells):
        x = np.arange(size) * count / size
        low, f = x.astype(int), x % 1
        f = (f * f * (3 - 2 * f)).reshape([-1 if k == axis else 1 for k in range(2)])
        grid = grid.take(low, axis) * (1 - f) + grid.take((low + 1) % count, axis) * f
    return grid


def clouds(size: int, cells: tuple[int, int], octaves: int, dice: np.random.Generator) -> F:
    rows, columns = cells
    return sum((noise(size, (rows << k, columns << k), dice) / 2**k for k in range(octaves)), np.zeros((size, size)))


def stones(size: int, cells: int, dice: np.random.Generator) -> tuple[F, npt.NDArray[np.int64]]:
    """Per pixel the distance to the border of its stone (in cells; repeats at the edges), and the stone's number."""
    jitter = dice.uniform(0.08, 0.92, (cells, cells, 2))
    x = (np.arange(size) + 0.5) * cells / size
    px, py = np.meshgrid(x, x)
    first, second = np.full(px.shape, 9.0), np.full(px.shape, 9.0)
    owner = np.zeros(px.shape, np.int64)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            cx, cy = np.floor(px).astype(int) + dx, np.floor(py).astype(int) + dy
            point = jitter[cy % cells, cx % cells]
            distance = np.hypot(cx + point[..., 0] - px, cy + point[..., 1] - py)
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            owner = np.where(nearer, (cy % cells) * cells + cx % cells, owner)
            first = np.where(nearer, distance, first)
    return second - first, owner


def terrazzo(size: int = 1024) -> tuple[F, F]:
    """Colour (sRGB) and metallic-roughness: chips in two sizes, polished smoother than the cement between them."""
    dice = np.random.default_rng(1)
    cement = np.array([222, 214, 203])
    palette = np.array(
        [[236, 230, 222], [188, 120, 92], [66, 62, 64], [206, 188, 160], [128, 138, 124], [160, 150, 144], [98, 60, 48]]
    )
    colour = np.broadcast_to(cement / 255, (size, size, 3)).copy()
    chips = np.zeros((size, size, 1))
    for cells, gap, share in ((44, 0.22, 0.55), (16, 0.20, 0.42)):
        border, owner = stones(size, cells, dice)
        kind = dice.integers(len(palette), size=cells * cells)
        there = dice.random(cells * cells) < share
        size_of = dice.uniform(0.8, 2.2, cells * cells)
        inside = (border - gap * size_of[owner]) * 0.5 * size / cells + 0.5  # soft over a pixel
        chip = (there[owner] * np.clip(inside, 0, 1))[..., None]
        colour += (palette[kind[owner]] / 255 - colour) * chip
        chips = np.maximum(chips, chip)
    return colour, np.array([0.0, 0.24, 0.0]) + np.array([0.0, -0.14, 0.0]) * chips


def wood(size: int = 512) -> F:
    """Walnut, sRGB, the grain along u."""
    dice = np.random.default_rng(2)
    v = np.arange(size)[:, None] / size
    bend = 0.045 * clouds(size, (4, 1), 3, dice) + 0.01 * noise(size, (16, 4), dice)
    rings = 0.5 + 0.5 * np.sin(TAU * (9 * v + 8 * bend))
    fibre = noise(size, (128, 6), dice) + 0.6 * noise(size, (256, 16), dice)
    shade = np.clip(0.22 + 0.5 * rings**1.6 + 0.13 * fibre, 0, 1)[..., None]
    dark, light = np.array([62, 36, 23]) / 255, np.array([146, 94, 58]) / 255
    return np.round((dark + (light - dark) * shade) * 127) / 127


def glaze(size: int = 512) -> F:
    """White with cobalt bands, sRGB; v runs down the vase: inside of the neck, lip, outside, foot."""
    white, cobalt = np.array([240, 238, 232]) / 255, np.array([24, 52, 128]) / 255
    x = (np.arange(2 * size) + 0.5) / (2 * size)
    u, v = np.meshgrid(x, x)
    bands = [(0.300, 0.306), (0.318, 0.345), (0.357, 0.363), (0.560, 0.566), (0.78, 0.786), (0.798, 0.86)]
    ink = np.any([(v > low) & (v < high) for low, high in bands], axis=0)
    wave = 0.672 + 0.045 * np.sin(TAU * 12 * u)
    ink |= (np.abs(v - wave) < 0.012) | (np.abs(v - (2 * 0.672 - wave)) < 0.012)
    eye = np.hypot(((u * 24) % 1 - 0.5) / 24, (v - 0.672) * 0.7)
    ink |= (eye < 0.0062) | ((v > 0.40) & (v < 0.52) & (np.abs((u * 16) % 1 - 0.5) < 0.10))
    share = ink.reshape(size, 2, size, 2).mean(axis=(1, 3))[..., None]
    return white + (cobalt - white) * share


def bumps(height: F, strength: float) -> F:
    """A tangent-space normal map (+Y up) of a height field that repeats."""
    along_u = (np.roll(height, -1, 1) - np.roll(height, 1, 1)) * strength
    along_v = (np.roll(height, -1, 0) - np.roll(height, 1, 0)) * strength
    return 0.5 + 0.5 * unit(np.stack([-along_u, along_v, np.ones_like(height)], -1))


def hammered(size: int = 256) -> F:
    """Dents, each the bowl of one hammer stroke."""
    border, _ = stones(size, 9, np.random.default_rng(3))
    return bumps(-np.clip(border, 0, 0.8) * (1.6 - np.clip(border, 0, 0.8)), 1.6)


def plaster(size: int = 256) -> F:
    return bumps(clouds(size, (6, 6), 4, np.random.default_rng(4)), 0.4)


def sky(width: int = 256) -> F:
    """A late afternoon, radiance [width / 2, width, 3]: blue above, a warm rim, a hidden sun's glow, dark ground."""
    u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(width // 2) + 0.5) / (width // 2))
    up = np.sin(np.pi * (0.5 - v))[..., None]
    zenith, rim, ground = np.array([0.20, 0.38, 0.85]), np.array([1.15, 0.92, 0.70]), np.array([0.16, 0.13, 0.11])
    air = rim + (zenith - rim) * np.clip(up, 0, 1) ** 0.45
    sun = np.array([np.cos(-2.2) * np.cos(0.35), np.sin(0.35), np.sin(-2.2) * np.cos(0.35)])
    angle = TAU * (u - 0.5)
    flat = np.cos(np.pi * (0.5 - v))
    towards = np.stack([flat * np.cos(angle), up[..., 0], flat * np.sin(angle)], -1) @ sun
    glow = np.exp((towards - 1) * 60)[..., None] * np.array([22.0, 15.0, 8.5])
    glow += np.exp((towards - 1) * 5)[..., None] * np.array([0.9, 0.55, 0.25])
    return np.where(up > 0, air + glow, ground)


# --- files ----------------------------------------------------------------------------------------------------------


def write_image(path: Path, pixels: F, kind: Any) -> None:
    spec = OpenImageIO.ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], kind)
    spec.attribute("DateTime", "")
    spec.attribute("compression", "zip")
    file = OpenImageIO.ImageOutput.create(path.suffix[1:])
    if not (file.open(str(path), spec) and file.write_image(pixels.astype(np.float32)) and file.close()):
        raise OSError(f"{path}: {file.geterror()}")


def write_ply(path: Path, mesh: Mesh) -> None:
    """Binary; PLY counts v from the bottom."""
    names = ("x", "y", "z", "nx", "ny", "nz", "u", "v")
    lines = [f"element vertex {len(mesh.points)}", *(f"property float {name}" for name in names)]
    lines += [f"element face {len(mesh.triangles)}", "property list uchar ushort vertex_indices"]
    header = "\n".join(["ply", "format binary_little_endian 1.0", *lines, "end_header", ""])
    uv = np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], -1)
    faces = np.empty(len(mesh.triangles), [("count", "u1"), ("corners", "<u2", 3)])
    faces["count"], faces["corners"] = 3, mesh.triangles
    vertices = np.concatenate([mesh.points, mesh.normals, uv], axis=1).astype("<f4")
    path.write_bytes(header.encode() + vertices.tobytes() + faces.tobytes())


def write_glb(path: Path, mesh: Mesh, name: str, material: dict[str, Any]) -> None:
    """A binary glTF of one node."""
    arrays = [mesh.points.astype("<f4"), mesh.normals.astype("<f4"), mesh.uv.astype("<f4")]
    arrays.append(mesh.triangles.astype("<u2").reshape(-1))
    views, accessors, data = [], [], b""
    for array, kind in zip(arrays, ("VEC3", "VEC3", "VEC2", "SCALAR"), strict=True):
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": array.nbytes})
        component = 5123 if kind == "SCALAR" else 5126
        accessors.append({"bufferView": len(accessors), "componentType": component, "count": len(array), "type": kind})
        data += array.tobytes() + bytes(-array.nbytes % 4)
    low, high = arrays[0].min(axis=0), arrays[0].max(axis=0)
    accessors[0] |= {"min": low.tolist(), "max": high.tolist()}
    primitive = {"attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2}, "indices": 3, "material": 0}
    document = {
        "asset": {"version": "2.0", "generator": "make_demo.py"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [{"name": name, "primitives": [primitive]}],
        "materials": [{"name": name} | material],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(data)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    meshes = {
        "ball": ball(1.0, 40, repeat=(4, 2)),
        "halo": torus(0.40, 0.011),
        "podium-tall": cylinder(0.30, 0.24, 0.012, texture_m=0.5),
        "podium-low": cylinder(0.23, 0.10, 0.012, texture_m=0.9),
        "cube": bevelled_cube(0.25, 0.022),
        "arch": arch(0.56, 0.62, 0.10, 0.015),
        "vase": vase(),
        "floor": plane((8, 0, 0), (0, 0, -8), texture_m=0.9),
        "wall": plane((8, 0, 0), (0, 5, 0), texture_m=0.8),
    }
    for name, mesh in meshes.items():
        write_ply(folder / f"{name}.ply", mesh)
    gold = {"baseColorFactor": [1.0, 0.72, 0.32, 1.0], "metallicFactor": 1.0, "roughnessFactor": 0.26}
    write_glb(folder / "knot.glb", knot(0.135, 0.042), "knot", {"pbrMetallicRoughness": gold})
    colour, rough = terrazzo()
    images = {"terrazzo": colour, "terrazzo-rough": rough, "wood": wood(), "glaze": glaze()}
    for name, pixels in (images | {"hammered-normal": hammered(), "plaster-normal": plaster()}).items():
        write_image(folder / f"{name}.png", pixels, OpenImageIO.UINT8)
    write_image(folder / "sky.exr", sky(), OpenImageIO.HALF)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "demo")
