"""The bytes of a journal: what it belongs to, its tiles, and what of them is whole. Knows no file's name and no thread.

A journal is MAGIC, a version (u32), a nonce (16 random bytes, new for each journal), and records. The first record is
the `Binding`, each later one a tile. All numbers are little-endian. A record is

    u32 bytes of its head | u32 bytes of its pixels | u32 checksum | head, msgpack | pixels, raw as on the wire

The head of a tile is its `BucketWork`; dr.protocol.tiles says how its pixels lie. A tile holds all samples of its
pixels. The first record that is not whole ends the journal.

The checksum is the CRC-32 of nonce, position in the file, both sizes, head and pixels: what the disk brings back of
another journal, or from another place, does not pass. CRC-32 finds every burst of up to 32 bits and misses one in 4
billion of other damages. BLAKE2b takes five times as long and would stop no forger, who can compute it as well.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol
from zlib import crc32

import msgspec
from msgspec import Struct

from dr.errors import BadInput
from dr.protocol.envelope import Payload
from dr.protocol.messages import CHANNEL_WIDTHS, BucketWork, Channel
from dr.protocol.tiles import tile_bytes, unpack
from dr.scene.model import F32, Region, RenderSettings

VERSION = 1
MAGIC = b"\x93dr-jrnl\r\n\x1a\n"  # a transfer that changes line ends shows here
NONCE_BYTES = 16

_BEGIN = struct.Struct(f"<{len(MAGIC)}sI{NONCE_BYTES}s")
_SIZES = struct.Struct("<II")
_PREFIX = struct.Struct("<III")
_POSITION = struct.Struct("<Q")
_MAX_HEAD_BYTES = 1 << 20
_MAX_PIXEL_BYTES = 1024 * 1024 * 4 * sum(CHANNEL_WIDTHS.values())  # the largest tile of the wire
_SHOWN = 80  # letters of a value


class Binding(Struct, frozen=True, kw_only=True):
    """What a journal belongs to: tiles of anything else would be other pixels."""

    manifest: bytes  # digest of the scene's manifest
    settings: RenderSettings
    channels: tuple[Channel, ...]
    kernels: str  # dr.scene.code_digest.code_digest()


class Start(NamedTuple):
    """What stands before the tiles; `end` is where they begin."""

    nonce: bytes
    binding: Binding
    end: int


class ScannedTile(NamedTuple):
    """One tile; `end` is where its record ends in the file."""

    work: BucketWork
    layers: F32
    end: int


class Stream(Protocol):
    """An open file at the position where reading goes on."""

    def read(self, size: int, /) -> bytes | None: ...


class _Record(NamedTuple):
    head: bytes
    pixels: memoryview
    end: int


_encoder = msgspec.msgpack.Encoder()
_bindings = msgspec.msgpack.Decoder(Binding)
_works = msgspec.msgpack.Decoder(BucketWork)


def encode_start(nonce: bytes, binding: Binding) -> bytes:
    return _BEGIN.pack(MAGIC, VERSION, nonce) + _encode_record(nonce, _BEGIN.size, _encoder.encode(binding), ())


def encode_tile(nonce: bytes, position: int, work: BucketWork, payload: Payload) -> bytes:
    """The record of a tile at this position of the file."""
    return _encode_record(nonce, position, _encoder.encode(work), payload)


def read_start(stream: Stream, size: int) -> Start:
    """Reads the begin of a file of `size` bytes. BadInput, without the file's name, when it is no journal of ours."""
    found = _read(stream, _BEGIN.size)
    if not found.startswith(MAGIC) or len(found) < _BEGIN.size:
        raise BadInput("expected a journal of dr, found another file, or one that was cut off in its first bytes")
    _, version, nonce = _BEGIN.unpack(found)
    if version != VERSION:
        raise BadInput(f"expected a journal of version {VERSION}, found version {version}: another dr wrote it")
    record = _read_record(stream, nonce, _BEGIN.size, size)
    if record is None or record.pixels:
        raise BadInput("expected the journal of a picture, found a damaged one: its first record is not whole")
    try:
        return Start(nonce, _bindings.decode(record.head), record.end)
    except msgspec.DecodeError as error:
        raise BadInput(f"expected the journal of a picture, found: {error}") from None


def scan_tiles(stream: Stream, start: Start, size: int) -> Iterator[ScannedTile]:
    """The whole tiles that follow `start` in a file of `size` bytes, one in memory at a time; they may overlap.

    Raises OSError when the disk cannot be read.
    """
    position = start.end
    while record := _read_record(stream, start.nonce, position, size):
        work = _believe_work(record, start.binding)
        if work is None:
            return
        position = record.end
        yield ScannedTile(work, unpack(work, start.binding.channels, (record.pixels,)), position)


def find_differences(was: Binding, now: Binding) -> list[str]:
    """What must be equal and is not, each in a few words."""
    found = ["the scene, or a file that it needs, was another"] if was.manifest != now.manifest else []
    for name in RenderSettings.__struct_fields__:
        before, after = getattr(was.settings, name), getattr(now.settings, name)
        if before != after:
            found.append(f"{name} was {_show(before)}, now {_show(after)}")
    if was.channels != now.channels:
        found.append(f"channels were {', '.join(was.channels)}, now {', '.join(now.channels)}")
    if was.kernels != now.kernels:
        found.append("the code that decides pixels was another version")
    return found


def _show(value: object) -> str:
    if isinstance(value, Region):
        return f"{value.x},{value.y},{value.width},{value.height}"
    return "none" if value is None else repr(value)[:_SHOWN]


def _encode_record(nonce: bytes, position: int, head: bytes, payload: Payload) -> bytes:
    sizes = len(head), sum(map(len, payload))
    checksum = _checksum(nonce, position, sizes, (head, *payload))
    return b"".join((_PREFIX.pack(*sizes, checksum), head, *payload))


def _checksum(nonce: bytes, position: int, sizes: tuple[int, int], parts: Payload) -> int:
    value = crc32(nonce + _POSITION.pack(position) + _SIZES.pack(*sizes))
    for part in parts:
        value = crc32(part, value)
    return value


def _read_record(stream: Stream, nonce: bytes, position: int, size: int) -> _Record | None:
    """None where no whole record begins. Nothing is read, nor room for it taken, that the file cannot hold."""
    prefix = _read(stream, _PREFIX.size)
    if len(prefix) < _PREFIX.size:
        return None
    head_bytes, pixel_bytes, checksum = _PREFIX.unpack(prefix)
    end = position + _PREFIX.size + head_bytes + pixel_bytes
    if end > size or head_bytes > _MAX_HEAD_BYTES or pixel_bytes > _MAX_PIXEL_BYTES:
        return None
    body = _read(stream, head_bytes + pixel_bytes)
    if len(body) < head_bytes + pixel_bytes:
        return None
    if _checksum(nonce, position, (head_bytes, pixel_bytes), (body,)) != checksum:
        return None
    return _Record(body[:head_bytes], memoryview(body)[head_bytes:], end)


def _believe_work(record: _Record, binding: Binding) -> BucketWork | None:
    """None for what no server can have rendered for this picture."""
    try:
        work = _works.decode(record.head)
    except msgspec.DecodeError:
        return None
    settings = binding.settings
    region = settings.region or Region(0, 0, settings.width, settings.height)
    left, top = work.x - region.x, work.y - region.y
    inside = 0 <= left <= region.width - work.width and 0 <= top <= region.height - work.height
    whole = (work.sample_begin, work.sample_end) == (0, settings.samples)
    return work if inside and whole and len(record.pixels) == tile_bytes(work, binding.channels) else None


def _read(stream: Stream, size: int) -> bytes:
    """Fewer bytes at the end of the file alone."""
    parts, missing = [], size
    while missing:
        part = stream.read(missing)
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
