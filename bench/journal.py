"""What keeping every finished tile costs a render, and how soon a kept one is back. Renders nothing.

    python -m bench.journal [--seconds S] [--folder DIR]

Tiles of 32 x 32 pixels with all six channels, 48 KiB each, come at a steady rate, as from a farm. The caller's thread
is the one that hands out buckets: what `append` takes there, nobody else gets. A render is the CPU time of the threads
that would render such tiles, of 64 samples, at the rate that the choice of bucket sizes begins with; the journal may
cost 1 % of it. The disk is that of the folder, by default the one for temporary files.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.machine import describe
from bench.table import print_table
from dr.broker.buckets import SAMPLES_PER_S, Order, cut_frame
from dr.broker.rest import cut_rest
from dr.image.framebuffer import Framebuffer
from dr.image.journal import Binding, Journal
from dr.protocol.messages import BucketWork, Channel
from dr.protocol.tiles import pack, tile_shape
from dr.scene.model import RenderSettings

RATES_PER_S = (200, 2000)
SIZE, SAMPLES = 32, 64
TILE_CPU_S = SIZE * SIZE * SAMPLES / SAMPLES_PER_S  # of a render thread
CHANNELS = tuple(Channel)
MUST_SHARE = 0.01
COLUMNS = 200
REST_BUCKETS = 20_000
MUST_CUT_S = 0.5


class Cost(NamedTuple):
    """Seconds of one run: CPU time in all, at most and of the other thread, and wall time of run, close and remove."""

    append_s: float
    longest_s: float
    writer_s: float
    wall_s: float
    close_s: float


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.journal")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--folder", type=Path, default=None, help="where the journal is written")
    options = parser.parse_args(words)
    print(describe())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure_appends(Path(folder) / "bench.exr.journal", options.seconds)
        measure_resume(Path(folder) / "bench.exr.journal", RATES_PER_S[-1])
    measure_rest()


def measure_appends(path: Path, seconds: float) -> None:
    rows = []
    for rate in RATES_PER_S:
        picture, works = make_frame(round(rate * seconds))
        payload = make_payload(works[0])
        with Journal.begin(path, make_binding(picture)) as journal:
            cost = time_appends(journal, works, payload, rate)
            trouble = journal.trouble or "none"
        path.unlink()
        count, size = len(works), sum(map(len, payload))
        share = (cost.append_s + cost.writer_s) / (count * TILE_CPU_S)
        rows.append(
            (
                f"{rate} tiles/s",
                f"{count / cost.wall_s * size / 1e6:.0f}",
                f"{1e6 * cost.append_s / count:.1f}",
                f"{1e3 * cost.longest_s:.2f}",
                f"{1e6 * cost.writer_s / count:.0f}",
                f"{100 * cost.append_s / cost.wall_s:.2f}",
                f"{100 * share:.3f}",
                f"{100 * MUST_SHARE:g}",
                f"{1e3 * (cost.append_s + cost.writer_s) / count / MUST_SHARE:.0f}",
                f"{1e3 * cost.close_s:.0f}",
                trouble,
            )
        )
    print_table(
        (
            "journal",
            "MB/s",
            "append us",
            "longest ms",
            "writer us",
            "% of caller",
            "% of render",
            "must",
            "from ms",
            "close ms",
            "trouble",
        ),
        rows,
        "`append`: CPU time of a call, and the longest call by the clock. `writer`: CPU time per tile of the thread\n"
        "that writes. `% of caller`: of the wall time of the thread that calls. `from`: tiles that take more CPU time\n"
        "than that pay less than `must` for the journal. `close`: until all is on the disk.",
    )


def time_appends(journal: Journal, works: Sequence[BucketWork], payload: tuple[memoryview, ...], rate: float) -> Cost:
    """Appends at a steady rate; a caller that is late goes on at once."""
    append_s = longest_s = 0.0
    began, process, own = time.perf_counter(), time.process_time(), time.thread_time()
    for number, work in enumerate(works):
        wait_s = began + number / rate - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        before, clock = time.thread_time(), time.perf_counter()
        journal.append(work, payload)
        append_s += time.thread_time() - before
        longest_s = max(longest_s, time.perf_counter() - clock)
    wall_s, closing = time.perf_counter() - began, time.perf_counter()
    journal.close()
    close_s = time.perf_counter() - closing
    writer_s = time.process_time() - process - (time.thread_time() - own)
    return Cost(append_s, longest_s, writer_s, wall_s, close_s)


def measure_resume(path: Path, count: int) -> None:
    """Tiles back out of the journal and into the picture, from the system's memory of the file."""
    picture, works = make_frame(count)
    payload = make_payload(works[0])
    with Journal.begin(path, make_binding(picture)) as journal:
        for work in works:
            journal.append(work, payload)
    framebuffer = Framebuffer(picture, CHANNELS)
    began = time.perf_counter()
    with Journal.resume(path, make_binding(picture)) as journal:
        found = sum(1 for _ in merge_all(journal, framebuffer))
        seconds = time.perf_counter() - began
    megabytes = path.stat().st_size / 1e6
    row = (f"{found} tiles", f"{megabytes:.0f}", f"{seconds:.3f}", f"{megabytes / seconds:.0f}")
    print_table(("resume", "MB", "s", "MB/s"), [row], "Until every tile is checked and merged.")


def merge_all(journal: Journal, framebuffer: Framebuffer) -> Iterator[BucketWork]:
    for work, layers in journal.tiles():
        framebuffer.merge(work, layers)
        yield work


def measure_rest() -> None:
    """Buckets that are left of a large frame after a render with another bucket size."""
    picture, buckets = make_frame(REST_BUCKETS)
    rows = []
    for size in (16, 23, 32):
        done = cut_frame(picture, size, Order.RANDOM)[:REST_BUCKETS]
        began = time.process_time()
        rest = cut_rest(buckets, done)
        seconds = time.process_time() - began
        rows.append((f"{size} x {size}", f"{len(done)}", f"{len(rest)}", f"{seconds:.2f}", f"{MUST_CUT_S:g}"))
    print_table(("done before", "tiles", "left", "s", "must"), rows, f"{len(buckets)} buckets of {SIZE} x {SIZE}.")


def make_frame(buckets: int) -> tuple[RenderSettings, tuple[BucketWork, ...]]:
    """A frame of whole buckets, at least so many of them, and the first ones."""
    rows = -(-buckets // COLUMNS)
    picture = RenderSettings(width=SIZE * COLUMNS, height=SIZE * rows, samples=SAMPLES)
    return picture, cut_frame(picture, SIZE, Order.SPIRAL)[:buckets]


def make_payload(work: BucketWork) -> tuple[memoryview, ...]:
    return pack(np.random.default_rng(1).normal(size=tile_shape(work, CHANNELS)).astype(np.float32))


def make_binding(picture: RenderSettings) -> Binding:
    return Binding(manifest=bytes(32), settings=picture, channels=CHANNELS, kernels="bench")


if __name__ == "__main__":
    main()
