"""Turns a scene's images into texels that kernels read. Knows colour, alpha and what slots want; knows no codec."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dr.scene.assets import Files, Role
from dr.scene.model import F32, F64, Image, Scene, Texture
from workers.kernels.records import IMAGE, RGBA8_LINEAR, RGBA8_SRGB, RGBA32F, SCENE, TEXTURE
from workers.kernels.textures.lookup import probe_texture
from workers.kernels.textures.srgb import srgb_table
from workers.prepare.image_file import Pixels, read_image

Texels: TypeAlias = npt.NDArray[np.uint8] | F32  # [height * width, 4], row 0 at the top, alpha not multiplied in


class Usage(Enum):
    """What a slot takes an image's numbers for. Float images are linear in either case."""

    COLOR = RGBA8_SRGB
    DATA = RGBA8_LINEAR


SLOT_USAGES = {
    "base_color_texture": Usage.COLOR,
    "metallic_roughness_texture": Usage.DATA,
    "normal_texture": Usage.DATA,
    "emission_texture": Usage.COLOR,
}


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """Texels as records.IMAGE describes them. Two of them may share one array."""

    data: Texels
    width: int
    height: int
    format: int  # RGBA8_SRGB, RGBA8_LINEAR or RGBA32F


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImages:
    """Every image that some material slot shows; `pixels` in the order of SCENE.images."""

    pixels: tuple[DecodedImage, ...]
    rows: dict[tuple[int, Usage], int]

    def row(self, image: int, usage: Usage) -> int:
        """The place in `pixels` of Scene.images[image] as a slot of this usage reads it."""
        return self.rows[image, usage]

    def probe(self, texture: Texture, uv: F32 | F64) -> F64:
        """Linear colours [n, 3] of a colour texture at coordinates [n, 2]."""
        image = self.pixels[self.row(texture.image, Usage.COLOR)]
        row = np.zeros(1, IMAGE)
        row["address"], row["format"] = image.data.ctypes.data, image.format
        row["width"], row["height"] = image.width, image.height
        scene, slot = np.zeros(1, SCENE), np.zeros(1, TEXTURE)
        scene["images"] = row.ctypes.data
        slot["wrap_u"], slot["wrap_v"], slot["filter"] = texture.wrap_u, texture.wrap_v, texture.filter
        colors = np.empty((len(uv), 3), np.float32)
        probe_texture(scene, slot, np.ascontiguousarray(uv, np.float32), colors)
        return colors.astype(np.float64)


def unheard(notice: str) -> None:
    """Where notices go that nobody asked for."""


def decode_images(
    scene: Scene, files: Files, notify: Callable[[str], None] = unheard, threads: int = 4
) -> DecodedImages:
    """Decodes every image that a material slot shows; `threads` files at a time.

    `notify` hears one line for each image that had to be repaired. Raises BadInput naming the image's place.
    """
    usages = image_usages(scene)
    pixels: list[DecodedImage] = []
    rows: dict[tuple[int, Usage], int] = {}
    with ThreadPoolExecutor(threads) as pool:
        decoded = pool.map(lambda index: _decode(scene.images[index], files, Role.TEXTURE), usages)
        for (index, wanted), (rgba, notice) in zip(usages.items(), decoded, strict=True):
            if notice:
                notify(notice)
            for group in [wanted] if rgba.dtype == np.float32 else [[usage] for usage in wanted]:
                rows |= {(index, usage): len(pixels) for usage in group}
                pixels.append(_as_texels(rgba, group[0]))
    return DecodedImages(tuple(pixels), rows)


def decode_environment(image: Image, files: Files, notify: Callable[[str], None] = unheard) -> F32:
    """Linear radiance f4[height, width, 4] of an environment map, alpha 1.

    8- and 16-bit files are taken as sRGB. Values that are not finite or below zero become 0, which `notify` hears of.
    """
    rgba, notice = _decode(image, files, Role.ENVIRONMENT)
    if notice:
        notify(notice)
    radiance = _linear(rgba, Usage.COLOR)
    radiance[..., 3] = 1.0
    return radiance


def image_usages(scene: Scene) -> dict[int, list[Usage]]:
    """Which images the material slots show, by index in increasing order, and what for: colour before data."""
    used = {
        (texture.image, usage.value)
        for material in scene.materials
        for slot, usage in SLOT_USAGES.items()
        if (texture := getattr(material, slot)) is not None
    }
    usages: dict[int, list[Usage]] = {}
    for index, value in sorted(used):
        usages.setdefault(index, []).append(Usage(value))
    return usages


def _as_texels(rgba: Pixels, usage: Usage) -> DecodedImage:
    """Bytes stay as they are; 16 bits become linear floats."""
    height, width = rgba.shape[:2]
    if rgba.dtype == np.uint8:
        return DecodedImage(rgba.reshape(-1, 4), width, height, usage.value)
    return DecodedImage(_linear(rgba, usage).reshape(-1, 4), width, height, RGBA32F)


def _linear(rgba: Pixels, usage: Usage) -> F32:
    """Float texels of stored ones: colour through the sRGB curve, data and alpha in proportion."""
    if rgba.dtype == np.float32:
        return rgba
    levels = 256 if rgba.dtype == np.uint8 else 65536
    linear = (np.arange(levels) / (levels - 1.0)).astype(np.float32)[rgba]
    if usage is Usage.COLOR:
        linear[..., :3] = srgb_table(levels)[rgba[..., :3]]
    return linear


def _decode(image: Image, files: Files, role: Role) -> tuple[Pixels, str | None]:
    """RGBA [height, width, 4] of uint8, uint16 or float32, and a line about what had to be repaired.

    A texture's alpha is not multiplied into its colour.
    """
    name = image.asset or ""
    place = ": ".join(part for part in (image.place, name) if part)
    data = files.read(name, role, image.place) if name else image.data or b""
    rgba, premultiplied = read_image(data, name, place)
    notice = _repair(rgba, place) if rgba.dtype == np.float32 else None
    if premultiplied and role is Role.TEXTURE:
        rgba = _straighten(rgba)
    return rgba, notice


def _repair(rgba: Pixels, place: str) -> str | None:
    """Sets float values that are not light (NaN, infinite, negative) to 0, in place."""
    wrong = ~((rgba >= 0.0) & (rgba <= np.finfo(np.float32).max))
    count = int(np.count_nonzero(wrong))
    rgba[wrong] = 0.0
    return f"{place}: {count} values were negative or not finite; they are 0 now" if count else None


def _straighten(rgba: Pixels) -> Pixels:
    """Divides alpha out of the colour, rounded to the nearest code; where alpha is 0 the colour stays."""
    alpha = rgba[..., 3:]
    if rgba.dtype == np.float32:
        color = np.divide(rgba[..., :3], alpha, out=rgba[..., :3].copy(), where=alpha > 0)
    else:
        peak = np.iinfo(rgba.dtype).max
        wide = rgba.astype(np.int64)
        divided = np.minimum((wide[..., :3] * peak + wide[..., 3:] // 2) // np.maximum(wide[..., 3:], 1), peak)
        color = np.where(alpha > 0, divided, wide[..., :3]).astype(rgba.dtype)
    return np.concatenate([color, alpha], axis=2)
