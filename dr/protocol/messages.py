"""Every message that crosses the wire, field by field. Knows no bytes and no socket.

Each message is one msgpack map whose key `t` names it. Names are final: optional fields may be added, nothing is
renamed or reused. Short keys (`l` lease, `e` epoch, `b` bucket, `v` protocol version) are the wire's; the structs give
them their full names. Payload frames (pixels, asset bytes) follow the header as raw frames.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct, field

from dr.protocol.version import SAMPLE_CHUNK
from dr.scene.model import RenderSettings

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=4096)]
Lease = Annotated[bytes, Meta(min_length=8, max_length=8)]
Boot = Annotated[bytes, Meta(min_length=8, max_length=8)]
Epoch = Annotated[int, Meta(ge=0, lt=1 << 48)]
BucketId = Annotated[int, Meta(ge=0, lt=1 << 32)]
Count = Annotated[int, Meta(ge=0, lt=1 << 31)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]  # SHA-256
Offset = Annotated[int, Meta(ge=0, lt=1 << 48)]
Pixel = Annotated[int, Meta(ge=0, le=65536)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]


class Kind(StrEnum):
    CONTROL = "ctl"
    BULK = "bulk"
    PEER = "peer"
    STATUS = "status"


class EngineKind(StrEnum):
    """Which engine a server runs: finished pictures, or interactive ones (real time)."""

    PRODUCTION = "production"
    RT = "rt"


class Availability(StrEnum):
    """What a server has to offer right now."""

    READY = "ready"  # free: who dials it gets it
    BUSY = "busy"  # works for the client that `holder` names
    DRAINING = "draining"  # finishes what it renders and then ends
    GONE = "gone"  # the process has ended; a spawner may start another one


class Channel(StrEnum):
    """What a tile can carry; the order here is the order of planes in a tile. Widths: see CHANNEL_WIDTHS."""

    BEAUTY = "beauty"
    ALPHA = "alpha"
    DEPTH = "depth"
    NORMAL = "normal"
    ALBEDO = "albedo"
    OBJECT_ID = "object_id"


CHANNEL_WIDTHS: dict[Channel, int] = {
    Channel.BEAUTY: 3,
    Channel.ALPHA: 1,
    Channel.DEPTH: 1,
    Channel.NORMAL: 3,
    Channel.ALBEDO: 3,
    Channel.OBJECT_ID: 1,
}


class Codec(StrEnum):
    """How a tile's pixels are encoded. Only lossless ones are allowed for a final picture."""

    RAW = "f32"


class BucketWork(Struct, frozen=True, array_like=True):
    """A rectangle of full-frame pixels and a range of samples: [id, x, y, width, height, first sample, end sample]."""

    id: BucketId
    x: Pixel
    y: Pixel
    width: Annotated[int, Meta(ge=1, le=1024)]
    height: Annotated[int, Meta(ge=1, le=1024)]
    sample_begin: Count
    sample_end: Count

    def __post_init__(self) -> None:
        if self.sample_begin % SAMPLE_CHUNK or self.sample_begin >= self.sample_end:
            found = f"{self.sample_begin} to {self.sample_end}"
            raise ValueError(f"expected samples from a multiple of {SAMPLE_CHUNK} to a later one, found {found}")


class Message(Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    """Base of all messages."""


class Hello(Message, tag="hello", frozen=True, kw_only=True):
    """Client to server, first word on a connection. `want` asks for a lease; the server answers `welcome`."""

    version: Count = field(name="v")
    kind: Kind = Kind.CONTROL
    name: Name = "client"
    want: bool = False
    kernels: Text = ""


class Here(Message, tag="here", frozen=True, kw_only=True):
    """Server to client on a dial-out connection, because a ROUTER cannot address a DEALER that has not spoken."""

    version: Count = field(name="v")
    boot: Boot
    kind: Kind = Kind.CONTROL


class Welcome(Message, tag="welcome", frozen=True, kw_only=True):
    """Server to client: who I am and whether I am free. `kernels` is the digest of all code that decides pixels."""

    version: Count = field(name="v")
    kernels: Text
    boot: Boot
    name: Name
    threads: Annotated[int, Meta(ge=1, le=4096)]
    cpu: Text = ""
    busy: bool = False
    holder: Text = ""
    queue_pos: Count = 0
    announce: Port = 0
    siblings: Annotated[list[Port], Meta(max_length=1024)] = field(default_factory=list)


class ServerStatus(Message, tag="status", frozen=True, kw_only=True):
    """Server to client, after the `welcome` of a `hello` whose kind is `status`: for people who watch the farm."""

    state: Availability
    holder: Text = ""
    engine: EngineKind = EngineKind.PRODUCTION
    nodes: Annotated[list[Count], Meta(max_length=1024)] = field(default_factory=list)  # NUMA nodes that it is bound to
    release: Text = ""  # of the program, for people; `kernels` of the welcome decides
    buckets: Annotated[int, Meta(ge=0, lt=1 << 62)] = 0  # rendered since the process began
    buckets_per_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0  # lately
    memory_bytes: Annotated[int, Meta(ge=0, lt=1 << 62)] = 0  # resident
    up_s: Seconds = 0.0  # since the process began
    guard: Text = ""  # of its port: keys, open or insecure; none on a Unix socket
    clock_s: Annotated[float, Meta(ge=0, le=1e12)] = 0.0  # its wall clock, since 1970 UTC; 0: not said
    cache_free_bytes: Annotated[int, Meta(ge=-1, lt=1 << 62)] = -1  # on the disk of its caches; -1: not said


class Grant(Message, tag="grant", frozen=True, kw_only=True):
    """Server to client: you hold me now, under this lease."""

    lease: Lease = field(name="l")
    threads: Annotated[int, Meta(ge=1, le=4096)]


class Setup(Message, tag="setup", frozen=True, kw_only=True):
    """Client to server: the frame to prepare. `manifest` is an asset like any other (see dr.scene.assets.Manifest)."""

    lease: Lease = field(name="l")
    epoch: Epoch = field(name="e")
    manifest: Digest
    manifest_bytes: Annotated[int, Meta(ge=1, le=1 << 28)]
    settings: RenderSettings
    channels: Annotated[list[Channel], Meta(min_length=1, max_length=16)]
    codec: Codec = Codec.RAW

    def __post_init__(self) -> None:
        if self.channels != [channel for channel in Channel if channel in self.channels]:
            raise ValueError(f"expected channels once each and in the order of tiles, found {', '.join(self.channels)}")


class Get(Message, tag="get", frozen=True, kw_only=True):
    """Server to client: bytes [offset, offset + n) of an asset."""

    lease: Lease = field(name="l")
    epoch: Epoch = field(name="e")
    digest: Digest = field(name="hash")
    offset: Offset
    n: Annotated[int, Meta(ge=1, le=1 << 20)]


class Chunk(Message, tag="chunk", frozen=True, kw_only=True):
    """Client to server: the bytes asked for, as one payload frame. `missing` says that the client cannot read it."""

    lease: Lease = field(name="l")
    epoch: Epoch = field(name="e")
    digest: Digest = field(name="hash")
    offset: Offset
    missing: Text = ""


class Ready(Message, tag="ready", frozen=True, kw_only=True):
    """Server to client: the scene is prepared and the kernels are warm; send buckets."""

    lease: Lease = field(name="l")
    epoch: Epoch = field(name="e")


class Progress(Message, tag="progress", frozen=True, kw_only=True):
    """Server to client while fetching, preparing or compiling: one line for the user."""

    lease: Lease = field(name="l")
    epoch: Epoch = field(name="e")
    text: Text


class Bucket(Message, tag="bucket", frozen=True, kw_only=True):
    """Client to server: render these."""

    lease: Lease = field(name="l")
    epoch: Epoch = field(name="e")
    buckets: Annotated[list[BucketWork], Meta(max_length=1024)] = field(name="b")


class Cancel(Message, tag="cancel", frozen=True, kw_only=True):
    """Client to server: these are no longer wanted; one that is being rendered stops within a pixel row."""

    lease: Lease = field(name="l")
    epoch: Epoch = field(name="e")
    buckets: Annotated[list[BucketId], Meta(max_length=4096)] = field(name="b")


class Tile(Message, tag="tile", frozen=True, kw_only=True):
    """Server to client: a rendered bucket. Pixels follow as payload frames, see dr.protocol.tiles."""

    lease: Lease = field(name="l")
    epoch: Epoch = field(name="e")
    bucket: BucketWork = field(name="b")
    channels: Annotated[list[Channel], Meta(min_length=1, max_length=16)]
    codec: Codec = Codec.RAW
    seconds: Seconds = 0.0


class Failed(Message, tag="failed", frozen=True, kw_only=True):
    """Server to client: this bucket could not be rendered; without a bucket: the frame could not be prepared."""

    lease: Lease = field(name="l")
    epoch: Epoch = field(name="e")
    bucket: BucketId | None = field(name="b", default=None)
    error: Text
    fatal: bool = False  # with no bucket: the scene itself is bad, every server would say the same


class Beat(Message, tag="beat", frozen=True, kw_only=True):
    """Server to client, every 250 ms under a lease."""

    lease: Lease = field(name="l")
    queued: Count = 0
    running: Count = 0


class Ping(Message, tag="ping", frozen=True, kw_only=True):
    n: Annotated[int, Meta(ge=0, le=1 << 62)]


class Pong(Message, tag="pong", frozen=True, kw_only=True):
    n: Annotated[int, Meta(ge=0, le=1 << 62)]


class Bye(Message, tag="bye", frozen=True, kw_only=True):
    """Client to server: the lease ends; `restart` asks the spawner for a fresh process."""

    lease: Lease = field(name="l")
    restart: bool = False


class Drain(Message, tag="drain", frozen=True, kw_only=True):
    """Server to client: I shall stop; I finish what runs and take nothing new."""

    lease: Lease = field(name="l")


class NoLease(Message, tag="nolease", frozen=True, kw_only=True):
    """Server to client: the lease you named is not yours (any more)."""


class ErrorMessage(Message, tag="error", frozen=True, kw_only=True):
    """Either way: I refuse, and why; final for this connection."""

    code: Name
    text: Text


ClientMessage: TypeAlias = Hello | Setup | Chunk | Bucket | Cancel | Ping | Bye | ErrorMessage
ServerMessage: TypeAlias = (
    Here
    | Welcome
    | ServerStatus
    | Grant
    | Get
    | Ready
    | Progress
    | Tile
    | Failed
    | Beat
    | Pong
    | Drain
    | NoLease
    | ErrorMessage
)
AnyMessage: TypeAlias = ClientMessage | ServerMessage


class Announcement(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Spawner to subscribers: what one server of its host has to offer. Not a message of a conversation.

    It carries the port alone: a client adds the host that it subscribed to, so that a forged one redirects no dial.
    """

    version: Count = field(name="v")
    port: Annotated[int, Meta(ge=1, le=65535)]
    boot: Boot
    state: Availability
    holder: Text = ""
