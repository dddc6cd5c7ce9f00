"""Adds up what happens during a render: rows for the eye, numbers for the end. Knows no socket, screen or clock."""

from __future__ import annotations

from msgspec import Struct

from dr.broker.commands import MergeTile, Notify, Topic
from dr.broker.report import Report, ServerReport
from dr.client.result import BucketRecord, LostServer, ServerStatistics, Statistics

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
    """Where a render stands. `remaining_s` is None before the first tile; `notices` are new since the last one."""

    buckets_done: int
    buckets: int
    seconds: float
    samples_per_second: float
    remaining_s: float | None
    servers: tuple[ServerRow, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.buckets_done / self.buckets if self.buckets else 0.0


class _Seen(Struct):
    """What the broker's report does not tell of a server."""

    text: str = ""
    joined_at: float | None = None  # first time


class Tally:
    """The sums of one render. `started` and every `now` are seconds of one clock."""

    def __init__(self, started: float, notices: tuple[str, ...] = ()) -> None:
        self.started = started
        self.records: list[BucketRecord] = []
        self.notices: list[str] = list(notices)
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
            )
        )

    def add_notice(self, notice: Notify, now: float) -> None:
        if notice.endpoint:
            seen = self._seen.setdefault(notice.endpoint, _Seen())
            seen.text = notice.text
            if notice.topic is Topic.JOINED and seen.joined_at is None:
                seen.joined_at = now
        if notice.topic not in _SILENT:
            who = notice.server or notice.endpoint
            self.notices.append(f"{who}: {notice.text}" if who else notice.text)

    def progress(self, report: Report, now: float) -> Progress:
        """A snapshot; it takes the new notices with it."""
        fresh, self._shown = tuple(self.notices[self._shown :]), len(self.notices)
        rate = self._samples_per_second(report, now)
        return Progress(
            buckets_done=report.done,
            buckets=report.buckets,
            seconds=now - self.started,
            samples_per_second=rate,
            remaining_s=(report.samples - report.samples_done) / rate if rate else None,
            servers=tuple(self._row(server, now) for server in report.servers),
            notices=fresh,
        )

    def statistics(self, report: Report, now: float) -> Statistics:
        """The numbers at the end."""
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
            lost=tuple(LostServer(name=loss.name, reason=loss.reason) for loss in report.lost),
            wait_share=ready_s / seconds if seconds > 0 else 0.0,
            render_share=self._render_share(report, now),
        )

    def _render_share(self, report: Report, now: float) -> float:
        """Of the seconds that the render threads had, those that went into the picture."""
        had = sum((now - joined) * s.threads for s in report.servers if (joined := self._joined_at(s)) is not None)
        return min(1.0, sum(server.seconds for server in report.servers) / had) if had > 0 else 0.0

    def _samples_per_second(self, report: Report, now: float) -> float:
        """Since the first server was ready."""
        ready_at = self._ready_at(now)
        return report.samples_done / (now - ready_at) if now > ready_at else 0.0

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
            text=seen.text,
            buckets=server.buckets,
            buckets_per_second=server.buckets / age if age > 0 else 0.0,
        )
