"""Prepares a scene once per host: parse, decode, flatten, build trees, write. Knows the order of the steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dr.scene import matrix, trig
from dr.scene.assets import Files
from dr.scene.formats import load_scene
from dr.scene.model import AlphaMode, Camera, EnvironmentLight, Material, Mesh, QuadLight, RenderSettings, Scene
from workers.kernels import records
from workers.prepare import bvh, flatten, lights
from workers.prepare.emission import mean_emission
from workers.prepare.flatten import Geometry, is_emissive, material_flags
from workers.prepare.scene_file import STORED_CAMERA, write_scene
from workers.prepare.tangents import with_tangents
from workers.prepare.textures import DecodedImages, decode_environment, decode_images

Array = npt.NDArray[Any]


@dataclass
class World:
    """The scene's shared arrays as they grow."""

    triangles: Array
    vertices: Array
    instances: Array
    world_triangles: int  # the first so many triangles lie in the world
    mesh_ranges: dict[int, tuple[int, int]]  # instanced mesh -> rows of triangles
    materials: list[Material]


def prepare_scene(
    files: Files, main: str, settings: RenderSettings, out: Path, threads: int, say: Callable[[str], None]
) -> None:
    """Writes the flat file `out` for the scene `main`. Raises BadInput naming file and place."""
    say("reading the scene")
    scene = load_scene(files, main, settings)
    write_prepared(scene, files, out, threads, say)


def write_prepared(scene: Scene, files: Files, out: Path, threads: int, say: Callable[[str], None]) -> None:
    """The part of `prepare_scene` that comes after parsing."""
    if scene.images:
        say(f"decoding {len(scene.images)} images")
    images = decode_images(scene, files, say, threads)
    environment_light = flatten.only_environment(scene)
    environment = None
    if environment_light is not None and environment_light.image is not None:
        environment = lights.environment_map(decode_environment(scene.images[environment_light.image], files, say))
    world = assemble(with_missing_tangents(scene), scene)
    say(f"building the tree over {len(world.triangles):,} triangles")
    forest, roots, radius = build_trees(world, threads)
    world.instances["root"] = [roots[mesh] for mesh in world.instances["root"]]
    rows, powers = light_rows(scene, world, images, environment_light, environment, radius)
    alias = lights.choose_by_power(rows, powers) if len(rows) else np.zeros(0, records.ALIAS)

    image_rows, texels = flatten.image_rows(images)
    record = scene_record(world, rows, environment_light, environment, int(forest.roots[-1]), radius)
    arrays: dict[str, Array] = {
        "scene": record,
        "images": image_rows,
        "cameras": np.concatenate([stored_camera(camera) for camera in scene.cameras]),
        "nodes": forest.nodes,
        "packs": forest.packs,
        "triangles": world.triangles,
        "vertices": world.vertices,
        "instances": world.instances,
        "materials": flatten.material_rows(world.materials, images),
        "lights": rows,
        "light_alias": alias,
        "texels": texels,
    }
    if environment is not None:
        arrays |= {"environment_texels": environment.texels, "environment_alias": environment.alias}
    write_scene(out, arrays, [camera.name for camera in scene.cameras])


def with_missing_tangents(scene: Scene) -> list[Mesh]:
    """The scene's meshes, with tangents where a normal map needs them and the file gives none."""
    uv_sets: dict[int, int] = {}
    for instance in scene.instances:
        texture = scene.materials[instance.material].normal_texture
        if texture is not None:
            uv_sets.setdefault(instance.mesh, texture.uv_set)
    return [
        with_tangents(mesh, uv_sets[index]) if index in uv_sets and mesh.tangents is None else mesh
        for index, mesh in enumerate(scene.meshes)
    ]


def assemble(meshes: list[Mesh], scene: Scene) -> World:
    """World triangles first, then those of each instanced mesh; quad lights are triangles of the world."""
    instanced = flatten.instanced_meshes(scene)
    materials = list(scene.materials)
    parts = [
        flatten.place_mesh(meshes[instance.mesh], instance, instance.transform)
        for instance in scene.instances
        if instance.mesh not in instanced
    ]
    for row, light in enumerate(light for light in scene.lights if not isinstance(light, EnvironmentLight)):
        if isinstance(light, QuadLight) and light.visible:
            materials.append(flatten.quad_material(light))
            parts.append(flatten.quad_geometry(light, len(materials) - 1, row))
    world_triangles = sum(len(part.triangles) for part in parts)

    ranges: dict[int, tuple[int, int]] = {}
    first = world_triangles
    placed = [instance for instance in scene.instances if instance.mesh in instanced]
    for mesh in sorted(instanced):
        sample = next(instance for instance in placed if instance.mesh == mesh)
        part: Geometry = flatten.place_mesh(meshes[mesh], sample, None)
        parts.append(part)
        ranges[mesh] = (first, first + len(part.triangles))
        first += len(part.triangles)

    rows: Array = np.zeros(len(placed), records.INSTANCE)
    for number, instance in enumerate(placed):
        row = rows[number]
        row["to_world"] = instance.transform[:3].reshape(-1)
        row["to_object"] = matrix.inverse(instance.transform)[:3].reshape(-1)
        row["root"], row["object_id"], row["material"] = instance.mesh, instance.object_id, instance.material
        row["mirrored"] = matrix.determinant(instance.transform) < 0
    geometry = flatten.join(parts)
    return World(geometry.triangles, geometry.vertices, rows, world_triangles, ranges, materials)


def corners(triangles: Array) -> Array:
    return np.stack([triangles["p0"], triangles["p1"], triangles["p2"]], axis=1)


def flagged_ids(world: World, first: int, end: int) -> Array:
    """Ids of triangles [first, end) with the flags of their materials."""
    flags = np.array([material_flags(material) for material in world.materials] or [0], np.int64)
    ids: Array = np.arange(first, end, dtype=np.int64) | flags[world.triangles["material"][first:end]]
    return ids.astype(np.int32)


def box_corners(box: Array) -> Array:
    """The 8 corners of a box [lo xyz, hi xyz]."""
    return np.array([[box[x], box[1 + y], box[2 + z]] for x in (0, 3) for y in (0, 3) for z in (0, 3)])


def build_trees(world: World, threads: int) -> tuple[bvh.Forest, dict[int, int], float]:
    """All trees in shared arrays, the world's last; the root of each instanced mesh; the world's bounding radius."""
    trees: list[bvh.Tree] = []
    boxes: dict[int, Array] = {}
    for mesh, (first, end) in world.mesh_ranges.items():
        points = corners(world.triangles[first:end])
        trees.append(bvh.build(points, flagged_ids(world, first, end), np.zeros((0, 6), np.float32), threads))
        flat = points.reshape(-1, 3).astype(np.float64)
        boxes[mesh] = np.concatenate([flat.min(0), flat.max(0)])
    bounds = np.zeros((len(world.instances), 6), np.float32)
    for row, instance in zip(bounds, world.instances, strict=True):
        to_world = np.vstack([instance["to_world"].reshape(3, 4).astype(np.float64), [0, 0, 0, 1]])
        placed = flatten.transform_points(to_world, box_corners(boxes[int(instance["root"])]))
        slack = np.abs(placed).max() * 1e-6
        row[:3], row[3:] = placed.min(0) - slack, placed.max(0) + slack
    points = corners(world.triangles[: world.world_triangles])
    trees.append(bvh.build(points, flagged_ids(world, 0, world.world_triangles), bounds, threads))
    forest = bvh.concatenate(trees)
    mesh_roots = {mesh: int(root) for mesh, root in zip(world.mesh_ranges, forest.roots, strict=False)}
    return forest, mesh_roots, bounding_radius(points, bounds)


def bounding_radius(points: Array, bounds: Array) -> float:
    """Half the diagonal of the box around all that is finite; 1 for an empty scene."""
    ends = np.concatenate([points.reshape(-1, 3), bounds.reshape(-1, 3)]).astype(np.float64)
    ends = ends[np.isfinite(ends).all(axis=1)]
    if len(ends) == 0:
        return 1.0
    size = ends.max(0) - ends.min(0)
    return max(float(np.sqrt(size[0] * size[0] + size[1] * size[1] + size[2] * size[2])) * 0.5, 1e-9)


def light_rows(
    scene: Scene,
    world: World,
    images: DecodedImages,
    environment_light: EnvironmentLight | None,
    environment: lights.EnvironmentMap | None,
    radius: float,
) -> tuple[Array, Array]:
    """All LIGHT records and their powers: the model's in order, then emissive triangles, then the environment.

    An emissive triangle that looks black at every probe is no light: only paths that hit it find what it emits.
    """
    pairs = [
        lights.light_record(light, None, radius) for light in scene.lights if not isinstance(light, EnvironmentLight)
    ]
    rows = [row for row, _ in pairs]
    powers = [power for _, power in pairs]
    emissive = np.array([is_emissive(material) for material in scene.materials] + [False], bool)
    inside = world.triangles[: world.world_triangles]
    materials = np.minimum(inside["material"], len(scene.materials))
    candidates = np.nonzero(emissive[materials])[0]
    if len(candidates):
        radiance = mean_emission(scene, world.triangles[candidates], world.vertices, images)
        two_sided = np.array([m.double_sided for m in scene.materials], bool)[inside["material"][candidates]]
        found, found_powers = lights.triangle_records(world.triangles, candidates, radiance, two_sided)
        bright = found_powers > 0
        world.triangles["light"][candidates[bright]] = len(rows) + np.arange(int(bright.sum()))
        rows.append(found[bright])
        powers += found_powers[bright].tolist()
    if environment_light is not None:
        row, power = lights.light_record(environment_light, environment, radius)
        rows.append(row)
        powers.append(power)
    return np.concatenate(rows or [np.zeros(0, records.LIGHT)]), np.array(powers, np.float64)


def stored_camera(camera: Camera) -> Array:
    """A camera for the file: its frame, and half its extent along the axis that its angle belongs to."""
    row = np.zeros(1, STORED_CAMERA)
    target = row["camera"]
    axes = [flatten.unit(camera.transform[None, :3, axis])[0] for axis in range(3)]
    target["right"], target["up"], target["forward"] = axes[0], axes[1], -axes[2]
    target["origin"] = camera.transform[:3, 3]
    target["aperture_radius"], target["focus_distance"] = camera.aperture_radius, camera.focus_distance
    if camera.orthographic_height is not None:
        target["orthographic"] = 1
        row["half_extent"] = camera.orthographic_height / 2
    else:
        row["half_extent"] = trig.tan(camera.fov / 2)
        row["axis_is_x"] = camera.fov_axis == "x"
    return row


def scene_record(
    world: World,
    rows: Array,
    environment_light: EnvironmentLight | None,
    environment: lights.EnvironmentMap | None,
    root: int,
    radius: float,
) -> Array:
    """The SCENE record but for addresses, camera and settings, which `open_scene` fills in."""
    record = np.zeros(1, records.SCENE)
    record["n_lights"], record["n_instances"], record["root"] = len(rows), len(world.instances), root
    record["has_alpha"] = any(material.alpha_mode != AlphaMode.OPAQUE for material in world.materials)
    record["scene_radius"] = radius
    record["environment"]["light"] = -1
    if environment_light is not None:
        record["environment"]["light"] = len(rows) - 1
        record["environment"]["radiance"] = environment_light.radiance
        record["environment"]["cos_rotation"] = trig.cos(environment_light.rotation)
        record["environment"]["sin_rotation"] = trig.sin(environment_light.rotation)
    if environment is not None:
        record["environment"]["width"], record["environment"]["height"] = environment.width, environment.height
    return record
