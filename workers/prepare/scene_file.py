"""One flat file per prepared scene: named arrays that servers map into memory. Knows the layout, not what it means.

Layout: MAGIC, then the length of a msgpack header as u8 little-endian, the header
{"arrays": {name: [offset, dtype, shape]}, "cameras": [names]}, and the arrays, each 64-byte aligned. Addresses inside
records are offsets in the file (0: none) until `open_scene` adds where the file was mapped.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dr.errors import Impossible
from dr.scene.complete import camera_index
from dr.scene.model import PixelFilter, RenderSettings
from workers.kernels import records
from workers.kernels.sampling.filter import blackman_harris_table
from workers.kernels.sampling.sobol import hash32

MAGIC = b"DRSCENE1"
ALIGNMENT = 64
ADDRESS_FIELDS = (
    "nodes",
    "packs",
    "triangles",
    "vertices",
    "instances",
    "materials",
    "images",
    "lights",
    "light_alias",
)
PIXEL_FILTERS = {PixelFilter.BOX: 0, PixelFilter.BLACKMAN_HARRIS: 1}

# How a camera lies in the file; its CAMERA record depends on the picture's aspect ratio
STORED_CAMERA = np.dtype([("camera", records.CAMERA), ("half_extent", "f4"), ("axis_is_x", "i4")])


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def write_scene(path: Path, arrays: dict[str, npt.NDArray[Any]], cameras: list[str]) -> None:
    """Writes the file whole, under another name first, so that no reader ever sees half of it.

    `arrays["scene"]` is one SCENE record, `arrays["images"]` IMAGE records whose `address` is an index into
    `arrays["texels"]` in bytes; every other array is written as it is.
    """
    layout: dict[str, tuple[int, str, tuple[int, ...]]] = {}
    header_room = 65536 + sum(len(name.encode()) + 16 for name in cameras)
    end = aligned(header_room)
    for name, array in arrays.items():
        layout[name] = (end, array.dtype.str if array.dtype.fields is None else "record", array.shape)
        end = aligned(end + array.nbytes)
    scene = arrays["scene"]
    for name in ADDRESS_FIELDS:
        scene[name] = layout[name][0]
    if scene["environment"]["width"][0] > 0:
        scene["environment"]["texels"] = layout["environment_texels"][0]
        scene["environment"]["alias"] = layout["environment_alias"][0]
    images = arrays["images"]
    images["address"] += np.uint64(layout["texels"][0])
    header = msgspec.msgpack.encode({"arrays": layout, "cameras": cameras})
    if len(MAGIC) + 8 + len(header) > header_room:
        raise Impossible(f"scene file header of {len(header)} bytes does not fit {header_room}")

    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(MAGIC + len(header).to_bytes(8, "little") + header)
        for name, (offset, _, _) in layout.items():
            file.seek(offset)
            file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
        file.truncate(end)
    partial.replace(path)


@dataclass
class Prepared:
    """A scene in memory, ready for `render_bucket`. Keeps alive whatever the record's addresses point to."""

    record: Any  # one numpy record of dtype SCENE
    keep: list[Any] = field(default_factory=list)


class SceneFile:
    """A mapped scene file; `array(name)` is a read-only view unless copied."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self.map[: len(MAGIC)] != MAGIC:
            raise Impossible(f"{path}: not a prepared scene")
        size = int.from_bytes(self.map[len(MAGIC) : len(MAGIC) + 8], "little")
        header = msgspec.msgpack.decode(self.map[len(MAGIC) + 8 : len(MAGIC) + 8 + size])
        self.layout: dict[str, tuple[int, str, tuple[int, ...]]] = header["arrays"]
        self.cameras: list[str] = header["cameras"]
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.base = int(self.bytes.ctypes.data)

    def array(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        offset, _, shape = self.layout[name]
        kind = np.dtype(dtype)
        count = prod(shape)
        return self.bytes[offset : offset + count * kind.itemsize].view(kind).reshape(shape)


def place_camera(stored: Any, settings: RenderSettings, target: Any) -> None:
    """Fills a CAMERA record for the picture's aspect ratio."""
    for name in records.CAMERA.names or ():
        target[name] = stored["camera"][name]
    half = np.float32(stored["half_extent"])
    width, height = np.float32(settings.width), np.float32(settings.height)
    if stored["axis_is_x"]:
        target["half_width"], target["half_height"] = half, half * height / width
    else:
        target["half_width"], target["half_height"] = half * width / height, half


def frame_seed(settings: RenderSettings) -> int:
    """The seed of one frame: changes with seed and frame number alike."""
    mixed = int(hash32(np.uint32(settings.frame ^ 0x9E3779B9)))
    return int(hash32(np.uint32(settings.seed ^ mixed)))


def open_scene(path: Path, settings: RenderSettings) -> Prepared:
    """Maps a prepared scene and binds it to one frame's settings. Raises BadInput for a camera that is not there."""
    file = SceneFile(path)
    scene = file.array("scene", records.SCENE).copy()
    record = scene[0]
    for name in ADDRESS_FIELDS:
        record[name] += np.uint64(file.base)
    if record["environment"]["width"] > 0:
        for name in ("texels", "alias"):
            scene["environment"][name] += np.uint64(file.base)
    images = file.array("images", records.IMAGE).copy()
    images["address"] += np.uint64(file.base)
    record["images"] = images.ctypes.data

    cameras = file.array("cameras", STORED_CAMERA)
    place_camera(cameras[camera_index(file.cameras, settings.camera, "camera")], settings, scene["camera"][0])
    table = blackman_harris_table()
    record["filter_table"] = table.ctypes.data
    record["pixel_filter"] = PIXEL_FILTERS[settings.pixel_filter]
    record["filter_radius"] = settings.filter_radius
    for name in ("width", "height", "max_depth", "rr_depth"):
        record[name] = getattr(settings, name)
    record["seed"] = frame_seed(settings)
    return Prepared(record=record, keep=[file, scene, images, table])
