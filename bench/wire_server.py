"""Servers that answer each bucket at once with a tile of ready pixels, and what that costs them. Part of bench.wire.

Real processes on loopback: gate, ZAP handler, messages and envelope are the farm's own. CPU time is read thread by
thread, because libzmq encrypts in its I/O threads.
"""

from __future__ import annotations

import logging
import multiprocessing as mp
import os
import time
from collections.abc import Iterator
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from msgspec import Struct

from dr.keys.folder import load_keys
from dr.keys.security import Security
from dr.keys.zap import Zap
from dr.protocol.envelope import Payload
from dr.protocol.messages import Bucket, BucketWork, Channel, Hello, ServerMessage, Tile, Welcome
from dr.protocol.tiles import pack, tile_shape
from dr.protocol.version import PROTOCOL_VERSION
from workers.server.events import MessageArrived
from workers.server.gate import Gate

CHANNELS = list(Channel)
LEASE = b"lease--8"


class Spent(Struct):
    """CPU seconds of one process, by thread: the loop, libzmq's I/O threads, pyzmq's collector of sent frames."""

    by_thread: dict[str, float]

    def __sub__(self, other: Spent) -> Spent:
        return Spent({thread: s - other.by_thread.get(thread, 0.0) for thread, s in self.by_thread.items()})

    @property
    def total_s(self) -> float:
        return sum(self.by_thread.values())

    @property
    def busiest_s(self) -> float:
        return max(self.by_thread.values())


class Server:
    """A child process that serves, and how to ask it for its CPU time."""

    def __init__(self, keys: Path | None) -> None:
        self.pipe, theirs = mp.Pipe()
        self.process = mp.get_context("spawn").Process(target=serve, args=(keys, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that its end ends a wait
        self.endpoint: str = self.pipe.recv()

    def spent(self) -> Spent:
        self.pipe.send("how much?")
        found: Spent = self.pipe.recv()
        return found

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def serve(keys: Path | None, pipe: Connection) -> None:
    """Answers buckets with tiles, and whatever comes through the pipe with the CPU time spent so far."""
    context: zmq.Context[Any] = zmq.Context()
    security = security_of(keys)
    logging.disable()  # each refused key is a line
    zap = Zap(context, security.ring.admit_client)
    gate = Gate(context, "tcp://127.0.0.1:0", security)
    pipe.send(gate.endpoint)
    poller = zmq.Poller()
    for source in (gate.socket, gate.monitor, zap.socket, pipe.fileno()):
        poller.register(source, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if pipe.fileno() in ready:
            pipe.recv()
            pipe.send(spent())
        zap.answer(time.monotonic())
        gate.drain_monitor()
        gate.send_waiting()
        while isinstance(event := gate.receive(), MessageArrived):
            for message, payload in answers(event):
                gate.send(event.peer, message, payload)


def answers(event: MessageArrived) -> Iterator[tuple[ServerMessage, Payload]]:
    if isinstance(event.message, Hello):
        boot = os.getpid().to_bytes(8)
        yield Welcome(version=PROTOCOL_VERSION, kernels="bench", boot=boot, name="bench", threads=1), ()
    elif isinstance(event.message, Bucket):
        for work in event.message.buckets:
            yield Tile(lease=LEASE, epoch=1, bucket=work, channels=CHANNELS, seconds=0.02), pixels_of(work.width)


@cache
def pixels_of(side: int) -> Payload:
    """The same noise in each process."""
    shape = tile_shape(bucket(0, side), CHANNELS)
    return pack(np.random.default_rng(side).random(shape, dtype=np.float32))


def security_of(keys: Path | None) -> Security:
    return Security(ring=load_keys({}, keys)) if keys else Security()


def bucket(number: int, side: int) -> BucketWork:
    return BucketWork(number, 0, 0, side, side, 0, 16)


def spent() -> Spent:
    """Of this process so far, in the nanoseconds of the scheduler; the usual clock ticks 100 times a second."""
    tasks = Path("/proc/self/task").iterdir()
    return Spent({task.name: int((task / "schedstat").read_text().split()[0]) / 1e9 for task in tasks})
