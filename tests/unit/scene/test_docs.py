"""Every example of docs/scene.md is a scene that loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dr.scene.formats import load_scene
from dr.scene.formats.scene_toml_schema import (
    CameraMotion,
    CameraTable,
    DirectionalLightMotion,
    EnvironmentMotion,
    MaterialFields,
    ObjectMotion,
    ObjectTable,
    QuadLightMotion,
    SpotLightMotion,
)
from dr.scene.model import RenderSettings, ViewSettings

PAGE = (Path(__file__).parents[3] / "docs" / "scene.md").read_text()
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PLY = b"ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\nproperty float z\n"
PLY += b"element face 0\nproperty list uchar int vertex_indices\nend_header\n"


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_of_the_documentation_loads(text, files, glb, gltf):
    wooden = gltf(materials=[{"name": "wood"}])
    wooden["meshes"][0]["primitives"][0]["material"] = 0
    contents = {
        "main.scene.toml": text.encode(),
        "models/chair.glb": glb(wooden, b""),
        "scan.ply": PLY,
        "textures/wood.png": b"",
        "textures/grid.png": b"",
        "sky.hdr": b"",
    }
    scene = load_scene(files(contents), "main.scene.toml")
    assert not [line for line in scene.notices if "no material" in line]


TABLES = [MaterialFields, ObjectTable, CameraTable, RenderSettings, ViewSettings]
MOTIONS = [ObjectMotion, CameraMotion, QuadLightMotion, SpotLightMotion, DirectionalLightMotion, EnvironmentMotion]


@pytest.mark.parametrize("table", [*TABLES, *MOTIONS])
def test_the_documentation_names_every_key(table):
    assert [key for key in table.__struct_fields__ if not re.search(rf"\b{key}\b", PAGE)] == []


def test_the_documentation_has_examples():
    assert len(EXAMPLES) >= 6
