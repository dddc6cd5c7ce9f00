"""Whatever a peer sends, the answer is a message or a ProtocolError of one line, at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.errors import ProtocolError
from dr.protocol.codec import decode_client, decode_server, encode
from dr.protocol.envelope import join, split_client, split_peer, split_server
from dr.protocol.messages import (
    Bucket,
    BucketWork,
    Cancel,
    Channel,
    Chunk,
    Get,
    Hello,
    Ping,
    Pong,
    Progress,
    Setup,
    Tile,
    Welcome,
)
from dr.protocol.version import HEADER_BYTES, MAX_PAYLOAD_FRAMES, PAYLOAD_FRAME_BYTES
from dr.scene.model import RenderSettings

LEASE, DIGEST = b"lease--8", b"d" * 32
WORK = BucketWork(7, 32, 48, 16, 8, 0, 64)
PICTURE = RenderSettings()
SAMPLES = [
    encode(Hello(version=1, want=True)),
    encode(Setup(lease=LEASE, epoch=3, manifest=DIGEST, manifest_bytes=9, settings=PICTURE, channels=["beauty"])),
    encode(Chunk(lease=LEASE, epoch=3, digest=DIGEST, offset=0)),
    encode(Bucket(lease=LEASE, epoch=3, buckets=[WORK] * 5)),
    encode(Cancel(lease=LEASE, epoch=3, buckets=[1, 2, 3])),
    encode(Welcome(version=1, kernels="k", boot=LEASE, name="n", threads=2, siblings=[1, 2])),
    encode(Get(lease=LEASE, epoch=3, digest=DIGEST, offset=0, n=5)),
    encode(Tile(lease=LEASE, epoch=3, bucket=WORK, channels=[Channel.BEAUTY], seconds=1.5)),
]
DECODERS = [decode_client, decode_server]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=40) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8) | st.binary(max_size=4), inner),
    max_leaves=6,
)
NAMES = ["hello", "setup", "bucket", "cancel", "chunk", "welcome", "grant", "get", "tile", "failed", "beat", "error"]
KEYS = ["t", "v", "l", "e", "b", "hash", "n", "offset", "settings", "channels", "codec", "seconds", "text", "siblings"]


def accepts(decode: Callable[[bytes], object], header: bytes) -> bool:
    """Whether the header is a message; anything but a message or a ProtocolError of one line fails the test."""
    try:
        decode(header)
    except ProtocolError as error:
        refusal = str(error)
    else:
        return True
    assert "\n" not in refusal
    assert 0 < len(refusal) < 400
    return False


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_random_bytes_are_refused_or_understood(header: bytes) -> None:
    for decode in DECODERS:
        accepts(decode, header)


@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_message_with_wrong_bytes_is_refused_or_understood(sample: bytes, changes: list[tuple[int, int]]) -> None:
    header = bytearray(sample)
    for place, byte in changes:
        header[place % len(header)] = byte
    for decode in DECODERS:
        accepts(decode, bytes(header))


@given(st.sampled_from(SAMPLES), st.integers(0, 400))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_message_that_is_cut_off_is_refused(sample: bytes, length: int) -> None:
    assert not any(accepts(decode, sample[: length % len(sample)]) for decode in DECODERS)


@given(st.sampled_from(NAMES), st.dictionaries(st.sampled_from(KEYS), values, max_size=8))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_fields_of_any_type_are_refused_or_understood(name: str, fields: dict[str, Any]) -> None:
    header = msgpack.packb({**fields, "t": name})
    for decode in DECODERS:
        accepts(decode, header)


HOSTILE = {
    "nothing": b"",
    "a map without a name": b"\x80",
    "deep nesting of lists": b"\x82\xa1t\xa4ping\xa1x" + b"\x91" * 60_000,
    "deep nesting of maps": b"\x81\xa1a" * 20_000,
    "a list of four billion": b"\x82\xa1t\xa4ping\xa1n\xdd\xff\xff\xff\xff",
    "a map of four billion": b"\xdf\xff\xff\xff\xff",
    "a string of four billion bytes": b"\x81\xdb\xff\xff\xff\xff",
    "bytes of four billion": b"\x82\xa1t\xa4ping\xa1n\xc6\xff\xff\xff\xff",
    "an extension": b"\x82\xa1t\xa4ping\xa1n\xc7\x04\x05abcd",
    "a timestamp": b"\x82\xa1t\xa4ping\xa1n\xd6\xff\x00\x00\x00\x01",
    "text that is no UTF-8": b"\x81\xa1t\xa2\xff\xfe",
    "a number as a key": b"\x81\x01\xa4ping",
    "two messages": encode(Ping(n=1)) * 2,
    "too long": encode(Ping(n=1)) + b"\xc0" * HEADER_BYTES,
    "not a number": b"\x82\xa1t\xa4ping\xa1n\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    "an unknown name": b"\x81\xa1t\xa4none",
    "5000 buckets": msgpack.packb({"t": "cancel", "l": LEASE, "e": 1, "b": [1] * 5000}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_quickly(name: str) -> None:
    began = time.process_time()
    assert not any(accepts(decode, HOSTILE[name]) for decode in DECODERS)
    assert time.process_time() - began < 0.1  # measured: below 1 ms, but for the nested ones


BAD_FIELDS = {
    "a sample range that begins within a chunk": {"b": [7, 0, 0, 16, 8, 8, 64]},
    "an empty sample range": {"b": [7, 0, 0, 16, 8, 64, 64]},
    "no width": {"b": [7, 0, 0, 0, 8, 0, 64]},
    "a bucket as wide as a frame": {"b": [7, 0, 0, 4096, 8, 0, 64]},
    "negative seconds": {"seconds": -1.0},
    "endless seconds": {"seconds": float("inf")},
    "seconds that are no number": {"seconds": float("nan")},
    "no channel": {"channels": []},
    "an unknown channel": {"channels": ["smell"]},
    "a short lease": {"l": b"short"},
    "an epoch of 49 bits": {"e": 1 << 48},
    "text for a number": {"e": "3"},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_tile_is_refused_for(name: str) -> None:
    tile = msgpack.unpackb(SAMPLES[-1])
    assert accepts(decode_server, msgpack.packb(tile))
    assert not accepts(decode_server, msgpack.packb({**tile, **BAD_FIELDS[name]}))


@pytest.mark.parametrize("channels", [["alpha", "beauty"], ["beauty", "beauty"]])
def test_a_setup_names_channels_once_and_in_the_order_of_tiles(channels: list[str]) -> None:
    setup = msgpack.unpackb(SAMPLES[1])
    assert not accepts(decode_client, msgpack.packb({**setup, "channels": channels}))


# Payload frames

TILE = Tile(lease=LEASE, epoch=3, bucket=WORK, channels=[Channel.BEAUTY])
TILE_BYTES = 16 * 8 * 3 * 4


def test_a_message_passes_the_wire_with_its_payload() -> None:
    frames = join(TILE, [b"p" * TILE_BYTES], peer=b"peer")
    peer, rest = split_peer(frames)
    assert (peer, *split_server(rest)) == (b"peer", TILE, (b"p" * TILE_BYTES,))
    assert split_server(join(Pong(n=4))) == (Pong(n=4), ())


@pytest.mark.parametrize(
    "payload",
    [
        [],
        [b"p" * (TILE_BYTES - 4)],
        [b"p" * (TILE_BYTES + 4)],
        [b"p" * TILE_BYTES, b""],
        [b""] * 70,
        [b"p" * (PAYLOAD_FRAME_BYTES + 1)],
    ],
)
def test_a_tile_without_exactly_its_pixels_is_refused(payload: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        split_server([encode(TILE), *payload])


def test_a_chunk_is_one_frame_or_missing() -> None:
    chunk = Chunk(lease=LEASE, epoch=3, digest=DIGEST, offset=0)
    missing = Chunk(lease=LEASE, epoch=3, digest=DIGEST, offset=0, missing="gone")
    assert split_client(join(chunk, [b"x"])) == (chunk, (b"x",))
    assert split_client(join(missing)) == (missing, ())
    for message, payload in [(chunk, []), (missing, [b"x"]), (chunk, [b"x" * PAYLOAD_FRAME_BYTES, b"x"])]:
        with pytest.raises(ProtocolError):
            join(message, payload)


def test_a_message_without_payload_refuses_one() -> None:
    with pytest.raises(ProtocolError, match="pong: expected 0 payload bytes, found 3"):
        split_server([encode(Pong(n=1)), b"abc"])


def test_endless_frames_are_refused_unread() -> None:
    with pytest.raises(ProtocolError, match="expected a header and at most 64 payload frames, found 70"):
        split_server([b"\xc1"] * 70)
    assert MAX_PAYLOAD_FRAMES == 64
    with pytest.raises(ProtocolError):
        split_server([])
    with pytest.raises(ProtocolError):
        split_peer([])


def test_a_header_that_no_peer_would_accept_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="expected a header of at most 65536 bytes, found"):
        encode(Cancel(lease=LEASE, epoch=1, buckets=[1 << 31] * 20_000))


def test_what_a_peer_says_cannot_command_a_terminal() -> None:
    message = Progress(lease=b"12345678", epoch=1, text="half\x1b[2Jdone\nand more")
    heard = decode_server(encode(message))
    assert isinstance(heard, Progress)
    assert heard.text == "half?[2Jdone?and more"
