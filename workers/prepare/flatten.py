"""From the scene model to the arrays that kernels read. Knows both sides; knows no file and no BVH algorithm.

No BLAS and no numpy transcendentals here: preparation decides pixels, and those differ between machines.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dr.scene.matrix import cofactors, determinant
from dr.scene.model import AlphaMode, EnvironmentLight, Instance, Material, Mesh, QuadLight, Scene, Texture
from workers.kernels import records
from workers.prepare.textures import SLOT_USAGES, DecodedImages

Array = npt.NDArray[Any]
FLATTEN_TRIANGLES = (
    4096  # a mesh that is used more than once is flattened all the same while its copies stay below this
)


@dataclass
class Geometry:
    """Triangles and vertices of the world, or of one instanced mesh, with rows of the shared arrays."""

    triangles: Array  # TRIANGLE[t]
    vertices: Array  # VERTEX[v]


def transform_points(matrix: Array, points: Array) -> Array:
    """Float64 points [n, 3] through a 4x4 matrix, one rounding per operation."""
    x, y, z = (points[:, axis].astype(np.float64) for axis in range(3))
    return np.stack([m[0] * x + m[1] * y + m[2] * z + m[3] for m in matrix[:3]], axis=1)


def transform_directions(matrix: Array, directions: Array) -> Array:
    x, y, z = (directions[:, axis].astype(np.float64) for axis in range(3))
    return np.stack([m[0] * x + m[1] * y + m[2] * z for m in matrix[:3]], axis=1)


def unit(vectors: Array) -> Array:
    """Rows scaled to length 1; zero rows stay zero."""
    squared = vectors[:, 0] * vectors[:, 0] + vectors[:, 1] * vectors[:, 1] + vectors[:, 2] * vectors[:, 2]
    length = np.sqrt(squared)
    return vectors / np.where(length > 0, length, 1.0)[:, None]


def place_mesh(mesh: Mesh, instance: Instance, to_world: Array | None) -> Geometry:
    """A mesh as kernel rows: in the world if `to_world` is given, else in its own space. Row numbers begin at 0."""
    mirrored = to_world is not None and determinant(to_world) < 0
    corners = mesh.triangles[:, [0, 2, 1]] if mirrored else mesh.triangles
    positions = mesh.positions if to_world is None else transform_points(to_world, mesh.positions).astype(np.float32)
    vertices = np.zeros(len(positions), records.VERTEX)
    flags = 0
    if mesh.normals is not None:
        flags |= records.SMOOTH
        vertices["normal"] = mesh.normals
        if to_world is not None:
            turned = transform_directions(cofactors(to_world), mesh.normals) * (-1.0 if mirrored else 1.0)
            vertices["normal"] = unit(turned)
    if mesh.tangents is not None:
        flags |= records.TANGENT
        vertices["tangent"] = mesh.tangents
        if to_world is not None:
            vertices["tangent"][:, :3] = unit(transform_directions(to_world, mesh.tangents))
            vertices["tangent"][:, 3] *= -1.0 if mirrored else 1.0
    if mesh.colors is not None:
        flags |= records.COLOR
        vertices["color"] = mesh.colors
    if mesh.uv0 is not None:
        vertices["uv"][:, :2] = mesh.uv0
    if mesh.uv1 is not None:
        vertices["uv"][:, 2:] = mesh.uv1

    triangles = np.zeros(len(corners), records.TRIANGLE)
    for corner, name in enumerate(("p0", "p1", "p2")):
        triangles[name] = positions[corners[:, corner]]
    triangles["vertices"] = corners
    triangles["material"] = instance.material
    triangles["light"] = -1
    triangles["object_id"] = instance.object_id
    triangles["flags"] = flags
    return Geometry(triangles, vertices)


def join(parts: list[Geometry]) -> Geometry:
    """One array of each; vertex rows are moved along."""
    first = 0
    for part in parts:
        part.triangles["vertices"] += first
        first += len(part.vertices)
    return Geometry(
        np.concatenate([part.triangles for part in parts] or [np.zeros(0, records.TRIANGLE)]),
        np.concatenate([part.vertices for part in parts] or [np.zeros(0, records.VERTEX)]),
    )


def is_emissive(material: Material) -> bool:
    return max(material.emission) > 0


def instanced_meshes(scene: Scene) -> set[int]:
    """Meshes that keep a tree of their own. Emissive ones never do: their triangles are lights in the world."""
    uses = Counter(instance.mesh for instance in scene.instances)
    emissive = {i.mesh for i in scene.instances if is_emissive(scene.materials[i.material])}
    flat = {mesh for mesh, count in uses.items() if count * len(scene.meshes[mesh].triangles) <= FLATTEN_TRIANGLES}
    several_materials = {
        mesh
        for mesh in uses
        if len({material_flags(scene.materials[i.material]) for i in scene.instances if i.mesh == mesh}) > 1
    }
    return {mesh for mesh, count in uses.items() if count > 1} - emissive - flat - several_materials


def material_flags(material: Material) -> int:
    """Flags that a triangle id carries in its pack."""
    flags = 0 if material.double_sided else records.CULL_FLAG
    return flags | (records.ALPHA_FLAG if material.alpha_mode != AlphaMode.OPAQUE else 0)


def quad_geometry(light: QuadLight, material: int, row: int) -> Geometry:
    """A quad light as two triangles that rays can hit."""
    corner, u, v = (np.array(part, np.float64) for part in (light.corner, light.edge_u, light.edge_v))
    mesh = Mesh(
        positions=np.array([corner, corner + u, corner + u + v, corner + v]).astype(np.float32),
        triangles=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
    )
    geometry = place_mesh(mesh, Instance(mesh=0, material=material, transform=np.eye(4), object_id=0), None)
    geometry.triangles["light"] = row
    return geometry


def quad_material(light: QuadLight) -> Material:
    """What a ray sees that hits a quad light: black, glowing. The back of a one-sided one is black."""
    return Material(
        name="quad light",
        base_color=(0.0, 0.0, 0.0),
        metallic=0.0,
        specular=0.0,
        emission=light.radiance,
        double_sided=True,
    )


def material_rows(materials: list[Material], images: DecodedImages) -> Array:
    rows = np.zeros(max(len(materials), 1), records.MATERIAL)
    for row, material in zip(rows, materials, strict=False):
        for name in (
            "base_color", "alpha", "metallic", "roughness", "specular", "ior", "emission", "normal_scale",
            "alpha_cutoff", "alpha_mode",
        ):  # fmt: skip
            row[name] = getattr(material, name)
        for name, usage in SLOT_USAGES.items():
            texture: Texture | None = getattr(material, name)
            fill_slot(row[name], texture, -1 if texture is None else images.row(texture.image, usage))
        textured = any(row[name]["image"] >= 0 for name in SLOT_USAGES)
        row["flags"] = (records.EMISSIVE if is_emissive(material) else 0) | (records.TEXTURED if textured else 0)
    return rows


def fill_slot(slot: Any, texture: Texture | None, image: int) -> None:
    slot["image"] = image
    if texture is None:
        return
    slot["uv_set"] = texture.uv_set
    slot["wrap_u"], slot["wrap_v"], slot["filter"] = texture.wrap_u, texture.wrap_v, texture.filter


def image_rows(images: DecodedImages) -> tuple[Array, Array]:
    """IMAGE records whose address is a byte offset into the second result, all texels one after the other."""
    rows = np.zeros(len(images.pixels), records.IMAGE)
    parts: list[Array] = [np.zeros(0, np.uint8)]
    offsets: dict[int, int] = {}  # images may share one array
    end = 0
    for row, image in zip(rows, images.pixels, strict=True):
        if id(image.data) not in offsets:
            flat = np.ascontiguousarray(image.data).reshape(-1).view(np.uint8)
            offsets[id(image.data)] = end
            parts += [flat, np.zeros(-flat.nbytes % 64, np.uint8)]
            end += flat.nbytes + len(parts[-1])
        row["address"], row["width"], row["height"] = offsets[id(image.data)], image.width, image.height
        row["format"] = image.format
    return rows, np.concatenate(parts)


def only_environment(scene: Scene) -> EnvironmentLight | None:
    """The environment: loading leaves at most one in a scene (dr.scene.formats.assembly)."""
    return next((light for light in scene.lights if isinstance(light, EnvironmentLight)), None)
