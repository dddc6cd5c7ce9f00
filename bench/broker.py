"""How many buckets a second the render client can hand out, and what one costs it. Renders nothing.

    python -m bench.broker [--buckets N] [--json]

`machine`: the broker alone, tile after tile. `wire`: the same with codec and envelope, bytes in and bytes out. `farm`:
the client's own loop over real sockets, against servers in another process that answer at once with empty pixels. The
target is 5,000 buckets a second at 20 us of the client's CPU for its own code; a ratio above 1 is better than that.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable
from multiprocessing.connection import Connection
from typing import Any

import zmq

from bench.machine import describe as describe_machine
from dr.broker import commands, events
from dr.broker.buckets import Order, cut_frame
from dr.broker.job import Frame
from dr.broker.state import Broker
from dr.protocol.codec import encode
from dr.protocol.envelope import join, split_client, split_peer, split_server
from dr.protocol.messages import (
    Bucket,
    Channel,
    ClientMessage,
    Grant,
    Hello,
    Ping,
    Pong,
    Ready,
    ServerMessage,
    Setup,
    Tile,
    Welcome,
)
from dr.protocol.tiles import tile_bytes
from dr.protocol.version import PROTOCOL_VERSION
from dr.scene.model import RenderSettings

TARGET_BUCKETS_PER_S = 5000
TARGET_CPU_US = 20.0
KERNELS, MANIFEST, LEASE = "bench", b"m" * 32, b"lease--8"
CHANNELS = (Channel.BEAUTY, Channel.ALPHA)
SIZE = 32


def make_frame(buckets: int) -> Frame:
    """At least this many buckets of 32 x 32 pixels."""
    columns = 200
    settings = RenderSettings(width=SIZE * columns, height=SIZE * -(-buckets // columns), samples=16)
    works = cut_frame(settings, SIZE, Order.ROWS)
    return Frame(settings=settings, channels=CHANNELS, buckets=works, manifest=MANIFEST, assets={MANIFEST: 1})


class InstantServer:
    """Answers every bucket with a tile of zeros as soon as it hears of it."""

    def __init__(self, index: int, threads: int) -> None:
        self.boot = b"b%07d" % index
        self.threads = threads

    def hear(self, message: ClientMessage) -> list[ServerMessage]:
        match message:
            case Hello():
                welcome = Welcome(
                    version=PROTOCOL_VERSION, kernels=KERNELS, boot=self.boot, name="instant", threads=self.threads
                )
                return [welcome, Grant(lease=LEASE, threads=self.threads)]
            case Setup(epoch=epoch):
                return [Ready(lease=LEASE, epoch=epoch)]
            case Bucket(epoch=epoch, buckets=buckets):
                return [
                    Tile(lease=LEASE, epoch=epoch, bucket=work, channels=list(CHANNELS), seconds=0.02)
                    for work in buckets
                ]
            case Ping(n=n):
                return [Pong(n=n)]
        return []


def bench_machine(frame: Frame, servers: int, threads: int, wire: bool) -> float:
    """CPU seconds per bucket of the broker, with codec and envelope if `wire`."""
    broker = Broker(kernels=KERNELS, seed=b"bench")
    farm: dict[bytes, InstantServer] = {}
    waiting: deque[tuple[bytes, ServerMessage]] = deque()
    pixels = bytes(tile_bytes(frame.buckets[0], CHANNELS))
    spent = 0.0
    said = broker.handle(events.FrameRequested(frame), 0.0)
    for index in range(servers):
        said += broker.handle(events.ServerAdded(f"ipc:///{index}"), 0.0)
        said += broker.handle(events.DialSucceeded(f"ipc:///{index}"), 0.0)
    while broker.finished is None:
        for command in said:
            if isinstance(command, commands.Dial):
                farm[command.peer] = InstantServer(len(farm), threads)
            elif isinstance(command, commands.Send):
                waiting.extend((command.peer, answer) for answer in farm[command.peer].hear(command.message))
        peer, answer = waiting.popleft()
        payload = (pixels,) if isinstance(answer, Tile) else ()
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
    return spent / len(frame.buckets)


class NoFiles:
    """The loop asks for no asset here."""

    def read(self, digest: bytes, offset: int, n: int) -> bytes:
        raise AssertionError("no server asks for an asset")


class NoServers:
    """No local server of the loop's own."""

    def watched(self) -> Iterable[int]:
        return ()


class Counter:
    """The loop's observer, which merges nothing."""

    tiles = 0

    def tile_arrived(self, tile: commands.MergeTile) -> None:
        self.tiles += 1

    def notice_given(self, notice: commands.Notify) -> None:
        pass

    def turn_ended(self) -> None:
        pass


def serve_all(endpoints: list[str], threads: int, ready: Connection) -> None:
    """The other process: one gate per server."""
    poller, servers = zmq.Poller(), {}
    for index, endpoint in enumerate(endpoints):
        gate = zmq.Context.instance().socket(zmq.ROUTER)
        gate.bind(endpoint)
        servers[gate] = InstantServer(index, threads)
        poller.register(gate, zmq.POLLIN)
    pixels = bytes(SIZE * SIZE * 4 * 4)
    ready.send("listening")
    while True:
        for gate, _ in poller.poll():
            peer, frames = split_peer(gate.recv_multipart())
            for answer in servers[gate].hear(split_client(frames)[0]):
                gate.send_multipart(join(answer, (pixels,) if isinstance(answer, Tile) else (), peer))


def bench_farm(frame: Frame, servers: int, threads: int) -> tuple[float, float]:
    """(CPU seconds per bucket of the client's process, buckets a second) through real sockets."""
    from dr.client.loop import Loop

    with tempfile.TemporaryDirectory() as folder:
        endpoints = [f"ipc://{folder}/{index}" for index in range(servers)]
        ours, theirs = mp.Pipe()
        process = mp.get_context("spawn").Process(target=serve_all, args=(endpoints, threads, theirs), daemon=True)
        process.start()
        ours.recv()
        observer: Any = Counter()
        loop = Loop(Broker(kernels=KERNELS, seed=os.urandom(16)), NoFiles(), NoServers(), observer)  # type: ignore[arg-type]
        first = [events.FrameRequested(frame), *map(events.ServerAdded, endpoints)]
        began, began_cpu = time.perf_counter(), time.process_time()
        loop.run(first, threading.Event())
        seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        process.kill()
        process.join()
    assert observer.tiles == len(frame.buckets)
    return cpu / len(frame.buckets), len(frame.buckets) / seconds


def run_all(buckets: int) -> list[dict[str, object]]:
    frame, rows = make_frame(buckets), []
    for name, wire in (("machine", False), ("wire", True)):
        for servers, threads in ((1, 2), (8, 16), (1000, 4)):
            cpu = bench_machine(frame, servers, threads, wire)
            rows.append(describe(f"{name}, {servers} servers x {threads} threads", cpu, 1 / cpu))
    for servers, threads in ((1, 2), (8, 16)):
        rows.append(describe(f"farm, {servers} servers x {threads} threads", *bench_farm(frame, servers, threads)))
    return rows


def describe(name: str, cpu_s: float, per_s: float) -> dict[str, object]:
    return {
        "case": name,
        "cpu_us_per_bucket": round(cpu_s * 1e6, 2),
        "buckets_per_s": round(per_s),
        "cpu_against_target": round(TARGET_CPU_US / (cpu_s * 1e6), 2),
        "rate_against_target": round(per_s / TARGET_BUCKETS_PER_S, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--buckets", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = run_all(options.buckets)
    machine = describe_machine()
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}))
        return
    print(machine)
    for row in rows:
        print(f"{row['case']:42} {row['cpu_us_per_bucket']:>8} us  {row['buckets_per_s']:>8} buckets/s", end="")
        print(f"  {row['cpu_against_target']:>6} x CPU  {row['rate_against_target']:>6} x rate of the target")


if __name__ == "__main__":
    main()
