"""The animated example: it loads at every frame, goes around once, and lacks nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dr.scene.assets import Folder
from dr.scene.formats import load_scene
from dr.scene.model import Scene

SCENE = Path(__file__).parents[2] / "examples" / "turntable.scene.toml"
FRAMES = 48


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [load_scene(Folder(SCENE), SCENE.name, {"frame": frame}) for frame in range(FRAMES + 1)]


def angle(scene: Scene) -> float:
    """Of the camera around the vase, degrees from 0 to 360."""
    x, _, z = scene.cameras[0].transform[:3, 3].tolist()
    return math.degrees(math.atan2(x, z)) % 360


def test_the_turntable_needs_nothing_to_be_added(scenes: list[Scene]) -> None:
    assert {scene.notices for scene in scenes} == {()}
    assert all(scene.animated for scene in scenes)
    assert scenes[0].last_s * scenes[0].settings.fps == FRAMES


def test_the_turntable_goes_around_once_at_even_speed(scenes: list[Scene]) -> None:
    assert [angle(scene) for scene in scenes[:-1]] == pytest.approx([360 / FRAMES * n for n in range(FRAMES)], abs=1e-9)
    assert scenes[-1].cameras[0].transform.tolist() == scenes[0].cameras[0].transform.tolist()
    assert scenes[-1].lights == scenes[0].lights
