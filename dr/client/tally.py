"""Adds up what happens during a render: rows for the eye, numbers for the end. Knows no socket, screen or clock."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from dr.broker.commands import MergeTile, Notify, Topic
from dr.client.result import BucketRecord, LostServer, ServerStatistics, Statistics

LOST_TOPICS = frozenset({Topic.LOST, Topic.REFUSED})
SAID_TOPICS = frozenset({Topic.LOST, Topic.REFUSED, Topic.FAILED, Topic.POISONED, Topic.UNREACHABLE, Topic.WAITING})


class ServerRow(Struct, frozen=True, kw_only=True):
    """One server as the user sees it. `state` is a topic such as `joined` or `lost`, `text` its last notice."""

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


class _Server(Struct, kw_only=True):
    name: str
    endpoint: str
    state: str = ""
    text: str = ""
    buckets: int = 0
    seconds: float = 0.0
    joined_at: float = 0.0


class Tally:
    """The sums of one render. `started` and every `now` are seconds of one clock."""

    def __init__(self, buckets: int, started: float) -> None:
        self.buckets = buckets
        self.started = started
        self.ready_at: float | None = None  # the first server could render
        self.samples = 0
        self.records: list[BucketRecord] = []
        self.servers: dict[str, _Server] = {}  # by endpoint
        self.lost: list[LostServer] = []
        self.fresh: list[str] = []  # notices not shown yet

    def add_tile(self, tile: MergeTile, now: float) -> None:
        work = tile.bucket
        server = self._server(tile.endpoint, tile.server)
        server.buckets += 1
        server.seconds += tile.seconds
        self.samples += work.width * work.height * (work.sample_end - work.sample_begin)
        self.records.append(
            BucketRecord(
                x=work.x,
                y=work.y,
                width=work.width,
                height=work.height,
                server=tile.server,
                seconds=round(tile.seconds, 6),
                attempts=tile.attempts,
            )
        )

    def add_notice(self, notice: Notify, now: float) -> None:
        who = notice.server or notice.endpoint
        if notice.endpoint:
            server = self._server(notice.endpoint, notice.server)
            server.state, server.text = notice.topic.value, notice.text
            if notice.topic is Topic.JOINED:
                server.joined_at = now
        if notice.topic is Topic.JOINED and self.ready_at is None:
            self.ready_at = now
        if notice.topic in LOST_TOPICS:
            self.lost.append(LostServer(name=who, reason=notice.text))
        if notice.topic in SAID_TOPICS:
            self.fresh.append(f"{who}: {notice.text}" if who else notice.text)

    def progress(self, now: float) -> Progress:
        """A snapshot; takes the notices with it."""
        rate = self._samples_per_second(now)
        done = len(self.records)
        left = self.buckets - done
        notices, self.fresh = tuple(self.fresh), []
        return Progress(
            buckets_done=done,
            buckets=self.buckets,
            seconds=now - self.started,
            samples_per_second=rate,
            remaining_s=(now - (self.ready_at or now)) * left / done if done else None,
            servers=tuple(self._row(server, now) for server in self.servers.values()),
            notices=notices,
        )

    def statistics(self, now: float, threads: Callable[[str], int]) -> Statistics:
        """The numbers at the end; `threads` says how many render threads the server at an endpoint has."""
        seconds = now - self.started
        ready_at = now if self.ready_at is None else self.ready_at
        capacity = sum((now - server.joined_at) * threads(server.endpoint) for server in self._renderers())
        return Statistics(
            seconds=seconds,
            samples_per_second=self._samples_per_second(now),
            buckets=len(self.records),
            servers=tuple(
                ServerStatistics(name=s.name, endpoint=s.endpoint, buckets=s.buckets, seconds=s.seconds)
                for s in self._renderers()
            ),
            lost=tuple(self.lost),
            wait_share=(ready_at - self.started) / seconds if seconds > 0 else 0.0,
            render_share=min(1.0, sum(s.seconds for s in self._renderers()) / capacity) if capacity > 0 else 0.0,
        )

    def _renderers(self) -> list[_Server]:
        """Servers that were ready to render at least once."""
        return [server for server in self.servers.values() if server.joined_at]

    def _server(self, endpoint: str, name: str) -> _Server:
        server = self.servers.setdefault(endpoint, _Server(name=name or endpoint, endpoint=endpoint))
        if name:
            server.name = name
        return server

    def _samples_per_second(self, now: float) -> float:
        if self.ready_at is None or now <= self.ready_at:
            return 0.0
        return self.samples / (now - self.ready_at)

    def _row(self, server: _Server, now: float) -> ServerRow:
        age = now - server.joined_at
        return ServerRow(
            name=server.name,
            endpoint=server.endpoint,
            state=server.state,
            text=server.text,
            buckets=server.buckets,
            buckets_per_second=server.buckets / age if server.joined_at and age > 0 else 0.0,
        )
