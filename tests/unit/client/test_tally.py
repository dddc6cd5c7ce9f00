"""The sums of a render, from made-up facts on a made-up clock."""

from __future__ import annotations

import pytest
from msgspec import structs

from dr.broker.commands import MergeTile, Notify, Topic
from dr.broker.report import FrameReport, Loss, Report, ServerReport
from dr.client.result import BucketRecord, LostServer, ServerStatistics
from dr.client.tally import Tally
from dr.protocol.messages import BucketWork, Channel

A, B = "ipc:///a", "ipc:///b"


def server(name: str, endpoint: str, phase: str, buckets: int, seconds: float) -> ServerReport:
    return ServerReport(name=name, endpoint=endpoint, phase=phase, threads=2, held=0, buckets=buckets, seconds=seconds)


FRAME = FrameReport(index=0, buckets=4, done=3, poisoned=0, samples=4000, samples_done=3000)
REPORT = Report(
    frames=1,
    frames_done=0,
    live=(FRAME,),
    buckets=4,
    done=3,
    poisoned=0,
    samples=4000,
    samples_done=3000,
    rendered=3000,
    servers=(server("one", A, "rendering", 2, 9.0), server("two", B, "died", 1, 1.0)),
    lost=(Loss("two", "killed by SIGKILL"),),
    dropped=0,
)


@pytest.fixture
def tally() -> Tally:
    """Started at 100 s; server one joined at 102 s, server two at 104 s and died."""
    tally = Tally(started=100.0)
    tally.add_line("no camera")
    tally.add_notice(Notify(Topic.PREPARING, "building", "one", A), 101.0)
    tally.add_notice(Notify(Topic.JOINED, "renders with 2 threads", "one", A), 102.0)
    tally.add_notice(Notify(Topic.JOINED, "renders with 2 threads", "two", B), 104.0)
    tally.add_notice(Notify(Topic.LOST, "killed by SIGKILL", "two", B), 105.0)
    return tally


def test_a_snapshot_tells_speed_and_time_left(tally: Tally) -> None:
    progress = tally.progress(REPORT, 107.0)
    assert (progress.share, progress.seconds) == (0.75, 7.0)
    assert progress.samples_per_second == 600.0  # 3000 in the 5 s since the first server was ready
    assert progress.remaining_s == pytest.approx(1000 / 600)
    first = progress.servers[0]
    assert (first.name, first.state, first.buckets_per_second) == ("one", "rendering", 0.4)


def test_a_notice_is_told_once_and_routine_ones_never(tally: Tally) -> None:
    assert tally.progress(REPORT, 107.0).notices == ("no camera", "two: killed by SIGKILL")
    assert tally.progress(REPORT, 108.0).notices == ()
    assert tally.notices == ["no camera", "two: killed by SIGKILL"]


def test_the_time_left_is_unknown_before_the_first_tile() -> None:
    empty = structs.replace(REPORT, samples_done=0, rendered=0, servers=(), lost=())
    assert Tally(started=0.0).progress(empty, 1.0).remaining_s is None


def test_statistics_add_up(tally: Tally) -> None:
    facts = tally.statistics(REPORT, 112.0)
    assert (facts.seconds, facts.samples_per_second, facts.buckets) == (12.0, 300.0, 3)
    assert facts.servers == (
        ServerStatistics(name="one", endpoint=A, buckets=2, seconds=9.0),
        ServerStatistics(name="two", endpoint=B, buckets=1, seconds=1.0),
    )
    assert facts.lost == (LostServer(name="two", reason="killed by SIGKILL"),)
    assert facts.wait_share == pytest.approx(2 / 12)
    assert facts.render_share == pytest.approx(10 / (2 * 10 + 2 * 8))  # one had 10 s of two threads, two had 8 s


def test_each_tile_is_a_line_of_the_bucket_log(tally: Tally) -> None:
    work = BucketWork(7, 16, 32, 8, 4, 0, 16)
    tally.add_tile(MergeTile(work, (Channel.BEAUTY,), (), "one", A, 0.25, 2))
    assert tally.records == [BucketRecord(x=16, y=32, width=8, height=4, server="one", seconds=0.25, attempts=2)]


def test_frames_that_are_still_to_come_count_in_share_and_time_left(tally: Tally) -> None:
    tally.numbers = (7, 8, 9, 10)
    half = structs.replace(FRAME, index=1, samples=1000, samples_done=500, buckets=4, done=2)
    report = structs.replace(
        REPORT, frames=4, frames_done=1, live=(half,), samples=2000, samples_done=1500, rendered=1500
    )
    progress = tally.progress(report, 107.0)
    assert (progress.frame, progress.frames_done, progress.frames) == (8, 1, 4)
    assert (progress.buckets_done, progress.buckets, progress.share) == (2, 4, 0.375)
    assert progress.remaining_s == pytest.approx(2500 / 300)  # 500 of this one, and two more of 1000


def test_a_resumed_picture_makes_no_server_look_fast(tally: Tally) -> None:
    report = structs.replace(REPORT, rendered=1000)
    assert tally.progress(report, 107.0).samples_per_second == 200.0


def test_what_was_said_of_a_server_before_is_not_shown_when_it_is_over(tally: Tally) -> None:
    back = structs.replace(REPORT, servers=(server("two", B, "preparing", 1, 1.0),))
    assert tally.progress(back, 106.0).servers[0].text == ""
    tally.add_notice(Notify(Topic.PREPARING, "building the tree", "two", B), 107.0)
    assert tally.progress(back, 108.0).servers[0].text == "building the tree"
