"""Renders a scene in one process with the kernels alone: the measure of the farm. Knows no server and no wire.

    python -m bench.bare SCENE OUT.exr '{"samples": 16}' --bucket-size 32 --threads 1

Loads, prepares, renders the farm's buckets in turn and writes the picture with the farm's own code.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dr.broker.buckets import Order, cut_frame
from dr.image.framebuffer import Framebuffer
from dr.image.output import write_picture
from dr.protocol.messages import BucketWork, Channel
from dr.scene.assets import Files, Folder
from dr.scene.formats import load_scene
from dr.scene.model import F32, RenderSettings, Scene
from workers.prepare.warmup import warm_up

BUCKET_SIZE = 32  # pixels

RenderBucket = Callable[[BucketWork], F32]


class PreparedScene:
    """A prepared scene in a folder of its own. Use as a context manager."""

    def __init__(self, scene: Scene, files: Files, threads: int = 1) -> None:
        from workers.prepare.prepare import write_prepared  # after warm_up has chosen the kernel cache

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "scene.flat"
        write_prepared(scene, files, self.path, threads, lambda text: None)

    def __enter__(self) -> PreparedScene:
        return self

    def __exit__(self, *reason: object) -> None:
        self.folder.cleanup()

    def bind(self, settings: RenderSettings) -> RenderBucket:
        """What renders one bucket of a frame: f4[1, height, width, plane], all channels."""
        from workers.prepare.scene_file import open_scene

        return partial(_render_bucket, open_scene(self.path, settings))


def _render_bucket(prepared: Any, work: BucketWork) -> F32:
    from workers.kernels.bucket import render_bucket
    from workers.kernels.records import FILM_CHANNELS

    film = np.empty((1, work.height, work.width, FILM_CHANNELS), np.float32)
    area = (work.x, work.y, work.width, work.height)
    render_bucket(prepared.record, *area, work.sample_begin, work.sample_end, film, np.zeros(1, np.uint8))
    return film


def render_frame(
    render_one: RenderBucket, settings: RenderSettings, threads: int, size: int = BUCKET_SIZE
) -> Framebuffer:
    """Every bucket of `size` pixels, rendered by `threads` threads and merged."""
    works = cut_frame(settings, size, Order.SPIRAL)
    framebuffer = Framebuffer(settings, tuple(Channel))
    if threads == 1:
        for work in works:
            framebuffer.merge(work, render_one(work))
        return framebuffer
    with ThreadPoolExecutor(threads) as pool:
        for work, film in zip(works, pool.map(render_one, works), strict=True):
            framebuffer.merge(work, film)
    return framebuffer


def main(
    scene: Path,
    out: Path,
    picture: Annotated[str, typer.Argument(help="Fields of RenderSettings as JSON.")] = "{}",
    bucket_size: int = BUCKET_SIZE,
    threads: int = 1,
) -> None:
    """Renders SCENE to OUT."""
    warm_up(lambda text: None)
    files = Folder(scene)
    loaded = load_scene(files, files.main, json.loads(picture))
    with PreparedScene(loaded, files, threads) as prepared:
        framebuffer = render_frame(prepared.bind(loaded.settings), loaded.settings, threads, bucket_size)
    write_picture(out, framebuffer.picture(), loaded.view)


if __name__ == "__main__":
    typer.run(main)
