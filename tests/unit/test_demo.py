"""The example scene: it loads, it is small, it is whole, and its generator still makes it."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import OpenImageIO
import pytest

from dr.scene.assets import Folder
from dr.scene.formats import load_scene
from dr.scene.model import EnvironmentLight, QuadLight, Scene

EXAMPLES = Path(__file__).parents[2] / "examples"
SCENE = EXAMPLES / "demo.scene.toml"
PARTS = EXAMPLES / "demo"
LIMIT_BYTES = 3_000_000


@pytest.fixture(scope="module")
def scene() -> Scene:
    return load_scene(Folder(SCENE), SCENE.name)


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_demo", EXAMPLES / "make_demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pixels(path: Path) -> np.ndarray:
    return OpenImageIO.ImageInput.open(str(path)).read_image(OpenImageIO.FLOAT)


def test_the_demo_needs_nothing_to_be_added(scene: Scene) -> None:
    assert scene.notices == ()
    assert {type(light) for light in scene.lights} == {QuadLight, EnvironmentLight}
    assert scene.settings.width * 9 == scene.settings.height * 16


def test_the_demo_shows_every_kind_of_material(scene: Scene) -> None:
    used = [scene.materials[instance.material] for instance in scene.instances]
    assert any(material.metallic == 1 for material in used)
    assert any(material.metallic == 0 and material.roughness > 0.9 for material in used)
    assert any(material.metallic == 0 and material.roughness < 0.1 for material in used)
    assert any(max(material.emission) > 1 for material in used)
    for slot in ("base_color_texture", "metallic_roughness_texture", "normal_texture"):
        assert any(getattr(material, slot) for material in used), slot


def test_every_file_of_the_demo_is_used_and_all_of_them_are_small() -> None:
    files = Folder(SCENE)
    load_scene(files, SCENE.name)
    asked = {files.path(name) for name in files.asked}
    assert asked == {SCENE, *PARTS.iterdir()}
    assert sum(path.stat().st_size for path in asked) < LIMIT_BYTES


def test_every_material_of_the_demo_is_used(scene: Scene) -> None:
    named = {material["name"] for material in tomllib.loads(SCENE.read_text())["materials"]}
    assert named <= {scene.materials[instance.material].name for instance in scene.instances}


def test_the_fronts_of_the_demo_face_outwards(scene: Scene) -> None:
    """The winding of each triangle agrees with its normals: an inside-out mesh would be culled."""
    for mesh in scene.meshes:
        assert mesh.normals is not None
        a, b, c = np.moveaxis(mesh.positions[mesh.triangles], 1, 0)
        facing = (np.cross(b - a, c - a) * mesh.normals[mesh.triangles].sum(axis=1)).sum(axis=1)
        assert (facing > 0).all(), mesh.name


@pytest.mark.parametrize("shape", ["ball", "knot", "vase", "halo", "cube", "podium-tall"])
def test_normals_of_the_demo_point_away_from_what_they_enclose(scene: Scene, shape: str) -> None:
    """Gauss: the flux of position through a surface that points outwards is three times the volume, so positive."""
    rows = {instance.name: instance.mesh for instance in scene.instances}
    names = {"ball": "silver ball", "podium-tall": "tall podium"}
    mesh = scene.meshes[rows[names.get(shape, shape)]]
    a, b, c = np.moveaxis(mesh.positions[mesh.triangles].astype(float), 1, 0)
    assert (np.cross(b - a, c - a) * a).sum() > 0


@pytest.mark.slow
def test_the_generator_makes_what_is_committed(tmp_path: Path) -> None:
    """Up to one step of 8 bits, or of half a float: libraries' sines differ in the last bit."""
    generator().make(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in PARTS.iterdir()}
    for made in tmp_path.iterdir():
        committed = PARTS / made.name
        if made.suffix in (".png", ".exr"):
            assert np.allclose(pixels(made), pixels(committed), rtol=2**-10, atol=1.01 / 255), made.name
        else:
            assert made.stat().st_size == committed.stat().st_size, made.name
