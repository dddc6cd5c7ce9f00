"""One frame on a server, from `setup` to its last bucket: a state, moved only along LEGAL_MOVES. Knows no socket."""

from __future__ import annotations

from enum import StrEnum

from dr.errors import Impossible
from dr.protocol.messages import BucketWork, Channel, Setup
from dr.protocol.tiles import tile_bytes
from dr.protocol.version import MAX_PAYLOAD_FRAMES, PAYLOAD_FRAME_BYTES
from dr.scene.assets import Manifest
from workers.server.fetching import Fetching


class FrameState(StrEnum):
    FETCHING = "fetching"  # the manifest, then its assets
    PREPARING = "preparing"  # the scene, or the kernels
    READY = "ready"


LEGAL_MOVES = {
    FrameState.FETCHING: (FrameState.PREPARING,),
    FrameState.PREPARING: (FrameState.READY,),
    FrameState.READY: (),
}


class Frame:
    """What a server knows of one epoch."""

    def __init__(self, setup: Setup) -> None:
        self.epoch = setup.epoch
        self.digest = setup.manifest
        self.settings = setup.settings
        self.channels: tuple[Channel, ...] = tuple(setup.channels)
        self.state = FrameState.FETCHING
        self.fetching = Fetching()
        self.manifest: Manifest | None = None
        self.prepared = False
        self.begun_s = 0.0  # of what it does now: fetching, then preparing

    def move(self, state: FrameState) -> None:
        if state not in LEGAL_MOVES[self.state]:
            raise Impossible(f"frame {self.epoch}: no way from {self.state} to {state}")
        self.state = state

    def asset_name(self, digest: bytes) -> str:
        """What a person calls the asset."""
        assets = self.manifest.assets if self.manifest else ()
        return next((asset.name for asset in assets if asset.digest == digest), "the scene's manifest")

    def fault(self, bucket: BucketWork) -> str:
        """Why this bucket cannot be rendered as part of this frame; empty when it can."""
        settings = self.settings
        if bucket.x + bucket.width > settings.width or bucket.y + bucket.height > settings.height:
            return f"expected a rectangle inside {settings.width}x{settings.height}, found {_rectangle(bucket)}"
        if bucket.sample_end > settings.samples:
            return f"expected samples up to {settings.samples}, found {bucket.sample_end}"
        frames = -(-tile_bytes(bucket, self.channels) // PAYLOAD_FRAME_BYTES)
        if frames > MAX_PAYLOAD_FRAMES:
            return f"expected a tile of at most {MAX_PAYLOAD_FRAMES} MiB, found {frames} MiB; ask for a smaller bucket"
        return ""


def _rectangle(bucket: BucketWork) -> str:
    return f"{bucket.width}x{bucket.height} at {bucket.x},{bucket.y}"
