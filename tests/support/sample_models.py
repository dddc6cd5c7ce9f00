"""The glTF sample models of the test data, and a flat front view of them in which a metre is so many pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dr.scene.assets import Folder
from dr.scene.formats import load_scene
from dr.scene.matrix import look_at
from dr.scene.model import Camera, EnvironmentLight, PixelFilter, RenderSettings, Scene
from tests.support.rendering import F32, render


def model_file(data: Path, model: str) -> Path:
    """The glTF file of a sample model that needs no compression extension."""
    return min(path for path in (data / "gltf" / model).glob("*/*.gl*") if "Draco" not in path.parent.name)


def load_model(path: Path, settings: RenderSettings | None = None) -> Scene:
    return load_scene(Folder(path), path.name, settings)


class View(NamedTuple):
    """A picture's channels, and where in the world they are: `left` and `top` in metres at the first pixel's corner."""

    channels: dict[str, F32]
    left: float
    top: float
    scale: float  # pixels per metre

    def crop(self, channel: str, low: tuple[float, float], size: tuple[float, float]) -> F32:
        """The pixels of the world's rectangle with the lower left corner `low`, (x, y) in metres."""
        width, height = (round(length * self.scale) for length in size)
        left, bottom = round((low[0] - self.left) * self.scale), round((self.top - low[1]) * self.scale)
        return self.channels[channel][bottom - height : bottom, left : left + width]


def front_view(path: Path, low: tuple[float, float], high: tuple[float, float], scale: float, **options: Any) -> View:
    """A model seen along -Z without perspective. `options`: fields of Scene, or of RenderSettings by their names."""
    subject = load_model(path)
    middle = ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2)
    transform = look_at((*middle, 50.0), (*middle, 0.0), (0.0, 1.0, 0.0))
    changes: dict[str, Any] = {
        "cameras": (Camera(transform=transform, orthographic_height=high[1] - low[1]),),
        "lights": (EnvironmentLight(),),
        **{name: value for name, value in options.items() if name in Scene.__struct_fields__},
    }
    settings = RenderSettings(
        width=round((high[0] - low[0]) * scale),
        height=round((high[1] - low[1]) * scale),
        pixel_filter=PixelFilter.BOX,
        **{name: value for name, value in options.items() if name not in Scene.__struct_fields__},
    )
    channels = render(msgspec.structs.replace(subject, **changes), settings, files=Folder(path))
    return View(channels, low[0], high[1], scale)
