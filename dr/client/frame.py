"""One frame in hand: its buckets, its pixels so far, its journal. Knows no server and no other frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from dr.broker.buckets import Order, choose_cell, cut_frame, region_of
from dr.broker.commands import MergeTile
from dr.broker.job import Frame
from dr.broker.rest import cut_rest
from dr.image.framebuffer import Framebuffer, Picture
from dr.image.journal import Binding, Journal
from dr.protocol.messages import BucketWork, Channel
from dr.protocol.tiles import unpack
from dr.scene.model import Region, RenderSettings
from dr.settings import Settings


class Plan(Struct, frozen=True, kw_only=True):
    """What all frames of a render have in common."""

    settings: RenderSettings  # but for `frame`
    channels: tuple[Channel, ...]
    manifest: bytes  # digest
    assets: Mapping[bytes, int]  # digest to size in bytes
    kernels: str  # digest of the code that decides pixels
    options: Settings
    threads: int  # render threads of the farm, as far as they are known

    def bind(self, settings: RenderSettings) -> Binding:
        """What a frame's journal belongs to."""
        return Binding(manifest=self.manifest, settings=settings, channels=self.channels, kernels=self.kernels)

    def check_journal(self, path: Path, number: int) -> None:
        """BadInput when the frame with this number cannot go on from this journal."""
        Journal.resume(path, self.bind(replace(self.settings, frame=number))).close()

    def cut(self, settings: RenderSettings) -> tuple[BucketWork, ...]:
        size = self.options.bucket_size or choose_cell(settings, self.threads)
        return cut_frame(settings, size, Order(self.options.bucket_order), settings.seed)


class FrameInHand:
    """A frame that is being rendered: every finished bucket is in the framebuffer and, if there is one, the journal."""

    def __init__(self, plan: Plan, index: int, settings: RenderSettings) -> None:
        self.plan = plan
        self.index = index
        self.settings = settings
        self.framebuffer = Framebuffer(settings, plan.channels)
        self.journal: Journal | None = None
        self.loaded: list[BucketWork] = []  # what the journal held
        self.tiles = 0
        self._told = ""  # what was wrong with the journal

    @property
    def number(self) -> int:
        return self.settings.frame

    @property
    def has_pixels(self) -> bool:
        return bool(self.tiles or self.loaded)

    def keep_journal(self, path: Path, resume: bool) -> list[str]:
        """Journals the frame, going on from what is there if so wanted. Lines for the user."""
        if resume and path.exists():
            return self._resume(path)
        self.journal = Journal.begin(path, self.plan.bind(self.settings))
        return [self.journal.replaced] if self.journal.replaced else []

    def _resume(self, path: Path) -> list[str]:
        self.journal = Journal.resume(path, self.plan.bind(self.settings))
        for work, layers in self.journal.tiles():
            self.framebuffer.merge(work, layers)
            self.loaded.append(work)
        share = self._samples_loaded() / _count_samples(region_of(self.settings), self.settings.samples)
        line = f"{path.name}: {len(self.loaded)} finished buckets ({share:.0%} of the picture) need no rendering"
        return [line, *([self.journal.dropped] if self.journal.dropped else [])]

    def order(self) -> Frame:
        """What the broker is asked for: all buckets that are not done."""
        buckets = self.plan.cut(self.settings)
        return Frame(
            settings=self.settings,
            channels=self.plan.channels,
            buckets=cut_rest(buckets, self.loaded) if self.loaded else buckets,
            manifest=self.plan.manifest,
            assets=self.plan.assets,
            index=self.index,
            adaptive=not self.plan.options.bucket_size,
            samples_done=self._samples_loaded(),
        )

    def take(self, tile: MergeTile) -> None:
        """Adds a tile to the picture and the journal."""
        self.framebuffer.merge(tile.bucket, unpack(tile.bucket, tile.channels, tile.payload))
        self.tiles += 1
        if self.journal:
            self.journal.append(tile.bucket, tile.payload)

    def picture(self) -> Picture:
        """The pixels so far."""
        return self.framebuffer.picture()

    def freeze(self) -> Framebuffer:
        """What there is now, for another thread."""
        return self.framebuffer.copy()

    def take_trouble(self) -> str:
        """What is wrong with the journal: told once, or nothing."""
        trouble = self.journal.trouble if self.journal else ""
        if trouble == self._told:
            return ""
        self._told = trouble
        return trouble

    def describe_rescue(self) -> str:
        """What to do about a picture that could not be written."""
        if self.journal is None or self.journal.trouble:
            return ""
        path = self.journal.path
        return f"; every bucket is in {path}: make room, or move it beside another OUT, and say --resume"

    def close(self, *, safe: bool) -> None:
        """Ends the journal; with `safe`, the picture is on the disk and the journal goes."""
        if self.journal and safe:
            self.journal.remove()
        elif self.journal:
            self.journal.close()

    def _samples_loaded(self) -> int:
        return sum(_count_samples(work, self.settings.samples) for work in self.loaded)


def _count_samples(work: BucketWork | Region, samples: int) -> int:
    return work.width * work.height * samples
