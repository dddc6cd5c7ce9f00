"""The pictures for a screen: PNG and JPEG, 8 bits, sRGB. Knows what becomes of alpha; knows no folder and no layer.

Both hold the rendered region alone. Beauty comes as light over black. A PNG gets an alpha channel, straight as PNG
wants it, where the picture is cut out before nothing: no light where alpha is 0. With a visible background (an
environment) the background belongs to the picture and the PNG is opaque. A JPEG is always the light over black.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dr.image.display import to_bytes, to_display
from dr.image.framebuffer import Picture
from dr.protocol.messages import Channel
from dr.scene.model import F32, ViewSettings

Bytes = npt.NDArray[np.uint8]
JPEG_QUALITY = 95
SMALLEST_ALPHA = np.float32(1e-30)  # of a pixel with light; the others are 0 anyway


def encode_png(picture: Picture, view: ViewSettings) -> tuple[Any, Bytes]:
    """OpenImageIO's description of the file, and its pixels u1[height, width, 3 or 4]."""
    beauty, alpha = picture.channels[Channel.BEAUTY], picture.channels.get(Channel.ALPHA)
    if alpha is None or (alpha == 1).all() or beauty[alpha == 0].any():
        return _encode(to_bytes(to_display(beauty, view)))
    straight: F32 = np.divide(beauty, np.maximum(alpha, SMALLEST_ALPHA)[..., None], dtype=np.float32)
    return _encode(np.dstack([to_bytes(to_display(straight, view)), to_bytes(np.clip(alpha, 0, 1))]))


def encode_jpeg(picture: Picture, view: ViewSettings) -> tuple[Any, Bytes]:
    """OpenImageIO's description of the file, and its pixels u1[height, width, 3]."""
    spec, pixels = _encode(to_bytes(to_display(picture.channels[Channel.BEAUTY], view)))
    spec.attribute("compression", f"jpeg:{JPEG_QUALITY}")
    spec.attribute("jpeg:subsampling", "4:4:4")
    return spec, pixels


def _encode(pixels: Bytes) -> tuple[Any, Bytes]:
    import OpenImageIO

    spec = OpenImageIO.ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], OpenImageIO.UINT8)
    spec.attribute("oiio:ColorSpace", "srgb_rec709_scene")
    spec.attribute("oiio:UnassociatedAlpha", 1)  # the pixels are straight: nothing to divide
    return spec, pixels
