"""Proves that every pixel of every frame came exactly once, and was given up only for a reason. Knows no server."""

from __future__ import annotations

from random import Random

from msgspec import Struct, field

from dr.broker.buckets import Order, cut_frame
from dr.broker.commands import FrameFinished, MergeTile
from dr.broker.job import MAX_FAILURES, Frame
from dr.broker.worker import Ticket
from dr.protocol.messages import BucketWork, Channel
from dr.scene.model import RenderSettings
from tests.support.simulated_farm import MANIFEST

CELL = 8  # pixels: buckets begin at multiples of it
SAMPLES = 64


class Canvas(Struct, eq=False):
    """What is known of the pixels of one frame."""

    frame: Frame
    epoch: int
    requested_s: float
    poison: tuple[tuple[int, int], ...]  # pixels that no server can render
    cells: bytearray = field(default_factory=bytearray)  # 1: there
    area: int = 0
    blames: dict[int, int] = field(default_factory=dict)  # by bucket: failures, and deaths beside it

    @property
    def columns(self) -> int:
        return -(-self.frame.settings.width // CELL)

    def cover(self, work: BucketWork) -> None:
        """Each bucket once: its cells must be empty."""
        assert work.x % CELL == work.y % CELL == 0, f"a bucket begins between two cells: {work}"
        settings = self.frame.settings
        assert work.x + work.width <= settings.width, f"outside: {work}"
        assert work.y + work.height <= settings.height, f"outside: {work}"
        width = -(-work.width // CELL)
        for row in range(work.y // CELL, (work.y + work.height - 1) // CELL + 1):
            begin = row * self.columns + work.x // CELL
            assert not any(self.cells[begin : begin + width]), f"merged twice: {work}"
            self.cells[begin : begin + width] = b"\1" * width
        self.area += work.width * work.height

    def has_poison(self, work: BucketWork) -> bool:
        return any(work.x <= x < work.x + work.width and work.y <= y < work.y + work.height for x, y in self.poison)


class Pictures:
    """The frames of a render: makes them, collects what comes, and compares."""

    def __init__(self, chance: Random, buckets: tuple[int, int]) -> None:
        self.chance, self.buckets = chance, buckets
        self.live: dict[int, Canvas] = {}  # by epoch
        self.finished = 0
        self.rendered = 0  # finished ones that had buckets
        self.given_up = 0  # buckets
        self.longest_s = 0.0
        self.ended_s = 0.0  # when the last frame did

    def make(self, index: int, is_empty: bool) -> Frame:
        """A frame with as many buckets as was asked for, about; or one with none."""
        wanted, size = self.chance.randint(*self.buckets), self.chance.choice((16, 24, 32, 48))
        columns = max(1, round((wanted * self.chance.uniform(0.5, 2.0)) ** 0.5))
        edge = self.chance.choice((0, 0, 3, 9))
        width, height = columns * size - edge, max(1, wanted // columns) * size - edge
        settings = RenderSettings(width=width, height=height, samples=SAMPLES, frame=index)
        order = self.chance.choice(list(Order))
        return Frame(
            settings=settings,
            channels=(Channel.BEAUTY,),
            buckets=() if is_empty else cut_frame(settings, size, order, self.chance.getrandbits(32)),
            manifest=MANIFEST,
            assets={MANIFEST: 100},
            index=index,
            adaptive=self.chance.random() < 0.5,
        )

    def begin(self, frame: Frame, epoch: int, now: float) -> None:
        settings = frame.settings
        points = self.chance.choice((0, 0, 0, 1, 2)) if frame.buckets else 0
        poison = [
            (self.chance.randrange(settings.width), self.chance.randrange(settings.height)) for _ in range(points)
        ]
        canvas = Canvas(frame, epoch, now, tuple(poison))
        canvas.cells = bytearray(canvas.columns * -(-settings.height // CELL))
        self.live[epoch] = canvas

    def merge(self, tile: MergeTile) -> None:
        canvas = next((canvas for canvas in self.live.values() if canvas.frame.index == tile.frame), None)
        assert canvas, f"a tile of frame {tile.frame}, which is not live"
        assert not canvas.has_poison(tile.bucket), f"nobody can render {tile.bucket}"
        canvas.cover(tile.bucket)

    def finish(self, finished: FrameFinished, servers_seen: int, now: float) -> None:
        """Frames come in order, whole; whatever was given up had failed often enough."""
        canvas = self.live.pop(next(iter(self.live)))
        assert finished.frame == canvas.frame.index == self.finished, f"{finished.frame} finished after {self.finished}"
        self.finished += 1
        self.rendered += bool(canvas.frame.buckets)
        for each in finished.poisoned:
            canvas.cover(each.bucket)
            blames, expected = canvas.blames.get(each.bucket.id, 0), min(MAX_FAILURES, servers_seen)
            assert blames >= expected, f"{each} was given up after {blames} failures"
        settings = canvas.frame.settings
        expected = settings.width * settings.height if canvas.frame.buckets else 0
        assert canvas.area == expected, f"frame {finished.frame} has {canvas.area} of {expected} pixels"
        self.given_up += len(finished.poisoned)
        self.longest_s = max(self.longest_s, self.age_s(canvas, now))
        self.ended_s = now

    def age_s(self, canvas: Canvas, now: float) -> float:
        """How long it has been the oldest frame."""
        return now - max(canvas.requested_s, self.ended_s)

    def blame(self, ticket: Ticket) -> None:
        if canvas := self.live.get(ticket[0]):
            canvas.blames[ticket[1]] = canvas.blames.get(ticket[1], 0) + 1

    def is_poison(self, epoch: int, work: BucketWork) -> bool:
        canvas = self.live.get(epoch)
        return canvas is not None and bool(canvas.poison) and canvas.has_poison(work)
