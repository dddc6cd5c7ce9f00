"""Adds up what happens during a render: rows for the eye, numbers for the end. Knows no socket, screen or clock."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from dr.broker.commands import MergeTile, Notify, Topic
from dr.broker.fleet import Phase
from dr.broker.report import Report, ServerReport
from dr.client.result import BucketRecord, LostServer, ServerStatistics, Statistics

_FITTING: dict[str, Topic] = {
    Phase.LEASED: Topic.PREPARING,
    Phase.WAITING: Topic.WAITING,
}  # what was said before is over
_SILENT = frozenset({Topic.JOINED, Topic.PREPARING})  # shown in the server's row alone


class ServerRow(Struct, frozen=True, kw_only=True):
    """One server as the user sees it: `state` is a word such as `rendering`, `text` the last that was said about it."""

    name: str
    endpoint: str
    state: str
    text: str
    buckets: int
    buckets_per_second: float


class Progress(Struct, frozen=True, kw_only=True):
    """Where a render stands. `remaining_s` is None before the first tile; `notices` are new since the last one.

    Buckets are those of `frame`, the number of the one that is being rendered; `share`, from 0 to 1, is of all frames.
    """

    buckets_done: int
    buckets: int
    seconds: float
    samples_per_second: float
    remaining_s: float | None
    share: float = 0.0
    frame: int = 0
    frames_done: int = 0
    frames: int = 1
    servers: tuple[ServerRow, ...] = ()
    notices: tuple[str, ...] = ()


class _Seen(Struct):
    """What the broker's report does not tell of a server."""

    text: str = ""
    topic: Topic = Topic.FOUND
    joined_at: float | None = None  # first time


class Tally:
    """The sums of one render. `started` and every `now` are seconds of one clock."""

    def __init__(self, started: float, keeps_records: bool = True) -> None:
        """Without `keeps_records`, buckets are remembered of the last frame and those in hand alone."""
        self.started = started
        self.ended: float | None = None
        self.numbers: Sequence[int] = (0,)  # of the frames, in the order of their indices
        self.keeps_records = keeps_records
        self.records: list[BucketRecord] = []
        self.notices: list[str] = []
        self._ended: set[int] = set()  # number of the last frame that ended
        self._shown = 0  # notices that a snapshot has taken
        self._seen: dict[str, _Seen] = {}  # by endpoint

    def add_tile(self, tile: MergeTile) -> None:
        work = tile.bucket
        self.records.append(
            BucketRecord(
                x=work.x,
                y=work.y,
                width=work.width,
                height=work.height,
                server=tile.server,
                seconds=tile.seconds,
                attempts=tile.attempts,
                frame=self.numbers[tile.frame],
            )
        )

    def end_frame(self, number: int) -> None:
        if not self.keeps_records:
            self.records = [record for record in self.records if record.frame not in self._ended]
        self._ended = {number}

    def add_line(self, line: str) -> None:
        """Something that the user should know and that is about no server in particular."""
        self.notices.append(line)

    def add_notice(self, notice: Notify, now: float) -> None:
        if notice.endpoint:
            seen = self._seen.setdefault(notice.endpoint, _Seen())
            seen.text, seen.topic = notice.text, notice.topic
            if notice.topic is Topic.JOINED and seen.joined_at is None:
                seen.joined_at = now
        if notice.topic not in _SILENT:
            who = notice.server or notice.endpoint
            self.notices.append(f"{who}: {notice.text}" if who else notice.text)

    def progress(self, report: Report, now: float) -> Progress:
        """A snapshot; it takes the new notices with it."""
        fresh, self._shown = tuple(self.notices[self._shown :]), len(self.notices)
        rate = self._samples_per_second(report, now)
        frame = report.live[0] if report.live else None
        share = self._share(report)
        return Progress(
            buckets_done=frame.done if frame else report.done,
            buckets=frame.buckets if frame else report.buckets,
            seconds=now - self.started,
            samples_per_second=rate,
            remaining_s=self._samples_left(report) / rate if rate else None,
            share=share,
            frame=self.numbers[min(report.frames_done, len(self.numbers) - 1)],
            frames_done=report.frames_done,
            frames=report.frames,
            servers=tuple(self._row(server, now) for server in report.servers),
            notices=fresh,
        )

    def idle(self, now: float) -> Progress:
        """A snapshot of a render that has nothing to do."""
        return Progress(
            buckets_done=0,
            buckets=0,
            seconds=now - self.started,
            samples_per_second=0.0,
            remaining_s=0.0,
            share=1.0,
            notices=tuple(self.notices),
        )

    def statistics(self, report: Report, now: float) -> Statistics:
        """The numbers at the end."""
        now = self.ended or now
        seconds = now - self.started
        ready_s = self._ready_at(now) - self.started
        return Statistics(
            seconds=seconds,
            samples_per_second=self._samples_per_second(report, now),
            buckets=report.done,
            servers=tuple(
                ServerStatistics(name=s.name, endpoint=s.endpoint, buckets=s.buckets, seconds=s.seconds)
                for s in report.servers
                if self._joined_at(s) is not None
            ),
            lost=tuple(LostServer(name=loss.name, reason=loss.reason, removed=loss.removed) for loss in report.lost),
            wait_share=ready_s / seconds if seconds > 0 else 0.0,
            render_share=self._render_share(report, now),
        )

    def _share(self, report: Report) -> float:
        """Of all frames; each counts the same."""
        begun = sum(frame.samples_done / frame.samples for frame in report.live if frame.samples)
        return (report.frames_done + begun) / report.frames

    def _samples_left(self, report: Report) -> float:
        """Frames that are still to come are taken for as much work as those so far."""
        begun = report.frames_done + len(report.live)
        coming = (report.frames - begun) * report.samples / begun if begun else 0.0
        return report.samples - report.samples_done + coming

    def _render_share(self, report: Report, now: float) -> float:
        """Of the seconds that the render threads had, those that went into the picture."""
        had = sum((now - joined) * s.threads for s in report.servers if (joined := self._joined_at(s)) is not None)
        return min(1.0, sum(server.seconds for server in report.servers) / had) if had > 0 else 0.0

    def _samples_per_second(self, report: Report, now: float) -> float:
        """Since the first server was ready."""
        ready_at = self._ready_at(now)
        return report.rendered / (now - ready_at) if now > ready_at else 0.0

    def _ready_at(self, now: float) -> float:
        return min((seen.joined_at for seen in self._seen.values() if seen.joined_at is not None), default=now)

    def _joined_at(self, server: ServerReport) -> float | None:
        return self._seen.get(server.endpoint, _Seen()).joined_at

    def _row(self, server: ServerReport, now: float) -> ServerRow:
        seen = self._seen.get(server.endpoint, _Seen())
        age = now - seen.joined_at if seen.joined_at is not None else 0.0
        return ServerRow(
            name=server.name,
            endpoint=server.endpoint,
            state=server.phase,
            text=seen.text if _FITTING.get(server.phase, seen.topic) is seen.topic else "",
            buckets=server.buckets,
            buckets_per_second=server.buckets / age if age > 0 else 0.0,
        )
