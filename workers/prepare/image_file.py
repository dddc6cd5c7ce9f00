"""Reads one image file into RGBA pixels. Knows codecs and their limits; knows no material and no colour space.

Pixels come through OpenImageIO's ImageInput (its ImageBuf can be crashed by hostile files) and from one format reader
only, the one that the file's first bytes name. Sizes are checked before a pixel is read.
"""

from __future__ import annotations

import functools
import tempfile
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import OpenImageIO as oiio  # noqa: N813

from dr.errors import BadInput

Pixels: TypeAlias = npt.NDArray[Any]  # [height, width, channel] of uint8, uint16 or float32

MAX_SIDE = 65536  # as wide as the widest frame
MAX_PIXELS = 1 << 27  # 16384 x 8192, the largest maps in use: 0.5 GiB as bytes, 2 GiB as floats
MAX_CHANNELS = 256  # a fully layered EXR has dozens; a codec's row buffers grow with them
MAX_CODEC_MIB = 1 << 16  # all channels of the file together; its own default depends on the machine

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


def read_image(data: bytes, name: str, place: str) -> tuple[Pixels, bool]:
    """RGBA [height, width, 4] as stored, row 0 at the top, and whether alpha is multiplied into the colour.

    Grey is repeated, two colours are R and G, a missing alpha is opaque; half becomes float. `name` helps where the
    bytes do not say what they are. Raises BadInput beginning with `place`.
    """
    ending = _ending(data, name, place)
    pixels, spec = _read_pixels(data, ending, place)
    return _expand(pixels, spec.alpha_channel), _is_premultiplied(spec, ending)


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
    oiio.attribute("limits:imagesize_MB", MAX_CODEC_MIB)


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


def _is_premultiplied(spec: Any, ending: str) -> bool:
    """Whether alpha is multiplied into the colour. Only EXR (always) and TIFF (unless it says no) can hold that."""
    if spec.alpha_channel < 0 or ending not in (".exr", ".tif"):
        return False
    return int(spec.get_int_attribute("oiio:UnassociatedAlpha", 0)) == 0
