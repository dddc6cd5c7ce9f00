"""Whole pictures whose answer is known in closed form: furnaces, form factors, single lights, transparency."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest

from dr.scene.model import (
    AlphaMode,
    DirectionalLight,
    EnvironmentLight,
    Image,
    Instance,
    Material,
    PixelFilter,
    PointLight,
    QuadLight,
    RenderSettings,
    Scene,
    SpotLight,
)
from tests.support.rendering import render
from tests.support.scenes import box, floor, glowing, looking, matte, quad, scene, sphere

SEEDS = 8
ABOVE = looking((0.0, 3.0, 0.001), (0.0, 0.0, 0.0), fov=0.001, up=(0.0, 0.0, -1.0))


def settings(seed: int = 0, samples: int = 64, size: int = 8, **fields: object) -> RenderSettings:
    options = {"width": size, "height": size, "pixel_filter": PixelFilter.BOX, "rr_depth": 1000, **fields}
    return RenderSettings(samples=samples, seed=seed, **options)  # type: ignore[arg-type]


def mean_and_error(subject: Scene, channel: str = "beauty", **options: object) -> tuple[float, float]:
    """Mean of a picture over independent seeds, and the standard error of that mean."""
    means = [float(render(subject, settings(seed, **options))[channel].mean()) for seed in range(SEEDS)]  # type: ignore[arg-type]
    return float(np.mean(means)), float(np.std(means, ddof=1) / math.sqrt(SEEDS))


def assert_close(measured: tuple[float, float], expected: float) -> None:
    """Within 5 standard errors (t with 7 degrees: p = 0.0016), or float32 rounding where there is no noise."""
    mean, error = measured
    assert abs(mean - expected) <= 5 * error + 2e-5 * abs(expected), f"{mean} +- {error}, expected {expected}"


def parallel_squares(a: float, height: float) -> float:
    """Form factor of a small patch to a parallel square of half side `a` centred above it (Howell, B-3, times 4)."""
    x = a / height
    root = math.sqrt(1 + x * x)
    return 4 * (1 / (2 * math.pi)) * (2 * x / root * math.atan(x / root))


@pytest.mark.parametrize("albedo", [0.2, 0.8])
def test_a_convex_object_in_a_constant_environment_shows_its_albedo(albedo: float) -> None:
    subject = scene([(sphere(), matte(albedo))], looking((0, 0, 5), (0, 0, 0)), (EnvironmentLight(),))
    assert_close(mean_and_error(subject), albedo)


def test_a_white_object_vanishes_in_a_white_furnace() -> None:
    parts = [(box(0.5), matte(1.0)), (floor(3.0, -0.5), matte(1.0))]
    subject = scene(parts, looking((2, 1.5, 3), (0, 0, 0), fov=0.6), (EnvironmentLight(),))
    assert_close(mean_and_error(subject, max_depth=1000, samples=128), 1.0)


def test_inside_a_glowing_box_light_adds_up_to_the_geometric_series() -> None:
    walls = matte(0.5, emission=(1.0, 1.0, 1.0))
    subject = scene([(box(1.0, inside_out=True), walls)], looking((0, 0, 0), (1, 0.3, 0.2), fov=1.0))
    assert_close(mean_and_error(subject, max_depth=64), 2.0)


def test_depth_counts_the_camera_ray_as_one() -> None:
    walls = matte(0.5, emission=(1.0, 1.0, 1.0))
    subject = scene([(box(1.0, inside_out=True), walls)], looking((0, 0, 0), (1, 0.3, 0.2), fov=1.0))
    for depth, expected in ((1, 1.0), (2, 1.5), (3, 1.75)):
        assert_close(mean_and_error(subject, max_depth=depth), expected)


def test_russian_roulette_changes_no_mean() -> None:
    walls = matte(0.5, emission=(1.0, 1.0, 1.0))
    subject = scene([(box(1.0, inside_out=True), walls)], looking((0, 0, 0), (1, 0.3, 0.2), fov=1.0))
    assert_close(mean_and_error(subject, max_depth=64, rr_depth=2, samples=256), 2.0)


@pytest.mark.parametrize("as_mesh", [False, True])
def test_a_square_light_above_a_floor_gives_its_form_factor(as_mesh: bool) -> None:
    half, height, radiance, albedo = 0.5, 1.0, 4.0, 0.6
    corner, u, v = (-half, height, -half), (2 * half, 0, 0), (0, 0, 2 * half)
    eye = looking((0.0, 0.5, 0.001), (0.0, 0.0, 0.0), fov=0.001, up=(0.0, 0.0, -1.0))
    parts = [(floor(0.2), matte(albedo))]
    lights: tuple[QuadLight, ...] = ()
    if as_mesh:
        parts.append((quad(corner, u, v), glowing(radiance)))
    else:
        lights = (QuadLight(corner=corner, edge_u=u, edge_v=v, radiance=(radiance,) * 3),)
    expected = albedo * radiance * parallel_squares(half, height)
    assert_close(mean_and_error(scene(parts, eye, lights), max_depth=2), expected)


def test_a_hidden_quad_lights_like_a_visible_one_and_cannot_be_seen() -> None:
    light = QuadLight(corner=(-0.5, 1, -0.5), edge_u=(1, 0, 0), edge_v=(0, 0, 1), radiance=(4.0,) * 3, visible=False)
    below = looking((0.0, 0.5, 0.001), (0.0, 0.0, 0.0), fov=0.001, up=(0.0, 0.0, -1.0))
    lit = scene([(floor(0.2), matte(0.6))], below, (light,))
    assert_close(mean_and_error(lit, max_depth=2), 0.6 * 4.0 * parallel_squares(0.5, 1.0))
    looked_at = scene([(floor(0.2, -9.0), matte(0.6))], looking((0, 0, 0), (0, 1, 0.001), up=(0, 0, 1)), (light,))
    assert_close(mean_and_error(looked_at), 0.0)


def test_a_point_light_falls_off_with_the_square_of_distance() -> None:
    subject = scene([(floor(), matte(0.5))], ABOVE, (PointLight(position=(0.0, 2.0, 0.0), intensity=(8.0,) * 3),))
    assert_close(mean_and_error(subject), 0.5 / math.pi * 8.0 / 4.0)


def test_a_directional_light_follows_the_cosine() -> None:
    sun = DirectionalLight(direction=(0.6, -0.8, 0.0), irradiance=(3.0,) * 3)
    assert_close(mean_and_error(scene([(floor(), matte(0.5))], ABOVE, (sun,))), 0.5 / math.pi * 3.0 * 0.8)


@pytest.mark.parametrize("tilt", [0.0, 0.3, 0.5, 0.7])
def test_a_spot_falls_off_between_its_cones(tilt: float) -> None:
    inner, outer = 0.2, 0.6
    direction = (math.sin(tilt), -math.cos(tilt), 0.0)
    spot = SpotLight(
        position=(0.0, 1.0, 0.0), direction=direction, intensity=(2.0,) * 3, inner_angle=inner, outer_angle=outer
    )
    eye = looking((0.0, 0.9, 0.001), (0.0, 0.0, 0.0), fov=0.0005, up=(0.0, 0.0, -1.0))
    share = (math.cos(tilt) - math.cos(outer)) / (math.cos(inner) - math.cos(outer))
    expected = 0.5 / math.pi * 2.0 * min(max(share, 0.0), 1.0) ** 2
    mean, error = mean_and_error(scene([(floor(), matte(0.5))], eye, (spot,)))
    assert abs(mean - expected) <= 5 * error + 1e-3 * expected + 1e-7


def test_a_constant_image_lights_like_a_constant_environment() -> None:
    pixels = np.full((8, 16, 3), 0.5, np.float32)
    data = exr_bytes(pixels)
    subject = scene(
        [(sphere(), matte(0.8))],
        looking((0, 0, 5), (0, 0, 0)),
        (EnvironmentLight(image=0, radiance=(2.0,) * 3),),
        images=(Image(data=data, place="test"),),
    )
    assert_close(mean_and_error(subject), 0.8)


def exr_bytes(pixels: np.ndarray) -> bytes:
    """An EXR file of f4[h, w, 3]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.exr"
        out = oiio.ImageOutput.create(str(path))
        out.open(str(path), oiio.ImageSpec(pixels.shape[1], pixels.shape[0], 3, "float"))
        out.write_image(pixels)
        out.close()
        return path.read_bytes()


@pytest.mark.parametrize(("rotation", "bright"), [(0.0, "+x"), (math.pi / 2, "-z"), (math.pi, "-x")])
def test_an_environment_turns_about_the_vertical(rotation: float, bright: str) -> None:
    """The texel at u = 0.5, v = 0.5 lies towards +x; a right-handed quarter turn about +y takes it to -z."""
    pixels = np.zeros((32, 64, 3), np.float32)
    pixels[12:20, 28:36] = 1.0
    target = {"+x": (1.0, 0.0, 0.0), "-z": (0.0, 0.0, -1.0), "-x": (-1.0, 0.0, 0.0)}[bright]
    light = EnvironmentLight(image=0, rotation=rotation)
    images = (Image(data=exr_bytes(pixels), place="test"),)
    seen = scene([(floor(0.1, -5.0), matte())], looking((0, 0, 0), target), (light,), images=images)
    away = scene([(floor(0.1, -5.0), matte())], looking((0, 0, 0), tuple(-x for x in target)), (light,), images=images)
    assert mean_and_error(seen, samples=16)[0] == pytest.approx(1.0)
    assert mean_and_error(away, samples=16)[0] == 0.0


def test_light_and_bsdf_sampling_agree_on_an_environment_with_a_sun() -> None:
    """The irradiance of a floor under a bright patch, against the sum over texels."""
    height, width = 32, 64
    pixels = np.full((height, width, 3), 0.1, np.float32)
    pixels[6:8, 20:23] = 50.0
    theta = (np.arange(height + 1)) / height * np.pi
    # exact integral of max(cos, 0) over each texel: (sin^2 b - sin^2 a) / 2 * dphi
    upper = np.minimum(theta, np.pi / 2)
    share = (np.sin(upper[1:]) ** 2 - np.sin(upper[:-1]) ** 2) / 2 * (2 * np.pi / width)
    irradiance = float((pixels[..., 0] * share[:, None]).sum())
    images = (Image(data=exr_bytes(pixels), place="test"),)
    subject = scene([(floor(), matte(0.7))], ABOVE, (EnvironmentLight(image=0),), images=images)
    assert_close(mean_and_error(subject, max_depth=2, samples=256), 0.7 / math.pi * irradiance)


@pytest.mark.parametrize(
    ("mode", "alpha", "through"),
    [
        (AlphaMode.OPAQUE, 0.3, 0.0),
        (AlphaMode.MASK, 0.49, 1.0),
        (AlphaMode.MASK, 0.5, 0.0),
        (AlphaMode.BLEND, 0.25, 0.75),
    ],
)
def test_alpha_modes_let_their_share_of_light_through(mode: AlphaMode, alpha: float, through: float) -> None:
    """A black pane between the camera and a glowing wall, and the same pane in the way of a sun."""
    pane = matte(0.0, alpha=alpha, alpha_mode=mode)
    wall = quad((-2, -2, -2), (4, 0, 0), (0, 4, 0))
    eye = looking((0, 0, 3), (0, 0, 0))
    seen = scene([(wall, glowing(2.0)), (quad((-1, -1, 0), (2, 0, 0), (0, 2, 0)), pane)], eye)
    assert_close(mean_and_error(seen, samples=256), 2.0 * through)

    sun = DirectionalLight(direction=(0.0, -1.0, 0.0), irradiance=(math.pi,) * 3)
    below = looking((0.0, 0.5, 0.5), (0.0, 0.0, 0.0), fov=0.01)
    shadow = scene([(floor(), matte(1.0)), (floor(2.0, 1.0), pane)], below, (sun,))
    assert_close(mean_and_error(shadow, max_depth=2, samples=16), through)


def test_the_back_of_a_single_sided_surface_lets_rays_pass() -> None:
    wall = quad((-2, -2, -2), (4, 0, 0), (0, 4, 0))
    facing_away = quad((-1, -1, 0), (0, 2, 0), (2, 0, 0))
    eye = looking((0, 0, 3), (0, 0, 0))
    for double_sided, expected in ((False, 2.0), (True, 0.0)):
        pane = matte(0.0, double_sided=double_sided)
        assert_close(mean_and_error(scene([(wall, glowing(2.0)), (facing_away, pane)], eye), samples=4), expected)


def test_channels_tell_alpha_depth_normal_albedo_and_object() -> None:
    subject = scene([(floor(), matte(0.25)), (box(0.3), matte(0.75))], looking((0, 4, 0), (0, 0, 0), up=(0, 0, -1)))
    picture = render(subject, settings(samples=4))
    assert picture["depth"] == pytest.approx(3.7, rel=1e-5)
    assert picture["normal"].mean((0, 1)) == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)
    assert picture["albedo"] == pytest.approx(0.75)
    assert (picture["object_id"] == 2.0).all()
    assert (picture["alpha"] == 1.0).all()
    nothing = render(scene([(floor(), matte())], looking((0, 4, 0), (0, 9, 0), up=(0, 0, -1))), settings(samples=4))
    assert (nothing["depth"] == np.inf).all()
    assert (nothing["object_id"] == 0).all()
    assert (nothing["alpha"] == 0).all()


def test_instances_look_like_flattened_copies() -> None:
    """A mesh with many triangles used three times keeps its tree; the same copies as separate meshes are flattened."""
    ball = sphere(0.5, rings=40)
    places = []
    for number, mirror in enumerate((1.0, -1.0, 1.0)):
        matrix = np.diag([mirror, 1.0 + 0.3 * number, 1.0, 1.0])
        matrix[:3, 3] = (1.2 * (number - 1), 0.0, -0.2 * number)
        places.append(matrix)
    material = Material(base_color=(0.8, 0.5, 0.3), metallic=0.3, roughness=0.5)
    common = {
        "materials": (material,),
        "cameras": (looking((0, 1, 5), (0, 0, 0), fov=0.6),),
        "lights": (EnvironmentLight(),),
    }
    shared = Scene(
        meshes=(ball,),
        instances=tuple(Instance(mesh=0, material=0, transform=m, object_id=i + 1) for i, m in enumerate(places)),
        **common,
    )
    separate = Scene(
        meshes=(ball, ball, ball),
        instances=tuple(Instance(mesh=i, material=0, transform=m, object_id=i + 1) for i, m in enumerate(places)),
        **common,
    )
    one, two = (render(subject, settings(size=48, samples=16)) for subject in (shared, separate))
    assert (one["object_id"] == two["object_id"]).mean() > 0.999
    assert np.abs(one["normal"] - two["normal"]).mean() < 1e-4
    assert float(one["beauty"].mean()) == pytest.approx(float(two["beauty"].mean()), rel=2e-3)


def test_a_lens_blurs_what_is_out_of_focus_and_keeps_the_mean() -> None:
    wall = quad((-20, -20, 0), (40, 0, 0), (0, 40, 0))
    eye = looking((0, 0, 5), (0, 0, 0), aperture_radius=0.2, focus_distance=3.0)
    assert_close(mean_and_error(scene([(wall, glowing(1.5))], eye), samples=16), 1.5)
