"""Servers that answer every bucket at once with empty pixels, and a client that drops them. Renders nothing.

Knows the farm's words and, for a process of its own, one gate with as many endpoints as there are servers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from math import inf
from multiprocessing.connection import Connection
from typing import Any

import zmq

from dr.broker import commands
from dr.broker.buckets import Order, cut_frame
from dr.broker.job import Frame
from dr.client.descriptors import allow_many
from dr.client.local import LocalEvent
from dr.protocol.envelope import join, split_client, split_peer
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

KERNELS, MANIFEST, LEASE = "bench", b"m" * 32, b"lease--8"
CHANNELS = (Channel.BEAUTY, Channel.ALPHA)
SIZE, COLUMNS = 32, 200
BUCKETS_PER_S = 5000  # of the farm that they stand for: what servers say of a bucket's time
BACKLOG = 4096  # connections that a gate has not accepted yet


def make_frame(buckets: int) -> Frame:
    """At least this many buckets of 32 x 32 pixels."""
    settings = RenderSettings(width=SIZE * COLUMNS, height=SIZE * -(-buckets // COLUMNS), samples=16)
    works = cut_frame(settings, SIZE, Order.ROWS)
    return Frame(settings=settings, channels=CHANNELS, buckets=works, manifest=MANIFEST, assets={MANIFEST: 1})


class InstantServer:
    """Answers every bucket with a tile of zeros as soon as it hears of it."""

    def __init__(self, index: int, threads: int, servers: int = 1) -> None:
        """One of so many alike."""
        self.boot = b"b%07d" % index
        self.threads = threads
        self.bucket_s = servers * threads / BUCKETS_PER_S

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
                    Tile(lease=LEASE, epoch=epoch, bucket=work, channels=list(CHANNELS), seconds=self.bucket_s)
                    for work in buckets
                ]
            case Ping(n=n):
                return [Pong(n=n)]
        return []


def pixels_of(answer: ServerMessage) -> tuple[bytes, ...]:
    return (bytes(tile_bytes(answer.bucket, CHANNELS)),) if isinstance(answer, Tile) else ()


def serve_all(servers: int, threads: int, told: Connection) -> None:
    """The other process: one gate with an endpoint per server; a connection is a server. Tells the endpoints."""
    allow_many()
    gate: zmq.Socket[Any] = zmq.Context.instance().socket(zmq.ROUTER)
    gate.setsockopt(zmq.BACKLOG, BACKLOG)
    gate.setsockopt(zmq.SNDHWM, 0)
    endpoints = []
    for _ in range(servers):
        gate.bind("tcp://127.0.0.1:*")
        endpoints.append(gate.get_string(zmq.LAST_ENDPOINT).rstrip("\0"))
    told.send(endpoints)
    farm: dict[bytes, InstantServer] = {}
    while True:
        peer, frames = split_peer(gate.recv_multipart())
        server = farm.setdefault(peer, InstantServer(len(farm), threads, servers))
        for answer in server.hear(split_client(frames)[0]):
            gate.send_multipart(join(answer, pixels_of(answer), peer), copy=False)


class NoFiles:
    """The loop asks for no asset here."""

    def read(self, digest: bytes, offset: int, n: int) -> bytes:
        raise AssertionError("no server asks for an asset")


class NoLocalServers:
    """The loop starts no server here."""

    def watched(self) -> Iterable[int]:
        return ()

    def take(self, fd: int) -> list[LocalEvent]:
        raise AssertionError(f"no child writes to descriptor {fd}")

    def take_death(self, endpoint: str) -> list[LocalEvent]:
        return []


class NoRecruiter:
    """All servers are named beforehand."""

    def __init__(self) -> None:
        self.connected: Callable[[], Iterable[str]] | None = None
        self.endpoints: Mapping[str, bool] = {}

    def descriptors(self) -> Iterable[Any]:
        return ()

    def news(self, now: float) -> Iterable[Any]:
        return ()

    def notices(self) -> Iterable[str]:
        return ()

    def next_deadline(self) -> float:
        return inf

    def hear(self, endpoint: str, port: int) -> None:
        pass


class Counter:
    """The loop's observer, which merges nothing."""

    tiles = 0

    def tile_arrived(self, tile: commands.MergeTile) -> None:
        self.tiles += 1

    def frame_finished(self, frame: commands.FrameFinished) -> None:
        pass

    def notice_given(self, notice: commands.Notify) -> None:
        if notice.topic is commands.Topic.LOST:
            sys.exit(f"expected {notice.endpoint} to stay, found it lost: {notice.text}")

    def told(self, line: str) -> None:
        pass
