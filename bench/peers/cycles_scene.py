"""Renders a neutral scene folder with Cycles; prints one JSON line.

Words: FOLDER WIDTH HEIGHT SAMPLES DEPTH RR_DEPTH SAMPLER OUT.npy.

Runs in an environment of its own with bpy. Cycles counts bounces after the first hit, so DEPTH - 2 of them; its
roulette cannot be set alike. Every render call builds the scene anew, so the time of a call with one sample is taken
off.
"""

import json
import os
import sys
import time
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix, Vector


def y_up(p):
    """Blender is z up: (x, y, z) -> (x, -z, y)."""
    return np.stack([p[..., 0], -p[..., 2], p[..., 1]], -1)


def add_mesh(folder: Path, number: int, mesh: dict) -> None:
    stored = np.load(folder / mesh["file"])
    data = bpy.data.meshes.new(f"mesh{number}")
    data.from_pydata(y_up(stored["positions"]).tolist(), [], stored["triangles"].tolist())
    layer = data.uv_layers.new()
    corners = stored["uv"][stored["triangles"].reshape(-1)]
    layer.data.foreach_set("uv", np.stack([corners[:, 0], 1 - corners[:, 1]], -1).astype(np.float32).ravel())
    bpy.context.scene.collection.objects.link(bpy.data.objects.new(f"mesh{number}", data))
    material = bpy.data.materials.new(f"mesh{number}")
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    output = nodes.new("ShaderNodeOutputMaterial")
    if max(mesh["emission"]) > 0:
        shader = nodes.new("ShaderNodeEmission")
        shader.inputs["Color"].default_value = [*mesh["emission"], 1]
        shader.inputs["Strength"].default_value = 1
    else:
        shader = nodes.new("ShaderNodeBsdfDiffuse")
        shader.inputs["Color"].default_value = [*mesh["color"], 1]
        if mesh["image"]:
            texture = nodes.new("ShaderNodeTexImage")
            texture.image = bpy.data.images.load(str(folder / mesh["image"]))
            links.new(texture.outputs["Color"], shader.inputs["Color"])
    links.new(shader.outputs[0], output.inputs["Surface"])
    data.materials.append(material)


def add_camera(camera: dict) -> None:
    data = bpy.data.cameras.new("camera")
    data.sensor_fit = "HORIZONTAL"
    data.angle = np.radians(camera["fov_x_deg"])
    placed = bpy.data.objects.new("camera", data)
    eye, target = (Vector(y_up(np.array(camera[name], float))) for name in ("eye", "target"))
    back = (eye - target).normalized()
    right = Vector((0, 0, 1)).cross(back).normalized()
    up = back.cross(right)
    placed.matrix_world = Matrix.Translation(eye) @ Matrix((right, up, back)).transposed().to_4x4()
    bpy.context.scene.collection.objects.link(placed)
    bpy.context.scene.camera = placed


def add_lights(scene: dict) -> None:
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = [*(scene["sky"] or (0, 0, 0)), 1]
    if scene["sun"]:
        sun = bpy.data.lights.new("sun", "SUN")
        sun.energy, sun.angle = scene["sun"]["irradiance"][0], 0
        placed = bpy.data.objects.new("sun", sun)
        direction = Vector(y_up(np.array(scene["sun"]["direction"], float))).normalized()
        placed.rotation_mode = "QUATERNION"
        placed.rotation_quaternion = direction.to_track_quat("-Z", "Y")
        bpy.context.scene.collection.objects.link(placed)


def render(samples: int) -> tuple[float, float]:
    """Wall and CPU seconds of one render call, which builds the scene anew every time."""
    bpy.context.scene.cycles.samples = samples
    wall, cpu = time.perf_counter(), time.process_time()
    bpy.ops.render.render(write_still=True)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    folder = Path(sys.argv[1])
    width, height, samples, depth = map(int, sys.argv[2:6])
    out = sys.argv[8]
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = json.loads((folder / "scene.json").read_text())
    for number, mesh in enumerate(scene["meshes"]):
        add_mesh(folder, number, mesh)
    add_camera(scene["camera"])
    add_lights(scene)
    settings = bpy.context.scene
    settings.render.engine = "CYCLES"
    settings.render.resolution_x, settings.render.resolution_y = width, height
    settings.render.resolution_percentage = 100
    settings.render.threads_mode, settings.render.threads = "FIXED", int(os.environ.get("THREADS", "1"))
    settings.render.image_settings.file_format = "OPEN_EXR"
    settings.render.image_settings.color_depth = "32"
    settings.view_settings.view_transform = "Raw"
    settings.render.filepath = str(folder / "cycles.exr")
    cycles = settings.cycles
    cycles.use_adaptive_sampling, cycles.use_denoising = False, False
    cycles.pixel_filter_type, cycles.filter_width = "BOX", 1
    cycles.max_bounces = cycles.diffuse_bounces = depth - 2  # 0: direct light alone
    cycles.sample_clamp_direct = cycles.sample_clamp_indirect = cycles.light_sampling_threshold = 0
    cycles.use_auto_tile = False
    render(1)  # loads what is loaded once
    first, rest = render(1), render(samples)
    wall, cpu = ((many - one) * samples / (samples - 1) for one, many in zip(first, rest, strict=True))
    image = bpy.data.images.load(str(folder / "cycles.exr"))
    pixels = np.array(image.pixels[:], np.float32).reshape(height, width, -1)[::-1, :, :3]
    np.save(out, pixels)
    print(json.dumps({"renderer": f"Cycles {bpy.app.version_string}", "wall_s": wall, "cpu_s": cpu}))


main()
