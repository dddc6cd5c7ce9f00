"""What the broker may ask its loop to do. Knows no socket; whoever carries these out decides nothing.

Commands are carried out in order. After `Finished` the loop closes its socket with a linger of about 200 ms, so that
the last `bye` messages leave; events that still arrive may be handed in and do no harm.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TypeAlias

from msgspec import Struct

from dr.protocol.envelope import Payload
from dr.protocol.messages import BucketWork, Channel, ClientMessage


class Dial(Struct, frozen=True):
    """Connect to `endpoint` with CONNECT_ROUTING_ID `peer`, an id that was never used before."""

    endpoint: str
    peer: bytes


class Disconnect(Struct, frozen=True):
    """Close the connection to `endpoint`; the peer's messages need not be reported any more."""

    endpoint: str
    peer: bytes


class Send(Struct, frozen=True):
    """Send a message. When the queue is full the loop keeps it and tries again: nothing is dropped."""

    peer: bytes
    message: ClientMessage
    payload: Payload = ()


class MergeTile(Struct, frozen=True):
    """Add this tile to the picture; given exactly once per finished bucket (dr.protocol.tiles.unpack reads it)."""

    bucket: BucketWork
    channels: tuple[Channel, ...]
    payload: Payload
    server: str  # name, for the bucket log
    endpoint: str
    seconds: float  # that the server's thread took
    attempts: int  # assignments of this bucket, this one included
    frame: int = 0  # its index


class ReadAsset(Struct, frozen=True):
    """Read `n` bytes at `offset` of the asset with this digest; report AssetRead with the same peer, digest, offset."""

    peer: bytes
    digest: bytes
    offset: int
    n: int


class Topic(StrEnum):
    """What a notice is about."""

    JOINED = "joined"  # a server is ready and renders
    WAITING = "waiting"  # a server is busy with another client, or no server is left
    PREPARING = "preparing"  # a line of a server's progress
    FOUND = "found"  # a host has more servers than the one that was named
    LOST = "lost"  # a server that took part is gone; its buckets go to others
    UNREACHABLE = "unreachable"  # a server does not answer; dialled again and again
    REFUSED = "refused"  # a server that will take no part in this render
    FAILED = "failed"  # a bucket failed and is tried again
    POISONED = "poisoned"  # a bucket was given up


class Notify(Struct, frozen=True):
    """Tell the user, one line. `server` and `endpoint` are empty when it is about no server in particular."""

    topic: Topic
    text: str
    server: str = ""
    endpoint: str = ""


class Status(IntEnum):
    """How a render ended: the exit status of `dr render`."""

    COMPLETE = 0
    INCOMPLETE = 1  # cancelled, buckets poisoned, or no server could render
    BAD_INPUT = 2  # the servers found the scene to be bad
    REFUSED = 3  # every server refused (keys, versions)


class Poisoned(Struct, frozen=True):
    """A bucket that was given up, with the last error."""

    bucket: BucketWork
    error: str


class HearAnnouncements(Struct, frozen=True):
    """Subscribe to the announcements of the host of `endpoint` at `port`; report ServerAnnounced for ready ones."""

    endpoint: str
    port: int


class FrameFinished(Struct, frozen=True):
    """Every bucket of a frame is done or poisoned; another one may be requested. Frames finish in order."""

    frame: int
    poisoned: tuple[Poisoned, ...] = ()


class Finished(Struct, frozen=True):
    """The render is over; the last command ever. `reason` is one line, empty when the picture is complete."""

    status: Status
    reason: str = ""
    poisoned: tuple[Poisoned, ...] = ()


Command: TypeAlias = (
    Dial | Disconnect | Send | MergeTile | ReadAsset | Notify | HearAnnouncements | FrameFinished | Finished
)
