"""What a scene gets that it lacks, and what it may not contain."""

from __future__ import annotations

import numpy as np
import pytest

from dr.errors import BadInput
from dr.scene.model import EnvironmentLight
from dr.scene.studio import studio_image

BOX = "[[objects]]\nbox = {{ min = [{0}, {0}, {0}], max = [{1}, {1}, {1}] }}\n"
NEUTRAL_LIGHT = "main.scene.toml: no light: added a neutral environment (--no-default-light renders without)"


def project(camera, points, aspect):
    """Picture coordinates, -1..1 inside, of points in the world."""
    to_camera = np.linalg.inv(camera.transform)
    x, y, z = (points @ to_camera[:3, :3].T + to_camera[:3, 3]).T
    half = np.tan(camera.fov / 2)
    half_width, half_height = (half, half / aspect) if camera.fov_axis == "x" else (half * aspect, half)
    return x / -z / half_width, y / -z / half_height


@pytest.mark.parametrize(("width", "height"), [(960, 540), (300, 900)])
@pytest.mark.parametrize(("low", "high"), [(-1, 1), (1000, 1001), (-1e-6, 1e-6)])
def test_the_default_camera_shows_everything(load, width, height, low, high):
    scene = load(BOX.format(low, high), {"width": width, "height": height})
    (camera,) = scene.cameras
    corners = np.array([[x, y, z] for x in (low, high) for y in (low, high) for z in (low, high)])
    across, upwards = project(camera, corners, width / height)
    assert max(abs(across).max(), abs(upwards).max()) < 1
    assert max(abs(across).max(), abs(upwards).max()) > 0.4
    assert "main.scene.toml: no camera: added one that shows everything" in scene.notices


def test_a_scene_without_light_gets_a_neutral_environment_unless_refused(load):
    bright = load(BOX.format(0, 1))
    assert bright.lights == (EnvironmentLight(image=0),)
    assert bright.images[0].data == studio_image().data
    assert NEUTRAL_LIGHT in bright.notices
    dark = load(BOX.format(0, 1), {"default_light": False})
    assert dark.lights == ()
    assert NEUTRAL_LIGHT not in dark.notices


def test_a_lamp_is_light_but_a_glow_map_is_not(load):
    lamp = 'material = "m"\n[[materials]]\nname = "m"\nemission = [1, 1, 1]\n'
    assert load(BOX.format(0, 1) + lamp).lights == ()
    glowing = load(BOX.format(0, 1) + lamp + 'emission_texture = "a.png"', a__png=b"")
    assert glowing.lights == (EnvironmentLight(image=1),)


def test_an_object_squashed_to_nothing_is_left_out_with_one_notice(load):
    scene = load(BOX.format(0, 1) + (BOX.format(0, 1) + "scale = [1, 0, 1]\n") * 2)
    assert [instance.object_id for instance in scene.instances] == [1]
    assert "main.scene.toml: objects with a scale of zero were left out: 2" in scene.notices


def test_what_is_too_far_away_is_refused_by_name(load):
    with pytest.raises(BadInput, match=r"object 'far': expected it within 1e\+15 metres"):
        load(BOX.format(0, 1) + 'name = "far"\ntranslate = [1e16, 0, 0]')


def test_numbers_too_large_for_single_precision_are_refused(load):
    with pytest.raises(BadInput, match="light 0: expected numbers below"):
        load('[[lights]]\nkind = "point"\nposition = [0, 0, 0]\nintensity = [1e35, 0, 0]')


def test_a_camera_is_chosen_by_name_or_number(load):
    text = '[[cameras]]\nname = "a"\nposition = [0, 0, 1]\ntarget = [0, 0, 0]\n'
    text += "[[cameras]]\nposition = [0, 0, 2]\ntarget = [0, 0, 0]\n"
    for wanted in ("a", "0", "1"):
        assert load(text, {"camera": wanted}).settings.camera == wanted
    with pytest.raises(BadInput, match=r"there is no camera 'b'; known are 0, 1, a"):
        load(text, {"camera": "b"})
    with pytest.raises(BadInput, match="there is no camera '2'"):
        load(text, {"camera": "2"})


def test_a_region_outside_the_frame_is_refused(load):
    with pytest.raises(BadInput, match="region: expected a rectangle within 100x50, found 20x20 at 90,0"):
        load("", {"width": 100, "height": 50, "region": [90, 0, 20, 20]})


def test_a_wrong_override_is_refused_by_name(load):
    with pytest.raises(BadInput, match="'sampels' is not one of them"):
        load("", {"sampels": 3})
    with pytest.raises(BadInput, match="Expected `int` >= 1"):
        load("", {"samples": 0})
