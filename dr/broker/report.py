"""The render so far as plain values, for displays and statistics. Knows no clock and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from dr.broker.fleet import Server
from dr.broker.frames import Frames, LiveFrame
from dr.broker.job import State


class ServerReport(Struct, frozen=True, kw_only=True):
    name: str
    endpoint: str
    phase: str  # a word for the user: connecting, waiting, preparing, rendering ...
    threads: int
    held: int  # buckets that it renders or has queued
    buckets: int  # tiles of it that counted
    seconds: float  # of its render threads, for those


class FrameReport(Struct, frozen=True, kw_only=True):
    """A frame that is being rendered. Samples are pixels times samples, with those that were done before the render."""

    index: int
    buckets: int
    done: int
    poisoned: int
    samples: int
    samples_done: int


class Loss(Struct, frozen=True):
    """A server that was lost, left or was refused during the render; or was `removed`, because the user wanted it."""

    name: str
    reason: str
    removed: bool = False


class Report(Struct, frozen=True, kw_only=True):
    """Counts are of all frames that were requested so far; a bucket that was split counts as its parts."""

    buckets: int
    done: int
    poisoned: int
    samples: int  # pixels times samples
    samples_done: int  # with those that were done before the render
    rendered: int = 0  # samples of this run alone
    frames: int = 1  # of the whole render
    frames_done: int = 0
    live: tuple[FrameReport, ...] = ()
    servers: tuple[ServerReport, ...]
    lost: tuple[Loss, ...]
    dropped: int  # messages that did not count: late, doubled, of an old lease


def make_report(frames: Frames, servers: Iterable[Server], lost: Iterable[Loss], dropped: int) -> Report:
    sums = frames.sums()
    return Report(
        buckets=sums.buckets,
        done=sums.done,
        poisoned=sums.poisoned,
        samples=sums.samples,
        samples_done=sums.samples_done,
        rendered=sums.rendered,
        frames=frames.total,
        frames_done=frames.finished,
        live=tuple(_report_frame(live) for live in frames.live),
        servers=tuple(_report_server(server) for server in servers),
        lost=tuple(lost),
        dropped=dropped,
    )


def _report_frame(live: LiveFrame) -> FrameReport:
    return FrameReport(
        index=live.frame.index,
        buckets=live.job.buckets,
        done=live.job.counts[State.DONE],
        poisoned=live.job.counts[State.POISONED],
        samples=live.job.samples + live.frame.samples_done,
        samples_done=live.job.samples_done + live.frame.samples_done,
    )


def _report_server(server: Server) -> ServerReport:
    return ServerReport(
        name=server.name,
        endpoint=server.endpoint,
        phase=server.verdict.value if server.verdict else server.phase.value,
        threads=server.threads,
        held=server.held,
        buckets=server.buckets,
        seconds=server.seconds,
    )
