"""Reads an image at a texture coordinate: wrap, filter, decode. Knows no material, no footprint and no mip level.

(0, 0) is the image's top left corner and texel centres lie at (i + 0.5) / size. Colours are linearised before they are
filtered. Whatever the coordinate (huge, infinite, NaN), the texels that are read lie inside the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workers.kernels.jit import f32, i64, kernel, u32, view_type
from workers.kernels.records import RGBA8_LINEAR, RGBA32F, floats4, images
from workers.kernels.textures.srgb import srgb_table
from workers.kernels.vec3 import vec3

REPEAT, CLAMP, MIRROR = 0, 1, 2  # dr.scene.model.Wrap
BILINEAR, NEAREST = 0, 1  # dr.scene.model.TexelFilter

# f4[format, code]: what an 8-bit code stands for, rows RGBA8_SRGB and RGBA8_LINEAR
LIGHT = np.stack([srgb_table(256), (np.arange(256) / 255.0).astype(np.float32)])
packed = view_type("u4")  # RGBA8 texels, R in the low byte


@kernel
def wrap_unit(t, mode):
    """A coordinate brought into 0..1; NaN becomes 0."""
    if mode == REPEAT:
        t = t - np.floor(t)
    elif mode == MIRROR:
        t = t - 2.0 * np.floor(t * 0.5)
        t = 2.0 - t if t > 1.0 else t
    t = t if t > 0.0 else f32(0.0)
    return t if t < 1.0 else f32(1.0)


@kernel
def nearest_texel(t, size):
    """The texel that covers the wrapped coordinate `t`."""
    return min(i64(t * f32(size)), i64(size) - 1)


@kernel
def neighbour_texels(t, size, mode):
    """The two texels whose centres enclose the wrapped coordinate `t`, and the weight of the second."""
    x = t * f32(size) - 0.5
    below = np.floor(x)
    first = i64(below)
    second = first + 1
    if first < 0:
        first = i64(size) - 1 if mode == REPEAT else i64(0)
    if second >= size:
        second = i64(0) if mode == REPEAT else i64(size) - 1
    return first, second, x - below


@kernel
def texel_color(image, i):
    """Linear colour of texel `i` (row * width + column)."""
    if image.format == RGBA32F:
        texels = floats4(image.address)
        return vec3(texels[i, 0], texels[i, 1], texels[i, 2])
    code = packed(image.address)[i]
    red, green, blue = code & u32(255), (code >> u32(8)) & u32(255), (code >> u32(16)) & u32(255)
    return vec3(LIGHT[image.format, red], LIGHT[image.format, green], LIGHT[image.format, blue])


@kernel
def texel_alpha(image, i):
    if image.format == RGBA32F:
        return floats4(image.address)[i, 3]
    return LIGHT[RGBA8_LINEAR, packed(image.address)[i] >> u32(24)]


@kernel
def mix(a, b, t):
    """From `a` to `b`; equal ends give exactly that value."""
    return a + (b - a) * t


@kernel
def wrapped_uv(slot, uv0u, uv0v, uv1u, uv1v):
    u = uv1u if slot.uv_set == 1 else uv0u
    v = uv1v if slot.uv_set == 1 else uv0v
    return wrap_unit(u, slot.wrap_u), wrap_unit(v, slot.wrap_v)


@kernel
def footprint(slot, image, uv0u, uv0v, uv1u, uv1v):
    """The four texels that a lookup reads (upper left, upper right, lower left, lower right) and their weights (x, y).

    A nearest lookup reads one texel: four times the same with weights 0, which gives exactly its value.
    """
    width = i64(image.width)
    u, v = wrapped_uv(slot, uv0u, uv0v, uv1u, uv1v)
    if slot.filter == NEAREST:
        i = nearest_texel(v, image.height) * width + nearest_texel(u, image.width)
        return i, i, i, i, f32(0.0), f32(0.0)
    left, right, fx = neighbour_texels(u, image.width, slot.wrap_u)
    top, bottom, fy = neighbour_texels(v, image.height, slot.wrap_v)
    top, bottom = top * width, bottom * width
    return top + left, top + right, bottom + left, bottom + right, fx, fy


@kernel
def texture_color(scene, slot, uv0u, uv0v, uv1u, uv1v):
    """Linear colour of a material slot that has an image (slot.image >= 0)."""
    image = images(scene.images)[slot.image]
    a, b, c, d, fx, fy = footprint(slot, image, uv0u, uv0v, uv1u, uv1v)
    upper = mix(texel_color(image, a), texel_color(image, b), fx)
    lower = mix(texel_color(image, c), texel_color(image, d), fx)
    return mix(upper, lower, fy)


@kernel
def texture_alpha(scene, slot, uv0u, uv0v, uv1u, uv1v):
    """Alpha of a material slot that has an image: all that a shadow ray asks for."""
    image = images(scene.images)[slot.image]
    a, b, c, d, fx, fy = footprint(slot, image, uv0u, uv0v, uv1u, uv1v)
    upper = mix(texel_alpha(image, a), texel_alpha(image, b), fx)
    lower = mix(texel_alpha(image, c), texel_alpha(image, d), fx)
    return mix(upper, lower, fy)


@kernel
def probe_texture(scene: Any, slot: Any, uv: Any, colors: Any) -> None:
    """Fills `colors` f4[n, 3] with the colour of slot[0] at each coordinate of `uv` f4[n, 2]."""
    for i in range(uv.shape[0]):
        color = texture_color(scene[0], slot[0], uv[i, 0], uv[i, 1], uv[i, 0], uv[i, 1])
        colors[i, 0] = color.x
        colors[i, 1] = color.y
        colors[i, 2] = color.z
