"""Turns one message into the bytes of a header frame and back. Knows no payload, no socket and no peer.

This is the only place where bytes from the wire are believed: whatever comes out has every field checked for type and
range and every text made printable (a terminal obeys some letters); whatever cannot be believed is a ProtocolError of
one line. Unknown fields are ignored, so that a later version may add some; an unknown message is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgpack
import msgspec

from dr.errors import ProtocolError, printable
from dr.protocol.messages import Announcement, AnyMessage, ClientMessage, ServerMessage
from dr.protocol.version import HEADER_BYTES

MAX_ITEMS = 4096  # of one list or map; the longest list of a message is Cancel's
_ERROR_CHARS = 300
_REFUSALS = (ValueError, RecursionError, msgpack.UnpackException)
_encoder = msgspec.msgpack.Encoder()


def encode(message: AnyMessage) -> bytes:
    """The header frame of a message. Raises ProtocolError when it would be larger than a peer accepts."""
    header = _encoder.encode(message)
    if len(header) > HEADER_BYTES:
        found = f"{len(header)} in {type(message).__name__}"
        raise ProtocolError(f"expected a header of at most {HEADER_BYTES} bytes, found {found}; send less")
    return header


def decode_client(header: bytes | memoryview) -> ClientMessage:
    """What a client said, as a server hears it."""
    message: ClientMessage = _decode(header, _CLIENT)
    return message


def decode_server(header: bytes | memoryview) -> ServerMessage:
    """What a server said, as a client hears it."""
    message: ServerMessage = _decode(header, _SERVER)
    return message


def encode_announcement(announcement: Announcement) -> bytes:
    """The body frame of an announcement."""
    return _encoder.encode(announcement)


def decode_announcement(body: bytes | memoryview) -> Announcement:
    """What a spawner announced, as a subscriber hears it. Raises ProtocolError."""
    announcement: Announcement = _believe(body, lambda fields: Announcement)
    return announcement


def _by_name(messages: Any) -> dict[object, type]:
    return {message.__struct_config__.tag: message for message in get_args(messages)}


# Looked up by name here, because msgspec would work out a union's types anew for each message.
_CLIENT = _by_name(ClientMessage)
_SERVER = _by_name(ServerMessage)


def _decode(header: bytes | memoryview, expected: Mapping[object, type]) -> Any:
    def find_type(fields: Any) -> type:
        name = fields.get("t") if isinstance(fields, dict) else None
        if not isinstance(name, str) or name not in expected:
            raise ValueError(f"a message named {name!r}")
        return expected[name]

    return _believe(header, find_type)


def _believe(header: bytes | memoryview, find_type: Callable[[Any], type]) -> Any:
    """The struct that the bytes are. Raises ProtocolError of one line."""
    if len(header) > HEADER_BYTES:
        raise ProtocolError(f"expected a header of at most {HEADER_BYTES} bytes, found {len(header)}")
    try:
        fields = _unpack(header)
        kind = find_type(fields)
        if not isinstance(fields, dict):
            raise ValueError("no map")
        clean = {key: printable(value) if isinstance(value, str) else value for key, value in fields.items()}
        return msgspec.convert(clean, kind, strict=True, builtin_types=(bytes,))
    except _REFUSALS as error:
        raise ProtocolError(f"expected a message of this protocol, found {_one_line(error)}") from None


def _unpack(header: bytes | memoryview) -> Any:
    # Each length is bounded, because a 5-byte frame may announce a list of four billion.
    return msgpack.unpackb(
        header,
        raw=False,
        strict_map_key=True,
        max_str_len=HEADER_BYTES,
        max_bin_len=HEADER_BYTES,
        max_array_len=MAX_ITEMS,
        max_map_len=MAX_ITEMS,
        max_ext_len=0,
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:_ERROR_CHARS]
