"""Shorthand for tests of the render server: messages of a client, and a state that has come some way."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

from dr.protocol.messages import Bucket, BucketWork, Channel, Chunk, Grant, Hello, Ready, Setup
from dr.scene.assets import Asset, Manifest, Role
from dr.scene.model import RenderSettings
from workers.server.commands import Command, Log, Send
from workers.server.events import (
    AssetSealed,
    KernelsWarmed,
    ManifestOpened,
    MessageArrived,
    ScenePrepared,
    ThreadStarted,
)
from workers.server.identity import Identity
from workers.server.state import Limits, ServerState

T = TypeVar("T")
CLIENT, OTHER, THIRD = b"client", b"other", b"third"
KERNELS = "kernels-digest"
SETTINGS = RenderSettings(width=64, height=48, samples=32)
SCENE_BYTES = b"{}"
CHANNELS = [Channel.BEAUTY, Channel.ALPHA]


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def manifest_of(files: dict[str, bytes], main: str = "scene.json") -> Manifest:
    assets = tuple(Asset(name, Role.SCENE, len(data), digest_of(data)) for name, data in sorted(files.items()))
    return Manifest(main=main, assets=assets)


def hello(want: bool = True, name: str = "ada", **fields: Any) -> Hello:
    return Hello(**{"version": 1, "want": want, "name": name, "kernels": KERNELS, **fields})


def setup_of(lease: bytes, manifest: Manifest, epoch: int = 1, **fields: Any) -> Setup:
    data = manifest.encode()
    plain = {"manifest": digest_of(data), "manifest_bytes": len(data), "settings": SETTINGS, "channels": CHANNELS}
    return Setup(lease=lease, epoch=epoch, **{**plain, **fields})


def bucket_work(number: int, x: int = 0, y: int = 0, size: int = 16, begin: int = 0, end: int = 32) -> BucketWork:
    return BucketWork(number, x, y, size, size, begin, end)


def fresh_state(threads: int = 2, limits: Limits | None = None, **identity_fields: Any) -> ServerState:
    identity = Identity(name="vault", boot=b"bootboot", kernels=KERNELS, threads=threads, **identity_fields)
    state = ServerState(identity, seed=b"seed", limits=limits)
    for thread in range(threads):
        state.handle(ThreadStarted(thread), 0.0)
    return state


def said(commands: list[Command], kind: type[T], peer: bytes = CLIENT) -> list[T]:
    """The messages of one kind that these commands send to a peer."""
    return [c.message for c in commands if isinstance(c, Send) and c.peer == peer and isinstance(c.message, kind)]


def deeds(commands: list[Command]) -> list[Command]:
    """All but what these commands write into the log."""
    return [c for c in commands if not isinstance(c, Log)]


def lines(commands: list[Command]) -> list[str]:
    """What these commands write into the log."""
    return [c.text for c in commands if isinstance(c, Log)]


def take_lease(state: ServerState, peer: bytes = CLIENT, now: float = 0.0, name: str = "ada") -> bytes:
    (grant,) = said(state.handle(MessageArrived(peer, hello(name=name)), now), Grant, peer)
    return grant.lease


def make_ready(state: ServerState, lease: bytes, epoch: int = 1, now: float = 0.0, peer: bytes = CLIENT) -> None:
    """Takes a frame from `setup` to `ready`, the way the loop would."""
    manifest = manifest_of({"scene.json": SCENE_BYTES})
    data = manifest.encode()
    state.handle(MessageArrived(peer, setup_of(lease, manifest, epoch)), now)
    for content in (data, SCENE_BYTES):
        chunk = Chunk(lease=lease, epoch=epoch, digest=digest_of(content), offset=0)
        state.handle(MessageArrived(peer, chunk, (content,)), now)
        state.handle(AssetSealed(epoch, digest_of(content)), now)
        if content is data:
            state.handle(ManifestOpened(epoch, manifest), now)
    commands = state.handle(KernelsWarmed(), now) + state.handle(ScenePrepared(epoch), now)
    assert said(commands, Ready, peer) == [Ready(lease=lease, epoch=epoch)]


def send_buckets(
    state: ServerState, lease: bytes, *works: BucketWork, epoch: int = 1, now: float = 0.0, peer: bytes = CLIENT
) -> list[Command]:
    return state.handle(MessageArrived(peer, Bucket(lease=lease, epoch=epoch, buckets=list(works))), now)
