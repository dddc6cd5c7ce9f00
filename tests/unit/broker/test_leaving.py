"""Servers and hosts that leave: removed by the user, drained, lost again and again; and how long a render waits."""

from __future__ import annotations

import pytest

from dr.broker import commands, events
from dr.broker.commands import Send, Status, Topic
from dr.broker.fleet import Phase, Timers
from dr.protocol.messages import Bye
from tests.support.simulated_farm import SimulatedFarm, SimulatedServer, make_frame

FRAME = make_frame()  # 4 x 3 buckets
REASON = "removed from dr.toml"
STRANDED = "no server is left; waiting for one"


def host_of(count: int, first_port: int = 20204) -> list[SimulatedServer]:
    return [SimulatedServer(f"tcp://host:{first_port + index}") for index in range(count)]


def make_farm(wait_s: float = float("inf"), patient: bool = True) -> SimulatedFarm:
    farm = SimulatedFarm(timers=Timers(wait_s=wait_s), patient=patient)
    farm.tell(events.FrameRequested(FRAME))
    return farm


def settle(farm: SimulatedFarm) -> None:
    while farm.flow():
        farm.broker.check()


def pass_time(farm: SimulatedFarm, seconds: float) -> None:
    for _ in range(round(seconds * 10)):
        farm.pass_time(farm.now + 0.1)
        settle(farm)


def render_all(farm: SimulatedFarm) -> None:
    for _ in range(200):
        for each in farm.servers.values():
            for work in each.running() if each.is_up else []:
                farm.finish(each, work)
        settle(farm)
        if farm.finished:
            return
        farm.pass_time(farm.now + 0.1)


def remove(farm: SimulatedFarm, server: SimulatedServer) -> None:
    farm.tell(events.ServerRemoved(server.endpoint, REASON))
    settle(farm)


def phase_of(farm: SimulatedFarm, server: SimulatedServer) -> Phase:
    return farm.broker.fleet.servers[server.endpoint].phase


def told(farm: SimulatedFarm, topic: Topic) -> list[str]:
    return [notice.text for notice in farm.notices if notice.topic is topic]


# Hosts


def test_a_host_that_is_removed_takes_its_servers_with_it_and_brings_them_back() -> None:
    servers = host_of(3)
    farm = make_farm()
    farm.add_host(servers)
    settle(farm)
    farm.finish(servers[1], servers[1].running()[0])
    settle(farm)
    remove(farm, servers[0])
    assert {phase_of(farm, each) for each in servers} == {Phase.OUT}
    assert told(farm, Topic.LOST) == [REASON] * 3
    pass_time(farm, 4.0)
    assert not any(each.holder for each in servers)
    farm.tell(events.ServerAdded(servers[0].endpoint, whole_host=True))
    settle(farm)
    assert {phase_of(farm, each) for each in servers} == {Phase.READY}
    render_all(farm)
    assert farm.finished == commands.Finished(Status.COMPLETE)
    report = farm.broker.report()
    assert sum(each.buckets for each in report.servers) == report.done >= 12


def test_a_server_that_the_user_listed_too_stays_when_its_host_leaves() -> None:
    servers = host_of(3)
    farm = make_farm()
    farm.add_host(servers)
    farm.tell(events.ServerAdded(servers[2].endpoint))
    settle(farm)
    remove(farm, servers[0])
    assert [phase_of(farm, each) for each in servers] == [Phase.OUT, Phase.OUT, Phase.READY]


def test_a_sibling_that_was_removed_by_itself_does_not_come_back_with_its_host() -> None:
    servers = host_of(3)
    farm = make_farm()
    farm.add_host(servers)
    settle(farm)
    remove(farm, servers[1])
    remove(farm, servers[0])
    farm.tell(events.ServerAdded(servers[0].endpoint, whole_host=True))
    settle(farm)
    assert [phase_of(farm, each) for each in servers] == [Phase.READY, Phase.OUT, Phase.READY]
    farm.tell(events.ServerAdded(servers[1].endpoint))
    settle(farm)
    assert phase_of(farm, servers[1]) is Phase.READY


def test_a_server_that_comes_to_stand_for_its_host_brings_the_others() -> None:
    servers = host_of(2)
    for each in servers:
        each.siblings = [20204, 20205]
    farm = make_farm()
    farm.place(servers[1])
    farm.add(servers[0])
    settle(farm)
    assert len(farm.broker.fleet.servers) == 1
    farm.tell(events.ServerAdded(servers[0].endpoint, whole_host=True))
    settle(farm)
    assert phase_of(farm, servers[1]) is Phase.READY


def test_a_twin_takes_over_when_the_user_removes_the_one_that_it_gave_way_to() -> None:
    first, second = SimulatedServer("tcp://[::1]:20204"), SimulatedServer("tcp://127.0.0.1:20204")
    farm = make_farm()
    farm.add(first)
    farm.add(second)
    settle(farm)
    assert phase_of(farm, second) is Phase.OUT
    remove(farm, first)
    assert phase_of(farm, second) is Phase.READY
    render_all(farm)
    assert farm.finished == commands.Finished(Status.COMPLETE)


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.DIALING, Phase.UP, Phase.WAITING, Phase.LEASED, Phase.DRAINING])
def test_a_server_can_be_removed_and_added_again_whatever_it_does(phase: Phase) -> None:
    other, server = host_of(1, 30000)[0], host_of(1)[0]
    farm = make_farm()
    farm.add(other)
    settle(farm)
    server.is_up, server.is_lent = phase is not Phase.IDLE, phase is Phase.WAITING
    farm.add(server)
    if phase in {Phase.UP, Phase.LEASED}:
        farm.connect(farm.links_in("dialing")[0])
    if phase is Phase.LEASED:
        link = next(link for link in farm.links_in("open") if link.endpoint == server.endpoint)
        farm.deliver_to_server(link)
        farm.deliver_to_client(link)
        farm.deliver_to_client(link)
    elif phase not in {Phase.DIALING, Phase.UP}:
        settle(farm)
    if phase is Phase.DRAINING:
        farm.say(server, server.drain())
        farm.flow()
    assert phase_of(farm, server) is phase
    remove(farm, server)
    assert phase_of(farm, server) is Phase.OUT
    if server.waiter or server.holder:  # it finds us gone, as a gate does that cannot reach us
        server.release(server.waiter or server.holder or b"")
    server.is_up, server.is_lent = True, False
    farm.tell(events.ServerAdded(server.endpoint))
    settle(farm)
    assert phase_of(farm, server) is Phase.READY
    render_all(farm)
    assert farm.finished == commands.Finished(Status.COMPLETE)


# No server is left


def test_when_the_last_server_is_removed_the_render_waits_and_says_so_once() -> None:
    farm = make_farm()
    servers = host_of(2)
    farm.add_host(servers)
    settle(farm)
    remove(farm, servers[0])
    pass_time(farm, 100.0)
    assert farm.finished is None
    assert told(farm, Topic.WAITING) == [STRANDED]
    farm.tell(events.ServerAdded(servers[0].endpoint))
    settle(farm)
    remove(farm, servers[0])
    assert told(farm, Topic.WAITING) == [STRANDED, STRANDED]


def test_being_without_servers_is_told_once_however_often_one_comes_that_is_never_ready() -> None:
    farm = make_farm()
    (server,) = host_of(1)
    farm.add(server)
    settle(farm)
    farm.crash(server, kept=0)
    settle(farm)
    for _ in range(5):
        server.start()
        server.is_lent = True
        pass_time(farm, 2.0)
        assert phase_of(farm, server) is Phase.WAITING
        farm.crash(server, kept=0)
        settle(farm)
    assert [text for text in told(farm, Topic.WAITING) if text == STRANDED] == [STRANDED]


def test_nobody_is_told_to_wait_while_another_server_prepares() -> None:
    farm = make_farm()
    first, second = host_of(2)
    farm.add(first)
    settle(farm)
    farm.tell(events.ServerAdded(second.endpoint))
    farm.place(second)
    farm.connect(farm.links_in("dialing")[0])
    link = next(link for link in farm.links_in("open") if link.endpoint == second.endpoint)
    farm.deliver_to_server(link)
    farm.deliver_to_client(link)
    farm.deliver_to_client(link)
    assert phase_of(farm, second) is Phase.LEASED
    farm.tell(events.ServerRemoved(first.endpoint, REASON))
    assert told(farm, Topic.WAITING) == []


def test_a_patient_render_waits_though_all_that_it_knows_refuse() -> None:
    farm = make_farm()
    farm.tell(events.ServerAdded("tcp://host:20204"))
    farm.tell(events.DialRefused("tcp://host:20204", "this key is not known there"))
    assert farm.finished is None
    assert told(farm, Topic.WAITING) == [STRANDED]
    farm.add(host_of(1, 30000)[0])
    render_all(farm)
    assert farm.finished == commands.Finished(Status.COMPLETE)


def test_another_render_ends_at_once_and_tells_nobody_to_wait() -> None:
    farm = make_farm(patient=False)
    farm.tell(events.ServerAdded("tcp://host:20204"))
    farm.tell(events.DialRefused("tcp://host:20204", "this key is not known there"))
    assert farm.finished is not None
    assert farm.finished.status is Status.REFUSED
    assert told(farm, Topic.WAITING) == []


# Patience


def test_a_render_without_servers_ends_after_the_time_that_was_given_and_says_why() -> None:
    farm = make_farm(wait_s=30.0)
    (dead, busy) = host_of(2)
    dead.is_up, busy.is_lent = False, True
    farm.add(dead)
    farm.add(busy)
    settle(farm)
    pass_time(farm, 29.8)
    assert farm.finished is None
    farm.pass_time(30.0)
    reasons = f"{dead.endpoint}: refused; {busy.endpoint}: busy with somebody"
    assert farm.finished == commands.Finished(Status.INCOMPLETE, f"no server within 30 s: {reasons}")


def test_the_reasons_of_a_large_farm_fit_into_a_line() -> None:
    farm = make_farm(wait_s=2.0)
    for server in host_of(100):
        server.is_up = False
        farm.add(server)
    settle(farm)
    pass_time(farm, 2.0)
    assert farm.finished is not None
    assert farm.finished.reason.endswith("; and 95 more")


def test_waiting_begins_anew_when_the_last_server_is_lost() -> None:
    farm = make_farm(wait_s=5.0)
    (server,) = host_of(1)
    farm.add(server)
    settle(farm)
    pass_time(farm, 60.0)
    farm.crash(server, kept=0)
    settle(farm)
    lost = farm.now
    pass_time(farm, 4.5)
    assert farm.finished is None
    pass_time(farm, 1.0)
    assert farm.finished == commands.Finished(Status.INCOMPLETE, f"no server within 5 s: {server.endpoint}: refused")
    assert farm.now - lost <= 6.0


def test_a_server_that_prepares_for_long_is_waited_for() -> None:
    farm = make_farm(wait_s=5.0)
    (server,) = host_of(1)
    farm.add(server)
    while not server.lease:
        for link in farm.links_in("dialing"):
            farm.connect(link)
        for link in farm.links_in("open"):
            farm.deliver_to_server(link)
    for _ in range(100):  # it answers pings, and never says that it is ready
        farm.pass_time(farm.now + 0.5)
        for link in farm.links_in("open"):
            while link.to_server:
                farm.deliver_to_server(link)
            while link.to_client:
                farm.deliver_to_client(link)
    assert farm.finished is None
    assert phase_of(farm, server) is Phase.LEASED


def test_before_the_first_frame_is_known_nobody_grows_impatient() -> None:
    farm = SimulatedFarm(timers=Timers(wait_s=1.0))
    farm.tell(events.ServerAdded("tcp://host:20204"))
    pass_time(farm, 10.0)
    assert farm.finished is None
    farm.tell(events.FrameRequested(FRAME))
    pass_time(farm, 1.5)
    assert farm.finished is not None


# Drained


@pytest.mark.parametrize("running", [0, 2])
def test_a_draining_server_is_let_go_as_soon_as_it_has_nothing_of_ours(running: int) -> None:
    farm = make_farm()
    server, other = host_of(2)
    if not running:
        farm = SimulatedFarm(patient=True)  # no frame yet: it drains before any bucket
    farm.add(server)
    farm.add(other)
    settle(farm)
    lease, said = server.lease, []
    keep = farm._carry_out
    farm._carry_out = lambda wanted: (said.extend(wanted), keep(wanted))[1]  # type: ignore[method-assign]
    farm.say(server, server.drain())
    settle(farm)
    assert len(server.works) == running
    for held in server.running():
        assert Bye(lease=lease) not in [each.message for each in said if isinstance(each, Send)]
        farm.finish(server, held)
        settle(farm)
    assert [each.message for each in said if isinstance(each, Send)].count(Bye(lease=lease)) == 1
    assert phase_of(farm, server) is Phase.LEAVING
    assert server.holder is None
    farm.crash(server, kept=0)
    settle(farm)
    assert phase_of(farm, server) is Phase.IDLE
    server.start()
    pass_time(farm, 1.0)
    assert phase_of(farm, server) is (Phase.READY if running else Phase.LEASED)
    assert told(farm, Topic.LOST) == ["it stops, and leaves nothing undone"] * bool(running)


def test_a_drained_server_that_does_not_go_is_dialled_again() -> None:
    farm = make_farm()
    server, other = host_of(2)
    farm.add(server)
    farm.add(other)
    settle(farm)
    farm.say(server, server.drain())
    settle(farm)
    for held in server.running():
        farm.finish(server, held)
    settle(farm)
    assert phase_of(farm, server) is Phase.LEAVING
    pass_time(farm, 4.0)
    assert phase_of(farm, server) is Phase.READY


# Lost again and again


def crash_after(farm: SimulatedFarm, server: SimulatedServer, ready_s: float) -> float:
    """Back-off of the dial that follows a loss, after the server was ready for so long."""
    while phase_of(farm, server) is not Phase.READY:
        pass_time(farm, 0.1)
    pass_time(farm, ready_s)
    farm.crash(server, kept=0)
    settle(farm)
    server.start()
    return farm.broker.fleet.servers[server.endpoint].backoff_s


def test_a_server_that_is_lost_right_after_each_grant_is_dialled_ever_more_slowly() -> None:
    farm = make_farm()
    (server,) = host_of(1)
    farm.add(server)
    settle(farm)
    assert [crash_after(farm, server, 0.2) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert [crash_after(farm, server, 6.0), crash_after(farm, server, 0.2)] == [0.1, 0.2]
