"""Whole pictures against other renderers: samples per CPU second, and CPU time to equal error, on Cornell and Sponza.

`python -m bench.scene [--peers mitsuba,cycles,luxcore] [--rounds 3]`. One thread each, CPU seconds, interleaved rounds,
median; every renderer sees the same triangles, camera and diffuse materials (bench/scenes.py). Peers are installed by
`make bench-peers`; a peer that is not there is left out and named.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from workers.prepare.warmup import use_kernel_cache

use_kernel_cache()

from bench import scenes  # noqa: E402
from bench.machine import describe  # noqa: E402
from dr.scene.assets import Folder  # noqa: E402
from dr.scene.model import PixelFilter, RenderSettings, Scene  # noqa: E402
from workers.kernels.bucket import render_bucket  # noqa: E402
from workers.kernels.records import FILM_CHANNELS  # noqa: E402
from workers.prepare.prepare import write_prepared  # noqa: E402
from workers.prepare.scene_file import open_scene  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("mitsuba", "cycles", "luxcore")
BUCKET = 32
TARGET_MSE = 1e-4


@dataclass(frozen=True)
class Task:
    """One picture: what is rendered and how."""

    name: str
    width: int
    height: int
    samples: int
    depth: int
    rr_depth: int
    sampler: str = "independent"


THROUGHPUT = (Task("cornell", 512, 512, 32, 6, 5), Task("sponza", 960, 540, 16, 6, 5))
EQUAL_ERROR = Task("cornell", 256, 256, 64, 6, 5, "multijitter")


def render_ours(scene: Scene, files: Folder, task: Task, seed: int) -> tuple[float, Any]:
    """CPU seconds of the kernels alone, one thread, and the picture."""
    settings = RenderSettings(
        width=task.width, height=task.height, samples=task.samples, max_depth=task.depth, rr_depth=task.rr_depth,
        pixel_filter=PixelFilter.BOX, seed=seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.flat"
        write_prepared(scene, files, path, 1, lambda text: None)
        ready = open_scene(path, settings)
    picture = np.zeros((task.height, task.width, 3), np.float32)
    cancel = np.zeros(1, np.uint8)
    warm = np.zeros((1, 1, 1, FILM_CHANNELS), np.float32)
    render_bucket(ready.record, 0, 0, 1, 1, 0, 1, warm, cancel)
    begin = time.process_time()
    for y in range(0, task.height, BUCKET):
        for x in range(0, task.width, BUCKET):
            height, width = min(BUCKET, task.height - y), min(BUCKET, task.width - x)
            film = np.zeros((1, height, width, FILM_CHANNELS), np.float32)
            render_bucket(ready.record, x, y, width, height, 0, task.samples, film, cancel)
            picture[y : y + height, x : x + width] = film[0, ..., :3] / task.samples
    return time.process_time() - begin, picture


def render_peer(peer: str, folder: Path, task: Task) -> tuple[float, Any, str] | str:
    """CPU seconds, picture and full name of a peer; or why it is left out."""
    python = ROOT / ".venv-peers" / peer / "bin" / "python"
    if not python.exists():
        return "not installed (make bench-peers)"
    out = folder / f"{peer}.npy"
    script = ROOT / "bench" / "peers" / f"{peer}_scene.py"
    words = [task.width, task.height, task.samples, task.depth, task.rr_depth, task.sampler]
    run = subprocess.run(
        [python, script, folder, *map(str, words), out],
        capture_output=True,
        text=True,
        env=os.environ | {"THREADS": "1"},
        check=False,
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode != 0 or not lines:
        return (run.stderr.strip().splitlines() or ["failed"])[-1][:120]
    result = json.loads(lines[-1])
    return float(result["cpu_s"]), np.load(out), str(result["renderer"])


def error(picture: Any) -> float:
    """Mean squared error against the reference, light and its border left out (they alias differently)."""
    reference = np.load(scenes.references() / "cornell_256x256_d6_4096spp.npy").astype(np.float64)
    bright = reference.max(axis=2) > 2
    grown = np.zeros_like(bright)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            grown |= np.roll(bright, (dy, dx), (0, 1))
    return float(((picture - reference) ** 2)[~grown].mean())


def measure(task: Task, peers: list[str], rounds: int, folder: Path) -> dict[str, tuple[list[float], Any]]:
    """CPU seconds of each round and the last picture, by renderer; rounds are interleaved."""
    scene = scenes.cornell() if task.name == "cornell" else scenes.sponza()
    files = Folder(folder / "none") if task.name == "cornell" else scenes.sponza_folder()
    scenes.export(scene, files, folder)
    results: dict[str, tuple[list[float], Any]] = {}
    for number in range(rounds):
        seconds, picture = render_ours(scene, files, task, number)
        results["ours"] = ([*results.get("ours", ([], None))[0], seconds], picture)
        for peer in peers:
            found = render_peer(peer, folder, task)
            if isinstance(found, str):
                print(f"{peer}: left out: {found}")
                continue
            results[found[2]] = ([*results.get(found[2], ([], None))[0], found[0]], found[1])
    return results


def main(peers: str = ",".join(PEERS), rounds: int = 3) -> None:
    """Prints the table."""
    wanted = [peer for peer in peers.split(",") if peer]
    console = Console(width=120)
    table = Table("scene", "renderer", "Msamples / CPU s", "ours / its", "mean", title=describe())
    for task in THROUGHPUT:
        with tempfile.TemporaryDirectory() as folder:
            results = measure(task, wanted, rounds, Path(folder))
        count = task.width * task.height * task.samples / 1e6
        ours = count / statistics.median(results["ours"][0])
        for name, (seconds, picture) in results.items():
            rate = count / statistics.median(seconds)
            label = f"{task.name} {task.width}x{task.height}"
            table.add_row(label, name, f"{rate:.3f}", f"{ours / rate:.2f}", f"{float(picture.mean()):.4f}")
    console.print(table)

    equal = Table("renderer", "MSE", "CPU s", f"CPU s to MSE {TARGET_MSE:g}", "ours / its")
    with tempfile.TemporaryDirectory() as folder:
        results = measure(EQUAL_ERROR, [peer for peer in wanted if peer == "mitsuba"], rounds, Path(folder))
    times = {
        name: (error(picture), statistics.median(seconds), statistics.median(seconds) * error(picture) / TARGET_MSE)
        for name, (seconds, picture) in results.items()
    }
    for name, (mse, seconds, needed) in times.items():
        equal.add_row(name, f"{mse:.3g}", f"{seconds:.2f}", f"{needed:.2f}", f"{times['ours'][2] / needed:.2f}")
    console.print(equal)


if __name__ == "__main__":
    typer.run(main)
