"""The render so far as plain values, for displays and statistics. Knows no clock and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from dr.broker.fleet import Server
from dr.broker.job import Job, State


class ServerReport(Struct, frozen=True, kw_only=True):
    name: str
    endpoint: str
    phase: str  # a word for the user: connecting, waiting, preparing, rendering ...
    threads: int
    held: int  # buckets that it renders or has queued
    buckets: int  # tiles of it that counted
    seconds: float  # of its render threads, for those


class Loss(Struct, frozen=True):
    """A server that was lost, left or was refused during the render."""

    name: str
    reason: str


class Report(Struct, frozen=True, kw_only=True):
    buckets: int
    done: int
    poisoned: int
    samples: int  # pixels times samples, of the whole job
    samples_done: int
    servers: tuple[ServerReport, ...]
    lost: tuple[Loss, ...]
    dropped: int  # messages that did not count: late, doubled, of an old lease


def make_report(job: Job, servers: Iterable[Server], lost: Iterable[Loss], dropped: int) -> Report:
    return Report(
        buckets=len(job.entries),
        done=job.counts[State.DONE],
        poisoned=job.counts[State.POISONED],
        samples=job.samples,
        samples_done=job.samples_done,
        servers=tuple(_report_server(server) for server in servers),
        lost=tuple(lost),
        dropped=dropped,
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
