"""What the state may ask its loop to do. Knows nothing of how it is done."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from dr.protocol.envelope import Payload
from dr.protocol.messages import Availability, BucketWork, Channel, ServerMessage, ServerStatus
from dr.scene.assets import Manifest
from dr.scene.model import RenderSettings


class Send(Struct, frozen=True):
    """Delivers a message through the gate, however long it takes, or reports PeerUnreachable."""

    peer: bytes
    message: ServerMessage
    payload: Payload = ()


class SendStatus(Struct, frozen=True):
    """Sends `status` with what only the process knows: its memory and its age."""

    peer: bytes
    status: ServerStatus


class Report(Struct, frozen=True):
    """Tells the parent, if it wants to know, what this server has to offer now."""

    state: Availability
    holder: str


class Level(StrEnum):
    DETAIL = "detail"  # each step of each bucket
    INFO = "info"
    WARNING = "warning"


class Log(Struct, frozen=True):
    """One line for people who want to know what this server did."""

    text: str
    level: Level = Level.INFO


class ForgetPeer(Struct, frozen=True):
    """Drops what still waits to be sent to a peer that holds this server no longer."""

    peer: bytes


class StoreChunk(Struct, frozen=True):
    epoch: int
    digest: bytes
    offset: int
    data: bytes


class SealAsset(Struct, frozen=True):
    """Checks the digest of a completely stored asset: AssetSealed or AssetRefused follows."""

    epoch: int
    digest: bytes


class OpenManifest(Struct, frozen=True):
    """Decodes a sealed asset: ManifestOpened or AssetRefused follows."""

    epoch: int
    digest: bytes


class GetReady(Struct, frozen=True):
    """A frame will come soon: starts what takes time."""


class PrepareScene(Struct, frozen=True):
    """Turns the stored assets into something to render: ScenePrepared or PreparationFailed follows."""

    epoch: int
    key: bytes  # digest of the manifest
    manifest: Manifest
    settings: RenderSettings


class DropFrame(Struct, frozen=True):
    """Gives back all that an epoch holds: stored assets, a running preparation, the prepared scene."""

    epoch: int


class RenderBucket(Struct, frozen=True, tag=True):
    """Hands a bucket to an idle render thread."""

    thread: int
    epoch: int
    bucket: BucketWork
    channels: tuple[Channel, ...]


class StopThread(Struct, frozen=True):
    """Asks a render thread to give up its bucket within a pixel row: BucketStopped (or its tile) follows."""

    thread: int


class Exit(Struct, frozen=True):
    """Ends the process with this status: nothing is left to do but to send what was said."""

    status: int


Command: TypeAlias = (
    Send
    | SendStatus
    | Report
    | Log
    | ForgetPeer
    | StoreChunk
    | SealAsset
    | OpenManifest
    | GetReady
    | PrepareScene
    | DropFrame
    | RenderBucket
    | StopThread
    | Exit
)
