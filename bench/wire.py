"""What tiles cost between a server's gate and a client's ROUTER, with and without keys. Renders nothing.

    python -m bench.wire [--rounds 5] [--seconds 1.0] [--joins 40]

Real processes over loopback: gate, link, ZAP handler, messages and envelope are the farm's own; servers answer each
bucket at once with a tile of ready pixels. CPU time is read thread by thread: libzmq encrypts in its I/O threads.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar
from unittest.mock import patch

import numpy as np
import typer
import zmq
from msgspec import Struct

from bench.machine import describe
from bench.table import print_table
from bench.wire_server import CHANNELS, LEASE, Server, Spent, bucket, pixels_of, security_of, spent
from dr.broker.events import ConnectionLost, DialRefused, DialSucceeded
from dr.client.link import Change, Link
from dr.keys.changes import export_farm, import_farm, init_keys
from dr.keys.folder import key_places
from dr.keys.security import Security
from dr.protocol.envelope import Payload, join, split_server
from dr.protocol.messages import Bucket, Hello, ServerMessage, Tile, Welcome
from dr.protocol.tiles import tile_bytes, unpack
from dr.protocol.version import PROTOCOL_VERSION

MUST_MB_PER_S = 400.0  # raw tiles with keys
SIDES = (32, 64, 256)  # pixels of a square tile; the last one is three frames of 1 MiB
CREDIT = 8  # tiles that a client has asked each server for
PATIENCE_S = 60
SERVERS = 2  # of each kind
IO_SIDE = 64  # pixels of the tiles on which I/O threads are compared

T = TypeVar("T")


class Flow(Struct):
    """What a stream of tiles came to."""

    tiles: int
    tile_bytes: int
    wall_s: float
    client: Spent
    servers: list[Spent]

    @property
    def mb(self) -> float:
        return self.tiles * self.tile_bytes / 1e6


class Joins(Struct):
    """Connections, one after another: the time of each from the dial to the server's word, the CPU time of all."""

    walls_s: list[float]
    client: Spent
    server: Spent


# What a table says of a flow. `us` is per tile; servers' time is that of all of them together.


def mb_per_s(flow: Flow) -> float:
    return flow.mb / flow.wall_s


def tiles_per_s(flow: Flow) -> float:
    return flow.tiles / flow.wall_s


def client_us(flow: Flow) -> float:
    return flow.client.total_s / flow.tiles * 1e6


def servers_us(flow: Flow) -> float:
    return sum(server.total_s for server in flow.servers) / flow.tiles * 1e6


def client_max(flow: Flow) -> float:
    """MB/s at which the client's busiest thread would fill a CPU of its own."""
    return flow.mb / flow.client.busiest_s


def server_max(flow: Flow) -> float:
    """The same of one server."""
    return flow.mb / sum(server.busiest_s for server in flow.servers)


class Client:
    """A link to some servers, and no broker: it asks for the next tile when one has come."""

    def __init__(self, security: Security, io_threads: int = 1) -> None:
        with patch.object(zmq, "Context", partial(zmq.Context, io_threads)):
            self.link = Link(security)
        self.poller = zmq.Poller()
        for source in self.link.sources():
            self.poller.register(source, zmq.POLLIN)

    def connect(self, server: Server) -> bytes | None:
        """Dials, says hello, is welcome: the server's routing id. None: it refused the key."""
        peer = b"\x01" + os.urandom(8)
        self.link.dial(server.endpoint, peer)
        if isinstance(self._change(), DialRefused):
            return None
        self.link.send(peer, join(Hello(version=PROTOCOL_VERSION, name="bench")))
        while not any(isinstance(said, Welcome) for _, said, _ in self._hear()):
            pass
        return peer

    def stream(self, servers: Sequence[Server], side: int, seconds: float) -> Flow:
        """Tiles for about so long, after a first round that is not counted."""
        peers = list(filter(None, map(self.connect, servers)))
        for peer in peers:
            for number in range(CREDIT):
                self._ask(peer, number, side)
        self._take(CREDIT * len(peers), side)
        before, theirs = spent(), [server.spent() for server in servers]
        tiles, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            tiles += self._take(CREDIT * len(peers), side)
        wall_s, after = time.perf_counter() - began, spent()
        served = [server.spent() - before for server, before in zip(servers, theirs, strict=True)]
        return Flow(tiles, tile_bytes(bucket(0, side), CHANNELS), wall_s, after - before, served)

    def joins(self, server: Server, count: int) -> Joins:
        before, theirs = spent(), server.spent()
        walls_s = [self._join(server) for _ in range(count)]
        return Joins(walls_s, spent() - before, server.spent() - theirs)

    def _join(self, server: Server) -> float:
        began = time.perf_counter()
        self.connect(server)
        wall_s = time.perf_counter() - began
        self.link.hang_up(server.endpoint)
        return wall_s

    def close(self) -> None:
        self.link.close()

    def _ask(self, peer: bytes, number: int, side: int) -> None:
        self.link.send(peer, join(Bucket(lease=LEASE, epoch=1, buckets=[bucket(number, side)])))

    def _take(self, count: int, side: int) -> int:
        """At least so many tiles, each of which brings the next one; how many they were. The last one is looked at."""
        found = 0
        while found < count:
            for peer, message, payload in self._hear():
                if isinstance(message, Tile):
                    pixels = unpack(message.bucket, message.channels, payload)
                    self._ask(peer, message.bucket.id, side)
                    found += 1
        if not np.array_equal(pixels, unpack(bucket(0, side), CHANNELS, pixels_of(side))):
            sys.exit("expected the pixels that the server sent, found others")
        return found

    def _hear(self) -> Iterator[tuple[bytes, ServerMessage, Payload]]:
        """What the next turn of the loop brings."""
        self._wait()
        for frames in self.link.messages():
            yield bytes(frames[0]), *split_server(frames[1:])
        for change in self.link.changes():
            if not isinstance(change, DialSucceeded):
                sys.exit(f"expected a connection that stands, found {change}")

    def _change(self) -> Change:
        """How a dial went."""
        while True:
            for change in self.link.changes():
                if not isinstance(change, ConnectionLost):
                    return change
            self._wait()

    def _wait(self) -> None:
        if not self.poller.poll(PATIENCE_S * 1000):
            sys.exit(f"expected an answer of the server within {PATIENCE_S} s, found none")


class Farm(Struct):
    """Servers that are all open or all want keys, and a client of theirs with the keys of a folder."""

    name: str
    keys: Path | None
    servers: list[Server]

    def stream(self, count: int, side: int, seconds: float, io_threads: int = 1) -> Flow:
        with self._client(io_threads) as client:
            return client.stream(self.servers[:count], side, seconds)

    def joins(self, count: int) -> Joins:
        with self._client(1) as client:
            return client.joins(self.servers[0], count)

    @contextmanager
    def _client(self, io_threads: int) -> Iterator[Client]:
        client = Client(security_of(self.keys), io_threads)
        try:
            yield client
        finally:
            client.close()


@contextmanager
def farms(folder: Path) -> Iterator[tuple[Farm, Farm, Farm]]:
    """Two servers without keys, two with, and these for a client that they refuse; idle until they are dialled."""
    keys, stranger = make_keys(folder)
    with ExitStack() as stack:

        def start(keys: Path | None) -> Server:
            server = Server(keys)
            stack.callback(server.stop)
            return server

        without, with_keys = ([start(place) for _ in range(SERVERS)] for place in (None, keys))
        yield Farm("open", None, without), Farm("keys", keys, with_keys), Farm("refused", stranger, with_keys)


def make_keys(folder: Path) -> tuple[Path, Path]:
    """The folder of a farm's keys, and that of a client which knows this farm and is not admitted."""
    farm, stranger, public = folder / "farm", folder / "stranger", folder / "public.key"
    init_keys(key_places({}, farm), "bench")
    export_farm(key_places({}, farm), public, public=True, force=False)
    import_farm(key_places({}, stranger), public, force=False)
    return farm, stranger


def print_flows(farms: Sequence[Farm], rounds: int, seconds: float) -> None:
    rows = []
    for side in SIDES:
        flows = in_turns({farm.name: partial(farm.stream, 1, side, seconds) for farm in farms}, rounds)
        plain = median(flows["open"], mb_per_s)
        rows += [flow_row(f"{side}x{side}, {name}", flows[name], plain) for name in flows]
    print_table(
        ("tiles", "KiB", "MB/s", "by open", "must", "tiles/s", "client us", "server us", "client max", "server max"),
        rows,
        f"One server, {CREDIT} tiles outstanding, all {len(CHANNELS)} channels; medians of {rounds} in turns.\n"
        "`us`: CPU time per tile, all threads of the process. `max`: MB/s at which the busiest thread of that side\n"
        "would fill a CPU of its own; here the threads of both sides share the machine's.",
    )


def flow_row(label: str, flows: Sequence[Flow], plain: float) -> tuple[str, ...]:
    rate = median(flows, mb_per_s)
    must = f"{MUST_MB_PER_S:.0f}" if label.endswith("keys") else ""
    others = (median(flows, value) for value in (tiles_per_s, client_us, servers_us, client_max, server_max))
    kib = f"{flows[0].tile_bytes / 1024:.0f}"
    return (label, kib, f"{rate:.0f}", f"{rate / plain:.2f}", must, *(f"{value:.0f}" for value in others))


def print_io_threads(farm: Farm, rounds: int, seconds: float) -> None:
    cases = {
        f"{count} server{'s' * (count > 1)}, {io} I/O thread{'s' * (io > 1)}": partial(
            farm.stream, count, IO_SIDE, seconds, io
        )
        for count in (1, SERVERS)
        for io in (1, 2)
    }
    values = (mb_per_s, client_us, client_max)
    rows = [
        (name, *(f"{median(flows, value):.0f}" for value in values)) for name, flows in in_turns(cases, rounds).items()
    ]
    print_table(
        ("with keys, by I/O threads of the client", "MB/s", "client us", "client max"),
        rows,
        f"{IO_SIDE}x{IO_SIDE} tiles. A connection belongs to one I/O thread: a second one helps from two servers on.",
    )


def print_joins(farms: Sequence[Farm], rounds: int, count: int) -> None:
    found = in_turns({farm.name: partial(farm.joins, count) for farm in farms}, rounds)
    print_table(
        ("dial to welcome", "ms", "worst", "client us", "server us"),
        [join_row(*case, count) for case in found.items()],
        f"{rounds * count} connections each, from the dial to `welcome`, or to the refusal of a key not admitted.\n"
        "`us`: CPU time of each, all threads, its end included; medians.",
    )


def join_row(name: str, batches: Sequence[Joins], count: int) -> tuple[str, ...]:
    walls = [1000 * wall_s for batch in batches for wall_s in batch.walls_s]
    ours = median(batches, lambda batch: batch.client.total_s) / count * 1e6
    theirs = median(batches, lambda batch: batch.server.total_s) / count * 1e6
    return name, f"{statistics.median(walls):.2f}", f"{max(walls):.2f}", f"{ours:.0f}", f"{theirs:.0f}"


def in_turns(cases: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, measure in cases.items():
            found[name].append(measure())
    return found


def median(found: Sequence[T], value: Callable[[T], float]) -> float:
    return statistics.median(map(value, found))


def cipher() -> str:
    """Which library does the arithmetic of CURVE here."""
    mapped = Path("/proc/self/maps").read_text()
    library = "libsodium" if "sodium" in mapped else "tweetnacl, or a libsodium inside libzmq"
    return f"libzmq {zmq.zmq_version()}, {library}"


def main(
    rounds: int = 5,
    seconds: Annotated[float, typer.Option(help="Of each stream of tiles.")] = 1.0,
    joins: Annotated[int, typer.Option(help="Dials of each round.")] = 40,
) -> None:
    """Prints a table for each part."""
    print(f"{describe()}; {cipher()}")
    with tempfile.TemporaryDirectory() as name, farms(Path(name)) as (without, with_keys, refused):
        print_flows((without, with_keys), rounds, seconds)
        print_io_threads(with_keys, rounds, seconds)
        print_joins((without, with_keys, refused), rounds, joins)


if __name__ == "__main__":
    typer.run(main)
