"""Renders small pictures straight through the kernels, without a farm: what tests compare everything else with."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dr.scene.assets import Files, Folder
from dr.scene.model import RenderSettings, Scene
from workers.kernels.bucket import render_bucket
from workers.kernels.records import (
    FILM_ALBEDO,
    FILM_ALPHA,
    FILM_BEAUTY,
    FILM_CHANNELS,
    FILM_DEPTH,
    FILM_NORMAL,
    FILM_OBJECT_ID,
)
from workers.prepare.prepare import prepare_scene, write_prepared
from workers.prepare.scene_file import Prepared, open_scene

F32 = npt.NDArray[np.float32]


def silent(text: str) -> None:
    """Takes a progress line and says nothing."""


def prepared(scene: Scene | Path, settings: RenderSettings, files: Files | None = None) -> Prepared:
    """A scene of the model, or a scene file, prepared and bound to `settings`. The flat file is already gone."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scene.flat"
        if isinstance(scene, Path):
            prepare_scene(Folder(scene), scene.name, settings, out, 2, silent)
        else:
            write_prepared(scene, files or Folder(Path(folder) / "scene"), out, 2, silent)
        return open_scene(out, settings)


def render_film(ready: Prepared, settings: RenderSettings, threads: int = 2) -> F32:
    """Sums over all samples, f4[height, width, FILM_CHANNELS], of the whole frame."""
    film = np.zeros((settings.height, settings.width, FILM_CHANNELS), np.float32)
    cancel = np.zeros(1, np.uint8)

    def strip(y: int) -> None:
        rows = min(8, settings.height - y)
        layer = np.zeros((1, rows, settings.width, FILM_CHANNELS), np.float32)
        render_bucket(ready.record, 0, y, settings.width, rows, 0, settings.samples, layer, cancel)
        film[y : y + rows] = layer[0]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(strip, range(0, settings.height, 8)))
    return film


def channels(film: F32, samples: int) -> dict[str, F32]:
    """Means of a film's sums by channel name."""
    count = np.float32(samples)
    return {
        "beauty": film[..., FILM_BEAUTY : FILM_BEAUTY + 3] / count,
        "alpha": film[..., FILM_ALPHA] / count,
        "depth": film[..., FILM_DEPTH],
        "normal": film[..., FILM_NORMAL : FILM_NORMAL + 3] / count,
        "albedo": film[..., FILM_ALBEDO : FILM_ALBEDO + 3] / count,
        "object_id": film[..., FILM_OBJECT_ID],
    }


def render(scene: Scene | Path, settings: RenderSettings, **options: Any) -> dict[str, F32]:
    """A whole frame as channels."""
    return channels(render_film(prepared(scene, settings, **options), settings), settings.samples)
