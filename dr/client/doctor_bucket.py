"""Lets one server, or this machine, render a tiny scene and compares pixels. Knows pictures; knows no address.

The scene has a texture, a metal, a light with an area and indirect light, so that most kinds of kernels take part.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from dr.broker.fleet import Phase
from dr.client.doctor_checks import Check, Verdict
from dr.errors import DrError
from dr.scene.model import F32
from dr.settings import Settings

if TYPE_CHECKING:
    from dr.client.result import Result
    from dr.client.tally import Progress

SIDE = 32  # pixels
BUCKET = 16  # pixels

SAMPLES = 16
SCENE = f"""\
[render]
width = {SIDE}
height = {SIDE}
samples = {SAMPLES}

[[cameras]]
position = [1.6, 1.4, 2.4]
target = [0.0, 0.4, 0.0]
fov = 40.0

[[materials]]
name = "tiles"
base_color_texture = "tiles.png"
roughness = 0.6

[[materials]]
name = "metal"
base_color = [0.9, 0.6, 0.3]
metallic = 1.0
roughness = 0.25

[[objects]]
name = "floor"
quad = {{ corner = [-2, 0, 2], edge_u = [4, 0, 0], edge_v = [0, 0, -4] }}
material = "tiles"

[[objects]]
name = "box"
box = {{ min = [-0.4, 0, -0.4], max = [0.4, 0.8, 0.4] }}
material = "metal"
rotate = [0, 25, 0]

[[lights]]
kind = "quad"
corner = [-0.6, 2.2, -0.6]
edge_u = [1.2, 0.0, 0.0]
edge_v = [0.0, 0.0, 1.2]
radiance = [9.0, 8.5, 8.0]
"""


class Trial(Struct, frozen=True, kw_only=True, eq=False):
    """What came of one try. `channels` is empty unless the picture is complete."""

    channels: Mapping[str, F32]
    first_s: float = 0.0  # from the beginning to the first bucket
    samples_per_second: float = 0.0
    problem: str = ""
    unfinished: str = ""  # what it was doing when the time was over
    skipped: str = ""  # why it was not asked


class Difference(Struct, frozen=True):
    """Between two pictures of one scene, bit by bit."""

    pixels: int
    largest: float  # of any channel; inf: of something that is no number on one side alone


def write_scene(folder: Path) -> Path:
    """The main file of the scene."""
    (folder / "tiles.png").write_bytes(_tiles())
    path = folder / "doctor.scene.toml"
    path.write_text(SCENE, encoding="utf-8")
    return path


def try_server(scene: Path, server: str | None, settings: Settings, insecure: bool, within_s: float) -> Trial:
    """Lets the server HOST:PORT, or with None this machine, render the scene within so many seconds."""
    from dr.client.api import render

    own = replace(settings, servers=(), max_servers=0, restart_servers_on_render_end=False, save_servers_in_scene=False)
    watch = _Watch()
    timer = threading.Timer(within_s, watch.cancel.set)
    timer.start()
    try:
        result = render(
            scene,
            servers=[server] if server else [],
            local=server is None,
            bucket_size=BUCKET,
            settings=own,
            insecure=insecure,
            progress=watch.show,
            cancel=watch.cancel,
        )
    except DrError as error:
        return Trial(channels={}, problem=str(error))
    finally:
        timer.cancel()
        timer.join()
    return _judge(result, watch, within_s)


class _Watch:
    """When the first bucket came, and what the server said last."""

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self.begun_s = monotonic()
        self.first_s = 0.0
        self.last = ""
        self.state = ""

    def show(self, progress: Progress) -> None:
        if progress.buckets_done and not self.first_s:
            self.first_s = monotonic() - self.begun_s
        for row in progress.servers:
            self.state, self.last = row.state, row.text or row.state


def _judge(result: Result, watch: _Watch, within_s: float) -> Trial:
    if result.complete:
        return Trial(
            channels=dict(result.channels),
            first_s=watch.first_s,
            samples_per_second=result.statistics.samples_per_second,
        )
    lost = [loss.reason for loss in result.statistics.lost]
    failed = [bucket.error for bucket in result.poisoned]
    if watch.cancel.is_set() and not failed:
        if watch.state == Phase.WAITING.value:  # somebody was quicker
            return Trial(channels={}, skipped=watch.last)
        return Trial(channels={}, unfinished=watch.last or (lost or [result.reason])[-1])
    return Trial(channels={}, problem=(failed or lost or [result.reason])[-1])


def check_bucket(subject: str, trial: Trial, within_s: float) -> Check:
    """Whether it renders at all, and how fast."""
    if trial.skipped:
        return _check(subject, "test bucket", Verdict.WARN, f"{trial.skipped}, not tested", "try again when it is free")
    if trial.unfinished:
        found = f"not finished within {within_s:g} s; it said last: {trial.unfinished}"
        hint = "try again, or give it more time with --seconds; `dr warmup` there compiles its kernels"
        compiling = "compiling kernels" in trial.unfinished
        return _check(subject, "test bucket", Verdict.WARN if compiling else Verdict.FAIL, found, hint)
    if trial.problem:
        hint = "its log tells more: dr logs there"
        return _check(subject, "test bucket", Verdict.FAIL, trial.problem, hint)
    found = f"first one after {trial.first_s:.1f} s, {trial.samples_per_second / 1e6:.2f} M samples/s"
    return _check(subject, "test bucket", Verdict.OK, found)


def check_pixels(trials: Mapping[str, Trial], reference: str | None) -> list[Check]:
    """Each complete picture against the reference's, else against the one that most have, the first of several such."""
    complete = {subject: trial for subject, trial in trials.items() if trial.channels}
    base = reference if reference in complete else _most_common(complete)
    if base is None or len(complete) < 2:
        return []
    return [_check_pixels(each, complete[each], base, complete[base]) for each in complete if each != base]


def _check_pixels(subject: str, trial: Trial, base: str, wanted: Trial) -> Check:
    found = compare(trial.channels, wanted.channels)
    if not found.pixels:
        return _check(subject, "pixels", Verdict.OK, f"the same bits as {base}")
    text = f"{found.pixels} of {SIDE * SIDE} pixels differ from {base}, by up to {found.largest:.3g}"
    hint = "install the same versions on both; if they are the same, test the memory of that machine"
    return _check(subject, "pixels", Verdict.FAIL, text, hint)


def compare(found: Mapping[str, F32], wanted: Mapping[str, F32]) -> Difference:
    """Of the same channels; two that are not the same kind of picture differ everywhere."""
    if {name: each.shape for name, each in found.items()} != {name: each.shape for name, each in wanted.items()}:
        return Difference(SIDE * SIDE, float("inf"))
    shape = next(iter(wanted.values())).shape[:2]
    differs = np.zeros(shape, bool)
    largest = 0.0
    for name, ours in wanted.items():
        other = (_bits(ours) != _bits(found[name])).reshape(*shape, -1)
        differs |= other.any(axis=-1)
        largest = max(largest, _largest(ours.reshape(*shape, -1)[other], found[name].reshape(*shape, -1)[other]))
    return Difference(int(differs.sum()), largest)


def _bits(pixels: F32) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    return np.ascontiguousarray(pixels, np.float32).view(np.uint32)


def _largest(ours: F32, theirs: F32) -> float:
    if not ours.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    return float(np.where(np.isnan(apart), np.inf, apart).max())


def _most_common(trials: Mapping[str, Trial]) -> str | None:
    prints = {
        subject: tuple(zlib.crc32(_bits(pixels).tobytes()) for _, pixels in sorted(trial.channels.items()))
        for subject, trial in trials.items()
    }
    found: Sequence[tuple[int, ...]] = [*prints.values()]
    return max(prints, key=lambda subject: found.count(prints[subject]), default=None)


def _tiles() -> bytes:
    """A PNG, 8 x 8 pixels, of two colours that change a little from tile to tile."""
    rows, columns = np.mgrid[0:8, 0:8]
    dark = (rows + columns) % 2 == 1
    pixels = np.stack([np.where(dark, 60, 200), 90 + 8 * columns, 60 + 12 * rows], axis=-1).astype(np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )


def _check(subject: str, name: str, verdict: Verdict, found: str, hint: str = "") -> Check:
    return Check(subject=subject, name=name, verdict=verdict, found=found, hint=hint)
