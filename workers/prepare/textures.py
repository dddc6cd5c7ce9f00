"""Turns a scene's image files into texels that kernels read. Knows codecs and their limits; knows no material beyond
which of its slots carry colour.

Pixels come through OpenImageIO's ImageInput (its ImageBuf can be crashed by hostile files) and from one format reader
only, the one that the file's first bytes name. Sizes are checked before a pixel is read.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import OpenImageIO as oiio  # noqa: N813

from dr.errors import BadInput
from dr.scene.assets import Files, Role
from dr.scene.model import F32, F64, Image, Scene, Texture
from workers.kernels.records import IMAGE, RGBA8_LINEAR, RGBA8_SRGB, RGBA32F, SCENE, TEXTURE
from workers.kernels.textures.lookup import probe_texture
from workers.kernels.textures.srgb import srgb_table

Pixels: TypeAlias = npt.NDArray[Any]  # [height, width, channel], as stored
Texels: TypeAlias = npt.NDArray[np.uint8] | F32  # [height * width, 4], row 0 at the top, alpha not multiplied in

MAX_SIDE = 65536  # the largest frame is as wide, and int32 texel rows stay far from overflow
MAX_PIXELS = 1 << 28  # 32768 x 8192: 1 GiB as bytes, 4 GiB as floats
MAX_CHANNELS = 256  # a fully layered EXR has dozens; a codec's row buffers grow with them

# The first bytes of each format that is read, and the reader's file ending
SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x76\x2f\x31\x01", ".exr"),
    (b"#?", ".hdr"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"II+\0", ".tif"),
    (b"MM\0+", ".tif"),
    (b"BM", ".bmp"),
)
TGA_FOOTER = b"TRUEVISION-XFILE.\0"  # ends a TGA 2.0; older ones are known by their name alone
READABLE = "PNG, JPEG, OpenEXR, Radiance HDR, WebP, TIFF, TGA or BMP"


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

    Grey is expanded; a texture's alpha is not multiplied into its colour.
    """
    place = image.place if image.asset is None else f"{image.place}: {image.asset}".removeprefix(": ")
    data = image.data if image.asset is None else files.read(image.asset, role, image.place)
    ending = _ending(data or b"", image.asset or "", place)
    pixels, spec = _read_pixels(data or b"", ending, place)
    rgba = _expand(pixels, spec.alpha_channel)
    notice = _repair(rgba, place) if rgba.dtype == np.float32 else None
    if spec.alpha_channel >= 0 and _is_premultiplied(spec, ending) and role == Role.TEXTURE:
        rgba = _straighten(rgba)
    return rgba, notice


def _ending(data: bytes, name: str, place: str) -> str:
    """The file ending of the format that the bytes begin with."""
    for signature, ending in SIGNATURES:
        if data.startswith(signature):
            return ending
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    if data.endswith(TGA_FOOTER) or name.lower().endswith(".tga"):
        return ".tga"
    found = f"a file that begins with {data[:8]!r}" if data else "an empty file"
    raise BadInput(f"{place}: expected a {READABLE} image, found {found}")


@functools.cache
def _limit_codecs() -> None:
    """Process-wide settings of OpenImageIO: one reader per file, no threads of its own, nothing huge."""
    oiio.attribute("threads", 1)
    oiio.attribute("exr_threads", -1)
    oiio.attribute("try_all_readers", 0)
    oiio.attribute("limits:resolution", MAX_SIDE)
    oiio.attribute("limits:channels", MAX_CHANNELS)


def _read_pixels(data: bytes, ending: str, place: str) -> tuple[Pixels, Any]:
    """The first picture in the file: its colour channels and alpha, and the ImageSpec with alpha's place among them."""
    _limit_codecs()
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)  # leave alpha alone
    with tempfile.NamedTemporaryFile(suffix=ending) as file:  # the Python binding opens names only
        file.write(data)
        file.flush()
        reader = oiio.ImageInput.open(file.name, config)
        if reader is None:
            raise _unreadable(oiio, file.name, place)
        spec = reader.spec()
        _check_spec(spec, place)
        pixels = reader.read_image(0, 0, 0, min(4, spec.nchannels), _stored_type(spec, place))
        if pixels is None:
            raise _unreadable(reader, file.name, place)
        reader.close()
    return _in_display_window(pixels, spec) if ending == ".exr" else pixels, spec


def _unreadable(source: Any, path: str, place: str) -> BadInput:
    """What OpenImageIO says, without our temporary name; a hostile file may make it say bytes that are not text."""
    try:
        reason = source.geterror().replace(path, "file").strip()
    except UnicodeDecodeError:
        reason = ""
    first_line = reason.split("\n")[0][:200] or "the data is damaged"
    return BadInput(f"{place}: cannot read the image: {first_line}")


def _check_spec(spec: Any, place: str) -> None:
    for name, width, height in (("image", spec.width, spec.height), ("frame", spec.full_width, spec.full_height)):
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
            raise BadInput(
                f"{place}: the {name} has {width} x {height} pixels; the limit is {MAX_SIDE} a side and "
                f"{MAX_PIXELS} in all: scale it down"
            )
    if not 0 < spec.nchannels <= MAX_CHANNELS:
        raise BadInput(f"{place}: expected 1 to {MAX_CHANNELS} channels, found {spec.nchannels}")
    if spec.deep or spec.depth > 1:
        raise BadInput(f"{place}: expected a flat image, found a {'deep' if spec.deep else 'volume'} one")


def _stored_type(spec: Any, place: str) -> Any:
    """The type to read: bytes and shorts as they are, half and float as float."""
    kind = str(spec.format)
    if kind in ("uint8", "uint16"):
        return spec.format
    if kind in ("half", "float"):
        return oiio.TypeFloat
    raise BadInput(f"{place}: expected 8- or 16-bit or float pixels, found {kind}")


def _in_display_window(pixels: Pixels, spec: Any) -> Pixels:
    """An EXR stores any rectangle of its frame: the frame, black where nothing is stored."""
    x, y = spec.x - spec.full_x, spec.y - spec.full_y
    if (x, y, spec.width, spec.height) == (0, 0, spec.full_width, spec.full_height):
        return pixels
    frame = np.zeros((spec.full_height, spec.full_width, pixels.shape[2]), pixels.dtype)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + spec.width, spec.full_width), min(y + spec.height, spec.full_height)
    if left < right and top < bottom:
        frame[top:bottom, left:right] = pixels[top - y : bottom - y, left - x : right - x]
    return frame


def _expand(pixels: Pixels, alpha_channel: int) -> Pixels:
    """RGBA of any channels: grey is repeated, two colours are R and G, a missing alpha is opaque."""
    height, width, channels = pixels.shape
    if channels == 4 and alpha_channel == 3:
        return np.ascontiguousarray(pixels)
    colors = [channel for channel in range(channels) if channel != alpha_channel][:3]
    rgba = np.zeros((height, width, 4), pixels.dtype)
    rgba[..., 3] = 1.0 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
    if 0 <= alpha_channel < channels:
        rgba[..., 3] = pixels[..., alpha_channel]
    if len(colors) == 1:
        rgba[..., :3] = pixels[..., colors]
    else:
        rgba[..., : len(colors)] = pixels[..., colors]
    return rgba


def _repair(rgba: Pixels, place: str) -> str | None:
    """Sets float values that are not light (NaN, infinite, negative) to 0, in place."""
    wrong = ~((rgba >= 0.0) & (rgba <= np.finfo(np.float32).max))
    count = int(np.count_nonzero(wrong))
    rgba[wrong] = 0.0
    return f"{place}: {count} values were negative or not finite; they are 0 now" if count else None


def _is_premultiplied(spec: Any, ending: str) -> bool:
    """Whether alpha is multiplied into the colour. Only EXR (always) and TIFF (unless it says no) can hold that."""
    return ending in (".exr", ".tif") and spec.get_int_attribute("oiio:UnassociatedAlpha", 0) == 0


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
