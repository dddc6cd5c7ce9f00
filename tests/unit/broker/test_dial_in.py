"""Servers that dial in, as a user knows them: told as short stories with a simulated farm."""

from __future__ import annotations

import pytest

from dr.broker import commands, events, fleet
from dr.broker.commands import Dial, Disconnect, Send, Status, Topic
from dr.broker.fleet import Phase, Server
from dr.broker.state import Broker
from dr.protocol.messages import Bye, ErrorMessage, Hello, Here, Ping
from tests.support.simulated_farm import KERNELS, Said, SimulatedFarm, SimulatedServer, make_frame

FRAME = make_frame()  # 4 x 3 buckets
PLACE = "192.0.2.1:20300"


def listening_farm(*callers: SimulatedServer) -> SimulatedFarm:
    """A farm that listens, and whose servers hold their first buckets."""
    farm = SimulatedFarm()
    farm.tell(events.ListeningBegan(PLACE))
    farm.tell(events.FrameRequested(FRAME))
    for server in callers:
        farm.place(server)
        farm.call(server)
    settle(farm)
    return farm


def settle(farm: SimulatedFarm) -> None:
    while farm.flow():
        farm.broker.check()


def render_all(farm: SimulatedFarm) -> None:
    """Every server that is up renders, and dials in again when it has lost its connection."""
    for _ in range(200):
        for server in farm.servers.values():
            if server.is_up and not server.is_hung:
                for work in server.running():
                    farm.finish(server, work)
        settle(farm)
        if farm.finished:
            return
        farm.pass_time(farm.now + 0.1)


def cloud(index: int = 0, threads: int = 2) -> SimulatedServer:
    return SimulatedServer(f"cloud-{index}", threads)


def known(farm: SimulatedFarm, server: SimulatedServer) -> Server:
    return farm.broker.fleet.servers[f"here:{server.boot.hex()}"]


def told(farm: SimulatedFarm, topic: Topic) -> list[str]:
    return [notice.text for notice in farm.notices if notice.topic is topic]


def sent(said: list[commands.Command], kind: type) -> list[Send]:
    return [command for command in said if isinstance(command, Send) and isinstance(command.message, kind)]


def errors_to(farm: SimulatedFarm, server: SimulatedServer) -> list[str]:
    """Codes of the errors that are on their way to it."""
    queues = [link.to_server for link in farm.links.values() if link.endpoint == server.endpoint]
    return [message.code for queue in queues for message in queue if isinstance(message, ErrorMessage)]


def test_a_render_that_listens_says_so_and_waits_for_ever() -> None:
    farm = listening_farm()
    farm.pass_time(10_000.0)
    assert farm.finished is None
    assert told(farm, Topic.WAITING) == [f"waiting for servers to dial in at {PLACE}"]


def test_servers_that_dial_in_render_the_frame() -> None:
    one, two = cloud(0), cloud(1)
    farm = listening_farm(one, two)
    assert one.holder
    assert two.holder
    render_all(farm)
    assert farm.finished == commands.Finished(Status.COMPLETE)
    assert farm.finished == commands.Finished(Status.COMPLETE)
    assert not one.holder
    assert {report.name: bool(report.buckets) for report in farm.broker.report().servers} == {
        "cloud-0": True,
        "cloud-1": True,
    }


def test_one_that_dials_in_is_greeted_and_never_dialled() -> None:
    broker = Broker(kernels=KERNELS, seed=b"s" * 16, client="anna")
    broker.handle(events.ListeningBegan(PLACE), 0.0)
    said = broker.handle(events.MessageReceived(b"\x02peer", Here(version=1, boot=b"bootboot")), 0.0)
    assert said == [Send(b"\x02peer", Hello(version=1, name="anna", want=True, kernels=KERNELS))]
    lost = broker.handle(events.SendFailed(b"\x02peer", "closed"), 0.1)
    assert not [command for command in lost if isinstance(command, Dial | Disconnect)]
    assert broker.tick(10.0) == []
    assert broker.next_deadline() == float("inf")


def test_a_stranger_that_says_anything_else_first_is_dropped_and_costs_nothing() -> None:
    farm = listening_farm()
    before = len(farm.broker.fleet.servers), len(farm.notices)
    for message in (Ping(n=1), ErrorMessage(code="x", text="y")):
        farm.tell(events.MessageReceived(b"\x02stranger", message))  # type: ignore[arg-type]
    farm.tell(events.PeerMisbehaved(b"\x02stranger", "nonsense"))
    assert (len(farm.broker.fleet.servers), len(farm.notices)) == before
    assert farm.broker.hearing.dropped == 2


def test_a_server_that_is_killed_is_noticed_and_its_buckets_are_handed_on() -> None:
    one, two = cloud(0), cloud(1)
    farm = listening_farm(one, two)
    farm.crash(one, kept=0)
    settle(farm)
    assert known(farm, one).phase is Phase.IDLE
    assert told(farm, Topic.LOST) == ["connection closed"]
    render_all(farm)
    assert farm.finished == commands.Finished(Status.COMPLETE)


def test_a_server_that_comes_again_goes_on_and_its_buckets_are_counted_together() -> None:
    one = cloud()
    farm = listening_farm(one)
    farm.finish(one, one.running()[0])
    settle(farm)
    (link,) = farm.links_in("open")
    link.phase = "closing"
    one.release(link.peer)
    settle(farm)
    assert farm.finished is None
    farm.call(one)
    render_all(farm)
    report = farm.broker.report()
    assert [(each.name, each.buckets) for each in report.servers] == [("cloud-0", report.done)]


def test_a_fresh_process_of_the_same_server_is_another_server() -> None:
    one = cloud()
    farm = listening_farm(one)
    farm.crash(one, kept=0)
    one.start()
    farm.call(one)
    render_all(farm)
    assert farm.finished == commands.Finished(Status.COMPLETE)
    assert len(list(farm.broker.fleet)) == 2


def test_a_server_that_is_dialled_and_dials_in_takes_part_once() -> None:
    both = SimulatedServer("tcp://host:20204")
    farm = listening_farm()
    farm.add(both)
    settle(farm)
    farm.call(both)
    assert not errors_to(farm, both)
    (link,) = [link for link in farm.links_in("open") if link.dials_in]
    farm.deliver_to_client(link)
    assert errors_to(farm, both) == ["twin"]
    render_all(farm)
    report = farm.broker.report()
    assert [each.buckets for each in report.servers if each.buckets] == [report.done]


def test_a_server_that_dialled_in_before_it_was_dialled_takes_part_once() -> None:
    both = SimulatedServer("tcp://host:20204")
    farm = listening_farm(both)
    farm.add(both)
    settle(farm)
    assert farm.broker.fleet.servers[both.endpoint].phase is Phase.OUT
    render_all(farm)
    assert farm.finished == commands.Finished(Status.COMPLETE)


def test_a_server_that_comes_again_before_its_loss_is_known_is_sent_away_until_it_is() -> None:
    one = cloud()
    farm = listening_farm(one)
    (link,) = farm.links_in("open")
    link.phase = "cut"
    farm.call(one)
    settle(farm)
    assert not one.holder  # it was told `twin`, and hung up
    farm.pass_time(farm.now + 4.0)
    assert told(farm, Topic.LOST) == ["silent for 3 s"]
    farm.call(one)
    render_all(farm)
    assert farm.finished == commands.Finished(Status.COMPLETE)


def test_a_hung_server_is_dropped_by_its_silence_and_told_so() -> None:
    one, two = cloud(0), cloud(1)
    farm = listening_farm(one, two)
    one.is_hung = True
    for _ in range(40):
        farm.pass_time(farm.now + 0.1)
        settle(farm)
    assert known(farm, one).phase is Phase.IDLE
    assert errors_to(farm, one) == ["dropped"]
    one.is_hung = False
    settle(farm)
    assert not farm.is_calling(one)  # it has hung up, and will dial in again
    render_all(farm)
    assert farm.finished == commands.Finished(Status.COMPLETE)


def test_a_server_of_another_version_is_told_to_go_once_and_not_greeted_again() -> None:
    old = SimulatedServer("cloud-0", kernels="old kernels")
    farm = listening_farm(old)
    assert known(farm, old).phase is Phase.OUT
    assert len(told(farm, Topic.REFUSED)) == 1
    assert not farm.is_calling(old)
    farm.call(old)
    settle(farm)
    assert farm.is_calling(old)  # it is let wait, or it would come again and again
    assert len(told(farm, Topic.REFUSED)) == 1
    assert farm.finished is None


def test_a_server_that_says_two_boot_ids_breaks_the_protocol() -> None:
    farm = listening_farm()
    liar = cloud()
    farm.place(liar)
    farm.call(liar)
    (link,) = farm.links_in("open")
    link.to_client[0] = Said(Here(version=1, boot=b"another."))
    settle(farm)
    assert not liar.holder
    assert told(farm, Topic.UNREACHABLE) == [
        "broke the protocol: said `here` with another boot id than `welcome`; it may dial in again"
    ]


def test_here_on_a_connection_that_is_known_breaks_the_protocol() -> None:
    one = cloud()
    farm = listening_farm(one)
    farm.say(one, Said(Here(version=1, boot=one.boot)))
    settle(farm)
    assert known(farm, one).strikes == 1


def test_a_server_that_the_user_removed_stays_away_when_it_dials_in_again() -> None:
    one = cloud()
    farm = listening_farm(one)
    farm.tell(events.ServerRemoved(known(farm, one).endpoint, "removed"))
    settle(farm)
    assert not one.holder
    farm.call(one)
    settle(farm)
    assert not one.holder
    assert known(farm, one).phase is Phase.OUT


def test_the_number_of_servers_is_bounded_and_idle_ones_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "MAX_CALLERS", 2)
    farm = listening_farm(cloud(0), cloud(1))
    third = cloud(2)
    farm.place(third)
    farm.call(third)
    (link,) = [link for link in farm.links_in("open") if link.endpoint == third.endpoint]
    farm.deliver_to_client(link)
    assert errors_to(farm, third) == ["full"]
    settle(farm)
    broker = Broker(kernels=KERNELS, seed=b"s" * 16)
    for number in range(20):
        peer = b"\x02%08d" % number
        assert sent(broker.handle(events.MessageReceived(peer, Here(version=1, boot=b"%08d" % number)), 0.0), Hello)
        broker.handle(events.SendFailed(peer, "gone"), 0.0)
    assert len(broker.fleet.servers) == 2


def test_at_the_end_every_server_is_let_go_and_asked_to_restart_if_the_user_wants_it() -> None:
    farm = SimulatedFarm(restart_servers=True)
    farm.tell(events.ListeningBegan(PLACE))
    farm.tell(events.FrameRequested(FRAME))
    one = cloud()
    farm.place(one)
    farm.call(one)
    settle(farm)
    render_all(farm)
    settle(farm)
    assert farm.byes == {"cloud-0": True}
    assert one.restarts == 1


def test_a_server_that_dials_in_after_the_end_is_not_greeted() -> None:
    broker = Broker(kernels=KERNELS, seed=b"s" * 16)
    broker.handle(events.ListeningBegan(PLACE), 0.0)
    broker.handle(events.FrameRequested(FRAME), 0.0)
    broker.handle(events.CancelRequested("cancelled"), 0.0)
    said = broker.handle(events.MessageReceived(b"\x02peer", Here(version=1, boot=b"bootboot")), 0.0)
    assert said == []
    assert sent(said, Bye) == []


def test_servers_that_worked_and_are_gone_make_room_for_others_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "MAX_CALLERS", 3)
    stays = cloud(0)
    farm = listening_farm(stays)
    for number in range(1, 9):
        spot = cloud(number)
        farm.place(spot)
        farm.call(spot)
        settle(farm)
        assert known(farm, spot).phase is Phase.READY
        farm.crash(spot, kept=0)
        settle(farm)
        farm.pass_time(farm.now + 2.0)
    assert len(farm.broker.fleet.servers) == len(farm.broker.fleet.holders) == 3
    assert known(farm, stays).phase is Phase.READY
