"""What moves in a .scene.toml: objects, cameras and lights at a frame's time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dr.errors import BadInput
from dr.scene.matrix import look_at

ROUNDING = 1e-14
UP = (0.0, 1.0, 0.0)
QUAD = "[[objects]]\nquad = { corner = [0, 0, 0], edge_u = [1, 0, 0], edge_v = [0, 1, 0] }\n"
CAMERA = "[[cameras]]\nposition = [0, 1, 4]\ntarget = [0, 1, 0]\n"


@pytest.fixture
def at(load):
    """at(text, time_s, **files): the scene as it stands then."""
    return lambda text, time_s, **files: load(text, {"frame": round(time_s * 1000), "fps": 1000.0}, **files)


def close(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max()) < ROUNDING


def test_an_object_is_scaled_turned_and_moved_by_its_keys(at):
    text = QUAD + "name = 'door'\ntranslate = [9, 9, 9]\n[objects.animation]\ntimes = [1, 3]\n"
    text += "scale = [1, 3]\nrotate = [[0, 0, 0], [0, 180, 0]]\ntranslate = [[0, 0, 0], [4, 0, 0]]\n"
    (instance,) = at(text, 2.0).instances
    assert close(instance.transform, [[0, 0, 2, 2], [0, 2, 0, 0], [-2, 0, 0, 0], [0, 0, 0, 1]])
    assert at(text, 0.0).instances[0].transform.tolist() == np.eye(4).tolist()
    assert instance.name == "door"


def test_a_whole_turn_is_a_whole_turn(at):
    """Angles are interpolated, not rotations: from 0 to 360 is once around, and ends where it began."""
    text = QUAD + "[objects.animation]\ntimes = [0, 4]\nrotate = { axis = [0, 0, 1], angle = [0, 360] }\n"
    transforms = [at(text, time_s).instances[0].transform for time_s in (0.0, 1.0, 2.0, 3.0, 4.0)]
    assert [round(math.degrees(math.atan2(t[1, 0], t[0, 0])) % 360, 9) for t in transforms] == [0, 90, 180, 270, 0]
    assert transforms[0].tolist() == transforms[4].tolist()


def test_one_factor_of_scale_may_stand_among_three(at):
    text = QUAD + "[objects.animation]\ntimes = [0, 1]\nscale = [2, [4, 2, 6]]\n"
    assert at(text, 0.5).instances[0].transform.diagonal().tolist() == [3, 2, 4, 1]


def test_an_included_part_moves_as_a_whole(at):
    text = "[[objects]]\nfile = 'part.scene.toml'\n"
    text += "[objects.animation]\ntimes = [0, 1]\ntranslate = [[0, 0, 0], [2, 0, 0]]\n"
    scene = at(text, 0.5, part__scene__toml=QUAD + CAMERA)
    assert scene.instances[0].transform[:3, 3].tolist() == [1, 0, 0]
    assert scene.cameras[0].transform[:3, 3].tolist() == [1, 1, 4]


def test_a_camera_goes_around_its_target(at):
    text = CAMERA + "[cameras.animation]\ntimes = [0, 2]\norbit = [0, 360]\n"
    for time_s, position in ((0.0, (0, 1, 4)), (0.5, (4, 1, 0)), (1.0, (0, 1, -4)), (2.0, (0, 1, 4))):
        (camera,) = at(text, time_s).cameras
        assert close(camera.transform, look_at(position, (0, 1, 0), UP))
        assert camera.focus_distance == pytest.approx(4.0, abs=ROUNDING)


def test_an_orbit_turns_what_its_other_keys_say(at):
    text = CAMERA + "[cameras.animation]\ntimes = [0, 2]\norbit = [0, 180]\nposition = [[0, 1, 4], [0, 1, 2]]\n"
    assert close(at(text, 1.0).cameras[0].transform, look_at((3, 1, 0), (0, 1, 0), UP))


def test_a_camera_looks_and_zooms_by_its_keys(at):
    text = CAMERA + "[cameras.animation]\ntimes = [0, 1]\ntarget = [[0, 1, 0], [4, 1, 0]]\nfov = [40, 20]\n"
    (camera,) = at(text, 1.0).cameras
    assert close(camera.transform, look_at((0, 1, 4), (4, 1, 0), UP))
    assert camera.fov == pytest.approx(math.radians(20))


LIGHTS = {
    "point": "position = [0, 0, 0]\nintensity = [1, 1, 1]",
    "spot": "position = [0, 1, 0]\ntarget = [0, 0, 0]\nintensity = [1, 1, 1]",
    "directional": "direction = [0, -1, 0]\nirradiance = [1, 1, 1]",
    "quad": "corner = [0, 0, 0]\nedge_u = [1, 0, 0]\nedge_v = [0, 0, 1]\nradiance = [1, 1, 1]\nname = 'lamp'",
    "environment": "",
}
HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("kind", "keys", "field", "value"),
    [
        ("point", "intensity = [[0, 0, 0], [4, 2, 0]]", "intensity", (2, 1, 0)),
        ("point", "position = [[0, 0, 0], [4, 2, 0]]", "position", (2, 1, 0)),
        ("spot", "target = [[-1, 1, 0], [-3, 1, 0]]", "direction", (-1, 0, 0)),
        ("spot", "outer_angle = [30, 60]", "outer_angle", math.pi / 4),
        ("directional", "direction = [[-1, 0, 0], [-1, 0, -2]]", "direction", (-HALF, 0, -HALF)),
        ("quad", "corner = [[0, 0, 0], [0, 2, 0]]", "corner", (0, 1, 0)),
        ("environment", "strength = [1, 3]", "radiance", (2, 2, 2)),
        ("environment", "rotation = [0, 180]", "rotation", math.pi / 2),
    ],
)
def test_lights_move_and_change(at, kind, keys, field, value):
    text = f"[[lights]]\nkind = '{kind}'\n{LIGHTS[kind]}\n[lights.animation]\ntimes = [0, 1]\n{keys}\n"
    (light,) = at(text, 0.5).lights
    assert getattr(light, field) == pytest.approx(value, abs=ROUNDING)


@pytest.mark.parametrize(("word", "x"), [("linear", 2.5), ("step", 0.0), ("smooth", 1.5625)])
def test_three_ways_from_key_to_key(at, word, x):
    """Smooth from a standing start to a standing end is 3 t^2 - 2 t^3."""
    text = (
        QUAD + f"[objects.animation]\ntimes = [0, 4]\ninterpolation = '{word}'\ntranslate = [[0, 0, 0], [10, 0, 0]]\n"
    )
    assert at(text, 1.0).instances[0].transform[0, 3] == x


def test_a_scene_lasts_until_its_last_key(at):
    text = QUAD + "[objects.animation]\ntimes = [0, 4]\nscale = [1, 2]\n"
    text += CAMERA + "[cameras.animation]\ntimes = [0.5]\nfov = [20]\n"
    scene = at(text, 0.0)
    assert (scene.animated, scene.last_s) == (True, 4.0)
    assert (at(QUAD + CAMERA, 0.0).animated, at(QUAD + CAMERA, 0.0).last_s) == (False, 0.0)


def test_nothing_in_a_still_scene_depends_on_the_frame(at):
    scenes = [at(QUAD + CAMERA, time_s) for time_s in (0.0, 7.0)]
    assert scenes[0].instances[0].transform.tolist() == scenes[1].instances[0].transform.tolist()
    assert scenes[0].cameras[0].transform.tolist() == scenes[1].cameras[0].transform.tolist()


def test_a_lamp_of_scale_zero_is_off_and_calls_for_no_other_light(at):
    text = "[[materials]]\nname = 'lamp'\nemission = [1, 1, 1]\n" + QUAD + "material = 'lamp'\n"
    text += "[objects.animation]\ntimes = [0, 1]\nscale = [1, 0]\n" + CAMERA
    assert at(text, 0.0).lights == at(text, 1.0).lights == ()
    assert len(at(text, 1.0).instances) == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("times = [0, 1]", r"animation: expected values of translate, rotate, scale; found times alone"),
        ("times = []\nscale = []", r"objects\[0\]\.animation\.times: Expected `array` of length >= 1"),
        ("times = [0, 1]\nscale = [1]", r"animation\.scale: expected 2 values, one for each of times; found 1"),
        ("times = [0, 1]\nrotate = { axis = [0, 1, 0], angle = [0, 90, 180] }", r"rotate\.angle: expected 2 values"),
        ("times = [0, 1]\nrotate = { axis = [0, 0, 0], angle = [0, 90] }", r"rotate\.axis: expected a direction"),
        ("times = [1, 1]\nscale = [1, 2]", r"animation\.times: expected times that increase .*, found 1 after 1"),
        ("times = [0, 1]\nrotated = [1, 2]", r"objects\[0\]\.animation\.rotated: unknown key; did you mean 'rotate'\?"),
        ("times = [0, 1]\ninterpolation = 'cubic'\nscale = [1, 2]", r"interpolation: Invalid enum value 'cubic'"),
        ("times = [0, inf]\nscale = [1, 2]", r"animation\.times\[1\]: expected a finite number"),
        ("times = [0, 1]\ntranslate = [1, 2]", r"animation\.translate\[0\]: Expected `array`, got `int`"),
    ],
)
def test_a_malformed_animation_is_named(at, keys, message):
    with pytest.raises(BadInput, match=rf"^main\.scene\.toml: .*{message}"):
        at(f"{QUAD}[objects.animation]\n{keys}\n", 0.5)


@pytest.mark.parametrize(
    ("camera", "keys", "message"),
    [
        (CAMERA, "fov = [20, 200]", r"cameras\[0\]\.animation\.fov\[1\]: Expected `float` < 180"),
        (CAMERA + "up = [0, 0, 0]", "orbit = [0, 90]", r"cameras\[0\]\.animation\.orbit: expected an up to turn about"),
        (
            "[[cameras]]\nmatrix = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]",
            "orbit = [0, 90]",
            r"cameras\[0\]\.animation\.orbit: expected a camera with position and target",
        ),
        (CAMERA, "position = [[0, 1, 0], [0, 1, 0]]", r"cameras\[0\]: expected a target away from the position"),
    ],
)
def test_a_malformed_camera_move_is_named(at, camera, keys, message):
    with pytest.raises(BadInput, match=message):
        at(f"{camera}\n[cameras.animation]\ntimes = [0, 1]\n{keys}\n", 0.5)
