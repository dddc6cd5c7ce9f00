"""Texture lookups against a slow twin in double precision, and the sRGB table against its formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dr.scene.model import TexelFilter, Wrap
from workers.kernels import records
from workers.kernels.jit import kernel
from workers.kernels.textures import lookup
from workers.kernels.textures.srgb import srgb_table, srgb_to_linear

FORMATS = (records.RGBA8_SRGB, records.RGBA8_LINEAR, records.RGBA32F)
WRAPS = tuple(Wrap)


@kernel
def look_up_all(scene: Any, slot: Any, uv: Any, out: Any) -> None:
    for i in range(uv.shape[0]):
        color = lookup.texture_color(scene[0], slot[0], uv[i, 0], uv[i, 1], uv[i, 2], uv[i, 3])
        out[i, 0], out[i, 1], out[i, 2] = color.x, color.y, color.z
        out[i, 3] = lookup.texture_alpha(scene[0], slot[0], uv[i, 0], uv[i, 1], uv[i, 2], uv[i, 3])


class Picture:
    """An image in the middle of a larger array whose other texels are poison: NaN, or nothing like the image."""

    def __init__(self, texels: np.ndarray, image_format: int) -> None:
        self.texels = texels
        self.height, self.width = texels.shape[:2]
        self.format = image_format
        margin = 4096
        poison = np.nan if texels.dtype == np.float32 else 255
        self.memory = np.full((2 * margin + self.height * self.width, 4), poison, texels.dtype)
        self.memory[margin:-margin] = texels.reshape(-1, 4)
        self.image = np.zeros(1, records.IMAGE)
        self.image["address"] = self.memory[margin:].ctypes.data
        self.image["width"], self.image["height"], self.image["format"] = self.width, self.height, image_format
        self.scene = np.zeros(1, records.SCENE)
        self.scene["images"] = self.image.ctypes.data

    def look_up(self, uv: Any, wrap_u: int = 0, wrap_v: int = 0, texel_filter: int = 0, uv_set: int = 0) -> np.ndarray:
        slot = np.zeros(1, records.TEXTURE)
        slot["wrap_u"], slot["wrap_v"], slot["filter"], slot["uv_set"] = wrap_u, wrap_v, texel_filter, uv_set
        uv = np.array(uv, np.float32)
        uv = uv if uv.shape[1] == 4 else np.column_stack([uv, np.full_like(uv, 0.123)])
        out = np.empty((len(uv), 4), np.float32)
        look_up_all(self.scene, slot, uv, out)
        return out

    def linear(self) -> np.ndarray:
        """All texels in double precision."""
        if self.format == records.RGBA32F:
            return self.texels.astype(np.float64)
        values = self.texels / 255.0
        if self.format == records.RGBA8_SRGB:
            values[..., :3] = srgb_to_linear(values[..., :3])
        return values


def picture(image_format: int, width: int = 7, height: int = 5, seed: int = 1) -> Picture:
    random = np.random.default_rng(seed)
    if image_format == records.RGBA32F:
        return Picture(random.random((height, width, 4)).astype(np.float32), image_format)
    return Picture(random.integers(0, 256, (height, width, 4)).astype(np.uint8), image_format)


def twin_index(i: int, size: int, wrap: int) -> int:
    """A texel number beyond the edge, brought back as the glTF sampler says."""
    if wrap == Wrap.REPEAT:
        return i % size
    if wrap == Wrap.CLAMP:
        return min(max(i, 0), size - 1)
    return min(i % (2 * size), 2 * size - 1 - i % (2 * size))


def twin(picture: Picture, u: float, v: float, wrap_u: int, wrap_v: int, texel_filter: int) -> np.ndarray:
    texels = picture.linear()
    x, y = u * picture.width, v * picture.height

    def texel(i: int, j: int) -> np.ndarray:
        return texels[twin_index(j, picture.height, wrap_v), twin_index(i, picture.width, wrap_u)]

    if texel_filter == TexelFilter.NEAREST:
        return texel(math.floor(x), math.floor(y))
    i, j = math.floor(x - 0.5), math.floor(y - 0.5)
    fx, fy = x - 0.5 - i, y - 0.5 - j
    upper = texel(i, j) * (1 - fx) + texel(i + 1, j) * fx
    lower = texel(i, j + 1) * (1 - fx) + texel(i + 1, j + 1) * fx
    return upper * (1 - fy) + lower * fy


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("wrap_u", WRAPS)
@pytest.mark.parametrize("wrap_v", WRAPS)
@pytest.mark.parametrize("texel_filter", tuple(TexelFilter))
def test_a_lookup_equals_its_twin(image_format: int, wrap_u: int, wrap_v: int, texel_filter: int) -> None:
    image = picture(image_format)
    uv = np.random.default_rng(2).uniform(-4, 4, (300, 2)).astype(np.float32)
    if texel_filter == TexelFilter.NEAREST:  # away from the edges of texels, where rounding decides
        position = uv.astype(np.float64) * (image.width, image.height)
        uv = uv[np.all(np.abs(position - np.round(position)) > 1e-4, axis=1)]
    expected = [twin(image, float(u), float(v), wrap_u, wrap_v, texel_filter) for u, v in uv]
    # Wrapping a coordinate below 4 and scaling it by up to 7 rounds by 2e-6 of a texel; neighbours differ by up to 1.
    np.testing.assert_allclose(image.look_up(uv, wrap_u, wrap_v, texel_filter), expected, atol=5e-6)


@pytest.mark.parametrize("image_format", FORMATS)
def test_at_texel_centres_a_lookup_is_the_texel(image_format: int) -> None:
    image = picture(image_format, width=8, height=4)
    i, j = np.meshgrid(np.arange(8), np.arange(4))
    uv = np.column_stack([(i.reshape(-1) + 0.5) / 8, (j.reshape(-1) + 0.5) / 4])
    expected = image.linear().astype(np.float32).reshape(-1, 4)
    for texel_filter in TexelFilter:
        np.testing.assert_array_equal(image.look_up(uv, texel_filter=texel_filter), expected)


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_even_image_is_the_same_everywhere_and_opaque_stays_opaque(image_format: int) -> None:
    color = (0.3, 0.7, 0.1, 1.0) if image_format == records.RGBA32F else (77, 180, 25, 255)
    dtype = np.float32 if image_format == records.RGBA32F else np.uint8
    image = Picture(np.broadcast_to(np.array(color, dtype), (3, 6, 4)).copy(), image_format)
    found = image.look_up(np.random.default_rng(3).uniform(-9, 9, (500, 2)))
    np.testing.assert_array_equal(found, np.broadcast_to(image.linear()[0, 0].astype(np.float32), found.shape))
    assert np.all(found[:, 3] == 1.0)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 1), (256, 3)])
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("texel_filter", tuple(TexelFilter))
def test_no_coordinate_reads_outside_the_image(size: tuple[int, int], wrap: int, texel_filter: int) -> None:
    image = picture(records.RGBA32F, *size)
    tiny = np.finfo(np.float32).tiny
    values = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -tiny, tiny, 1 - 2**-24, 1 + 2**-23, -(2**-30), 8388607.5, 1e9, -1e9]
    values += [2.0**62, 2.0**63, -(2.0**63), 1e30, -1e38, np.inf, -np.inf, np.nan]
    uv = [(u, v) for u in values for v in values]
    found = image.look_up(uv, wrap, wrap, texel_filter)
    assert np.all((found >= 0) & (found <= 1))


def test_a_slot_reads_the_texture_coordinates_of_its_set() -> None:
    image = picture(records.RGBA8_SRGB)
    uv = np.random.default_rng(5).random((20, 4))
    np.testing.assert_array_equal(image.look_up(uv, uv_set=0), image.look_up(uv[:, :2]))
    np.testing.assert_array_equal(image.look_up(uv, uv_set=1), image.look_up(uv[:, 2:]))


def test_colours_are_linearised_before_they_are_filtered() -> None:
    image = Picture(np.array([[[0, 0, 0, 255], [255, 255, 255, 255]]], np.uint8), records.RGBA8_SRGB)
    np.testing.assert_array_equal(image.look_up([(0.5, 0.5)], Wrap.CLAMP, Wrap.CLAMP), [(0.5, 0.5, 0.5, 1.0)])


@pytest.mark.parametrize("levels", [256, 65536])
def test_the_srgb_table_is_within_one_ulp_of_the_formula(levels: int) -> None:
    codes = np.arange(levels) / (levels - 1)
    exact = np.array([c / 12.92 if c <= 0.04045 else math.pow((c + 0.055) / 1.055, 2.4) for c in codes])
    table = srgb_table(levels)
    assert np.all(np.abs(table - exact) <= np.spacing(exact.astype(np.float32)))
    assert np.all(np.diff(table) > 0)
    assert (table[0], table[-1]) == (0.0, 1.0)
