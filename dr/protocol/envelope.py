"""Knows the order, number and size of a message's frames. Knows no socket, and nothing of what payload bytes mean.

Frames: `[routing id, on a ROUTER] [header] [payload ...]`. A tile's payload is exactly its pixels, a chunk's is at most
one frame of asset bytes, every other message has none. An announcement has two frames: `[topic] [body]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from dr.errors import ProtocolError
from dr.protocol.codec import decode_announcement, decode_client, decode_server, encode, encode_announcement
from dr.protocol.messages import Announcement, AnyMessage, Chunk, ClientMessage, ServerMessage, Tile
from dr.protocol.tiles import tile_bytes
from dr.protocol.version import MAX_PAYLOAD_FRAMES, PAYLOAD_FRAME_BYTES

Frame: TypeAlias = bytes | memoryview
Payload: TypeAlias = tuple[Frame, ...]
TOPIC = b"server."  # what a client subscribes to: every server of the host


def join(message: AnyMessage, payload: Sequence[Frame] = (), peer: bytes = b"") -> list[Frame]:
    """The frames to send. `peer` is the routing id that a ROUTER needs; a DEALER leaves it empty."""
    _check_payload(message, payload)
    address: list[Frame] = [peer] if peer else []
    return [*address, encode(message), *payload]


def split_peer(frames: Sequence[Frame]) -> tuple[bytes, Sequence[Frame]]:
    """(routing id, the other frames) of what a ROUTER received."""
    if not frames:
        raise ProtocolError("expected a routing id, found no frame")
    return bytes(frames[0]), frames[1:]


def split_client(frames: Sequence[Frame]) -> tuple[ClientMessage, Payload]:
    """(message, payload) of what a client sent, without the routing id. Raises ProtocolError."""
    message = decode_client(_header(frames))
    payload = tuple(frames[1:])
    _check_payload(message, payload)
    return message, payload


def split_server(frames: Sequence[Frame]) -> tuple[ServerMessage, Payload]:
    """(message, payload) of what a server sent, without the routing id. Raises ProtocolError."""
    message = decode_server(_header(frames))
    payload = tuple(frames[1:])
    _check_payload(message, payload)
    return message, payload


def join_announcement(host_id: str, announcement: Announcement) -> list[Frame]:
    """The frames to publish; the topic is `server.<host id>.<port>`."""
    topic = b"%s%s.%d" % (TOPIC, host_id.encode(), announcement.port)
    return [topic, encode_announcement(announcement)]


def split_announcement(frames: Sequence[Frame]) -> Announcement:
    """What a subscriber received. Raises ProtocolError."""
    if len(frames) != 2:
        raise ProtocolError(f"expected a topic and an announcement, found {len(frames)} frames")
    return decode_announcement(frames[1])


def _header(frames: Sequence[Frame]) -> Frame:
    if not 1 <= len(frames) <= 1 + MAX_PAYLOAD_FRAMES:
        raise ProtocolError(f"expected a header and at most {MAX_PAYLOAD_FRAMES} payload frames, found {len(frames)}")
    return frames[0]


def _check_payload(message: AnyMessage, payload: Sequence[Frame]) -> None:
    sizes = [len(frame) for frame in payload]
    if any(not 0 < size <= PAYLOAD_FRAME_BYTES for size in sizes):
        raise ProtocolError(f"expected payload frames of 1 to {PAYLOAD_FRAME_BYTES} bytes, found {sizes[:8]}")
    low, high = _payload_bytes(message)
    if not low <= sum(sizes) <= high:
        name = type(message).__name__.lower()
        expected = f"{low}" if low == high else f"{low} to {high}"
        raise ProtocolError(f"{name}: expected {expected} payload bytes, found {sum(sizes)}")


def _payload_bytes(message: AnyMessage) -> tuple[int, int]:
    """How few and how many payload bytes belong to a message."""
    if isinstance(message, Tile):
        size = tile_bytes(message.bucket, message.channels)
        return size, size
    if isinstance(message, Chunk) and not message.missing:
        return 1, PAYLOAD_FRAME_BYTES
    return 0, 0
