"""What may happen to a render server, as past facts. Knows no socket, thread or clock.

Facts that a thread of this process reports cross an inproc socket as msgpack (see workers.server.inside); their
`payload` frames follow the header and are attached again on arrival.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from dr.protocol.envelope import Payload
from dr.protocol.messages import BucketWork, ClientMessage
from dr.scene.assets import Manifest


class MessageArrived(Struct, frozen=True):
    """A valid message came through the gate. `key`: the public key of its connection; empty where none is asked for."""

    peer: bytes
    message: ClientMessage
    payload: Payload = ()
    key: str = ""


class MessageRefused(Struct, frozen=True):
    """Something came through the gate that the protocol does not allow."""

    peer: bytes
    error: str


class PeerRevoked(Struct, frozen=True):
    """The key of this peer is admitted no longer; its connection stands, and nothing more comes through it."""

    peer: bytes
    key: str


class PeerUnreachable(Struct, frozen=True):
    """A message could not be delivered: the peer's connection is gone."""

    peer: bytes


class AssetSealed(Struct, frozen=True):
    """All bytes of an asset are stored and have the promised digest."""

    epoch: int
    digest: bytes


class AssetRefused(Struct, frozen=True):
    """An asset cannot be used: wrong digest, unreadable manifest, full disk."""

    epoch: int
    error: str


class ManifestOpened(Struct, frozen=True):
    epoch: int
    manifest: Manifest


class ThreadStarted(Struct, frozen=True, tag=True):
    """A render thread waits for its first bucket."""

    thread: int


class TileRendered(Struct, frozen=True, tag=True, omit_defaults=True):
    thread: int
    epoch: int
    bucket: BucketWork
    seconds: float
    payload: tuple[Any, ...] = ()  # frames, not in the header


class BucketStopped(Struct, frozen=True, tag=True):
    """A cancelled bucket is no longer being rendered."""

    thread: int
    epoch: int
    bucket: BucketWork


class BucketFailed(Struct, frozen=True, tag=True):
    thread: int
    epoch: int
    bucket: BucketWork
    error: str


class KernelsWarmed(Struct, frozen=True, tag=True):
    """Kernels are compiled and loaded: rendering can begin at full speed."""


class KernelsRefused(Struct, frozen=True, tag=True):
    """This machine cannot run the kernels."""

    error: str


class KernelsProgressed(Struct, frozen=True, tag=True):
    """One line for the user about compiling kernels."""

    text: str


class ScenePrepared(Struct, frozen=True, tag=True):
    epoch: int


class PreparationFailed(Struct, frozen=True, tag=True):
    """`fatal`: the scene itself is bad, every server would say the same."""

    epoch: int
    error: str
    fatal: bool


class PreparationProgressed(Struct, frozen=True, tag=True):
    epoch: int
    text: str


class StopRequested(Struct, frozen=True):
    """This process shall end when what runs is done; asked again, or `at_once`, it waits for nothing."""

    reason: str
    at_once: bool = False


class RestartRequested(Struct, frozen=True):
    """The parent wants a fresh process in our place, as soon as no client holds this one."""

    reason: str


RenderEvent: TypeAlias = ThreadStarted | TileRendered | BucketStopped | BucketFailed
PreparingEvent: TypeAlias = (
    KernelsWarmed | KernelsRefused | KernelsProgressed | ScenePrepared | PreparationFailed | PreparationProgressed
)
InsideEvent: TypeAlias = RenderEvent | PreparingEvent
AssetEvent: TypeAlias = AssetSealed | AssetRefused | ManifestOpened
OrderEvent: TypeAlias = StopRequested | RestartRequested
PeerEvent: TypeAlias = MessageArrived | MessageRefused | PeerRevoked | PeerUnreachable
Event: TypeAlias = PeerEvent | AssetEvent | InsideEvent | OrderEvent
