"""Animations: several frames in one render, two of them live at a time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dr.broker import commands, events
from dr.broker.commands import Status, Topic
from dr.broker.fleet import Phase
from dr.broker.job import Frame
from dr.errors import Impossible
from tests.support.simulated_farm import SimulatedFarm, SimulatedServer, make_frame


def frame(index: int) -> Frame:
    return make_frame(index=index)


def farm_of(frames: int, *servers: SimulatedServer, live: int = 2) -> SimulatedFarm:
    farm = SimulatedFarm(frames=frames)
    for index in range(min(frames, live)):
        farm.tell(events.FrameRequested(frame(index)))
    for server in servers:
        farm.add(server)
    settle(farm)
    return farm


def server(index: int = 0, threads: int = 2) -> SimulatedServer:
    return SimulatedServer(f"ipc:///server-{index}", threads)


def settle(farm: SimulatedFarm) -> None:
    while farm.flow():
        farm.broker.check()


def render_until(farm: SimulatedFarm, finished: int) -> None:
    """Servers render until so many frames are finished."""
    while len(farm.frames_finished) < finished:
        for sim in farm.servers.values():
            for held in sim.running():
                farm.finish(sim, held)
        settle(farm)
        farm.pass_time(farm.now + 0.1)


def test_frames_finish_in_order_and_the_last_one_ends_the_render() -> None:
    farm = farm_of(5, server(0), server(1))
    for index in range(5):
        render_until(farm, index + 1)
        assert (farm.finished is None) == (index < 4)
        if index < 3:
            farm.tell(events.FrameRequested(frame(index + 2)))
            settle(farm)
    assert [each.frame for each in farm.frames_finished] == [0, 1, 2, 3, 4]
    assert farm.finished == commands.Finished(Status.COMPLETE)
    assert {index: set(tiles) for index, tiles in farm.pictures.items()} == {
        index: set(range(12)) for index in range(5)
    }
    assert [notice.topic for notice in farm.notices] == [Topic.JOINED, Topic.JOINED]
    assert not [sim.endpoint for sim in farm.servers.values() if sim.holder]


def test_the_next_frame_is_handed_out_while_the_last_buckets_of_this_one_render() -> None:
    farm = farm_of(2, server(threads=2))
    (sim,) = farm.servers.values()
    first, second = sim.epochs
    while len(farm.merged) < 10:
        farm.finish(sim, sim.works[0])
        settle(farm)
    assert [(held.epoch, held.id) for held in sim.works] == [(first, 10), (first, 11), (second, 0), (second, 1)]


def test_a_server_that_joins_prepares_both_live_frames_the_older_one_first() -> None:
    farm = farm_of(3)
    farm.add(server())
    for _ in range(3):
        farm.flow()
    assert list(farm.servers["ipc:///server-0"].epochs) == [live.epoch for live in farm.broker.frames.live]


def test_between_two_frames_a_server_prepares_and_holds_nothing() -> None:
    farm = farm_of(2, server(), live=1)
    render_until(farm, 1)
    (known,) = farm.broker.fleet
    assert (known.phase, known.held, farm.finished) == (Phase.LEASED, 0, None)
    farm.tell(events.FrameRequested(frame(1)))
    settle(farm)
    assert known.phase is Phase.READY
    render_until(farm, 2)
    assert farm.finished is not None


def test_a_later_frame_that_is_done_first_waits_for_the_earlier_one() -> None:
    farm = farm_of(2, server(0), server(1))
    slow, fast = farm.servers.values()
    late = slow.works[0]
    while len(farm.pictures.get(1, {})) < 12:
        for sim in (slow, fast):
            for held in [held for held in sim.running() if (held.epoch, held.id) != (late.epoch, late.id)]:
                farm.finish(sim, held)
        settle(farm)
    assert (len(farm.merged), farm.frames_finished) == (11, [])
    farm.finish(slow, late)
    settle(farm)
    assert [each.frame for each in farm.frames_finished] == [0, 1]
    assert farm.finished is not None


def test_a_frame_without_buckets_needs_no_server() -> None:
    farm = SimulatedFarm(frames=2)
    empty = replace(frame(0), buckets=(), samples_done=32 * 24 * 16)
    farm.tell(events.FrameRequested(empty))
    assert farm.frames_finished == [commands.FrameFinished(0)]
    assert farm.finished is None
    farm.tell(events.FrameRequested(replace(empty, index=1)))
    assert farm.finished == commands.Finished(Status.COMPLETE)
    report = farm.broker.report()
    assert (report.frames, report.frames_done, report.samples, report.samples_done, report.rendered) == (
        2,
        2,
        2 * 32 * 24 * 16,
        2 * 32 * 24 * 16,
        0,
    )


def test_poisoned_buckets_of_every_frame_are_named_with_their_frame_and_at_the_end() -> None:
    farm = farm_of(2, server())
    (sim,) = farm.servers.values()
    while farm.finished is None:
        for held in sim.running():
            (farm.fail if held.id == 3 else farm.finish)(sim, held)
        settle(farm)
        farm.pass_time(farm.now + 0.1)
    assert [[each.bucket.id for each in finished.poisoned] for finished in farm.frames_finished] == [[3], [3]]
    assert (farm.finished.status, farm.finished.reason) == (Status.INCOMPLETE, "2 buckets could not be rendered")
    assert len(farm.finished.poisoned) == 2


@pytest.mark.parametrize("indices", [[0, 1, 2], [1, 1], [1, 0]])
def test_frames_that_come_too_early_or_out_of_order_are_our_own_fault(indices: list[int]) -> None:
    *early, last = indices
    farm = SimulatedFarm(frames=3)
    for index in early:
        farm.tell(events.FrameRequested(frame(index)))
    with pytest.raises(Impossible, match="was requested when"):
        farm.tell(events.FrameRequested(frame(last)))


def test_the_report_tells_of_each_live_frame() -> None:
    farm = farm_of(3, server())
    (sim,) = farm.servers.values()
    for _ in range(2):
        farm.finish(sim, sim.works[0])
    settle(farm)
    report = farm.broker.report()
    assert [(each.index, each.buckets, each.done) for each in report.live] == [(0, 12, 2), (1, 12, 0)]
    assert (report.buckets, report.done, report.frames, report.frames_done) == (24, 2, 3, 0)
    assert report.rendered == 2 * 8 * 8 * 16
    render_until(farm, 1)
    assert farm.broker.report().frames_done == 1


def test_a_suspect_of_the_older_frame_is_not_kept_waiting_by_the_next_frame() -> None:
    farm = farm_of(2, server(0, threads=1), server(1, threads=1))
    killed, other = farm.servers.values()
    farm.crash(killed, kept=0)
    settle(farm)
    while len(farm.merged) < 12:
        assert len(farm.pictures.get(1, {})) <= 2
        farm.finish(other, other.works[0])
        settle(farm)
    assert [each.frame for each in farm.frames_finished] == [0]


def test_no_bucket_is_sent_before_its_frame_is_ready_there() -> None:
    farm = farm_of(2, server(), live=1)
    (sim,) = farm.servers.values()
    (link,) = farm.links_in("open")
    farm.tell(events.FrameRequested(frame(1)))
    while link.to_server:  # the setup alone: nobody answers what the server asks for
        farm.deliver_to_server(link)
    first, second = sim.epochs
    while len(farm.merged) < 12:
        farm.finish(sim, sim.works[0])
        while link.to_client:
            farm.deliver_to_client(link)
        while link.to_server:
            farm.deliver_to_server(link)
        assert {held.epoch for held in sim.works} <= {first}
    settle(farm)
    assert {held.epoch for held in sim.works} == {second}
