"""A limited number of seats: who takes part, who stands by, and what the gate makes of it."""

from __future__ import annotations

import pytest

from dr.broker import commands, events
from dr.broker.commands import Send, Status, Topic
from dr.broker.fleet import Phase
from dr.broker.state import Broker
from dr.errors import Impossible
from dr.protocol.messages import Bye, Grant, Hello, Ping, Pong, Welcome
from tests.support.serving import fresh_state
from tests.support.simulated_farm import KERNELS, Said, SimulatedFarm, SimulatedServer, make_frame
from workers.server.commands import Send as GateSend
from workers.server.events import MessageArrived

FRAME = make_frame()  # 4 x 3 buckets


def server(index: int = 0, lent_to: str = "") -> SimulatedServer:
    made = SimulatedServer(f"tcp://10.0.0.1:2020{index}")
    if lent_to:
        made.is_lent, made.lent_to = True, lent_to
    return made


def farm_of(seats: int, *servers: SimulatedServer) -> SimulatedFarm:
    """A farm that has come to rest, and whose first servers render."""
    farm = SimulatedFarm(max_servers=seats)
    farm.tell(events.FrameRequested(FRAME))
    for each in servers:
        farm.add(each)
    settle(farm)
    return farm


def settle(farm: SimulatedFarm) -> None:
    while farm.flow():
        farm.broker.check()


def pass_time(farm: SimulatedFarm, seconds: float) -> None:
    for _ in range(round(seconds * 10)):
        farm.pass_time(farm.now + 0.1)
        settle(farm)


def phases(farm: SimulatedFarm) -> list[Phase]:
    return [each.phase for each in farm.broker.fleet]


def give_back(farm: SimulatedFarm, server: SimulatedServer) -> None:
    """The other client lets it go."""
    if waiting := server.return_from_other(farm.now):
        peer, messages = waiting
        farm.links[peer].to_client.extend(Said(message) for message in messages)
    settle(farm)


def render_all(farm: SimulatedFarm) -> None:
    for _ in range(100):
        for each in farm.servers.values():
            for work in each.running():
                farm.finish(each, work)
        settle(farm)
        if farm.finished:
            return
        farm.pass_time(farm.now + 0.1)


def test_as_many_as_wanted_take_part_in_the_order_of_the_list_and_the_others_stand_by() -> None:
    farm = farm_of(2, *(server(index) for index in range(4)))
    assert phases(farm) == [Phase.READY, Phase.READY, Phase.STANDBY, Phase.STANDBY]
    assert [each.phase for each in farm.broker.report().servers][2:] == ["standing by"] * 2
    assert [each.holder is None for each in farm.servers.values()] == [False, False, True, True]
    render_all(farm)
    assert farm.finished == commands.Finished(Status.COMPLETE)
    assert [each.buckets > 0 for each in farm.broker.report().servers] == [True, True, False, False]


def test_one_who_stands_by_is_free_for_others_and_is_never_dropped() -> None:
    farm = farm_of(1, server(0), server(1))
    pass_time(farm, 20.0)
    assert phases(farm) == [Phase.READY, Phase.STANDBY]
    assert farm.servers["tcp://10.0.0.1:20201"].holder is None
    assert len(farm.links) == 2


def test_a_busy_one_is_passed_over_while_an_idle_one_is_there() -> None:
    first, second, third = server(0), server(1, "anna"), server(2)
    farm = farm_of(1, first, second, third)
    assert phases(farm) == [Phase.READY, Phase.STANDBY, Phase.STANDBY]
    farm.crash(first, kept=0)
    settle(farm)
    assert phases(farm)[1:] == [Phase.STANDBY, Phase.READY]
    assert [notice.topic for notice in farm.notices] == [Topic.JOINED, Topic.LOST, Topic.WAITING, Topic.JOINED]


def test_busy_ones_are_waited_for_where_too_few_are_idle_and_the_one_too_many_is_let_go() -> None:
    first, second = server(0, "anna"), server(1, "bert")
    farm = farm_of(1, first, second)
    assert phases(farm) == [Phase.WAITING, Phase.WAITING]
    give_back(farm, second)
    assert phases(farm) == [Phase.WAITING, Phase.READY]
    give_back(farm, first)
    assert phases(farm) == [Phase.STANDBY, Phase.READY]
    assert first.holder is None
    assert farm.finished is None


def test_an_idle_one_that_comes_later_takes_the_seat_that_busy_ones_are_waited_for() -> None:
    farm = farm_of(1, server(0, "anna"))
    farm.add(server(1))
    settle(farm)
    assert phases(farm) == [Phase.WAITING, Phase.READY]


@pytest.mark.parametrize("how", ["killed", "removed", "drained"])
def test_the_next_idle_one_takes_the_seat_of_one_that_is_gone(how: str) -> None:
    first, second, third = server(0), server(1), server(2)
    farm = farm_of(1, first, second, third)
    if how == "killed":
        farm.crash(first, kept=0)
    elif how == "removed":
        farm.tell(events.ServerRemoved(first.endpoint, "removed from dr.toml"))
    else:
        first.works.clear()
        farm.say(first, first.drain())
        farm.crash(first, kept=1)
    settle(farm)
    assert phases(farm)[1:] == [Phase.READY, Phase.STANDBY]
    first.start()
    pass_time(farm, 2.0)
    assert phases(farm)[0] is (Phase.OUT if how == "removed" else Phase.STANDBY)


def test_one_that_was_taken_while_it_stood_by_gives_its_turn_to_the_next() -> None:
    first, second, third = server(0), server(1), server(2)
    farm = farm_of(1, first, second, third)
    second.is_lent = True
    farm.crash(first, kept=0)
    settle(farm)
    assert phases(farm)[1:] == [Phase.WAITING, Phase.READY]


def test_our_own_children_and_those_that_dial_in_need_no_seat() -> None:
    farm = farm_of(1, server(0), server(1))
    child = SimulatedServer("ipc:///child")
    farm.tell(events.ServerExpected(child.endpoint))
    farm.add(child)
    farm.tell(events.ListeningBegan("127.0.0.1:1"))
    caller = SimulatedServer("cloud-0")
    farm.place(caller)
    farm.call(caller)
    settle(farm)
    assert phases(farm) == [Phase.READY, Phase.STANDBY, Phase.READY, Phase.READY]


def test_servers_that_a_host_brings_count_one_by_one() -> None:
    farm = SimulatedFarm(max_servers=2)
    farm.tell(events.FrameRequested(FRAME))
    farm.add_host([SimulatedServer(f"tcp://host:{20204 + index}") for index in range(4)])
    settle(farm)
    assert phases(farm).count(Phase.READY) == 2
    assert phases(farm).count(Phase.STANDBY) == 2


def test_a_gate_that_says_it_is_free_and_gives_no_lease_blocks_no_seat() -> None:
    liar = server(0)
    liar.lend = lambda peer, now: []  # type: ignore[method-assign]
    farm = farm_of(1, liar, server(1))
    assert phases(farm) == [Phase.WAITING, Phase.STANDBY]
    pass_time(farm, 4.0)
    assert phases(farm) == [Phase.WAITING, Phase.READY]


def test_without_a_limit_there_is_one_hello_and_it_asks_for_the_lease() -> None:
    broker = Broker(kernels=KERNELS, seed=b"s" * 16)
    broker.handle(events.ServerAdded("ipc:///a"), 0.0)
    (hello,) = broker.handle(events.DialSucceeded("ipc:///a"), 0.0)
    assert isinstance(hello, Send)
    assert hello.message == Hello(version=1, want=True, kernels=KERNELS)


def test_a_seat_given_twice_or_left_empty_is_our_bug() -> None:
    farm = farm_of(1, server(0), server(1))
    farm.broker.links.seats.limit = 2
    with pytest.raises(Impossible, match="stands by while a seat is free"):
        farm.broker.check()
    farm = farm_of(2, server(0), server(1))
    farm.broker.links.seats.limit = 1
    with pytest.raises(Impossible, match="2 servers hold a lease on 1 seats, 2 are counted"):
        farm.broker.check()


def test_a_busy_server_tells_its_next_holder_only_when_asked_and_is_asked_every_two_seconds() -> None:
    busy = server(0, "anna")
    farm = farm_of(0, busy)
    busy.lent_to = "bert"
    pass_time(farm, 7.0)
    assert [notice.text for notice in farm.notices if notice.topic is Topic.WAITING] == [
        "busy with anna; joins when it is free",
        "busy with bert; joins when it is free",
    ]
    give_back(farm, busy)
    assert phases(farm) == [Phase.READY]


def test_the_real_gate_lets_one_stand_by_for_as_long_as_it_likes_and_then_grants() -> None:
    """What the broker relies on: `hello` without a wish leaves the server free, and the wish may follow."""
    state, peer = fresh_state(), b"client"

    def tell(message: Hello | Ping, now: float) -> list[object]:
        sent = state.handle(MessageArrived(peer, message), now)
        return [command.message for command in sent if isinstance(command, GateSend)]

    asking = Hello(version=1, name="anna", kernels=state.identity.kernels)
    (welcome,) = tell(asking, 0.0)
    assert isinstance(welcome, Welcome)
    assert not welcome.busy
    for second in range(1, 60):
        state.tick(float(second))
        assert tell(Ping(n=second), float(second)) == [Pong(n=second)]
    assert state.holder is None
    welcome, grant = tell(Hello(version=1, name="anna", kernels=state.identity.kernels, want=True), 60.0)
    assert isinstance(grant, Grant)
    again = tell(Hello(version=1, name="anna", kernels=state.identity.kernels, want=True), 60.1)
    assert again[-1] == grant  # asked twice, it is held once
    state.handle(MessageArrived(peer, Bye(lease=grant.lease)), 60.2)
    assert state.holder is None
