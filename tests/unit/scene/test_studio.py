"""The light of a scene that has none: as bright as it says, smooth, and an image that every server reads alike."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from dr.scene.model import EnvironmentLight, RenderSettings
from dr.scene.studio import ABOVE, HEIGHT, LAMP, SURROUND, TO_LAMP, WIDTH, studio_image, studio_radiance
from tests.support.rendering import render
from tests.support.scenes import floor, looking, matte, scene
from workers.prepare.image_file import read_image


def directions():
    """The middle of each texel as a direction [HEIGHT, WIDTH, 3], by the rule of EnvironmentLight."""
    elevation = (0.5 - (np.arange(HEIGHT)[:, None] + 0.5) / HEIGHT) * np.pi
    azimuth = ((np.arange(WIDTH)[None, :] + 0.5) / WIDTH - 0.5) * 2 * np.pi
    level = np.cos(elevation)
    up = np.sin(elevation) + 0 * azimuth
    return np.stack([level * np.cos(azimuth), up, level * np.sin(azimuth)], axis=-1)


def reflected(normal):
    """Radiance of a white matte surface that faces `normal`: the cosine-weighted mean of what it sees."""
    seen = directions()
    solid_angle = np.sqrt(1 - seen[..., 1] ** 2) * (np.pi / HEIGHT) * (2 * np.pi / WIDTH)
    cosine = np.maximum(seen @ np.array(normal), 0)
    return float((studio_radiance() * cosine * solid_angle).sum() / np.pi)


def test_the_formula_is_a_surround_a_sky_and_a_lamp():
    seen = directions()
    near = (1 + seen @ np.array(TO_LAMP)) / 2
    expected = SURROUND + ABOVE * (1 + seen[..., 1]) / 2 + LAMP * near**8
    np.testing.assert_allclose(studio_radiance(), expected, rtol=1e-12)


def test_white_reflects_about_one_towards_the_lamp_and_much_less_in_the_shade():
    assert reflected(TO_LAMP) == pytest.approx(1.0, abs=0.03)
    assert reflected((0, 0, 1)) > 1.4 * reflected((1, 0, 0))  # two sides of a box that the default camera sees
    assert 0.3 < reflected((0, -1, 0)) < 0.4


def test_the_file_holds_the_formula_within_its_own_precision():
    pixels, _ = read_image(studio_image().data, "", "studio")
    stored, exact = pixels[..., :3].astype(np.float64), studio_radiance()[..., None]
    assert pixels.shape[:2] == (HEIGHT, WIDTH)
    assert (abs(stored / exact - 1) <= 1 / 128).all()  # 8 bits that begin with a one, cut off


def test_neighbouring_texels_are_too_alike_to_tell():
    radiance = studio_radiance()
    around = np.concatenate([radiance, radiance[:, :1]], axis=1)
    assert abs(np.diff(np.log(around), axis=1)).max() < 0.025
    assert abs(np.diff(np.log(radiance), axis=0)).max() < 0.025


def test_every_machine_makes_the_same_bytes():
    digest = hashlib.sha256(studio_image().data).hexdigest()
    assert digest == "0a55721d62c0797a6c3be49b00205d01f2ee0084858bad739d514b9229ae5553"


def test_a_white_floor_under_it_has_the_predicted_brightness():
    part = (floor(100.0), matte(1.0))
    subject = scene([part], looking((0, 5, 0.01), (0, 0, 0)), (EnvironmentLight(image=0),), images=(studio_image(),))
    settings = RenderSettings(width=16, height=16, samples=256, max_depth=2)
    beauty = render(subject, settings)["beauty"]
    stderr = beauty.std() / np.sqrt(beauty.size / 3)
    assert beauty.mean() == pytest.approx(reflected((0, 1, 0)), abs=4 * stderr + 1 / 256)  # the file rounds down
