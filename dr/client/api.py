"""The Python API: one function renders, one loads. Knows how callers say what they want; the work is done elsewhere."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from dr.client.request import make_request
from dr.client.result import Result
from dr.client.tally import Progress
from dr.scene.model import Region
from dr.settings import Settings

if TYPE_CHECKING:
    from dr.scene.model import Scene


class Options(TypedDict, total=False):
    """What `render` may be told; whatever is left out, or None, is decided by the scene, the settings or a default."""

    # The picture
    samples: int | None  # per pixel
    size: tuple[int, int] | None  # (width, height) of the full frame, pixels
    region: Region | Sequence[int] | None  # (x, y, width, height): render that rectangle alone
    camera: str | int | None  # name or number
    seed: int | None
    frame: int | None
    max_depth: int | None  # the camera ray counts as 1
    rr_depth: int | None  # Russian roulette from this depth on
    pixel_filter: str | None  # box or blackman-harris
    filter_radius: float | None  # pixels
    default_light: bool | None  # whether a scene without lights gets a neutral one
    channels: str | Iterable[str] | None  # of beauty, alpha, depth, normal, albedo, object_id; all of them
    view_transform: str | None  # of .png and .jpg: Standard, ACES 2.0 or Raw
    exposure: float | None  # of .png and .jpg, stops
    outputs: (
        str | Path | Sequence[str | Path] | None
    )  # files to write; finished buckets are journalled beside the first

    # Frames
    frames: str | int | Iterable[int] | None  # numbers, or ranges such as 1-100x2; `out.####.exr` names their files
    skip_existing: bool | None  # leave out frames whose outputs are all there
    resume: bool | None  # go on from the journals beside the outputs
    autosave_s: float | None  # write OUT.partial.exr that often
    time_limit_s: float | None  # end then, incomplete
    wait_s: float | None  # end when there was no server for so long; for ever

    # Who renders
    servers: str | Sequence[str] | None  # addresses of running `dr serve`; without any, this machine renders
    listen: str | None  # HOST:PORT for servers that dial out (`dr serve --dial`); * is every interface
    insecure: bool | None  # servers without keys, also on other machines: only in a closed lab network
    local: bool | None  # whether this machine renders, too
    local_servers: int | None  # processes on this machine; one per NUMA node
    threads: int | None  # render threads on this machine, in all; one per CPU
    bucket_size: int | Literal["auto"] | None  # pixels
    bucket_order: str | None  # spiral, hilbert, rows, columns, checker or random
    settings: Settings | str | Path | None  # or the path of a settings file; the user's own dr.toml


def render(
    scene: str | os.PathLike[str],
    *,
    progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    **options: Unpack[Options],
) -> Result:
    """Renders a scene and returns the image with what is known about the run. See `Options` for all it may be told.

    With `outputs` the pictures are written, each as soon as it is complete; of several `frames` the last is returned.

    `progress` is called from this thread up to 20 times a second. Setting `cancel`, from any thread or from `progress`,
    ends the render. The result may then be incomplete, as it is when buckets failed everywhere or no server was left:
    `complete` and `reason` tell. Raises BadInput when scene or options are wrong, Refused when every server refuses or
    a server needs keys that are missing.
    """
    from dr.client.render import render_request

    request = make_request(os.fspath(scene), options, os.environ)
    return render_request(request, progress, cancel or threading.Event())


def load_scene(path: str | os.PathLike[str]) -> Scene:
    """The scene in a .scene.toml, .gltf, .glb or .ply file, complete with camera and light. Raises BadInput."""
    from dr.scene.assets import Folder
    from dr.scene.formats import load_scene as load

    main = Path(path)
    return load(Folder(main), main.name)
