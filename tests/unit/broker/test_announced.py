"""Spawners announce their servers: those that are awaited join at once, and a lie costs a dial at most."""

from __future__ import annotations

import pytest

from dr.broker import commands, events
from dr.broker.fleet import Phase
from dr.broker.membership import MAX_ANNOUNCERS, MAX_SIBLINGS
from dr.broker.state import Broker
from tests.support.simulated_farm import KERNELS, SimulatedFarm, SimulatedServer, make_frame

FRAME = make_frame()
PLACE = "tcp://10.0.0.1:20204"
BOOT = b"bootboot"


def farm_of(*servers: SimulatedServer, whole_host: bool = False) -> SimulatedFarm:
    farm = SimulatedFarm()
    farm.tell(events.FrameRequested(FRAME))
    for server in servers:
        farm.add(server, whole_host)
    settle(farm)
    return farm


def settle(farm: SimulatedFarm) -> None:
    while farm.flow():
        farm.broker.check()


def announce(farm: SimulatedFarm, endpoint: str) -> None:
    farm.tell(events.ServerAnnounced(endpoint, BOOT))


def phases(farm: SimulatedFarm) -> dict[str, Phase]:
    return {server.endpoint: server.phase for server in farm.broker.fleet}


def pass_time(farm: SimulatedFarm, seconds: float) -> None:
    for _ in range(round(seconds * 20)):
        farm.pass_time(farm.now + 0.05)
        settle(farm)


def down(port: int = 20204) -> SimulatedServer:
    server = SimulatedServer(f"tcp://10.0.0.1:{port}")
    server.is_up = False
    return server


def test_one_that_is_announced_is_dialled_at_once() -> None:
    late = down()
    farm = farm_of(late)
    pass_time(farm, 30.0)
    late.start()
    before = len(farm.links)
    announced_at = farm.now
    announce(farm, PLACE)
    settle(farm)
    if not late.holder:  # it was dialled in vain a moment before
        farm.pass_time(announced_at + 0.1)
        settle(farm)
    assert late.holder
    assert farm.now - announced_at <= 0.1
    assert len(farm.links) <= before + 1


def test_one_that_is_not_announced_joins_within_a_second() -> None:
    late = down()
    farm = farm_of(late)
    pass_time(farm, 30.0)
    late.start()
    began = farm.now
    while not late.holder:
        farm.pass_time(farm.now + 0.01)
        settle(farm)
    assert farm.now - began <= 1.0


def test_a_flood_of_announcements_makes_no_more_than_one_dial_per_tenth_of_a_second() -> None:
    farm = farm_of(down())
    before, began = len(farm.links), farm.now
    for _ in range(1000):
        announce(farm, PLACE)
        farm.pass_time(farm.now + 0.002)
        settle(farm)
    assert len(farm.links) - before <= (farm.now - began) / 0.1 + 2  # the first back-offs are shorter by chance


@pytest.mark.parametrize("phase", [Phase.DIALING, Phase.UP, Phase.WAITING, Phase.READY])
def test_one_that_is_on_its_way_or_here_is_left_alone(phase: Phase) -> None:
    server = SimulatedServer(PLACE)
    server.is_lent = phase is Phase.WAITING
    farm = farm_of()
    farm.add(server)
    if phase is Phase.UP:
        farm.connect(farm.links_in("dialing")[0])
    elif phase is not Phase.DIALING:
        settle(farm)
    assert phases(farm) == {PLACE: phase}
    before = len(farm.links)
    announce(farm, PLACE)
    assert (phases(farm), len(farm.links)) == ({PLACE: phase}, before)


@pytest.mark.parametrize("fate", ["removed", "refused", "child that died"])
def test_one_that_is_out_stays_out(fate: str) -> None:
    farm = farm_of(SimulatedServer(PLACE), SimulatedServer("tcp://10.0.0.2:20204"))
    event = {
        "removed": events.ServerRemoved(PLACE, "removed from dr.toml"),
        "refused": events.DialRefused(PLACE, "this key is not known there"),
        "child that died": events.ServerDied(PLACE, "signal 9"),
    }[fate]
    farm.tell(event)
    announce(farm, PLACE)
    settle(farm)
    assert phases(farm)[PLACE] is Phase.OUT


def test_a_child_that_does_not_listen_yet_is_not_dialled() -> None:
    broker = Broker(kernels=KERNELS, seed=b"s" * 16)
    broker.handle(events.ServerExpected(PLACE), 0.0)
    assert broker.handle(events.ServerAnnounced(PLACE, BOOT), 0.0) == []


def test_a_stranger_is_not_dialled() -> None:
    farm = farm_of(SimulatedServer(PLACE))  # this one alone, not its host
    for stranger in ("tcp://10.0.0.1:20205", "tcp://10.0.0.9:20204"):
        announce(farm, stranger)
    assert set(phases(farm)) == {PLACE}


def test_a_new_server_of_a_host_that_is_wanted_whole_joins_and_leaves_with_it() -> None:
    farm = farm_of(SimulatedServer(PLACE), whole_host=True)
    second = SimulatedServer("tcp://10.0.0.1:30000")
    farm.place(second)
    announce(farm, second.endpoint)
    settle(farm)
    assert phases(farm)[second.endpoint] is Phase.READY
    farm.tell(events.ServerRemoved(PLACE, "removed from dr.toml"))
    settle(farm)
    assert set(phases(farm).values()) == {Phase.OUT}
    announce(farm, second.endpoint)
    assert set(phases(farm).values()) == {Phase.OUT}


def test_a_host_whose_first_server_is_down_is_found_by_what_it_announces() -> None:
    farm = farm_of(down(), whole_host=True)
    second = SimulatedServer("tcp://10.0.0.1:30000")
    farm.place(second)
    announce(farm, second.endpoint)
    settle(farm)
    assert phases(farm)[second.endpoint] is Phase.READY


def test_forged_announcements_of_a_host_are_bounded() -> None:
    farm = farm_of(SimulatedServer(PLACE), whole_host=True)
    for port in range(1024, 4000):
        announce(farm, f"tcp://10.0.0.1:{port}")
    assert len(phases(farm)) == 1 + MAX_SIBLINGS


def test_siblings_that_never_answer_are_dialled_ever_more_seldom_and_at_once_when_announced() -> None:
    liar = SimulatedServer(PLACE)
    liar.siblings = [30000]
    farm = farm_of(liar, whole_host=True)
    pass_time(farm, 120.0)
    before = len(farm.links)
    pass_time(farm, 60.0)
    assert len(farm.links) - before <= 4
    farm.place(SimulatedServer("tcp://10.0.0.1:30000"))
    announce(farm, "tcp://10.0.0.1:30000")
    pass_time(farm, 0.1)
    assert phases(farm)["tcp://10.0.0.1:30000"] is Phase.READY


def test_a_sibling_that_has_answered_once_is_dialled_every_second() -> None:
    servers = [SimulatedServer(PLACE), SimulatedServer("tcp://10.0.0.1:20205")]
    farm = SimulatedFarm()
    farm.tell(events.FrameRequested(FRAME))
    farm.add_host(servers)
    settle(farm)
    farm.crash(servers[1], kept=0)
    pass_time(farm, 60.0)
    servers[1].start()
    pass_time(farm, 1.0)
    assert phases(farm)[servers[1].endpoint] is Phase.READY


def test_the_announcer_that_a_welcome_names_is_heard_once_for_each_host() -> None:
    servers = [SimulatedServer("tcp://[::1]:20204"), SimulatedServer("tcp://[::1]:20205"), SimulatedServer(PLACE)]
    local = SimulatedServer("ipc:///server")
    for server in (*servers, local):
        server.announce = 20300
    farm = farm_of(*servers, local)
    farm.lose_client(servers[0])  # is welcomed again
    settle(farm)
    assert farm.announcers == [
        commands.HearAnnouncements("tcp://[::1]:20204", 20300),
        commands.HearAnnouncements(PLACE, 20300),
    ]


def test_a_lying_server_names_a_bounded_number_of_announcers() -> None:
    liar = SimulatedServer(PLACE)
    farm = farm_of(liar)
    for port in range(1000, 1100):
        liar.announce = port
        farm.lose_client(liar)
        settle(farm)
    assert len(farm.announcers) == MAX_ANNOUNCERS
