"""The bytes of every message of protocol version 1. A change breaks farms whose machines are not updated together."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from dr.errors import ProtocolError
from dr.protocol.codec import decode_client, decode_server, encode
from dr.protocol.envelope import join_announcement, split_announcement
from dr.protocol.messages import (
    Announcement,
    Availability,
    Beat,
    Bucket,
    BucketWork,
    Bye,
    Cancel,
    Channel,
    Chunk,
    ClientMessage,
    Drain,
    ErrorMessage,
    Failed,
    Get,
    Grant,
    Hello,
    Here,
    Kind,
    NoLease,
    Ping,
    Pong,
    Progress,
    Ready,
    ServerMessage,
    ServerStatus,
    Setup,
    Tile,
    Welcome,
)
from dr.protocol.version import PROTOCOL_VERSION
from dr.scene.model import Region, RenderSettings

GOLDEN = Path(__file__).with_name("golden_v1.txt")
LEASE, BOOT, DIGEST = b"lease--8", b"boot---8", bytes(range(32))
EPOCH = 0x0123456789AB
WORK = BucketWork(7, 32, 48, 16, 8, 16, 64)

SETTINGS = RenderSettings(
    width=640, height=360, samples=32, max_depth=6, seed=9, region=Region(1, 2, 3, 4), camera="Main", filter_radius=2.0
)

CLIENT: dict[str, ClientMessage] = {
    "hello": Hello(version=1, kind=Kind.CONTROL, name="anna", want=True, kernels="abc"),
    "setup": Setup(
        lease=LEASE,
        epoch=EPOCH,
        manifest=DIGEST,
        manifest_bytes=300,
        settings=SETTINGS,
        channels=[Channel.BEAUTY, Channel.ALPHA],
    ),
    "chunk": Chunk(lease=LEASE, epoch=EPOCH, digest=DIGEST, offset=1 << 20),
    "chunk missing": Chunk(lease=LEASE, epoch=EPOCH, digest=DIGEST, offset=0, missing="gone"),
    "bucket": Bucket(lease=LEASE, epoch=EPOCH, buckets=[WORK]),
    "cancel": Cancel(lease=LEASE, epoch=EPOCH, buckets=[7, 70000]),
    "ping": Ping(n=5),
    "bye": Bye(lease=LEASE),
    "bye restart": Bye(lease=LEASE, restart=True),
    "error": ErrorMessage(code="protocol", text="no"),
}

SERVER: dict[str, ServerMessage] = {
    "here": Here(version=1, boot=BOOT),
    "welcome": Welcome(
        version=1,
        kernels="abc",
        boot=BOOT,
        name="node-3",
        threads=8,
        cpu="x",
        busy=True,
        holder="anna",
        queue_pos=2,
        announce=20205,
        siblings=[20204, 20206],
    ),
    "status": ServerStatus(
        state=Availability.BUSY,
        holder="anna",
        nodes=[2, 3],
        release="0.1.0",
        buckets=700,
        buckets_per_s=12.5,
        memory_bytes=1 << 30,
        up_s=60.0,
    ),
    "status guard": ServerStatus(state=Availability.READY, guard="keys"),
    "status disk": ServerStatus(state=Availability.READY, clock_s=1.75e9, cache_free_bytes=1 << 40),
    "grant": Grant(lease=LEASE, threads=8),
    "get": Get(lease=LEASE, epoch=EPOCH, digest=DIGEST, offset=0, n=1 << 20),
    "ready": Ready(lease=LEASE, epoch=EPOCH),
    "progress": Progress(lease=LEASE, epoch=EPOCH, text="tree"),
    "tile": Tile(lease=LEASE, epoch=EPOCH, bucket=WORK, channels=[Channel.BEAUTY], seconds=0.25),
    "failed": Failed(lease=LEASE, epoch=EPOCH, bucket=7, error="no"),
    "failed frame": Failed(lease=LEASE, epoch=EPOCH, error="no", fatal=True),
    "beat": Beat(lease=LEASE, queued=3, running=2),
    "pong": Pong(n=5),
    "drain": Drain(lease=LEASE),
    "nolease": NoLease(),
    "error": ErrorMessage(code="version", text="no"),
}

ANNOUNCED = Announcement(version=1, port=20204, boot=BOOT, state=Availability.BUSY, holder="anna")


def golden(side: str) -> dict[str, str]:
    """Name of a message to its bytes in hexadecimal, as the file has them."""
    lines = (line.split() for line in GOLDEN.read_text().splitlines() if not line.startswith("#"))
    return {" ".join(words[1:-1]): words[-1] for words in lines if words[0] == side}


@pytest.mark.parametrize("name", CLIENT)
def test_what_a_client_says_has_these_bytes(name: str) -> None:
    header = golden("client")[name]
    assert encode(CLIENT[name]).hex() == header
    assert decode_client(bytes.fromhex(header)) == CLIENT[name]


@pytest.mark.parametrize("name", SERVER)
def test_what_a_server_says_has_these_bytes(name: str) -> None:
    header = golden("server")[name]
    assert encode(SERVER[name]).hex() == header
    assert decode_server(bytes.fromhex(header)) == SERVER[name]


def test_an_announcement_has_these_bytes() -> None:
    body = bytes.fromhex(golden("spawner")["announcement"])
    assert join_announcement("h0st", ANNOUNCED) == [b"server.h0st.20204", body]
    assert split_announcement([b"server.h0st.20204", body]) == ANNOUNCED


@pytest.mark.parametrize(
    "frames", [[], [b"t"], [b"t", b""], [b"t", b"\x80"], [b"t", b"\x01"], [b"t", b"\xc1"], [b"t"] * 3]
)
def test_what_is_no_announcement_is_refused_in_one_line(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match=r"^expected .* found .*$"):
        split_announcement(frames)


def test_every_message_is_pinned() -> None:
    pinned = {type(message) for message in [*CLIENT.values(), *SERVER.values()]}
    assert pinned == {*get_args(ClientMessage), *get_args(ServerMessage)}
    assert (set(golden("client")), set(golden("server"))) == (set(CLIENT), set(SERVER))
    assert PROTOCOL_VERSION == 1


def test_a_field_that_a_later_version_adds_is_ignored() -> None:
    pong = bytes.fromhex(golden("server")["pong"])
    assert pong[0] == 0x82  # a map of two
    assert decode_server(b"\x83" + pong[1:] + b"\xa5later\x91\xc0") == Pong(n=5)


def test_a_message_in_the_wrong_direction_is_refused() -> None:
    with pytest.raises(ProtocolError, match="found a message named 'ping'"):
        decode_server(encode(Ping(n=1)))
