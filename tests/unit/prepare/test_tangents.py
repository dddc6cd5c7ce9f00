"""Tangents against analytic surfaces, an obvious twin of the algorithm, and files whose tangents others computed."""

from __future__ import annotations

import json
import math
import os
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.scene.model import Mesh
from workers.prepare.tangents import with_flat_normals, with_tangents

DATA = Path(os.environ.get("DR_DATA", Path(__file__).parents[4] / "shared" / "data"))
UP = (0.0, 0.0, 1.0)


def make_mesh(positions: Any, triangles: Any, uv: Any, normals: Any = UP, **more: Any) -> Mesh:
    positions = np.array(positions, np.float32)
    return Mesh(
        positions=positions,
        triangles=np.array(triangles, np.int32),
        normals=np.broadcast_to(np.array(normals, np.float32), positions.shape).copy(),
        uv0=None if uv is None else np.array(uv, np.float32),
        **more,
    )


def corners(mesh: Mesh) -> np.ndarray:
    assert mesh.tangents is not None
    return mesh.tangents[mesh.triangles]


def grid(columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of the unit square, [n, 2], and counter-clockwise triangles."""
    x, y = np.meshgrid(np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
    first = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).reshape(-1)
    right, above = first + 1, first + columns + 1
    triangles = np.concatenate([np.stack([first, right, above + 1], 1), np.stack([first, above + 1, above], 1)])
    return np.stack([x.reshape(-1), y.reshape(-1)], 1), triangles


SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
TWO_TRIANGLES = [(0, 1, 2), (0, 2, 3)]


def test_on_a_plane_the_tangent_is_the_direction_of_growing_u_and_the_bitangent_points_up_the_image() -> None:
    image_upright = [(0, 1), (1, 1), (1, 0), (0, 0)]
    mesh = with_tangents(make_mesh(SQUARE, TWO_TRIANGLES, image_upright))
    np.testing.assert_array_equal(mesh.tangents, np.tile([1, 0, 0, 1], (4, 1)))


def test_a_turned_image_turns_the_tangent() -> None:
    image_turned = [(0, 0), (0, 1), (1, 1), (1, 0)]  # u grows along +y, v along +x: the image's up is -x
    mesh = with_tangents(make_mesh(SQUARE, TWO_TRIANGLES, image_turned))
    np.testing.assert_array_equal(mesh.tangents, np.tile([0, 1, 0, 1], (4, 1)))


def test_a_mirrored_image_has_the_other_handedness() -> None:
    mesh = with_tangents(make_mesh(SQUARE, TWO_TRIANGLES, [(1, 1), (0, 1), (0, 0), (1, 0)]))
    np.testing.assert_array_equal(mesh.tangents, np.tile([-1, 0, 0, -1], (4, 1)))


def test_where_the_image_is_mirrored_across_an_edge_the_vertices_of_that_edge_split() -> None:
    points, triangles = grid(2, 1)
    positions = np.column_stack([points, np.zeros(len(points))])
    uv = np.column_stack([np.abs(points[:, 0] - 0.5), 1 - points[:, 1]])
    colors = np.arange(24, dtype=np.float32).reshape(6, 4)
    mesh = with_tangents(make_mesh(positions, triangles, uv, colors=colors))
    assert len(mesh.positions) == 8
    left = mesh.positions[mesh.triangles][..., 0].max(axis=1) <= 0.5
    np.testing.assert_array_equal(corners(mesh)[left], np.broadcast_to([-1, 0, 0, -1], (2, 3, 4)))
    np.testing.assert_array_equal(corners(mesh)[~left], np.broadcast_to([1, 0, 0, 1], (2, 3, 4)))
    np.testing.assert_array_equal(mesh.positions[mesh.triangles], positions[triangles].astype("f4"))
    np.testing.assert_array_equal(mesh.colors[mesh.triangles], colors[triangles])


def test_a_cylinder_has_no_seam_although_its_texture_has_one() -> None:
    points, triangles = grid(24, 3)
    angle = 2 * np.pi * (points[:, 0] % 1.0)  # both ends of the strip at exactly the same place
    normals = np.column_stack([np.cos(angle), np.zeros(len(angle)), -np.sin(angle)])
    positions = normals + np.column_stack([np.zeros(len(angle)), points[:, 1], np.zeros(len(angle))])
    mesh = with_tangents(make_mesh(positions, triangles, np.column_stack([points[:, 0], 1 - points[:, 1]]), normals))
    expected = np.column_stack([-np.sin(angle), np.zeros(len(angle)), -np.cos(angle), np.ones(len(angle))])
    # At the seam only half of the fan shares texture coordinates, so its average lies within half a segment.
    seam = (points[:, 0] == 0) | (points[:, 0] == 1)
    assert len(mesh.positions) == len(positions)
    np.testing.assert_allclose(mesh.tangents[~seam], expected[~seam], atol=1e-6)
    assert np.all(np.sum(mesh.tangents * expected, 1)[seam] - 1 >= np.cos(np.pi / 24))


def test_on_a_sphere_tangents_run_along_the_parallels() -> None:
    points, triangles = grid(32, 16)
    longitude, polar = 2 * np.pi * points[:, 0], np.pi * (0.02 + 0.96 * points[:, 1])
    normals = np.column_stack([np.sin(polar) * np.cos(longitude), -np.cos(polar), -np.sin(polar) * np.sin(longitude)])
    mesh = with_tangents(make_mesh(3 * normals, triangles, np.column_stack([points[:, 0], 1 - points[:, 1]]), normals))
    along = np.column_stack([-np.sin(longitude), np.zeros(len(points)), -np.cos(longitude)])
    inside = (points[:, 0] > 0) & (points[:, 0] < 1)
    assert np.all(mesh.tangents[:, 3] == 1)
    # The two triangulated halves of a facet lean by less than the angle that a facet spans.
    assert np.all(np.sum(mesh.tangents[inside, :3] * along[inside], 1) > np.cos(2 * np.pi / 32))


def test_an_unindexed_mesh_gets_the_tangents_of_the_indexed_one() -> None:
    indexed = random_surface(seed=3)
    separate = make_mesh(
        indexed.positions[indexed.triangles].reshape(-1, 3),
        np.arange(3 * len(indexed.triangles)).reshape(-1, 3),
        indexed.uv0[indexed.triangles].reshape(-1, 2),
        indexed.normals[indexed.triangles].reshape(-1, 3),
    )
    np.testing.assert_array_equal(corners(with_tangents(indexed)), corners(with_tangents(separate)))


def test_minus_zero_and_zero_are_the_same_place() -> None:
    positions = [(0, 0, 0), (1, 0, 0), (1, 1, 1), (0, 0, -0.0), (1, 1, 1), (0, 1, 0)]
    uv = [(0, 1), (1, 1), (1, 0), (-0.0, 1), (1, 0), (0, 0)]
    first, second = corners(with_tangents(make_mesh(positions, [(0, 1, 2), (3, 4, 5)], uv)))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[2], second[1])


def test_a_collapsed_triangle_copies_from_its_neighbours() -> None:
    triangles = [(0, 0, 2), *TWO_TRIANGLES]
    mesh = with_tangents(make_mesh(SQUARE, triangles, [(0, 0), (0, 1), (1, 1), (1, 0)]))
    assert len(mesh.positions) == 4
    np.testing.assert_array_equal(mesh.tangents, np.tile([0, 1, 0, 1], (4, 1)))


def test_a_triangle_without_texture_area_follows_the_group_across_its_edge() -> None:
    positions = [*SQUARE, (-1, 1, 0)]
    uv = [(1, 1), (0, 1), (0, 0), (1, 0), (1, 0.5)]
    mesh = with_tangents(make_mesh(positions, [(0, 3, 4), *TWO_TRIANGLES], uv))
    np.testing.assert_array_equal(mesh.tangents[:4], np.tile([-1, 0, 0, -1], (4, 1)))
    assert abs(float(np.dot(mesh.tangents[4, :3], UP))) < 1e-6


@pytest.mark.parametrize("uv", [None, [(0.5, 0.5)] * 4])
def test_without_texture_directions_any_tangent_at_right_angles_will_do(uv: Any) -> None:
    mesh = with_tangents(make_mesh(SQUARE, TWO_TRIANGLES, uv, normals=(0.6, 0.0, 0.8)))
    assert_orthonormal(mesh)


def test_the_second_texture_coordinates_are_used_when_the_normal_map_uses_them() -> None:
    mesh = make_mesh(SQUARE, TWO_TRIANGLES, None, uv1=np.array([(0, 0), (0, 1), (1, 1), (1, 0)], np.float32))
    np.testing.assert_array_equal(with_tangents(mesh, uv_set=1).tangents, np.tile([0, 1, 0, 1], (4, 1)))


def test_a_mesh_without_normals_becomes_flat_first() -> None:
    positions = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], np.float32)
    triangles = np.array([(0, 1, 2), (0, 2, 3), (1, 1, 3)], np.int32)
    flat = with_flat_normals(Mesh(positions=positions, triangles=triangles))
    np.testing.assert_array_equal(flat.normals[::3], [(0, 0, 1), (1, 0, 0), (0, 0, 1)])
    np.testing.assert_array_equal(flat.positions[flat.triangles], positions[triangles])
    mesh = with_tangents(Mesh(positions=positions, triangles=triangles, uv0=positions[:, :2].copy()))
    assert_orthonormal(mesh)


def test_a_mesh_without_triangles_still_gets_tangents() -> None:
    mesh = with_tangents(make_mesh(SQUARE, np.zeros((0, 3)), None))
    assert mesh.tangents is not None
    assert mesh.tangents.shape == (4, 4)


def test_read_only_vertices_are_welcome() -> None:
    mesh = random_surface(seed=1)
    for attribute in (mesh.positions, mesh.normals, mesh.uv0, mesh.triangles):
        attribute.flags.writeable = False
    np.testing.assert_array_equal(corners(with_tangents(mesh)), corners(with_tangents(random_surface(seed=1))))


def test_a_textured_surface_equals_its_twin() -> None:
    mesh = random_surface(seed=7)
    assert_like_twin(mesh)


coordinate = st.integers(0, 2)
normal = st.sampled_from([(0, 0, 1), (0, 0, -1), (1, 0, 0), (0.6, 0.8, 0), (0.48, 0.6, 0.64)])
vertex = st.tuples(st.tuples(coordinate, coordinate, coordinate), st.tuples(coordinate, coordinate), normal)


@st.composite
def soups(draw: st.DrawFn) -> Mesh:
    """Few distinct vertices and many triangles: collapsed ones, edges shared by many, mirrored and flat textures."""
    vertices = draw(st.lists(vertex, min_size=3, max_size=8))
    index = st.integers(0, len(vertices) - 1)
    triangles = draw(st.lists(st.tuples(index, index, index), min_size=1, max_size=12))
    positions, uv, normals = zip(*vertices, strict=True)
    return make_mesh(positions, triangles, uv, normals)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(soups())
def test_any_soup_of_triangles_gets_unit_tangents_at_right_angles_and_those_of_the_twin(mesh: Mesh) -> None:
    assert_orthonormal(with_tangents(mesh))
    assert_like_twin(mesh)


wild = st.floats(-(2.0**60), 2.0**60, width=32)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(wild, wild, wild, wild, wild, normal), min_size=3, max_size=9))
def test_any_finite_numbers_give_finite_unit_tangents(rows: list[Any]) -> None:
    positions = [row[:3] for row in rows]
    triangles = np.arange(len(rows) // 3 * 3).reshape(-1, 3)
    assert_orthonormal(with_tangents(make_mesh(positions, triangles, [row[3:5] for row in rows], [r[5] for r in rows])))


@pytest.mark.data
@pytest.mark.parametrize(
    "path",
    [
        "gltf/WaterBottle/glTF/WaterBottle.gltf",
        "gltf/AlphaBlendModeTest/glTF-Binary/AlphaBlendModeTest.glb",
        "gltf/AnisotropyStrengthTest/glTF-Binary/AnisotropyStrengthTest.glb",
    ],
)
def test_tangents_agree_with_those_that_other_programs_wrote(path: str) -> None:
    """WaterBottle's come from Unity, AlphaBlendModeTest's from Blender, AnisotropyStrengthTest's from mikktspace.c.

    They were computed in float32: directions agree to 2e-3. Triangles without texture area are left out: the original
    writes (1, 0, 0) there.
    """
    if not (DATA / path).is_file():
        pytest.skip(f"{DATA / path} is not there")
    for mesh in meshes_with_tangents(DATA / path):
        edges = np.diff(mesh.uv0[mesh.triangles].astype(np.float64), axis=1)
        textured = np.linalg.det(edges) != 0
        expected, found = corners(mesh)[textured], corners(with_tangents(mesh))[textured]
        np.testing.assert_allclose(found, expected, atol=2e-3)


def assert_orthonormal(mesh: Mesh) -> None:
    """Tolerance: the normal's own roundings and those of `frame`, a dozen float32 roundings of numbers below 1."""
    tangents, normals = mesh.tangents.astype(np.float64), mesh.normals.astype(np.float64)
    tolerance = 12 * 2.0**-24
    np.testing.assert_allclose(np.linalg.norm(tangents[:, :3], axis=1), 1.0, atol=tolerance)
    np.testing.assert_allclose(np.sum(tangents[:, :3] * normals, axis=1), 0.0, atol=tolerance)
    assert set(mesh.tangents[:, 3].tolist()) <= {-1.0, 1.0}


def assert_like_twin(mesh: Mesh) -> None:
    found = corners(with_tangents(mesh))
    for corner, expected in twin_tangents(mesh).items():
        np.testing.assert_allclose(found[corner], expected, atol=1e-5, err_msg=f"corner {corner}")


def random_surface(seed: int) -> Mesh:
    """A bumpy sheet whose texture is sheared, mirrored in part and missing in part."""
    random = np.random.default_rng(seed)
    points, triangles = grid(9, 7)
    heights = random.uniform(-0.05, 0.05, len(points))
    normals = random.normal((0, 0, 4), 1.0, (len(points), 3))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    uv = np.column_stack([np.abs(points[:, 0] - 0.4), points[:, 1] + 0.3 * points[:, 0]])
    uv += random.uniform(-0.02, 0.02, uv.shape)
    uv[random.integers(0, len(uv), 12)] = 0.5
    return make_mesh(np.column_stack([points, heights]), triangles, uv, normals)


def twin_tangents(mesh: Mesh) -> dict[tuple[int, int], np.ndarray]:
    """The algorithm word by word, with dictionaries: the tangent of each corner whose group has a clear one."""
    positions, uv = mesh.positions.astype(float), mesh.uv0.astype(float)
    normals = mesh.normals.astype(float) / np.linalg.norm(mesh.normals.astype(float), axis=1)[:, None]
    key = [tuple(np.concatenate([mesh.positions[v], mesh.normals[v], mesh.uv0[v]]).tolist()) for v in range(len(uv))]
    faces = [[int(v) for v in face] for face in mesh.triangles]
    sound = [t for t, f in enumerate(faces) if len({tuple(mesh.positions[v].tolist()) for v in f}) == 3]

    area, u_direction, free = {}, {}, set()
    for t in sound:
        a, b, c = faces[t]
        edges = np.array([positions[b] - positions[a], positions[c] - positions[a]])
        jacobian = np.array([uv[b] - uv[a], uv[c] - uv[a]])
        area[t] = jacobian[0, 0] * jacobian[1, 1] - jacobian[0, 1] * jacobian[1, 0]
        along_u = np.sign(area[t]) * (jacobian[1, 1] * edges[0] - jacobian[0, 1] * edges[1])
        along_v = np.sign(area[t]) * (jacobian[0, 0] * edges[1] - jacobian[1, 0] * edges[0])
        if area[t] == 0 or not along_u.any() or not along_v.any():
            free.add(t)
        else:
            u_direction[t] = along_u / np.linalg.norm(along_u)
    upright = {t: area[t] > 0 for t in sound}

    open_edges: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    across: dict[tuple[int, int], int] = {}
    for t in sound:
        for k in range(3):
            here, there = key[faces[t][k]], key[faces[t][(k + 1) % 3]]
            if open_edges[there, here]:
                other = open_edges[there, here].pop(0)
                across[t, k], across[other] = other[0], t
            else:
                open_edges[here, there].append((t, k))

    group: dict[tuple[int, int], int] = {}
    members: list[list[tuple[int, int]]] = []

    def join(t: int, vertex: Any, orientation: bool) -> None:
        k = [key[v] for v in faces[t]].index(vertex)
        if (t, k) in group:
            return
        if t in free and not any((t, i) in group for i in range(3)):
            upright[t] = orientation
        if upright[t] != orientation:
            return
        group[t, k] = len(members) - 1
        members[-1].append((t, k))
        for edge in (k, (k + 2) % 3):
            if (t, edge) in across:
                join(across[t, edge], vertex, orientation)

    for t in sound:
        for k in range(3):
            if t not in free and (t, k) not in group:
                members.append([])
                join(t, key[faces[t][k]], upright[t])

    def project(vector: np.ndarray, normal: np.ndarray) -> np.ndarray:
        part = vector - normal * np.dot(vector, normal)
        size = np.linalg.norm(part)
        return part / size if size > 1e-6 * np.linalg.norm(vector) else np.zeros(3)

    tangents: dict[int, np.ndarray] = {}
    for g, corners_of in enumerate(members):
        total, weight = np.zeros(3), 0.0
        for t, k in corners_of:
            if t in free:
                continue
            here, following, preceding = (faces[t][(k + i) % 3] for i in range(3))
            sides = [project(positions[v] - positions[here], normals[here]) for v in (following, preceding)]
            angle = math.acos(min(max(np.dot(*sides), -1.0), 1.0))
            total += angle * project(u_direction[t], normals[here])
            weight += angle
        if np.linalg.norm(total) > 1e-3 * weight > 1e-6:
            tangents[g] = np.append(total / np.linalg.norm(total), -1.0 if upright[corners_of[0][0]] else 1.0)
    return {corner: tangents[g] for corner, g in group.items() if g in tangents}


COMPONENTS = {5121: "u1", 5123: "u2", 5125: "u4", 5126: "f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def meshes_with_tangents(path: Path) -> Iterator[Mesh]:
    """Just enough of glTF for the files above."""
    data = path.read_bytes()
    if data[:4] == b"glTF":
        (size,) = struct.unpack("<I", data[12:16])
        document, buffer = json.loads(data[20 : 20 + size]), data[28 + size :]
    else:
        document = json.loads(data)
        buffer = (path.parent / document["buffers"][0]["uri"]).read_bytes()

    def read(index: int) -> np.ndarray:
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        dtype, width = np.dtype(COMPONENTS[accessor["componentType"]]), WIDTHS[accessor["type"]]
        offset = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        strides = (view.get("byteStride", dtype.itemsize * width), dtype.itemsize)
        return np.ndarray((accessor["count"], width), dtype, buffer, offset, strides).copy()

    for primitive in (primitive for mesh in document["meshes"] for primitive in mesh["primitives"]):
        attributes = primitive["attributes"]
        if "TANGENT" in attributes:
            yield Mesh(
                positions=read(attributes["POSITION"]),
                triangles=read(primitive["indices"]).reshape(-1, 3).astype(np.int32),
                normals=read(attributes["NORMAL"]),
                uv0=read(attributes["TEXCOORD_0"]),
                tangents=read(attributes["TANGENT"]),
            )
