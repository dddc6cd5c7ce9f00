"""The public test scenes, when they are there: each loads or is refused by name, and big ones have the right size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dr.errors import BadInput
from dr.scene.assets import Folder
from dr.scene.formats import SUFFIXES, load_scene
from dr.scene.model import Scene

DATA = Path(os.environ.get("DR_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA.is_dir(), reason="DR_DATA is not there")]

# Files of gltf/ that need an extension which is not supported
REFUSED = {
    "Box.gltf": "KHR_draco_mesh_compression",
    "GlamVelvetSofa.glb": "KHR_texture_transform",
    "IridescenceSuzanne.glb": "KHR_materials_iridescence",
    "MorphPrimitivesTest.gltf": "KHR_draco_mesh_compression",
    "UnlitTest.glb": "KHR_materials_unlit",
    "pirate.glb": "EXT_meshopt_compression",
}


def found_files(folder: str) -> list[Path]:
    return sorted(path for path in (DATA / folder).rglob("*") if path.is_file())


def found(folder: str) -> list[Path]:
    return [path for path in found_files(folder) if path.name.endswith(SUFFIXES)]


def load(path: Path) -> Scene:
    return load_scene(Folder(path), path.name)


def load_or_message(path: Path) -> tuple[Scene | None, str]:
    try:
        return load(path), ""
    except BadInput as error:
        return None, str(error)


def triangles(scene: Scene) -> int:
    return sum(len(scene.meshes[instance.mesh].triangles) for instance in scene.instances)


@pytest.mark.parametrize("path", [*found("gltf"), *found("scenes"), *found("references")], ids=lambda path: path.name)
def test_a_public_scene_loads_or_is_refused_by_name(path):
    scene, message = load_or_message(path)
    if scene is None:
        assert message == f"{path.name}: extensionsRequired: {REFUSED[path.name]} is not supported"
        return
    assert triangles(scene) > 0
    assert scene.cameras
    assert scene.lights or any(max(material.emission) > 0 for material in scene.materials)


@pytest.mark.parametrize("path", found_files("broken"), ids=lambda path: path.name)
def test_a_broken_file_loads_or_is_one_line_of_bad_input(path):
    scene, message = load_or_message(path)
    assert message.isprintable()
    assert message.startswith(f"{path.name}: ") if scene is None else path.name.endswith(SUFFIXES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gltf/MetalRoughSpheresNoTextures/glTF-Binary/MetalRoughSpheresNoTextures.glb", 1_040_409),
        ("scenes/sponza/sponza.glb", 66_445),
        ("gltf/WaterBottle/glTF/WaterBottle.gltf", 4_510),
    ],
)
def test_a_known_scene_has_all_its_triangles(name, expected):
    assert triangles(load(DATA / name)) == expected
