"""The scenes that every renderer is measured on: the Cornell box and Sponza of DR_DATA, and our own demo.

Peers get a neutral folder: scene.json (camera, lights, meshes with colour or texture) and one .npz per mesh, so that
all renderers see the same triangles, the same camera and purely diffuse, two-sided materials.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.machine import data_folder
from dr.scene.assets import Blobs, Files, Folder, Role
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

Point = tuple[float, float, float]

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo.scene.toml"
UP = (0.0, 1.0, 0.0)
SUN_DIRECTION, SUN_IRRADIANCE, SKY_RADIANCE = (-0.25, -1.0, 0.18), 5.0, 1.0


@dataclass(frozen=True)
class View:
    """A pinhole camera; `fov_deg` is the horizontal angle."""

    eye: Point
    target: Point
    fov_deg: float

    @property
    def camera(self) -> Camera:
        transform = look_at(self.eye, self.target, UP)
        return Camera(transform=transform, fov=float(np.radians(self.fov_deg)), fov_axis="x")


@dataclass(frozen=True)
class Subject:
    """A scene, its files, and the view in words that peers understand (None: it is ours alone)."""

    scene: Scene
    files: Files
    view: View | None


def references() -> Path:
    return data_folder() / "references" / "mitsuba-3.9"


def diffuse(name: str, color: Point, emission: Point = (0.0, 0.0, 0.0)) -> Material:
    return Material(
        name=name, base_color=color, emission=emission, metallic=0.0, specular=0.0, double_sided=True
    )  # fmt: skip


def cornell() -> Subject:
    """The box of the references: a quad light flush in the ceiling."""
    stored = np.load(references() / "cornell_scene.npz")
    names = ("white", "red", "green", "light")
    view = View((0.0, 1.0, 6.8), (0.0, 1.0, 0.0), 19.5)

    def color(name: str) -> Point:
        red, green, blue = map(float, stored[name])
        return red, green, blue

    walls = [diffuse(name, color(name)) for name in names[:3]]
    scene = Scene(
        name="cornell",
        meshes=tuple(Mesh(name=n, positions=stored[f"{n}_v"], triangles=stored[f"{n}_f"]) for n in names),
        materials=(*walls, diffuse("light", (0.0, 0.0, 0.0), color("light"))),
        instances=tuple(Instance(mesh=i, material=i, transform=np.eye(4), object_id=i + 1) for i in range(len(names))),
        cameras=(view.camera,),
    )
    return Subject(scene, Blobs({}), view)


def sponza() -> Subject:
    """Sponza with flat normals and diffuse materials under a sun and a constant sky."""
    files = Folder(data_folder() / "scenes" / "sponza" / "sponza.glb")
    view = View((11.5, 2.2, 0.4), (0.0, 4.2, -0.2), 75.0)
    loaded = load_scene(files, files.main, RenderSettings())
    replace = msgspec.structs.replace
    sun = DirectionalLight(direction=SUN_DIRECTION, irradiance=(SUN_IRRADIANCE,) * 3)
    scene = replace(
        loaded,
        name="sponza",
        materials=tuple(replace(m, metallic=0.0, specular=0.0, double_sided=True) for m in loaded.materials),
        meshes=tuple(replace(mesh, normals=None, tangents=None) for mesh in loaded.meshes),
        cameras=(view.camera,),
        lights=(sun, EnvironmentLight(radiance=(SKY_RADIANCE,) * 3)),
    )
    return Subject(scene, files, view)


def demo() -> Subject:
    """The example scene, whose materials peers are not told."""
    files = Folder(DEMO)
    return Subject(load_scene(files, files.main, RenderSettings()), files, None)


SUBJECTS = {"cornell": cornell, "sponza": sponza, "demo": demo}


def is_here(name: str) -> bool:
    """Whether the scene's files are on this machine."""
    needed = {"cornell": "references/mitsuba-3.9/cornell_scene.npz", "sponza": "scenes/sponza/sponza.glb"}
    return name not in needed or (data_folder() / needed[name]).is_file()


def export(subject: Subject, folder: Path) -> None:
    """Writes the neutral folder that bench/peers/*.py read."""
    scene, view = subject.scene, subject.view
    assert view is not None, "a scene for peers has a view"
    suns = [light.irradiance for light in scene.lights if isinstance(light, DirectionalLight)]
    skies = [light.radiance for light in scene.lights if isinstance(light, EnvironmentLight)]
    description = {
        "name": scene.name,
        "meshes": [_export_mesh(subject, instance, f"mesh{i}", folder) for i, instance in enumerate(scene.instances)],
        "camera": {"eye": view.eye, "target": view.target, "fov_x_deg": view.fov_deg},
        "sun": {"direction": SUN_DIRECTION, "irradiance": suns[0]} if suns else None,
        "sky": skies[0] if skies else None,
    }
    (folder / "scene.json").write_text(json.dumps(description))


def _export_mesh(subject: Subject, instance: Instance, name: str, folder: Path) -> dict[str, Any]:
    """One instance in world coordinates."""
    scene = subject.scene
    mesh, material = scene.meshes[instance.mesh], scene.materials[instance.material]
    points = mesh.positions @ instance.transform[:3, :3].T + instance.transform[:3, 3]
    uv = mesh.uv0 if mesh.uv0 is not None else np.zeros((len(points), 2), np.float32)
    np.savez(folder / f"{name}.npz", positions=points.astype(np.float32), triangles=mesh.triangles, uv=uv)
    texture = material.base_color_texture
    image = None
    if texture is not None:
        image = _export_image(scene.images[texture.image], subject.files, folder / f"image{texture.image}")
    return {"file": f"{name}.npz", "color": material.base_color, "image": image, "emission": material.emission}


def _export_image(image: Image, files: Files, path: Path) -> str:
    data = image.data if image.asset is None else files.read(image.asset, Role.TEXTURE, "bench")
    if data is None:
        raise ValueError(f"image {image}: expected bytes or a file")
    path = path.with_suffix(".png" if data.startswith(b"\x89PNG") else ".jpg")
    path.write_bytes(data)
    return path.name
