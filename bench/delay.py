"""How busy render threads are when every word between client and server takes its time. Knows no kernel.

    python -m bench.delay [--seconds 10] [--threads 4]

A real client and a real server whose buckets wait instead of computing, with a proxy between them that delays every
byte. The share comes from the tiles: the seconds that threads took for them, by those that they had.
"""

from __future__ import annotations

import re
import sys
import tempfile
from itertools import islice
from math import ceil, sqrt
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from bench.machine import describe
from bench.table import print_table
from tests.support.delay_proxy import far_away
from tests.support.fault_farm import FaultFarm, Line

BUCKET_S = 0.02
BUCKET_SIZE = 16  # pixels, of both sides
WARM_UP_S, REST_S = 1.0, 0.5  # left out: until the credit has adapted, and when buckets run out
MUST_SHARE = 0.95
RTTS_S = (0.0, 0.01, 0.05, 0.1)
MUST_RTT_S = 0.05  # up to here

_TILE = re.compile(r" tile \d+ from \S+ after ([\d.]+) s")


class Delayed(Struct, frozen=True, kw_only=True):
    """One render over a long way. `share`: of the seconds that render threads had, those in which they rendered."""

    rtt_s: float
    threads: int
    tiles: int  # that were counted
    bucket_s: float  # median, as the server's threads took it
    share: float


def measure_delay(folder: Path, rtt_s: float, threads: int, seconds: float) -> Delayed:
    """Renders buckets of BUCKET_S for about so many seconds on one server that is so far away."""
    side = BUCKET_SIZE * ceil(sqrt(seconds * threads / BUCKET_S))
    picture = ("--size", f"{side}x{side}", "--samples", 1, "--bucket-size", BUCKET_SIZE, "-v")
    with FaultFarm(folder) as farm:
        server = farm.serve("far", threads=threads)
        with far_away(server.place, rtt_s / 2) as place:
            client = farm.render(place, words=picture, bucket_s=BUCKET_S)
            client.release()
            client.facts()
    return read_tiles(client.voice.lines, rtt_s, threads)


def read_tiles(lines: list[Line], rtt_s: float, threads: int) -> Delayed:
    """What the log of a client tells."""
    found = [(line.at_s, float(match[1])) for line in lines if (match := _TILE.search(line.text))]
    begin, end = found[0][0] + WARM_UP_S, found[-1][0] - REST_S
    counted = sorted(seconds for at_s, seconds in found if begin < at_s <= end)
    if not counted:
        sys.exit(f"expected tiles for more than {WARM_UP_S + REST_S:g} s, found {found[-1][0] - found[0][0]:.1f} s")
    return Delayed(
        rtt_s=rtt_s,
        threads=threads,
        tiles=len(counted),
        bucket_s=next(islice(counted, len(counted) // 2, None)),
        share=sum(counted) / (threads * (end - begin)),
    )


def main(
    seconds: Annotated[float, typer.Option(help="of each render, about")] = 10.0,
    threads: Annotated[int, typer.Option(help="render threads of the server")] = 4,
) -> None:
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(number)) for number in range(len(RTTS_S))]
        for folder in folders:
            folder.mkdir()
        found = [measure_delay(folder, rtt_s, threads, seconds) for folder, rtt_s in zip(folders, RTTS_S, strict=True)]
    print_table(
        ("busy render threads", "share", "must", "bucket ms", "tiles"),
        [
            (
                f"round trip {1000 * each.rtt_s:g} ms",
                f"{each.share:.1%}",
                f"{MUST_SHARE:.0%}" if each.rtt_s <= MUST_RTT_S else "",
                f"{1000 * each.bucket_s:.1f}",
                str(each.tiles),
            )
            for each in found
        ],
        f"One server with {threads} threads, buckets that wait for {1000 * BUCKET_S:g} ms.\n"
        f"The first {WARM_UP_S:g} s and the last {REST_S:g} s are left out.",
    )


if __name__ == "__main__":
    typer.run(main)
