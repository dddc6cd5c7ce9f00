"""How many buckets a second the render client can hand out, and what one costs it. Renders nothing.

    python -m bench.broker [--buckets N] [--rounds N] [--profile] [--json]

`machine`: the broker alone, tile after tile. `wire`: the same with codec and envelope, bytes in and bytes out. `farm`:
the client's own loop over TCP, in a process of its own, against servers in another process that answer at once with
empty pixels. The target is 5,000 buckets a second at 20 us of the client's CPU for its own code, and 50 MB for 1,000
connected servers; a ratio above 1 is better than that.

MB are the client's resident memory when every server has granted its lease, less what it was just before the first
dial: libzmq's connections, the monitor's facts and all that the broker and the link know of a server. What the kernel
keeps in its socket buffers is not ours and not counted.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import multiprocessing as mp
import os
import pstats
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from bench.instant import (
    BUCKETS_PER_S,
    KERNELS,
    Counter,
    InstantServer,
    NoFiles,
    NoLocalServers,
    NoRecruiter,
    make_frame,
    pixels_of,
    serve_all,
)
from bench.machine import describe as describe_machine
from bench.table import print_table
from dr.broker import commands, events
from dr.broker.job import Frame
from dr.broker.state import Broker
from dr.client.descriptors import allow_many
from dr.keys.security import Security
from dr.protocol.codec import encode
from dr.protocol.envelope import Payload, join, split_server
from dr.protocol.messages import ServerMessage, Tile

TARGET_BUCKETS_PER_S = BUCKETS_PER_S
TARGET_CPU_US = 20.0
TARGET_MB, CROWD = 50.0, 1000
FARMS = ((1, 2), (8, 16), (CROWD, 4))
MACHINES = FARMS
PROFILED = 25  # lines of a profile


def bench_machine(frame: Frame, servers: int, threads: int, wire: bool) -> float:
    """CPU seconds per tile of the broker, with codec and envelope if `wire`."""
    broker = Broker(kernels=KERNELS, seed=b"bench")
    farm: dict[bytes, InstantServer] = {}
    waiting: deque[tuple[bytes, ServerMessage]] = deque()
    spent, tiles = 0.0, 0
    said = broker.handle(events.FrameRequested(frame), 0.0)
    for index in range(servers):
        said += broker.handle(events.ServerAdded(f"ipc:///{index}"), 0.0)
        said += broker.handle(events.DialSucceeded(f"ipc:///{index}"), 0.0)
    while broker.finished is None:
        for command in said:
            if isinstance(command, commands.Dial):
                farm[command.peer] = InstantServer(len(farm), threads, servers)
            elif isinstance(command, commands.Send):
                waiting.extend((command.peer, answer) for answer in farm[command.peer].hear(command.message))
        peer, answer = waiting.popleft()
        payload: Payload = pixels_of(answer)
        header = encode(answer)
        began = time.thread_time()
        if wire:
            answer, payload = split_server([header, *payload])
        said = broker.handle(events.MessageReceived(peer, answer, payload), 1.0)
        if wire:
            for command in said:
                if isinstance(command, commands.Send):
                    join(command.message, command.payload, command.peer)
        spent += time.thread_time() - began
        tiles += isinstance(answer, Tile)
    return spent / tiles  # of the last buckets there are several


class Found(NamedTuple):
    """What a client measured of itself: seconds of CPU per bucket, of the whole process and of the loop's thread."""

    cpu_s: float
    loop_cpu_s: float
    per_s: float
    connect_s: float  # from the first dial to the last lease
    connected_mb: float
    peak_mb: float  # while it rendered, beyond what it was before the first dial


class Requester(Counter):
    """Requests the frame once every server has granted its lease, and takes the time and the memory then."""

    def __init__(self, broker: Broker, frame: Frame, servers: int) -> None:
        self.broker, self.frame, self.servers = broker, frame, servers
        self.connected_mb = 0.0
        self.began = self.began_cpu = self.began_loop = 0.0

    def turn_ended(self) -> Iterable[events.Event]:
        if self.began or len(self.broker.fleet.holders) < self.servers:
            return ()
        gc.collect()
        self.connected_mb = resident_mb()
        self.began, self.began_cpu, self.began_loop = time.perf_counter(), time.process_time(), time.thread_time()
        return (events.FrameRequested(self.frame),)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def run_client(buckets: int, endpoints: list[str], profile: bool, told: Connection) -> None:
    """The client's process."""
    from dr.client.link import Link
    from dr.client.loop import Loop, Surroundings

    allow_many()
    frame, broker = make_frame(buckets), Broker(kernels=KERNELS, seed=os.urandom(16))
    observer: Any = Requester(broker, frame, len(endpoints))
    nobody: Any = NoLocalServers()
    no_files: Any = NoFiles()
    profiler = cProfile.Profile()
    with closing(Link(Security())) as link:
        loop = Loop(broker, no_files, Surroundings(link=link, servers=nobody, recruiter=NoRecruiter()), observer)
        gc.collect()
        alone_mb, dialled = resident_mb(), time.perf_counter()
        if profile:
            profiler.enable()
        loop.run(map(events.ServerAdded, endpoints), threading.Event())
        profiler.disable()
        ended, cpu_s, loop_s = time.perf_counter(), time.process_time(), time.thread_time()
        assert observer.tiles >= len(frame.buckets)  # the last ones may be split
        found = Found(
            cpu_s=(cpu_s - observer.began_cpu) / observer.tiles,
            loop_cpu_s=(loop_s - observer.began_loop) / observer.tiles,
            per_s=observer.tiles / (ended - observer.began),
            connect_s=observer.began - dialled,
            connected_mb=observer.connected_mb - alone_mb,
            peak_mb=peak_mb() - alone_mb,
        )
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(PROFILED)
    told.send(found)


def _hear(client: Connection) -> Found:
    """What the client tells. One that ends before has said on stderr why."""
    try:
        found: Found = client.recv()
    except EOFError:
        sys.exit("the client ended before the frame did")
    return found


def bench_farm(buckets: int, servers: int, threads: int, profile: bool = False) -> Found:
    """One render through real sockets. Client and servers are processes of their own."""
    context = mp.get_context("spawn")
    (ours, theirs), (here, there) = context.Pipe(), context.Pipe()
    farm = context.Process(target=serve_all, args=(servers, threads, theirs), daemon=True)
    farm.start()
    theirs.close()
    try:
        client = context.Process(target=run_client, args=(buckets, ours.recv(), profile, there), daemon=True)
        client.start()
        there.close()
        found = _hear(here)
        client.join()
    finally:
        farm.kill()
        farm.join()
    return found


def bench_farms(buckets: int, servers: int, threads: int, rounds: int) -> dict[str, object]:
    """The row of a farm: medians."""
    found = [bench_farm(buckets, servers, threads) for _ in range(rounds)]
    middle = Found(*map(statistics.median, zip(*found, strict=True)))
    row = describe(f"farm, {servers} servers x {threads} threads", middle.cpu_s, middle.per_s)
    return {
        **row,
        "loop_cpu_us_per_bucket": round(middle.loop_cpu_s * 1e6, 1),
        "worst_buckets_per_s": round(min(each.per_s for each in found)),
        "connect_s": round(middle.connect_s, 3),
        "connected_mb": round(middle.connected_mb, 1),
        "worst_connected_mb": round(max(each.connected_mb for each in found), 1),
        "peak_mb": round(middle.peak_mb, 1),
        "kb_per_server": round(middle.connected_mb * 1e3 / servers, 1),
    }


def run_all(buckets: int, rounds: int) -> list[dict[str, object]]:
    frame, rows = make_frame(buckets), []
    for name, wire in (("machine", False), ("wire", True)):
        for servers, threads in MACHINES:
            cpu = bench_machine(frame, servers, threads, wire)
            rows.append(describe(f"{name}, {servers} servers x {threads} threads", cpu, 1 / cpu))
    return rows + [bench_farms(buckets, servers, threads, rounds) for servers, threads in FARMS]


def describe(name: str, cpu_s: float, per_s: float) -> dict[str, object]:
    return {
        "case": name,
        "cpu_us_per_bucket": round(cpu_s * 1e6, 2),
        "buckets_per_s": round(per_s),
        "cpu_against_target": round(TARGET_CPU_US / (cpu_s * 1e6), 2),
        "rate_against_target": round(per_s / TARGET_BUCKETS_PER_S, 2),
    }


COLUMNS = {
    "case": "the client's loop",
    "cpu_us_per_bucket": "CPU us",
    "loop_cpu_us_per_bucket": "of its thread",
    "cpu_against_target": "x target",
    "buckets_per_s": "buckets/s",
    "worst_buckets_per_s": "worst",
    "rate_against_target": "x target",
    "connect_s": "connect s",
    "connected_mb": "MB",
    "kb_per_server": "KB a server",
    "peak_mb": "peak MB",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--buckets", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3, help="of each farm")
    parser.add_argument("--profile", action="store_true", help=f"of the loop with {CROWD} servers alone, on stderr")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.profile:
        print(bench_farm(options.buckets, CROWD, 4, profile=True))
        return
    rows, machine = run_all(options.buckets, options.rounds), describe_machine()
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}))
        return
    print(machine)
    print_table(
        tuple(COLUMNS.values()),
        [tuple(str(row.get(name, "")) for name in COLUMNS) for row in rows],
        f"Targets: {TARGET_CPU_US:g} us, {TARGET_BUCKETS_PER_S:,} buckets/s, {TARGET_MB:g} MB for {CROWD:,} servers.\n"
        "`MB`: of the client for its connections, `peak`: with what waits while it renders, too. Farms: median of\n"
        f"{options.rounds}. `connect s`: from the first dial to the last lease.",
    )


if __name__ == "__main__":
    main()
