"""What the sample models' own READMEs say that a correct renderer shows, checked by numbers.

Each model is looked at from the front without perspective, so that its columns can be laid over one another. Albedo and
normal are those of the first surface that stops a camera ray: no light takes part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dr.errors import BadInput
from dr.scene.model import EnvironmentLight, Image, Scene
from tests.support.rendering import F32
from tests.support.sample_models import View, front_view, load_model, model_file

pytestmark = [pytest.mark.data, pytest.mark.slow]
Mask = npt.NDArray[np.bool_]
ALIKE = 0.08  # mean difference of albedo: drawn twice, a check mark lies a pixel off; a cross differs by 0.2 and more


def is_red(rgb: F32) -> Mask:
    return np.asarray((rgb[..., 0] > 0.1) & (rgb[..., 0] > 2 * rgb[..., 1:].max(axis=-1)))


def is_green(rgb: F32) -> Mask:
    return np.asarray((rgb[..., 1] > 0.1) & (rgb[..., 1] > 2 * rgb[..., ::2].max(axis=-1)))


def difference(a: F32, b: F32) -> float:
    return float(np.abs(a - b).mean())


def horizon() -> Image:
    """A bright sky over dark ground, as a Radiance HDR file: 16 x 8, with a level edge."""
    rows = np.full((8, 16, 4), (128, 128, 128, 129), np.uint8)  # 1.0
    rows[4:, :, 3] = 126  # 0.125
    return Image(data=b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 8 +X 16\n" + rows.tobytes())


def under_a_horizon(path: Path) -> dict[str, Any]:
    """Fields of Scene that put the model of `path` into that environment."""
    images = load_model(path).images
    return {"images": (*images, horizon()), "lights": (EnvironmentLight(image=len(images)),)}


# AlphaBlendModeTest: check marks, no crosses; a ramp of alpha that is cut at 0.25, 0.5 and 0.75, where arrows point


@pytest.fixture(scope="module")
def alpha_view(data: Path) -> View:
    return front_view(model_file(data, "AlphaBlendModeTest"), (-4.0, -0.2), (4.0, 2.2), 100.0, samples=16, max_depth=1)


@pytest.mark.parametrize(("mode", "left"), [("opaque", -2.7), ("blend", -1.21)])
def test_alpha_modes_show_a_check_mark_and_no_cross(alpha_view: View, mode: str, left: float) -> None:
    decal = alpha_view.crop("albedo", (left, -0.1), (0.24, 0.18))
    assert is_green(decal).sum() > 10
    assert not is_red(alpha_view.channels["albedo"]).any()


def arrow_heights(scene: Scene) -> list[float]:
    """World y of the arrows' tips, highest first: each arrow is a triangle that points left."""
    (arrows,) = (instance for instance in scene.instances if instance.name == "GreenArrows")
    points = scene.meshes[arrows.mesh].positions @ arrows.transform[:3, :3].T + arrows.transform[:3, 3]
    corners = points[scene.meshes[arrows.mesh].triangles]  # [arrow, corner, xyz]
    tips = corners[np.arange(len(corners)), corners[:, :, 0].argmin(axis=1), 1]
    return sorted((float(tip) for tip in tips), reverse=True)


def test_a_mask_is_cut_where_the_arrows_point(data: Path, alpha_view: View) -> None:
    scene = load_model(model_file(data, "AlphaBlendModeTest"))
    ids = {instance.name: instance.object_id for instance in scene.instances}
    names = ("TestCutoff25", "TestCutoffDefault", "TestCutoff75")
    for name, left, height in zip(names, (-0.2, 1.3, 2.8), arrow_heights(scene), strict=True):
        ramp = alpha_view.crop("object_id", (left, 0.3), (0.6, 1.5))
        covered = (ramp == ids[name]).mean(axis=1)
        assert ((covered > 0) & (covered < 1)).sum() <= 1  # discarded or opaque: only the edge may cross a row
        top = 1.8 - float(np.argmax(covered)) / alpha_view.scale
        assert top == pytest.approx(height, abs=1.5 / alpha_view.scale)


def test_blending_lets_through_what_alpha_leaves(data: Path) -> None:
    path = model_file(data, "AlphaBlendModeTest")
    scene = load_model(path)
    alone = tuple(instance for instance in scene.instances if instance.name == "TestBlend")
    samples = 64
    view = front_view(path, (-2.1, 0.0), (-0.9, 2.1), 50.0, instances=alone, samples=samples, max_depth=1)
    for alpha, height in zip((0.25, 0.5, 0.75), arrow_heights(scene), strict=True):
        row = view.crop("alpha", (-1.7, height - 0.01), (0.6, 0.02))
        stderr = np.sqrt(alpha * (1 - alpha) / (samples * row.size))
        half_a_row = 0.5 / (1.6 * view.scale)  # the ramp is 1.6 metres high
        assert float(row.mean()) == pytest.approx(alpha, abs=4 * stderr + half_a_row)


# TextureSettingsTest: the column "Test" looks like the column "Sample pass"


@pytest.fixture(scope="module")
def settings_view(data: Path) -> View:
    return front_view(model_file(data, "TextureSettingsTest"), (-0.5, -5.5), (3.5, 3.5), 50.0, samples=16, max_depth=1)


TEXTURE_SETTINGS = {
    "single-sided": 2.09,
    "double-sided": 1.07,
    "clamp s": 0.02,
    "clamp t": -1.02,
    "repeat s": -2.05,
    "repeat t": -3.09,
    "mirror s": -4.13,
    "mirror t": -5.16,
}


@pytest.mark.parametrize("setting", TEXTURE_SETTINGS)
def test_a_texture_setting_looks_like_its_sample(settings_view: View, setting: str) -> None:
    bottom = TEXTURE_SETTINGS[setting] + 0.02
    test = settings_view.crop("albedo", (0.02, bottom), (0.86, 0.86))
    sample = settings_view.crop("albedo", (2.17, bottom), (0.86, 0.86))
    assert difference(test, sample) < ALIKE
    assert is_green(test).mean() > 0.1
    assert not is_red(test).any()


# VertexColorTest: crosses of the other colours vanish


@pytest.mark.parametrize(("channel", "left"), [(0, -0.78), (1, -0.23), (2, 0.36)])
def test_vertex_colours_leave_a_check_mark_of_one_colour(data: Path, channel: int, left: float) -> None:
    path = model_file(data, "VertexColorTest")
    view = front_view(path, (-1.0, -1.0), (1.0, 1.0), 100.0, samples=16, max_depth=1)
    test = view.crop("albedo", (left, 0.11), (0.46, 0.46))
    sample = view.crop("albedo", (left, -0.76), (0.46, 0.46))
    assert difference(test, sample) < ALIKE / 2
    others = [other for other in range(3) if other != channel]
    assert test[..., channel].mean() > 0.2
    assert test[..., others].mean() < 0.01
    assert test[..., others].max() < 0.1  # a JPEG's noise


# NegativeScaleTest: culling and normals of mirrored nodes


@pytest.fixture(scope="module")
def mirrored_view(data: Path) -> View:
    path = model_file(data, "NegativeScaleTest")
    return front_view(path, (-1.0, -4.2), (5.0, 4.0), 40.0, samples=64, max_depth=3, **under_a_horizon(path))


@pytest.mark.parametrize("bottom", [1.07, 2.23], ids=["scale -1", "scale 1"])
@pytest.mark.parametrize("left", [-0.44, 1.45], ids=["front", "back"])
def test_a_mirrored_node_shows_its_front(mirrored_view: View, left: float, bottom: float) -> None:
    test = mirrored_view.crop("albedo", (left + 0.03, bottom + 0.03), (0.84, 0.84))
    sample = mirrored_view.crop("albedo", (3.38 + 0.03, bottom + 0.03), (0.84, 0.84))
    assert difference(test, sample) < ALIKE
    assert not is_red(test).any()


@pytest.mark.parametrize("bottom", [-1.5, -2.75, -4.0], ids=["white", "dark blue", "metal"])
def test_a_mirrored_sphere_is_lit_like_its_twin(mirrored_view: View, bottom: float) -> None:
    size = (0.7, 0.7)  # of the sphere's middle: the silhouettes of the two are tessellated differently
    normals = [mirrored_view.crop("normal", (x + 0.15, bottom + 0.15), size) for x in (0.5, 2.5)]
    assert difference(*normals) < 0.01
    assert normals[1][..., 2].min() > 0  # faces the viewer
    top, below = (
        [mirrored_view.crop("beauty", (x + 0.15, y), (0.7, 0.35)) for x in (0.5, 2.5)]
        for y in (bottom + 0.5, bottom + 0.15)
    )
    for ours, theirs in (top, below):
        assert ours.mean() == pytest.approx(theirs.mean(), rel=0.05)


def test_a_white_mirrored_sphere_is_bright_where_the_light_comes_from(mirrored_view: View) -> None:
    upper = mirrored_view.crop("beauty", (2.65, -1.0), (0.7, 0.35)).mean()
    lower = mirrored_view.crop("beauty", (2.65, -1.35), (0.7, 0.35)).mean()
    assert upper > 1.5 * lower


# NormalTangentTest: real hemispheres on the left of each cell, mapped ones on the right

CELLS = [(column, row) for column in range(3) for row in range(5)]
HALF_BYTE = np.degrees(1.0 / 127.5)  # a normal map's step at the surface's own normal


def cell(view: View, channel: str, column: int, row: int) -> tuple[F32, F32]:
    """The real and the mapped half."""
    low = (-1.11 + 0.8 * column, 0.65 - 0.4 * row)
    return view.crop(channel, low, (0.3, 0.3)), view.crop(channel, (low[0] + 0.32, low[1]), (0.3, 0.3))


def from_middle(pixels: F32) -> npt.NDArray[np.float64]:
    y, x = np.indices(pixels.shape[:2]) - (np.array(pixels.shape[:2])[:, None, None] - 1) / 2
    return np.asarray(np.hypot(x, y))


def test_mapped_normals_are_those_of_the_real_geometry(data: Path) -> None:
    path = model_file(data, "NormalTangentTest")
    view = front_view(path, (-1.2, -1.2), (1.2, 1.2), 200.0, samples=16, max_depth=1)
    for column, row in CELLS:
        real, mapped = cell(view, "normal", column, row)
        inside = from_middle(real) < 18  # the hemispheres' radius is 20
        cosine = (real * mapped).sum(-1) / np.linalg.norm(real, axis=-1) / np.linalg.norm(mapped, axis=-1)
        angle = np.degrees(np.arccos(np.clip(cosine[inside], -1, 1)))
        assert angle.mean() < HALF_BYTE
        assert angle.max() < 3 * HALF_BYTE


def test_mapped_metal_reflects_a_level_horizon_like_real_geometry(data: Path) -> None:
    path = model_file(data, "NormalTangentTest")
    view = front_view(path, (0.4, -1.2), (1.2, 1.2), 200.0, samples=32, max_depth=2, **under_a_horizon(path))
    for row in range(5):
        real, mapped = cell(view, "beauty", 2, row)
        middle = from_middle(real) < 12  # here both reflect the environment: their normals are within 37 degrees
        sky, ground = np.percentile(real[middle].mean(-1), [90, 10])
        assert sky > 4 * ground
        assert difference(real[middle], mapped[middle]) < 0.05 * sky


def test_mapped_metal_has_no_black_rim(data: Path) -> None:
    """Near the rim the mapped normal's own reflection would point into the flat cell."""
    path = model_file(data, "NormalTangentTest")
    view = front_view(path, (0.4, -1.2), (1.2, 1.2), 200.0, samples=32)  # in white light
    for row in range(5):
        _, mapped = cell(view, "beauty", 2, row)
        distance = from_middle(mapped)
        rim = mapped[(distance > 14) & (distance < 18)].mean(axis=-1)
        assert rim.min() > 0.3 * mapped[distance < 12].mean()  # part of it mirrors the gold next to it, many times


# The others


def test_arrows_point_at_the_targets_of_their_colour(data: Path) -> None:
    scene = load_model(model_file(data, "OrientationTest"))
    places = {instance.name: instance for instance in scene.instances}
    for axis in ("X1", "X2", "Y1", "Y2", "Z1", "Z2"):
        arrow, target = (world_points(scene, places[f"{kind}{axis}"]) for kind in ("Arrow", "Target"))
        middle = arrow.mean(axis=0)
        longest = np.linalg.svd(arrow - middle)[2][0]
        offset = target.mean(axis=0) - middle
        assert abs(offset @ longest) == pytest.approx(np.linalg.norm(offset), rel=0.01)  # within 8 degrees


def world_points(scene: Scene, instance: Any) -> npt.NDArray[np.float64]:
    points = scene.meshes[instance.mesh].positions @ instance.transform[:3, :3].T + instance.transform[:3, 3]
    return np.asarray(np.unique(points.round(5), axis=0))


def test_emissive_strength_doubles_from_cube_to_cube(data: Path) -> None:
    path = model_file(data, "EmissiveStrengthTest")
    view = front_view(path, (-7.0, -1.0), (7.0, 1.0), 20.0, samples=4, max_depth=1, lights=())
    for number in range(5):
        cube = view.crop("beauty", (-6.4 + 3.0 * number, -0.4), (0.8, 0.8))
        expected = np.array([0.1, 0.5, 0.9]) * 2**number
        np.testing.assert_allclose(cube, np.broadcast_to(expected, cube.shape), rtol=1e-5)


def test_a_texture_is_decoded_before_it_is_filtered(data: Path) -> None:
    path = model_file(data, "TextureLinearInterpolationTest")
    view = front_view(path, (-3.0, -2.5), (3.0, 0.0), 20.0, samples=4, max_depth=1, lights=())
    factor, texture = (view.crop("beauty", (x, -1.2), (0.4, 0.4)) for x in (-1.7, 1.3))
    np.testing.assert_allclose(factor[..., 1], 0.5, rtol=1e-5)
    np.testing.assert_allclose(texture[..., 1], 0.5, atol=0.01)  # "about 0.5"; 0.21 when decoded too late


def test_a_model_that_must_be_unlit_is_refused_by_name(data: Path) -> None:
    with pytest.raises(BadInput, match=r"UnlitTest\.glb: extensionsRequired: KHR_materials_unlit is not supported"):
        load_model(model_file(data, "UnlitTest"))


def test_a_model_with_an_unknown_extension_is_shown_without_it(data: Path) -> None:
    scene = load_model(model_file(data, "SimpleInstancing"))
    assert len(scene.instances) == 1
    assert any("EXT_mesh_gpu_instancing is not supported and was ignored" in notice for notice in scene.notices)
