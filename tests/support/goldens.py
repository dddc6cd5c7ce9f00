"""Pictures that other path tracers made of the sample models, and our picture of the same. Knows their conventions.

The folder is `references/render-fidelity` of the test data; its NOTES.md has what is written here as code.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import OpenImageIO as oiio  # noqa: N813

from dr.scene.assets import Folder
from dr.scene.matrix import look_at
from dr.scene.model import Camera, EnvironmentLight, PixelFilter, RenderSettings
from tests.support.rendering import F32, render
from tests.support.sample_models import load_model, model_file

WIDTH = 512  # of the stored pictures; the scenario says how large they were made
PATH_TRACERS = ("vray", "blender-cycles", "three-gpu-pathtracer", "stellar")
_ACES_IN = np.array([[0.59719, 0.076, 0.0284], [0.35458, 0.90834, 0.13383], [0.04823, 0.01566, 0.83777]])
_ACES_OUT = np.array([[1.60475, -0.10208, -0.00327], [-0.53108, 1.10813, -0.07276], [-0.07367, -0.00605, 1.07602]])


class Golden(NamedTuple):
    """One renderer's picture: display values [height, width, 3] 0..1, straight, and coverage [height, width]."""

    renderer: str
    rgb: F32
    alpha: F32


def scenario(data: Path, model: str) -> dict[str, Any]:
    known: dict[str, Any] = json.loads((data / "references" / "render-fidelity" / "scenarios.json").read_text())
    return dict(known[f"khronos-{model}"])


def goldens(data: Path, model: str, renderers: tuple[str, ...] = PATH_TRACERS) -> list[Golden]:
    """The pictures of a model that there are, 512 pixels wide."""
    folder = data / "references" / "render-fidelity" / f"khronos-{model}"
    files = [(name, folder / f"{name}-golden.thumb.webp") for name in renderers]
    return [Golden(name, *read_straight(path)) for name, path in files if path.is_file()]


def read_straight(path: Path) -> tuple[F32, F32]:
    """Colour that is not multiplied by alpha, 0..1, and alpha (1 where the file has none)."""
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    file = oiio.ImageInput.open(str(path), config)
    pixels = file.read_image("float")
    file.close()
    alpha = pixels[..., 3] if pixels.shape[2] > 3 else np.ones(pixels.shape[:2], np.float32)
    return pixels[..., :3], alpha


def scenario_camera(description: dict[str, Any]) -> Camera:
    """On a sphere around the target, looking at it; with radius 0 at the target, looking the same way."""
    target = np.array([description["target"][axis] for axis in "xyz"], np.float64)
    orbit = description["orbit"]
    theta, phi = math.radians(orbit["theta_deg"]), math.radians(orbit["phi_deg"])
    outward = np.array([math.sin(phi) * math.sin(theta), math.cos(phi), math.sin(phi) * math.cos(theta)])
    position = target + orbit["radius"] * outward
    fov = math.radians(description["verticalFoV_deg"])
    return Camera(transform=look_at(tuple(position), tuple(position - outward), (0.0, 1.0, 0.0)), fov=fov)


def golden_settings(description: dict[str, Any], samples: int) -> RenderSettings:
    """A box pixel of the small picture is the area-filtered mean of the large picture's pixels that it covers."""
    full = description["dimensions"]
    height = round(full["height"] * WIDTH / full["width"])
    return RenderSettings(width=WIDTH, height=height, samples=samples, pixel_filter=PixelFilter.BOX)


def render_scenario(data: Path, model: str, samples: int, **settings: Any) -> dict[str, F32]:
    """The model through the scenario's camera, in a constant environment, as large as the goldens."""
    description, path = scenario(data, model), model_file(data, model)
    changes = {"cameras": (scenario_camera(description),), "lights": (EnvironmentLight(),)}
    chosen = msgspec.structs.replace(golden_settings(description, samples), **settings)
    subject = msgspec.structs.replace(load_model(path, chosen), **changes)
    return render(subject, chosen, files=Folder(path))


def tone_mapped(linear: F32) -> F32:
    """Radiance as the goldens show it: the ACES fit of Stephen Hill at exposure 1/0.6, gamma 2.2."""
    x = np.maximum(linear, 0.0) / 0.6 @ _ACES_IN
    x = (x * (x + 0.0245786) - 0.000090537) / (x * (0.983729 * x + 0.4329510) + 0.238081) @ _ACES_OUT
    return np.asarray(np.clip(x, 0.0, 0.9999) ** (1 / 2.2), np.float32)


def silhouette_iou(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Intersection over union of what is covered by more than half."""
    ours, theirs = a > 0.5, b > 0.5
    return float((ours & theirs).sum() / max((ours | theirs).sum(), 1))
