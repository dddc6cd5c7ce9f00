"""What the farm costs: CPU time against one bare process; time to the first tile, to compile, to hear of servers.

    python -m bench.farm [--part overhead] [--part start] [--part cold] [--part announce] [--part live] [--rounds 5]
                         [--frame-s 30]

Everything is a child process that a user could have started: `dr render` with local servers, `dr warmup`, `dr spawner`
and bench.bare. CPU seconds are user + system of the whole tree of processes, as the kernel adds them up when it is
reaped.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.announce import measure_announce
from bench.live import measure_live
from bench.machine import children_cpu_seconds, describe
from bench.table import print_table

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "demo.scene.toml"
DR = Path(sys.executable).with_name("dr")
BUCKET = 32  # pixels, of both sides
SAMPLE_CHUNK = 16
CALIBRATION_SAMPLES = 2 * SAMPLE_CHUNK
ONE_PIXEL = {"samples": 1, "region": [0, 0, 1, 1]}  # renders nothing to speak of: the start-up
MUST_OVERHEAD, MUST_FIRST_TILE_S, GOAL_FIRST_TILE_S, MUST_COLD_S, GOAL_COLD_S = 0.03, 1.5, 0.8, 45.0, 20.0

ONE_QUAD = """\
[[materials]]
name = "white"
metallic = 0.0

[[objects]]
quad = { corner = [-1.0, -1.0, 0.0], edge_u = [2.0, 0.0, 0.0], edge_v = [0.0, 2.0, 0.0] }
material = "white"
"""

# What a client's log says on the way to the first tile. A line that repeats a server's own line carries its time, too.
SERVER_TIME = r"says: (\S+ \S+) \w+ "
MILESTONES = (
    ("a server listens", SERVER_TIME + "listening on"),
    ("the scene is surveyed, the client dials", r" dial "),
    ("the server has the scene's files", SERVER_TIME + "preparing "),
    ("the preparing process begins", "reading the scene"),
    ("the tree is being built", "building the tree"),
    ("the server is ready", r" joined "),
    ("the first tile has arrived", r" tile \d+ from "),
)


class Part(StrEnum):
    OVERHEAD = "overhead"
    START = "start"
    COLD = "cold"
    ANNOUNCE = "announce"
    LIVE = "live"


@dataclass(frozen=True)
class Cost:
    """What a tree of processes took."""

    cpu_s: float
    wall_s: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.cpu_s - other.cpu_s, self.wall_s - other.wall_s)


@dataclass(frozen=True)
class Farm:
    """How many servers on this machine, and how many render threads in all."""

    servers: int
    threads: int

    def __str__(self) -> str:
        return f"{self.servers} server{'s' * (self.servers > 1)}, {self.threads} thread{'s' * (self.threads > 1)}"


FARMS = (Farm(1, 1), Farm(1, 2), Farm(2, 2))


def run(words: Sequence[object], **environment: str) -> Cost:
    """Runs a command to its end. A failure ends the bench with what the command said."""
    cpu_s, wall_s = children_cpu_seconds(), time.perf_counter()
    done = subprocess.run(
        [str(word) for word in words], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    cost = Cost(children_cpu_seconds() - cpu_s, time.perf_counter() - wall_s)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return cost


def run_bare(out: Path, picture: dict[str, object], threads: int) -> Cost:
    words = [sys.executable, "-m", "bench.bare", DEMO, out, json.dumps(picture)]
    return run([*words, "--bucket-size", BUCKET, "--threads", threads])


def run_farm(out: Path, picture: dict[str, object], farm: Farm) -> Cost:
    return run([*dr_render(DEMO, out, picture), "--bucket-size", BUCKET, *farm_words(farm)])


def dr_render(scene: Path, out: Path, picture: dict[str, object]) -> list[object]:
    region = picture.get("region")
    words = [DR, "render", scene, "-o", out, "--samples", picture["samples"], "-q"]
    return [*words, "--region", ",".join(map(str, region))] if isinstance(region, list) else words


def farm_words(farm: Farm) -> list[object]:
    return ["--local-servers", farm.servers, "--threads", farm.threads]


def samples_for(frame_s: float, folder: Path) -> int:
    """Samples per pixel, whole chunks of them, with which the bare process renders for about `frame_s`."""
    start = run_bare(folder / "start.exr", ONE_PIXEL, 1)
    cost = run_bare(folder / "some.exr", {"samples": CALIBRATION_SAMPLES}, 1) - start
    return SAMPLE_CHUNK * max(1, round(frame_s / cost.cpu_s * CALIBRATION_SAMPLES / SAMPLE_CHUNK))


def measure_overhead(rounds: int, frame_s: float) -> None:
    """Pairs of farm and bare process, each with a pair of one pixel that tells the start-up."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = samples_for(frame_s, folder)
        rows = [measure_farm(farm, samples, rounds, folder) for farm in FARMS]
    print_table(
        ("overhead in CPU seconds", "bare", "start", "farm", "start", "with start", "without", "must", "wall"),
        rows,
        f"{DEMO.name}, {samples} samples, buckets of {BUCKET} pixels, median of {rounds} interleaved pairs.\n"
        "`start`: the same for one pixel. `wall`: the farm's wall time by the bare process's with as many threads,\n"
        "start-up included. The pictures are equal to the byte.",
    )


def measure_farm(farm: Farm, samples: int, rounds: int, folder: Path) -> tuple[str, ...]:
    picture: dict[str, object] = {"samples": samples}
    bare_out, farm_out = folder / "bare.exr", folder / "farm.exr"
    costs: list[tuple[Cost, Cost, Cost, Cost]] = []
    for _ in range(rounds):
        starts = run_bare(folder / "start.exr", ONE_PIXEL, farm.threads), run_farm(folder / "x.exr", ONE_PIXEL, farm)
        costs.append((run_bare(bare_out, picture, farm.threads), run_farm(farm_out, picture, farm), *starts))
        if bare_out.read_bytes() != farm_out.read_bytes():
            sys.exit(f"{farm}: expected the bare process's picture from the farm, found another")
    medians = [statistics.median(cost[i].cpu_s for cost in costs) for i in range(4)]
    whole = statistics.median(farm.cpu_s / bare.cpu_s - 1 for bare, farm, _, _ in costs)
    steady = statistics.median((f - f0).cpu_s / (b - b0).cpu_s - 1 for b, f, b0, f0 in costs)
    wall = statistics.median(farm.wall_s / bare.wall_s for bare, farm, _, _ in costs)
    bare_s, farm_s, bare_start, farm_start = (f"{seconds:.2f}" for seconds in medians)
    shares = (f"{whole:+.1%}", f"{steady:+.1%}", f"{MUST_OVERHEAD:.0%}", f"{wall:.2f}")
    return (str(farm), bare_s, bare_start, farm_s, farm_start, *shares)


def measure_start(rounds: int) -> None:
    """From the launch of `dr render` to the first tile, with warm kernels, milestone by milestone."""
    with tempfile.TemporaryDirectory() as name:
        quad = Path(name) / "quad.scene.toml"
        quad.write_text(ONE_QUAD)
        scenes = {"one quad": quad, DEMO.name: DEMO}
        found = {label: [time_start(scene, Path(name)) for _ in range(rounds)] for label, scene in scenes.items()}
    rows = [(text, *(_median_s(times, text) for times in found.values())) for text, _ in MILESTONES]
    print_table(
        ("seconds since `dr render` was launched", *found),
        [*rows, ("must", *[f"{MUST_FIRST_TILE_S}"] * 2), ("goal", *[f"{GOAL_FIRST_TILE_S}"] * 2)],
        f"Median of {rounds}, from the time stamps of the client's log; 1 sample, 1 server with 1 thread, buckets of\n"
        f"{BUCKET} pixels, so that the first tile itself costs next to nothing.",
    )


def _median_s(times: list[dict[str, float]], text: str) -> str:
    seen = [each[text] for each in times if text in each]
    return f"{statistics.median(seen):.2f}" if seen else "-"


def time_start(scene: Path, folder: Path) -> dict[str, float]:
    """Seconds from the launch to each milestone that the log shows."""
    with tempfile.TemporaryDirectory(dir=folder) as logs:
        launched = time.time()
        run([*dr_render(scene, folder / "start.exr", {"samples": 1}), *farm_words(Farm(1, 1))], DR_LOG_FOLDER=logs)
        log = next(Path(logs).glob("render-*.log")).read_text()
    return {text: seconds - launched for text, pattern in MILESTONES if (seconds := first_time(log, pattern))}


def first_time(log: str, pattern: str) -> float | None:
    """When the log says so for the first time, in seconds of the clock on the wall."""
    for line in log.splitlines():
        found = re.search(pattern, line)
        if found:
            stamp = found[1] if found.groups() else line[:23]
            return datetime.strptime(stamp.replace(",", "."), "%Y-%m-%d %H:%M:%S.%f").timestamp()
    return None


def measure_cold() -> None:
    """`dr warmup` with an empty folder for compiled kernels."""
    with tempfile.TemporaryDirectory() as folder:
        cold = run([DR, "warmup"], DR_KERNEL_CACHE=folder)
        warm = run([DR, "warmup"], DR_KERNEL_CACHE=folder)
    rows = [
        ("nothing compiled yet", f"{cold.wall_s:.1f}", f"{cold.cpu_s:.1f}", f"{MUST_COLD_S:g}", f"{GOAL_COLD_S:g}"),
        ("everything compiled", f"{warm.wall_s:.1f}", f"{warm.cpu_s:.1f}", "", ""),
    ]
    print_table(("`dr warmup`", "wall s", "CPU s", "must", "goal"), rows)


def check_sources(begun: float) -> None:
    """Ends the bench when the sources were edited meanwhile: some process compiled kernels again, unseen."""
    sources = [path for folder in ("dr", "workers") for path in (ROOT / folder).rglob("*.py")]
    edited = [path for path in sources if path.stat().st_mtime > begun]
    if edited:
        sys.exit(f"{edited[0].relative_to(ROOT)} was edited during the measurement, which is void; run it again")


def main(
    part: Annotated[list[Part] | None, typer.Option(help="Repeatable; default: all.")] = None,
    rounds: int = 5,
    frame_s: Annotated[float, typer.Option(help="CPU seconds of the frame that overhead is measured on.")] = 30.0,
) -> None:
    """Prints a table for each part."""
    print(describe())
    run([DR, "warmup"])
    begun = time.time()
    measures: dict[Part, Callable[[], None]] = {
        Part.OVERHEAD: lambda: measure_overhead(rounds, frame_s),
        Part.START: lambda: measure_start(rounds),
        Part.COLD: measure_cold,
        Part.ANNOUNCE: lambda: measure_announce(DR),
        Part.LIVE: lambda: measure_live(rounds),
    }
    for name, measure in measures.items():
        if name in (part or measures):
            measure()
            check_sources(begun)


if __name__ == "__main__":
    typer.run(main)
