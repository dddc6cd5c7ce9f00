"""The scenes that every renderer is measured on: the Cornell box and Sponza of DR_DATA, as models and for peers.

Peers get a neutral folder: scene.json (camera, lights, meshes with colour or texture) and one .npz per mesh, so that
all renderers see the same triangles, the same camera and purely diffuse, two-sided materials.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.machine import data_folder
from dr.scene.assets import Folder
from dr.scene.formats import load_scene
from dr.scene.matrix import look_at
from dr.scene.model import (
    Camera,
    DirectionalLight,
    EnvironmentLight,
    Image,
    Instance,
    Material,
    Mesh,
    RenderSettings,
    Scene,
)

SPONZA_SUN = (-0.25, -1.0, 0.18)
SPONZA_EYE, SPONZA_TARGET, SPONZA_FOV = (11.5, 2.2, 0.4), (0.0, 4.2, -0.2), 75.0
CORNELL_EYE, CORNELL_TARGET, CORNELL_FOV = (0.0, 1.0, 6.8), (0.0, 1.0, 0.0), 19.5
UP = (0.0, 1.0, 0.0)


def references() -> Path:
    return data_folder() / "references" / "mitsuba-3.9"


def diffuse(name: str, color: tuple[float, float, float], **fields: Any) -> Material:
    return Material(name=name, base_color=color, metallic=0.0, specular=0.0, double_sided=True, **fields)


def camera(eye: Any, target: Any, fov_deg: float) -> Camera:
    return Camera(transform=look_at(eye, target, UP), fov=float(np.radians(fov_deg)), fov_axis="x")


def cornell() -> Scene:
    """The box of the references: a quad light flush in the ceiling."""
    stored = np.load(references() / "cornell_scene.npz")
    names = ("white", "red", "green", "light")
    light = tuple(float(value) for value in stored["light"])
    return Scene(
        name="cornell",
        meshes=tuple(Mesh(name=n, positions=stored[f"{n}_v"], triangles=stored[f"{n}_f"]) for n in names),
        materials=tuple(
            diffuse(n, (0.0, 0.0, 0.0), emission=light) if n == "light" else diffuse(n, tuple(map(float, stored[n])))
            for n in names
        ),
        instances=tuple(Instance(mesh=i, material=i, transform=np.eye(4), object_id=i + 1) for i in range(len(names))),
        cameras=(camera(CORNELL_EYE, CORNELL_TARGET, CORNELL_FOV),),
    )


def sponza_folder() -> Folder:
    return Folder(data_folder() / "scenes" / "sponza" / "sponza.glb")


def sponza() -> Scene:
    """Sponza with flat normals and diffuse materials, a sun of irradiance 5 and a constant sky of radiance 1."""
    files = sponza_folder()
    loaded = load_scene(files, files.main, RenderSettings())
    materials = tuple(
        msgspec.structs.replace(m, metallic=0.0, specular=0.0, double_sided=True) for m in loaded.materials
    )
    meshes = tuple(msgspec.structs.replace(mesh, normals=None, tangents=None) for mesh in loaded.meshes)
    return msgspec.structs.replace(
        loaded,
        name="sponza",
        meshes=meshes,
        materials=materials,
        cameras=(camera(SPONZA_EYE, SPONZA_TARGET, SPONZA_FOV),),
        lights=(
            DirectionalLight(direction=SPONZA_SUN, irradiance=(5.0, 5.0, 5.0)),
            EnvironmentLight(radiance=(1.0, 1.0, 1.0)),
        ),
    )


def export(scene: Scene, files: Folder | None, folder: Path) -> None:
    """Writes the neutral folder that bench/peers/*.py read."""
    folder.mkdir(parents=True, exist_ok=True)
    meshes = []
    for number, instance in enumerate(scene.instances):
        mesh, material = scene.meshes[instance.mesh], scene.materials[instance.material]
        points = mesh.positions @ instance.transform[:3, :3].T + instance.transform[:3, 3]
        uv = mesh.uv0 if mesh.uv0 is not None else np.zeros((len(points), 2), np.float32)
        np.savez(folder / f"mesh{number}.npz", positions=points.astype(np.float32), triangles=mesh.triangles, uv=uv)
        texture = material.base_color_texture
        image = None if texture is None else write_image(scene.images[texture.image], files, folder, texture.image)
        meshes.append(
            {"file": f"mesh{number}.npz", "color": material.base_color, "image": image, "emission": material.emission}
        )
    eye, target, fov = (
        (CORNELL_EYE, CORNELL_TARGET, CORNELL_FOV)
        if scene.name == "cornell"
        else (SPONZA_EYE, SPONZA_TARGET, SPONZA_FOV)
    )
    sun = next((light for light in scene.lights if isinstance(light, DirectionalLight)), None)
    sky = next((light for light in scene.lights if isinstance(light, EnvironmentLight)), None)
    description = {
        "name": scene.name,
        "meshes": meshes,
        "camera": {"eye": eye, "target": target, "fov_x_deg": fov},
        "sun": None if sun is None else {"direction": sun.direction, "irradiance": sun.irradiance},
        "sky": None if sky is None else sky.radiance,
    }
    (folder / "scene.json").write_text(json.dumps(description))


def write_image(image: Image, files: Folder | None, folder: Path, number: int) -> str:
    data = image.data if image.asset is None else files.path(image.asset).read_bytes() if files else b""
    ending = "png" if (data or b"")[:4] == b"\x89PNG" else "jpg"
    (folder / f"image{number}.{ending}").write_bytes(data or b"")
    return f"image{number}.{ending}"
