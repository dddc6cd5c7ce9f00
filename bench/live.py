"""How soon a farm notices what happens to it, and how busy it stays: real clients and servers, most without kernels.

    python -m bench.farm --part live        python -m bench.live [--only straggler] [--rounds 5]

Each figure stands beside its must, as median and worst of the rounds. What a test of faults measures anyway is taken
from there (FAULTS_MEASURED). Times are from what happened to the line of the client's log that tells of it, as read by
another process.
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
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import psutil
import typer

from bench.delay import MUST_RTT_S, MUST_SHARE, measure_delay
from bench.machine import children_cpu_seconds, describe
from bench.table import print_table
from dr.protocol.messages import Availability
from tests.support.farm import ROOT, serving, write_scene
from tests.support.fault_farm import LOUD, MEASURED, SERVER, Client, FaultFarm, Here, Line, Process
from tests.support.spawner import SpawnerProcess, Subscriber, free_ports

TURNTABLE, DEMO = ROOT / "examples" / "turntable.scene.toml", ROOT / "examples" / "demo.scene.toml"
TIMED = "bench.timed_server"
SAMPLES = 16
STRAGGLER_S, SLOWER, FAST, THREADS = 20.0, 10.0, 3, 2
PICTURE = (1280, 720)
FRAMES, FRAME_S = 20, 2.0
PATIENCE = {"backoff_first_s": 0.2, "backoff_last_s": 0.5, "deaths": 1000}  # of a spawner whose server we kill
JOURNAL_TILES, TILE = 2000, 32

# The tests of faults whose measures we take.
FAULTS = (
    "tests/farm/test_faults.py::test_a_killed_server_is_noticed_at_once_and_its_buckets_are_rendered_by_others",
    "tests/farm/test_faults.py::test_a_frozen_server_is_given_up_and_when_it_wakes_it_does_no_harm_and_joins_again",
    "tests/farm/test_faults.py::test_a_server_whose_python_hangs_is_noticed_by_pings_although_its_connection_lives",
    "tests/farm/test_faults.py::test_a_busy_server_names_its_holder_and_is_joined_at_once_when_that_one_says_bye",
    "tests/farm/test_faults.py::test_the_next_client_has_the_server_of_one_that_is_killed",
    "tests/farm/test_network_faults.py::test_a_server_behind_a_cut_cable_is_given_up_and_joins_again_when_it_is_healed",
)
_TILE = re.compile(r" tile \d+ from \S+ after ([\d.]+) s")


@dataclass
class Figure:
    """What was measured, once per round. A must of None: none was promised. `most`: the must is an upper limit."""

    what: str
    must: float | None
    unit: str = "ms"
    found: list[float] = field(default_factory=list)
    most: bool = True

    def row(self) -> tuple[str, ...]:
        worst = max(self.found) if self.most else min(self.found)
        must = "" if self.must is None else f"{self.must:g}"
        return (
            self.what,
            must,
            f"{statistics.median(self.found):.4g}",
            f"{worst:.4g}",
            self.unit,
            str(len(self.found)),
        )


@dataclass(frozen=True)
class Place(Here):
    """This machine, with servers of another kind and variables more."""

    server: str = SERVER
    variables: Mapping[str, str] = field(default_factory=dict)

    def start(
        self, *words: object, module: str = "tests.support.fake_dr", extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        module = self.server if module == SERVER else module
        return super().start(*words, module=module, extra={**self.variables, **(extra or {})})


def tiles_of(lines: list[Line]) -> list[tuple[float, float]]:
    """When each tile was told, and how many seconds of a thread it took."""
    return [(line.at_s, float(match[1])) for line in lines if (match := _TILE.search(line.text))]


# Stragglers


def measure_straggler(rounds: int, folder: Path) -> list[Figure]:
    """Three servers and one that is ten times slower, against a farm of the same speed in which nobody ever waits."""
    width, height = PICTURE
    rate = width * height * SAMPLES / (STRAGGLER_S * THREADS * (FAST + 1 / SLOWER))
    name = f"frame time by the ideal, {FAST} servers x {THREADS} threads and one {SLOWER:g}x slower"
    whole = Figure(name, 1.03, "x")
    alone = Figure("the same without the slower one, by its own ideal", None, "x")
    for number in range(rounds):
        for figure, rates in ((whole, [rate] * FAST + [rate / SLOWER]), (alone, [rate] * FAST)):
            seconds = time_frame(folder / f"{number}-{len(rates)}", rates)
            figure.found.append(seconds / (width * height * SAMPLES / (THREADS * sum(rates))))
    return [whole, alone]


def time_frame(folder: Path, rates: list[float]) -> float:
    """Seconds from the first server that joins to the end of the frame."""
    folder.mkdir()
    here = Place(folder, server=TIMED)
    with FaultFarm(folder) as farm:
        servers = [farm.serve(f"s{i}", host=here, threads=THREADS, rate=rate) for i, rate in enumerate(rates)]
        words = ("--size", "x".join(map(str, PICTURE)), "--samples", SAMPLES, "-v")
        client = farm.render(*(server.place for server in servers), words=words)
        client.facts()
        begun = client.voice.wait(" joined ").at_s
        return client.voice.wait("frame 0 is finished").at_s - begun


# Joining


def measure_announced(rounds: int, folder: Path) -> list[Figure]:
    """A spawner's server is killed, and started again by the spawner: from its announcement to its first bucket."""
    figure = Figure("a server that is announced ready has joined the render", 50)
    (port,) = free_ports(1)
    spawned = folder / "spawner"
    spawned.mkdir()
    with SpawnerProcess(spawned, [port], patience=PATIENCE) as spawner, FaultFarm(folder) as farm:
        boot = spawner.wait_ready()[port].boot
        one = farm.serve("one")
        place = Place(folder, variables={"DR_ANNOUNCE_PORT": str(spawner.wanted_announce)})
        client = farm.render(one.place, f"127.0.0.1:{port}", host=place, bucket_s=0.05)
        client.voice.wait("joined", f"renders with {os.cpu_count()} threads")
        with Subscriber(spawner.wanted_announce) as subscriber:
            for _ in range(rounds):
                spawner.server(port).kill()
                client.voice.wait("lost ")
                boot = subscriber.wait_state(port, Availability.READY, but=boot).boot
                ready_s = time.monotonic()
                joined_s = client.voice.wait("joined", f"renders with {os.cpu_count()} threads").at_s
                figure.found.append(1e3 * (joined_s - ready_s))
        client.facts()
    return [figure]


def measure_redialled(rounds: int, folder: Path) -> list[Figure]:
    """A server that nobody announces comes to a place that the client knows."""
    figure = Figure("a server that nobody announces has joined, from when it listens", 1000)
    with FaultFarm(folder) as farm:
        one, two = farm.serve("one"), farm.serve("two")
        client = farm.render(one.place, two.place, bucket_s=0.05)
        client.join_s(one, 0.0)
        for _ in range(rounds):
            client.lose_s(one, one.kill())
            one = farm.serve_again(one)
            figure.found.append(1e3 * client.join_s(one, one.listens_s))
        client.facts()
    return [figure]


def measure_edit(rounds: int, folder: Path) -> list[Figure]:
    """A server is taken out of dr.toml and put back, by hand."""
    joined, left = Figure("a server that is put into dr.toml has joined", 1000), Figure("one taken out has left", 1000)
    file = folder / "dr.toml"
    with FaultFarm(folder) as farm:
        one, two = farm.serve("one"), farm.serve("two")

        def write(enabled: bool) -> float:
            rows = [f"{{ host = '127.0.0.1', port = {each.port}, enabled = true }}" for each in (one, two)]
            rows[1] = rows[1] if enabled else rows[1].replace("true", "false")
            file.write_text(f"servers = [{', '.join(rows)}]\n")
            return time.monotonic()

        write(True)
        client = farm.render(words=(*LOUD, "--settings", file), bucket_s=0.05)
        client.join_s(two, 0.0)
        for _ in range(rounds):
            left.found.append(1e3 * (-write(False) + two.voice.wait("lease ended").at_s))
            joined.found.append(1e3 * client.join_s(two, write(True)))
        client.facts()
    return [joined, left]


# Failures


def measure_faults(rounds: int, folder: Path) -> list[Figure]:
    """Runs tests of faults, which check what they promise and tell how long it took."""
    found: dict[str, Figure] = {}
    for number in range(rounds):
        told = folder / f"faults-{number}.jsonl"
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow", *FAULTS]
        done = subprocess.run(words, cwd=ROOT, env=os.environ | {MEASURED: str(told)}, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the tests of faults failed:\n{done.stdout[-3000:]}")
        for line in map(json.loads, told.read_text().splitlines()):
            scale, unit = (1e3, "ms") if line["unit"] == "s" else (1.0, line["unit"])
            figure = found.setdefault(line["what"], Figure(line["what"], scale * line["must"], unit))
            figure.found.append(scale * line["found"])
    return list(found.values())


# Journals


def measure_resume(rounds: int, folder: Path) -> list[Figure]:
    """A client is killed with so many tiles in its journal; another one goes on."""
    fresh = Figure("from the launch of `dr render` to the first tile, server at hand", None, "s")
    again = Figure(f"the same with --resume and a journal of {JOURNAL_TILES} tiles", None, "s")
    size = Figure("size of that journal", None, "MB")
    for number in range(rounds):
        home = folder / str(number)
        home.mkdir()
        with FaultFarm(home) as farm:
            server = farm.serve("one", threads=4)
            first_s, journal_bytes, again_s = resume_on(farm, server.place, home)
        fresh.found.append(first_s)
        size.found.append(journal_bytes / 1e6)
        again.found.append(again_s)
    return [again, fresh, size]


def resume_on(farm: FaultFarm, place: str, home: Path) -> tuple[float, int, float]:
    """Seconds to the first tile, bytes of the journal when the client was killed, seconds to the first tile again."""
    gate, rows = home / "go", 20
    scene = write_scene(home, held={"from_y": rows * TILE, "until": str(gate)})
    size = f"{JOURNAL_TILES // rows * TILE}x{(rows + 1) * TILE}"
    picture = ("--size", size, "--samples", 64, "--bucket-size", TILE, "--bucket-order", "rows")
    words = (scene, *picture, "-v", "--server", place, "--no-local")
    with ExitStack() as stack:
        begun = time.monotonic()
        first = Client(farm.here, words, home / "a.exr")
        stack.callback(first.close)
        first_s = first.voice.wait(" tile ").at_s - begun
        first.voice.wait(f"tile {JOURNAL_TILES - 1} from")
        first.kill()
        gate.touch()
        journal_bytes, begun = (home / "a.exr.journal").stat().st_size, time.monotonic()
        again = Client(farm.here, (*words, "--resume"), home / "a.exr")
        stack.callback(again.close)
        again_s = again.voice.wait(" tile ").at_s - begun
        again.facts()
    if len(tiles := tiles_of(again.voice.lines)) > JOURNAL_TILES // 2:
        sys.exit(f"expected {JOURNAL_TILES} tiles to need no rendering, found {len(tiles)} rendered")
    return first_s, journal_bytes, again_s


RENDER = """\
import sys, dr
scene, out, samples, keep = sys.argv[1:]
image = dr.render(scene, samples=int(samples), local_servers=1, threads=1, outputs=[out] if keep == "yes" else [])
if keep == "no":
    image.save(out)
"""


def measure_journal(rounds: int, folder: Path) -> list[Figure]:
    """CPU time of everything, in turns: with a journal, and without one, saved by hand in the end."""
    figure = Figure("CPU time of a render with its journal, beyond one without", 1, "%")
    scale = Figure("CPU time of that render", None, "s")
    for _ in range(rounds):
        cost = {}
        for keep in ("no", "yes"):
            before = children_cpu_seconds()
            out = folder / f"{keep}.exr"
            words = [sys.executable, "-c", RENDER, str(DEMO), str(out), "32", keep]
            subprocess.run(words, check=True, cwd=ROOT, capture_output=True)
            cost[keep] = children_cpu_seconds() - before
        if (folder / "yes.exr").read_bytes() != (folder / "no.exr").read_bytes():
            sys.exit("expected the same picture with a journal and without one, found two")
        figure.found.append(100 * (cost["yes"] / cost["no"] - 1))
        scale.found.append(cost["no"])
    return [figure, scale]


# Busy threads


def measure_sequence(rounds: int, folder: Path) -> list[Figure]:
    """Frames of 2 s on one server: how much of its threads' time, from the first tile to the last, renders."""
    fake = Figure(
        f"busy threads, {FRAMES} frames of {FRAME_S:g} s, timed waits, {THREADS} threads", 98, "%", most=False
    )
    real = Figure("the same with kernels on turntable, 1 thread", 98, "%", most=False)
    length = Figure("seconds a frame there", None, "s")
    for number in range(rounds):
        home = folder / str(number)
        home.mkdir()
        fake.found.append(100 * share_of(run_timed_sequence(home), THREADS))
        tiles = run_real_sequence(home)
        real.found.append(100 * share_of(tiles, 1))
        length.found.append((tiles[-1][0] - tiles[0][0]) / FRAMES)
    return [fake, real, length]


def share_of(tiles: list[tuple[float, float]], threads: int) -> float:
    begun = min(at_s - seconds for at_s, seconds in tiles)
    return sum(seconds for _, seconds in tiles) / (threads * (max(at_s for at_s, _ in tiles) - begun))


def run_timed_sequence(home: Path) -> list[tuple[float, float]]:
    rate = 640 * 360 * SAMPLES / (FRAME_S * THREADS)
    with FaultFarm(home) as farm:
        server = farm.serve("one", host=Place(home, server=TIMED), threads=THREADS, rate=rate)
        words = ("--size", "640x360", "--samples", SAMPLES, "-v", "--frames", f"1-{FRAMES}", "-o", home / "a.##.exr")
        return run_sequence(farm, server.place, home, words, TURNTABLE)


def run_real_sequence(home: Path) -> list[tuple[float, float]]:
    with FaultFarm(home) as farm, serving(home, "--threads", 1, module="workers.server") as place:
        words = ("--size", "200x200", "--samples", 64, "-v", "--frames", f"1-{FRAMES}", "-o", home / "b.##.exr")
        return run_sequence(farm, place, home, words, TURNTABLE)


def run_sequence(
    farm: FaultFarm, place: str, home: Path, words: tuple[object, ...], scene: Path
) -> list[tuple[float, float]]:
    client = Process(farm.here.start("render", scene, *words, "--server", place, "--no-local"))
    try:
        if client.end(within_s=600.0):
            sys.exit(client.voice.text()[-2000:])
    finally:
        client.close()
    return tiles_of(client.voice.lines)


def measure_far(rounds: int, folder: Path) -> list[Figure]:
    figure = Figure("busy threads, buckets of 20 ms, 50 ms round trip", 100 * MUST_SHARE, "%", most=False)
    for number in range(rounds):
        home = folder / str(number)
        home.mkdir()
        figure.found.append(100 * measure_delay(home, MUST_RTT_S, 4, 10.0).share)
    return [figure]


class Case(StrEnum):
    STRAGGLER = "straggler"
    ANNOUNCED = "announced"
    REDIALLED = "redialled"
    EDIT = "edit"
    FAULTS = "faults"
    RESUME = "resume"
    JOURNAL = "journal"
    SEQUENCE = "sequence"
    FAR = "far"


MEASURES: Mapping[Case, Callable[[int, Path], list[Figure]]] = {
    Case.STRAGGLER: measure_straggler,
    Case.ANNOUNCED: measure_announced,
    Case.REDIALLED: measure_redialled,
    Case.EDIT: measure_edit,
    Case.FAULTS: measure_faults,
    Case.RESUME: measure_resume,
    Case.JOURNAL: measure_journal,
    Case.SEQUENCE: measure_sequence,
    Case.FAR: measure_far,
}


def measure_live(rounds: int, only: list[Case] | None = None) -> None:
    """Prints one table. Says, too, how busy the machine was with other things."""
    rows = []
    for case in only or MEASURES:
        with tempfile.TemporaryDirectory() as name:
            print(f"{case} ...", file=sys.stderr, flush=True)
            rows += [figure.row() for figure in MEASURES[case](rounds, Path(name))]
            print(rows[-1], file=sys.stderr, flush=True)
    load = psutil.getloadavg()[0]
    print_table(("a farm that lives", "must", "median", "worst", "", "rounds"), rows, f"Load at the end: {load:.1f}.")


def main(
    only: Annotated[list[Case] | None, typer.Option(help="Repeatable; default: all.")] = None, rounds: int = 5
) -> None:
    print(describe())
    measure_live(rounds, only)


if __name__ == "__main__":
    typer.run(main)
