"""The survey of a scene in a process of its own."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from dr.errors import BadInput
from dr.scene.assets import Asset, Manifest, Role
from dr.scene.formats import load_scene
from dr.scene.survey import run_survey

SCENE = """
servers = [{ host = "a" }]
[render]
width = 32
[view]
exposure = 2.0
[[materials]]
name = "m"
base_color_texture = "t.png"
[[objects]]
box = { min = [0, 0, 0], max = [1, 1, 1] }
material = "m"
[[lights]]
kind = "environment"
image = "sky.hdr"
[[cameras]]
name = "front"
position = [0, 0, 5]
target = [0, 0, 0]
"""


@pytest.fixture
def scene_file(tmp_path) -> Path:
    (tmp_path / "t.png").write_bytes(b"not decoded here")
    (tmp_path / "sky.hdr").write_bytes(b"nor this")
    (tmp_path / "main.scene.toml").write_text(SCENE)
    return tmp_path / "main.scene.toml"


def test_a_survey_says_all_that_a_client_needs(scene_file):
    survey = run_survey(scene_file, {"samples": 7})
    assert (survey.settings.width, survey.settings.samples, survey.view.exposure) == (32, 7, 2.0)
    assert [server.host for server in survey.servers] == ["a"]
    assert survey.cameras == ("front",)
    counts = survey.counts
    assert (counts.meshes, counts.triangles, counts.instances, counts.images, counts.lights) == (1, 12, 1, 2, 1)
    assert survey.memory_bytes > 12 * 64
    assert survey.notices == ()


def test_a_survey_says_whether_something_moves_and_how_long(scene_file):
    still = run_survey(scene_file)
    assert (still.animated, still.last_s, still.manifest.animated) == (False, 0.0, False)
    scene_file.write_text(SCENE + "[cameras.animation]\ntimes = [0.5, 2]\nposition = [[0, 0, 5], [0, 1, 5]]\n")
    moving = run_survey(scene_file)
    assert (moving.animated, moving.last_s, moving.manifest.animated) == (True, 2.0, True)


def test_a_manifest_says_nothing_of_motion_where_nothing_moves(scene_file):
    """So that the scene keeps its digest, by which servers and journals know it."""
    manifest = run_survey(scene_file).manifest
    assert b"animated" not in manifest.encode()
    moving = msgspec.structs.replace(manifest, animated=True)
    assert Manifest.decode(moving.encode()) == moving != Manifest.decode(manifest.encode())


def test_its_manifest_lists_every_file_with_its_digest(scene_file):
    manifest = run_survey(scene_file).manifest

    def asset(name, role):
        data = (scene_file.parent / name).read_bytes()
        return Asset(name, role, len(data), hashlib.sha256(data).digest())

    assert manifest.main == "main.scene.toml"
    assert manifest.assets == (
        asset("main.scene.toml", Role.SCENE),
        asset("sky.hdr", Role.ENVIRONMENT),
        asset("t.png", Role.TEXTURE),
    )


def test_a_broken_scene_is_bad_input_with_the_childs_words(scene_file):
    scene_file.write_text("[render]\nwidth = 0")
    with pytest.raises(BadInput, match=r"main.scene.toml: render.width: Expected `int` >= 1"):
        run_survey(scene_file)


def test_a_missing_scene_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="file not found"):
        run_survey(tmp_path / "gone.glb")


def test_a_scene_that_takes_too_long_is_given_up(tmp_path):
    with pytest.raises(BadInput, match="not loaded after"):
        run_survey(tmp_path / "gone.glb", timeout_s=0.001)


def test_settings_from_a_survey_load_the_same_scene_elsewhere(scene_file, files):
    survey = run_survey(scene_file, {"height": 99})
    contents = {asset.name: (scene_file.parent / asset.name).read_bytes() for asset in survey.assets}
    scene = load_scene(files(contents), survey.main, survey.settings)
    assert scene.settings == survey.settings
    assert os.fspath(scene.name) == survey.name
    assert msgspec.json.decode(msgspec.json.encode(survey), type=type(survey)) == survey
