"""The OpenEXR file: every channel as a named layer of linear float32. Knows layer names; knows no folder, no display.

| channel   | in the file                        |                                                     |
|-----------|------------------------------------|-----------------------------------------------------|
| beauty    | R G B                              | multiplied by coverage, chromaticities of Rec. 709  |
| alpha     | A                                  | coverage 0..1                                       |
| depth     | depth.Z                            | metres along the camera's axis, +inf for a miss     |
| normal    | normal.X normal.Y normal.Z         | world space                                         |
| albedo    | albedo.R albedo.G albedo.B         |                                                     |
| object_id | object_id.X                        | 0 for a miss                                        |

A layer has the name of its channel, as Nuke and Blender show it. The data window is what was rendered, the display
window the whole frame. Nothing about the run is written, so that equal pictures are equal files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dr.errors import BadInput
from dr.image.framebuffer import Picture
from dr.protocol.messages import Channel
from dr.scene.model import F32, Region

LAYERS: dict[Channel, tuple[str, ...]] = {
    Channel.BEAUTY: ("R", "G", "B"),
    Channel.ALPHA: ("A",),
    Channel.DEPTH: ("depth.Z",),
    Channel.NORMAL: ("normal.X", "normal.Y", "normal.Z"),
    Channel.ALBEDO: ("albedo.R", "albedo.G", "albedo.B"),
    Channel.OBJECT_ID: ("object_id.X",),
}
REC_709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)  # x, y of red, green, blue, white


def encode_exr(picture: Picture) -> tuple[Any, F32]:
    """OpenImageIO's description of the file, and its pixels f4[height, width, plane]."""
    import OpenImageIO

    channels = [channel for channel in LAYERS if channel in picture.channels]
    pixels = np.dstack([picture.channels[channel] for channel in channels])
    spec = OpenImageIO.ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], OpenImageIO.FLOAT)
    spec.channelnames = tuple(name for channel in channels for name in LAYERS[channel])
    spec.x, spec.y = picture.region.x, picture.region.y
    spec.full_width, spec.full_height = picture.width, picture.height
    spec.attribute("compression", "zip")
    spec.attribute("chromaticities", OpenImageIO.TypeDesc("float[8]"), REC_709)
    spec.attribute("DateTime", "")  # else the time of writing goes into the file
    return spec, pixels


def read_exr(path: Path) -> Picture:
    """A picture that `encode_exr` described. BadInput when the file cannot be read or has none of our channels."""
    import OpenImageIO

    file = OpenImageIO.ImageInput.open(str(path))
    if file is None:
        raise BadInput(f"{path}: expected an OpenEXR picture: {OpenImageIO.geterror()}")
    try:
        spec = file.spec()
        pixels = file.read_image(0, 0, 0, spec.nchannels, OpenImageIO.FLOAT)
        reason = file.geterror()
    finally:
        file.close()
    if pixels is None:
        raise BadInput(f"{path}: cannot read the picture: {reason}")
    channels = _split(pixels, list(spec.channelnames))
    if not channels:
        raise BadInput(f"{path}: expected channels such as R, A or depth.Z, found {', '.join(spec.channelnames)[:80]}")
    region = Region(spec.x, spec.y, spec.width, spec.height)
    return Picture(width=spec.full_width, height=spec.full_height, region=region, channels=channels)


def _split(pixels: F32, names: list[str]) -> dict[str, F32]:
    """The channels all of whose planes are in the file."""
    channels = {}
    for channel, layer in LAYERS.items():
        if set(layer) <= set(names):
            planes = pixels[..., [names.index(name) for name in layer]]
            channels[str(channel)] = np.ascontiguousarray(planes if len(layer) > 1 else planes[..., 0])
    return channels
