"""A host that is named without a port: whatever its servers say, each takes part once, and nobody else does."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dr.broker import events
from dr.broker.commands import Status
from dr.broker.fleet import Phase
from dr.broker.membership import MAX_SIBLINGS
from tests.support.simulated_farm import SimulatedFarm, SimulatedServer, make_frame, port_of
from tests.support.timed_farm import TimedFarm

FIRST_PORT = 20204
PORTS = st.integers(0, 65535)
FRAME = make_frame()


def host_of(count: int, threads: int = 2) -> list[SimulatedServer]:
    return [SimulatedServer(f"tcp://host:{FIRST_PORT + index}", threads) for index in range(count)]


def settle(farm: SimulatedFarm) -> None:
    while farm.flow():
        farm.broker.check()


def render_all(farm: SimulatedFarm) -> None:
    while farm.finished is None:
        for server in farm.servers.values():
            for work in server.running():
                farm.finish(server, work)
        settle(farm)
        farm.pass_time(farm.now + 0.1)


@given(count=st.integers(1, 40), threads=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_every_server_of_the_host_takes_part(count: int, threads: int) -> None:
    farm = SimulatedFarm()
    farm.tell(events.FrameRequested(FRAME))
    farm.add_host(host_of(count, threads))
    settle(farm)
    assert {server.endpoint for server in farm.broker.fleet.ready()} == set(farm.servers)
    render_all(farm)
    assert farm.finished is not None
    assert farm.finished.status is Status.COMPLETE
    assert set(farm.merged) == {work.id for work in FRAME.buckets}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_lying_list_costs_dials_on_that_host_alone(data: st.DataObject) -> None:
    farm, (liar, other) = SimulatedFarm(), host_of(2)
    farm.tell(events.FrameRequested(FRAME))
    farm.add_host([liar, other])
    truth = [port_of(liar), port_of(other)]
    liar.siblings = data.draw(st.lists(PORTS | st.sampled_from(truth), max_size=60)) * data.draw(st.integers(1, 3))
    settle(farm)
    places = [server.endpoint for server in farm.broker.fleet]
    assert set(places) == {f"tcp://host:{port}" for port in {port_of(liar), *liar.siblings} if port}
    assert len({link.endpoint for link in farm.links.values()}) == len(farm.links)  # one dial each, so far
    render_all(farm)
    assert farm.finished is not None
    assert farm.finished.status is Status.COMPLETE


def test_a_server_never_brings_more_than_so_many_however_often_it_lies() -> None:
    farm, (liar,) = SimulatedFarm(), host_of(1)
    farm.tell(events.FrameRequested(FRAME))
    farm.add_host([liar])
    for first in (1000, 5000, 30000):
        liar.siblings = list(range(first, first + 1024))
        settle(farm)
        farm.lose_client(liar)  # it is asked again, and answers with another list
        settle(farm)
    assert len(farm.broker.fleet.servers) == 1 + MAX_SIBLINGS
    render_all(farm)
    assert farm.finished is not None
    assert farm.finished.status is Status.COMPLETE


def test_a_host_renders_as_fast_as_its_servers_together() -> None:
    farm = TimedFarm(lambda endpoint, work: 0.1 * work.width * work.height / 16**2)
    seconds = farm.render_host(make_frame(width=16 * 800, height=16, size=16), host_of(8, threads=2))
    assert seconds <= 800 * 0.1 / 16 + 0.3


@given(count=st.integers(1, 6), own=st.integers(0, 3), asked=st.booleans(), cancelled=st.booleans())
@settings(max_examples=60, deadline=None)
def test_servers_that_took_part_are_asked_to_restart_if_the_user_wants_it_and_our_children_never(
    count: int, own: int, asked: bool, cancelled: bool
) -> None:
    farm = SimulatedFarm(restart_servers=asked)
    farm.tell(events.FrameRequested(FRAME))
    for index in range(own):
        child = SimulatedServer(f"ipc:///child-{index}")
        farm.tell(events.ServerExpected(child.endpoint))
        farm.add(child)
    busy = SimulatedServer("tcp://host:1")
    busy.is_lent = True
    farm.add(busy)
    farm.add_host(host_of(count))
    settle(farm)
    if cancelled:
        farm.tell(events.CancelRequested("cancelled"))
    else:
        render_all(farm)
    settle(farm)
    restarts = {server.endpoint: server.restarts for server in farm.servers.values()}
    assert restarts == {place: int(asked and place.startswith("tcp:") and place != busy.endpoint) for place in restarts}
    assert all(server.phase in {Phase.UP, Phase.WAITING} for server in farm.broker.fleet)
