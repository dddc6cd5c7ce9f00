"""Whole pictures against other renderers: samples per CPU second, CPU time to equal error, two threads against one.

    python -m bench.scene [--peers mitsuba,cycles,luxcore] [--scenes cornell,sponza,demo] [--rounds 3]

One thread each, CPU seconds of the rendering alone, interleaved rounds, median; every renderer sees the same
triangles, camera and diffuse materials (bench/scenes.py). Peers are installed by `make bench-peers`; a peer or a scene
that is not there is left out by name.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import typer

from bench import bare, scenes
from bench.machine import describe
from bench.table import print_table
from dr.scene.model import PixelFilter, RenderSettings
from workers.prepare.warmup import warm_up

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("mitsuba", "cycles", "luxcore")
OURS = "ours"
TARGET_MSE = 1e-4
LIGHT_RADIANCE = 2.0  # brighter pixels of the reference show the light itself

# Our samples per CPU second by a peer's (must, goal); their CPU time to TARGET_MSE by ours; two threads' speed by one's
SPEED_TARGETS = {
    ("cornell", "mitsuba"): (0.6, 1.0),
    ("sponza", "mitsuba"): (0.6, 1.0),
    ("sponza", "cycles"): (1.4, 2.3),
    ("sponza", "luxcore"): (2.0, 3.2),
}
ERROR_TARGETS = (1 / 1.5, 1.0)
THREAD_TARGETS = (1.9, 1.95)


@dataclass(frozen=True)
class Task:
    """One picture: what is rendered and how. `sampler` is Mitsuba's; ours is Sobol."""

    scene: str
    width: int
    height: int
    samples: int
    sampler: str = "independent"
    depth: int = 6
    rr_depth: int = 5

    @property
    def megasamples(self) -> float:
        return self.width * self.height * self.samples / 1e6

    def settings(self, seed: int) -> RenderSettings:
        return RenderSettings(
            width=self.width,
            height=self.height,
            samples=self.samples,
            max_depth=self.depth,
            rr_depth=self.rr_depth,
            pixel_filter=PixelFilter.BOX,
            seed=seed,
        )

    def __str__(self) -> str:
        return f"{self.scene} {self.width}x{self.height}"


TASKS = (Task("cornell", 512, 512, 32), Task("sponza", 960, 540, 16), Task("demo", 480, 270, 32))
EQUAL_ERROR = Task("cornell", 256, 256, 64, "multijitter")


@dataclass
class Measured:
    """One renderer's rounds: its full name, CPU seconds, pictures f4[height, width, 3]."""

    name: str
    cpu_s: list[float] = field(default_factory=list)
    pictures: list[Any] = field(default_factory=list)

    def add(self, cpu_s: float, picture: Any) -> None:
        self.cpu_s.append(cpu_s)
        self.pictures.append(picture)

    @property
    def median_s(self) -> float:
        return statistics.median(self.cpu_s)

    @property
    def mean(self) -> float:
        return float(np.mean([picture.mean() for picture in self.pictures]))


class MissingPeer(Exception):
    """A peer cannot be measured; the text says why."""


def render_ours(prepared: bare.PreparedScene, task: Task, seed: int) -> tuple[float, Any]:
    """CPU seconds of rendering and merging all buckets in one thread, and the picture."""
    settings = task.settings(seed)
    render_one = prepared.bind(settings)
    begin = time.process_time()
    framebuffer = bare.render_frame(render_one, settings, threads=1)
    return time.process_time() - begin, framebuffer.picture().channels["beauty"]


def render_peer(peer: str, folder: Path, task: Task) -> tuple[float, Any, str]:
    """CPU seconds, picture and full name of a peer."""
    python = ROOT / ".venv-peers" / peer / "bin" / "python"
    if not python.exists():
        raise MissingPeer("not installed (make bench-peers)")
    out = folder / f"{peer}.npy"
    script = ROOT / "bench" / "peers" / f"{peer}_scene.py"
    words = [task.width, task.height, task.samples, task.depth, task.rr_depth, task.sampler]
    run = subprocess.run(
        [python, script, folder, *map(str, words), out],
        capture_output=True,
        text=True,
        env=os.environ | {"THREADS": "1"},
    )
    answers = [line for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode != 0 or not answers:
        raise MissingPeer((run.stderr.strip().splitlines() or ["it failed without a word"])[-1])
    answer = json.loads(answers[-1])
    return float(answer["cpu_s"]), np.load(out), str(answer["renderer"])


def measure(task: Task, peers: Iterable[str], rounds: int) -> dict[str, Measured]:
    """Each renderer's rounds, ours first. The rounds are interleaved."""
    subject = scenes.SUBJECTS[task.scene]()
    found = {OURS: Measured(OURS)}
    missing: set[str] = set()
    with tempfile.TemporaryDirectory() as name, bare.PreparedScene(subject.scene, subject.files) as prepared:
        folder = Path(name)
        if subject.view:
            scenes.export(subject, folder)
        for number in range(rounds):
            found[OURS].add(*render_ours(prepared, task, number))
            for peer in peers if subject.view else ():
                if peer not in missing:
                    _add_peer(found, missing, peer, folder, task)
    return found


def _add_peer(found: dict[str, Measured], missing: set[str], peer: str, folder: Path, task: Task) -> None:
    try:
        cpu_s, picture, name = render_peer(peer, folder, task)
    except MissingPeer as error:
        missing.add(peer)
        print(f"{peer}: left out: {error}", flush=True)
        return
    found.setdefault(peer, Measured(name)).add(cpu_s, picture)


def show_speed(tasks: Iterable[Task], peers: Iterable[str], rounds: int) -> None:
    """Samples per CPU second."""
    rows = []
    for task in tasks:
        found = measure(task, peers, rounds)
        ours = task.megasamples / found[OURS].median_s
        for peer, measured in found.items():
            rate = task.megasamples / measured.median_s
            ratio = "" if peer == OURS else f"{ours / rate:.2f}"
            targets = _show_targets(SPEED_TARGETS.get((task.scene, peer)))
            rows.append((str(task), measured.name, f"{rate:.3f}", ratio, *targets, f"{measured.mean:.4f}"))
    print_table(("scene", "renderer", "Msamples / CPU s", "ours / its", "must", "goal", "mean"), rows)


def show_equal_error(rounds: int) -> None:
    """CPU seconds until the mean squared error is TARGET_MSE: error falls as 1 / time, or faster."""
    needed = {}
    rows = []
    for peer, measured in measure(EQUAL_ERROR, ["mitsuba"], rounds).items():
        mse = float(np.mean([error(picture) for picture in measured.pictures]))
        needed[peer] = measured.median_s * mse / TARGET_MSE
        ratio = "" if peer == OURS else f"{needed[peer] / needed[OURS]:.2f}"
        targets = _show_targets(None if peer == OURS else ERROR_TARGETS)
        rows.append((measured.name, f"{mse:.3g}", f"{measured.median_s:.2f}", f"{needed[peer]:.2f}", ratio, *targets))
    print_table(
        (f"{EQUAL_ERROR}", "MSE", "CPU s", f"CPU s to MSE {TARGET_MSE:g}", "its / ours", "must", "goal"),
        rows,
        f"{EQUAL_ERROR.samples} samples, Mitsuba's multijitter sampler; the light and its border are left out.",
    )


def error(picture: Any) -> float:
    """Mean squared error against the reference, without the light and its border: they alias differently."""
    reference = np.load(scenes.references() / "cornell_256x256_d6_4096spp.npy").astype(np.float64)
    light = reference.max(axis=2) > LIGHT_RADIANCE
    grown = np.logical_or.reduce([np.roll(light, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    return float(((picture - reference) ** 2)[~grown].mean())


def show_threads(tasks: Iterable[Task], rounds: int) -> None:
    """Wall time of one thread by that of two, in turns."""
    rows = []
    for task in tasks:
        subject = scenes.SUBJECTS[task.scene]()
        settings = msgspec.structs.replace(task.settings(0), samples=max(1, task.samples // 2))
        with bare.PreparedScene(subject.scene, subject.files) as prepared:
            render_one = prepared.bind(settings)
            walls = [[_wall_s(render_one, settings, threads) for threads in (1, 2)] for _ in range(rounds)]
        one_s, two_s = (statistics.median(pair[i] for pair in walls) for i in range(2))
        ratio = statistics.median(one / two for one, two in walls)
        rows.append((str(task), f"{one_s:.2f}", f"{two_s:.2f}", f"{ratio:.2f}", *_show_targets(THREAD_TARGETS)))
    print_table(("scene", "1 thread, wall s", "2 threads, wall s", "speed-up", "must", "goal"), rows)


def _wall_s(render_one: bare.RenderBucket, settings: RenderSettings, threads: int) -> float:
    begin = time.perf_counter()
    bare.render_frame(render_one, settings, threads)
    return time.perf_counter() - begin


def _show_targets(targets: tuple[float, float] | None) -> tuple[str, str]:
    return (f"{targets[0]:.2f}", f"{targets[1]:.2f}") if targets else ("", "")


def choose_tasks(names: Iterable[str]) -> list[Task]:
    """The tasks of these scenes, as far as their files are here."""
    wanted = [task for task in TASKS if task.scene in names]
    for task in wanted:
        if not scenes.is_here(task.scene):
            print(f"{task.scene}: left out: its files are not in DR_DATA")
    return [task for task in wanted if scenes.is_here(task.scene)]


def main(
    peers: str = ",".join(PEERS), scene_names: str = typer.Option("cornell,sponza,demo", "--scenes"), rounds: int = 3
) -> None:
    """Prints three tables."""
    print(describe())
    warm_up(lambda text: None)
    tasks = choose_tasks(scene_names.split(","))
    show_speed(tasks, [peer for peer in peers.split(",") if peer], rounds)
    if "mitsuba" in peers and any(task.scene == "cornell" for task in tasks):
        show_equal_error(rounds)
    if len(os.sched_getaffinity(0)) > 1:
        show_threads(tasks, rounds)


if __name__ == "__main__":
    typer.run(main)
