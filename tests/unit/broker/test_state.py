"""The broker's behaviour as a user knows it, told as short stories with a simulated farm."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from dr.broker import commands, events
from dr.broker.commands import Disconnect, Send, Status, Topic
from dr.broker.fleet import Phase, Timers
from dr.broker.hearing import MAX_READS
from dr.broker.links import MAX_LOSSES
from dr.broker.state import Broker
from dr.errors import Impossible
from dr.protocol.messages import (
    Bye,
    Cancel,
    ErrorMessage,
    Failed,
    Get,
    Grant,
    Hello,
    NoLease,
    Ping,
    Progress,
    Setup,
    Tile,
)
from tests.support.simulated_farm import KERNELS, MANIFEST, Link, Said, SimulatedFarm, SimulatedServer, make_frame

FRAME = make_frame()  # 4 x 3 buckets
ALL = set(range(12))


def farm_of(*servers: SimulatedServer) -> SimulatedFarm:
    """A farm whose servers hold their first buckets."""
    farm = SimulatedFarm()
    farm.tell(events.FrameRequested(FRAME))
    for server in servers:
        farm.add(server)
    settle(farm)
    return farm


def settle(farm: SimulatedFarm) -> None:
    while farm.flow():
        farm.broker.check()


def render_all(farm: SimulatedFarm) -> None:
    """Every server that is up renders until nothing is left."""
    for _ in range(100):
        for server in farm.servers.values():
            for work in server.running():
                if server.is_up and not server.is_hung:
                    farm.finish(server, work)
        settle(farm)
        if farm.finished:
            return
        farm.pass_time(farm.now + 0.1)


def server(index: int = 0, threads: int = 2) -> SimulatedServer:
    return SimulatedServer(f"ipc:///server-{index}", threads)


def link_of(farm: SimulatedFarm, endpoint: str) -> Link:
    return next(link for link in farm.links_in("open", "cut") if link.endpoint == endpoint)


def sent(said: list[commands.Command], kind: type) -> list[object]:
    return [command.message for command in said if isinstance(command, Send) and isinstance(command.message, kind)]


def topics(farm: SimulatedFarm) -> list[Topic]:
    return [notice.topic for notice in farm.notices]


def test_one_server_renders_the_frame() -> None:
    farm = farm_of(server())
    render_all(farm)
    assert set(farm.merged) == ALL
    assert farm.finished == commands.Finished(Status.COMPLETE)
    assert farm.servers["ipc:///server-0"].holder is None
    assert topics(farm) == [Topic.JOINED]


def test_a_frame_may_be_requested_when_servers_are_held_already() -> None:
    farm = SimulatedFarm()
    farm.add(server())
    settle(farm)
    assert farm.servers["ipc:///server-0"].holder
    farm.tell(events.FrameRequested(FRAME))
    settle(farm)
    render_all(farm)
    assert set(farm.merged) == ALL


def test_the_first_words_ask_for_a_lease_and_name_the_frame() -> None:
    broker = Broker(kernels=KERNELS, seed=b"s" * 16, client="anna")
    broker.handle(events.FrameRequested(FRAME), 0.0)
    (dial,) = broker.handle(events.ServerAdded("ipc:///a"), 0.0)
    assert isinstance(dial, commands.Dial)
    assert (dial.endpoint, dial.peer[:1], len(dial.peer)) == ("ipc:///a", b"\x01", 9)
    (hello,) = broker.handle(events.DialSucceeded("ipc:///a"), 0.1)
    assert hello == Send(dial.peer, Hello(version=1, name="anna", want=True, kernels=KERNELS))
    sim = server()
    welcome, grant = sim.hear(dial.peer, hello.message, 0.2)
    assert broker.handle(events.MessageReceived(dial.peer, welcome), 0.2) == []
    (setup,) = sent(broker.handle(events.MessageReceived(dial.peer, grant), 0.2), Setup)
    assert setup == Setup(
        lease=grant.lease,
        epoch=broker.frames.live[0].epoch,
        manifest=MANIFEST,
        manifest_bytes=100,
        settings=FRAME.settings,
        channels=list(FRAME.channels),
    )


def test_the_same_seed_and_events_give_the_same_commands() -> None:
    dials = [Broker(kernels="", seed=seed).handle(events.ServerAdded("x"), 0.0) for seed in (b"a", b"a", b"b")]
    assert dials[0] == dials[1] != dials[2]


def test_buckets_are_handed_out_in_order_and_no_more_than_credit() -> None:
    farm = farm_of(server(0), server(1))
    assert [[work.id for work in sim.works] for sim in farm.servers.values()] == [[0, 1, 2, 3], [4, 5, 6, 7]]


# Servers that die


def test_the_buckets_of_a_killed_server_are_rendered_by_another() -> None:
    farm = farm_of(server(0), server(1))
    farm.crash(farm.servers["ipc:///server-0"], kept=0)
    settle(farm)
    assert Topic.LOST in topics(farm)
    assert [work.id for work in farm.servers["ipc:///server-1"].works] == [4, 5, 6, 7]
    render_all(farm)
    assert set(farm.merged) == ALL
    assert {tile.server for tile in farm.merged.values()} == {"ipc:///server-1"}
    assert farm.finished.status is Status.COMPLETE


def test_what_a_dead_server_had_queued_is_next_and_what_it_rendered_comes_last_and_alone() -> None:
    farm = farm_of(server(0), server(1))
    farm.crash(farm.servers["ipc:///server-0"], kept=0)  # rendered 0 and 1, had 2 and 3 queued
    settle(farm)
    other = farm.servers["ipc:///server-1"]
    order = []
    while farm.finished is None:
        assert len(other.works) == 1 if other.works[0].id in {0, 1} else True
        order.append(other.works[0].id)
        farm.finish(other, other.works[0])
        settle(farm)
    assert order == [4, 5, 6, 7, 2, 3, 8, 9, 10, 11, 1, 0]


def test_an_idle_server_takes_what_a_dead_one_leaves_at_once() -> None:
    farm = SimulatedFarm()
    farm.tell(events.FrameRequested(make_frame(width=8, height=8)))
    farm.add(server(0))
    settle(farm)
    farm.add(server(1))
    settle(farm)
    first, idle = farm.servers.values()
    assert ([work.id for work in first.works], list(idle.works)) == ([0], [])
    farm.crash(first, kept=0)
    settle(farm)
    assert [work.id for work in idle.works] == [0]


def test_a_hung_server_is_noticed_by_its_silence() -> None:
    farm = farm_of(server(0), server(1))
    hung = farm.servers["ipc:///server-0"]
    hung.is_hung = True
    noticed = None
    while noticed is None and farm.now < 10:
        farm.pass_time(farm.now + 0.1)
        settle(farm)
        noticed = next((farm.now for notice in farm.notices if notice.topic is Topic.LOST), None)
    assert noticed is not None
    assert 3.0 <= noticed <= 4.0
    assert [n.text for n in farm.notices if n.topic is Topic.LOST] == ["silent for 3 s"]


def test_a_healthy_server_is_never_given_up_however_long_its_buckets_take() -> None:
    farm = farm_of(server())
    for _ in range(200):
        farm.pass_time(farm.now + 0.3)
        settle(farm)
    assert topics(farm) == [Topic.JOINED]


def test_without_any_server_the_render_waits_and_says_so() -> None:
    farm = farm_of(server())
    sim = farm.servers["ipc:///server-0"]
    farm.crash(sim, kept=0)
    settle(farm)
    farm.pass_time(60.0)
    assert farm.finished is None
    assert (Topic.WAITING, "no server is left; waiting for one") in [(n.topic, n.text) for n in farm.notices]
    sim.start()
    render_all(farm)
    assert set(farm.merged) == ALL


def test_a_dead_server_is_dialled_again_ever_more_slowly_with_a_fresh_id() -> None:
    farm = farm_of(server())
    farm.crash(farm.servers["ipc:///server-0"], kept=0)
    dials = []
    while farm.now < 20:
        seen = len(farm.links)
        settle(farm)
        farm.pass_time(min(farm.broker.next_deadline(), farm.now + 1))
        dials += [farm.now] * (len(farm.links) - seen)
    gaps = [later - earlier for earlier, later in pairwise(dials)]
    assert 0.05 <= min(gaps) <= 0.4
    assert 0.5 <= max(gaps) <= 1.0
    assert len({link.peer for link in farm.links.values()}) == len(farm.links)


def test_local_servers_that_all_died_end_the_render_with_their_last_words() -> None:
    farm = SimulatedFarm()
    farm.tell(events.FrameRequested(FRAME))
    farm.tell(events.ServerExpected("ipc:///server-0", "local 0"))
    farm.tell(events.ServerExpected("ipc:///server-1", "local 1"))
    farm.add(server(0))
    settle(farm)
    farm.tell(events.ServerDied("ipc:///server-0", "exited with signal 9"))
    assert farm.finished is None  # the second one may still come
    farm.tell(events.ServerDied("ipc:///server-1", "no memory"))
    assert farm.finished.status is Status.INCOMPLETE
    assert "exited with signal 9" in farm.finished.reason
    assert "local 1: no memory" in farm.finished.reason


def test_a_server_that_died_before_it_was_added_is_named_too() -> None:
    farm = SimulatedFarm()
    farm.tell(events.FrameRequested(FRAME))
    farm.tell(events.ServerDied("ipc:///server-0", "no memory"))
    assert farm.finished == commands.Finished(
        Status.INCOMPLETE, "no server can render this frame: ipc:///server-0: no memory"
    )


def test_a_removed_server_gives_its_buckets_back_without_suspicion() -> None:
    farm = farm_of(server(0), server(1))
    farm.tell(events.ServerRemoved("ipc:///server-0", "removed by the user"))
    settle(farm)
    assert farm.broker.frames.live[0].job.suspects == type(farm.broker.frames.live[0].job.suspects)()
    render_all(farm)
    assert farm.finished.status is Status.COMPLETE
    farm.tell(events.ServerRemoved("ipc:///server-1", "too late to matter"))


# Buckets that fail


def test_a_bucket_that_fails_everywhere_is_given_up_and_the_others_are_finished() -> None:
    farm = farm_of(server(0), server(1))
    for _ in range(100):
        for sim in farm.servers.values():
            for work in sim.running():
                (farm.fail if work.id == 5 else farm.finish)(sim, work)
        settle(farm)
        farm.pass_time(farm.now + 0.1)
    assert set(farm.merged) == ALL - {5}
    assert farm.finished.status is Status.INCOMPLETE
    assert [(p.bucket.id, p.error) for p in farm.finished.poisoned] == [(5, "kernel raised")]
    assert farm.finished.reason == "1 buckets could not be rendered"
    assert [topic for topic in topics(farm) if topic in {Topic.FAILED, Topic.POISONED}] == [
        Topic.FAILED,
        Topic.POISONED,
    ]


def test_a_bucket_that_kills_its_servers_is_given_up_and_no_other_is() -> None:
    farm = farm_of(server(0), server(1), server(2))
    for _ in range(400):
        for sim in farm.servers.values():
            if sim.is_up and any(work.id == 7 for work in sim.running()):
                farm.crash(sim, kept=0)
            elif sim.is_up and sim.works:
                farm.finish(sim, sim.works[0])
            elif not sim.is_up:
                sim.start()
        settle(farm)
        farm.pass_time(farm.now + 0.1)
    assert set(farm.merged) == ALL - {7}
    assert [p.bucket.id for p in farm.finished.poisoned] == [7]


def test_a_server_that_fails_what_others_render_is_set_aside() -> None:
    farm = farm_of(server(0), server(1))
    bad, good = farm.servers.values()
    while farm.finished is None:
        for held in bad.running():
            farm.fail(bad, held)
        for held in good.running():
            farm.finish(good, held)
        settle(farm)
        farm.pass_time(farm.now + 0.1)
    assert farm.finished.status is Status.COMPLETE
    assert [(n.endpoint, n.text) for n in farm.notices if n.topic is Topic.REFUSED] == [
        (bad.endpoint, "failed 3 buckets in a row that others rendered, at last: kernel raised")
    ]
    assert set(farm.merged) == ALL


def test_failures_between_which_a_server_renders_something_are_forgiven() -> None:
    farm = farm_of(server(0, threads=1), server(1, threads=1))
    moody, good = farm.servers.values()
    turns = 0
    while farm.finished is None:
        for held in moody.running():
            turns += 1
            (farm.fail if turns % 2 else farm.finish)(moody, held)
        for held in good.running():
            farm.finish(good, held)
        settle(farm)
        farm.pass_time(farm.now + 0.1)
    assert not [n for n in farm.notices if n.topic is Topic.REFUSED]


def test_a_farm_of_bad_servers_alone_gives_up_bucket_by_bucket() -> None:
    farm = farm_of(server(0), server(1))
    for _ in range(200):
        for sim in farm.servers.values():
            for held in sim.running():
                farm.fail(sim, held)
        settle(farm)
        farm.pass_time(farm.now + 0.1)
    assert farm.finished.reason == "12 buckets could not be rendered"


def test_a_scene_that_no_server_can_prepare_ends_the_render_as_bad_input() -> None:
    farm = farm_of(server())
    sim = farm.servers["ipc:///server-0"]
    farm.say(sim, Said(Failed(lease=sim.lease, epoch=sim.epoch, error="scene.gltf: no mesh", fatal=True)))
    settle(farm)
    assert farm.finished == commands.Finished(Status.BAD_INPUT, "scene.gltf: no mesh")


def test_a_server_that_alone_cannot_prepare_sits_this_render_out() -> None:
    farm = farm_of(server(0), server(1))
    sim = farm.servers["ipc:///server-0"]
    farm.say(sim, Said(Failed(lease=sim.lease, epoch=sim.epoch, error="disk full")))
    settle(farm)
    render_all(farm)
    assert farm.finished.status is Status.COMPLETE
    assert [(loss.name, loss.reason) for loss in farm.broker.report().lost] == [("ipc:///server-0", "disk full")]


# Servers that cannot or will not


@pytest.mark.parametrize(("field", "value"), [("version", 2), ("kernels", "other kernels")])
def test_a_server_of_another_version_is_refused_by_name_and_the_others_render(field: str, value: object) -> None:
    other = server(0)
    setattr(other, field, value)
    farm = farm_of(other, server(1))
    refused = [notice for notice in farm.notices if notice.topic is Topic.REFUSED]
    assert [notice.endpoint for notice in refused] == ["ipc:///server-0"]
    assert str(value)[:12] in refused[0].text
    render_all(farm)
    assert farm.finished.status is Status.COMPLETE


def test_when_every_server_refuses_the_render_ends_refused() -> None:
    other = server(0)
    other.version = 7
    farm = farm_of(other)
    farm.tell(events.ServerAdded("tcp://10.0.0.1:20204"))
    assert farm.finished is not None
    assert farm.finished.status is Status.REFUSED
    assert "speaks protocol 7, this client 1" in farm.finished.reason


def test_a_refused_key_is_final() -> None:
    farm = SimulatedFarm()
    farm.tell(events.FrameRequested(FRAME))
    farm.tell(events.ServerAdded("tcp://10.0.0.1:20204"))
    farm.tell(events.DialRefused("tcp://10.0.0.1:20204", "this key is not known there"))
    assert farm.finished.status is Status.REFUSED
    assert farm.broker.next_deadline() == float("inf")


def test_a_busy_server_is_named_with_its_holder_and_joins_when_it_is_free() -> None:
    busy = server(0)
    busy.is_lent = True
    farm = farm_of(busy, server(1))
    waiting = [notice for notice in farm.notices if notice.topic is Topic.WAITING]
    assert [notice.text for notice in waiting] == ["busy with somebody; joins when it is free"]
    peer, said = busy.return_from_other(farm.now)
    farm.links[peer].to_client.extend(Said(message) for message in said)
    settle(farm)
    assert [work.id for work in busy.works] == [4, 5, 6, 7]


def test_a_server_that_becomes_free_after_the_end_is_let_go_at_once() -> None:
    busy = server(0)
    busy.is_lent = True
    farm = farm_of(busy, server(1))
    render_all(farm)
    peer, said = busy.return_from_other(farm.now)
    assert busy.holder == peer
    farm.links[peer].to_client.extend(Said(message) for message in said)
    settle(farm)
    assert busy.holder is None


def test_a_server_that_ends_the_lease_is_asked_again() -> None:
    farm = farm_of(server())
    sim = farm.servers["ipc:///server-0"]
    first = sim.lease
    farm.lose_client(sim)
    settle(farm)
    assert sim.lease not in {first, b""}
    render_all(farm)
    assert farm.finished.status is Status.COMPLETE


def test_the_same_server_under_two_names_takes_part_once() -> None:
    farm = farm_of(server(0), server(1))
    twin = SimulatedServer("ipc:///server-9")
    twin.boot = farm.servers["ipc:///server-0"].boot
    farm.add(twin)
    settle(farm)
    assert [n.text for n in farm.notices if n.endpoint == twin.endpoint] == ["is the same server as ipc:///server-0"]


def test_a_draining_server_finishes_what_it_renders_and_gets_nothing_new() -> None:
    farm = farm_of(server(0), server(1))
    sim = farm.servers["ipc:///server-0"]
    farm.say(sim, sim.drain())
    settle(farm)
    for work in sim.running():
        farm.finish(sim, work)
    settle(farm)
    assert not sim.works
    assert {0, 1} <= set(farm.merged)
    render_all(farm)
    assert farm.finished.status is Status.COMPLETE
    assert {tile.bucket.id for tile in farm.merged.values() if tile.server == sim.endpoint} == {0, 1}


def test_what_a_draining_server_could_not_finish_is_no_suspect() -> None:
    farm = farm_of(server(0), server(1))
    sim = farm.servers["ipc:///server-0"]
    farm.say(sim, sim.drain())
    settle(farm)
    farm.crash(sim, kept=0)
    settle(farm)
    assert not farm.broker.frames.live[0].job.suspects
    render_all(farm)
    assert farm.finished.status is Status.COMPLETE


# Hosts


def host_of(*ports: int, host: str = "[::1]") -> list[SimulatedServer]:
    return [SimulatedServer(f"tcp://{host}:{port}") for port in ports]


def known(farm: SimulatedFarm) -> list[str]:
    return [server.endpoint for server in farm.broker.fleet]


def test_a_host_brings_all_its_servers_and_says_so_once() -> None:
    farm = farm_of()
    farm.add_host(host_of(20204, 30000, 30001))
    settle(farm)
    assert known(farm) == ["tcp://[::1]:20204", "tcp://[::1]:30000", "tcp://[::1]:30001"]
    assert all(sim.works for sim in farm.servers.values())
    farm.lose_client(farm.servers["tcp://[::1]:20204"])  # is greeted again, and welcomes again
    settle(farm)
    assert [n.text for n in farm.notices if n.topic is Topic.FOUND] == ["its host has 2 more servers"]


def test_a_server_that_was_named_with_its_port_comes_alone() -> None:
    farm = farm_of()
    first, second = host_of(20204, 20205)
    farm.place(second)
    first.siblings = [20205]
    farm.add(first)
    settle(farm)
    assert known(farm) == [first.endpoint]


def test_siblings_bring_no_siblings() -> None:
    farm = farm_of()
    servers = host_of(20204, 20205)
    servers[1].siblings = [20206]
    servers[0].siblings = [20205]
    farm.place(servers[1])
    farm.add(servers[0], whole_host=True)
    settle(farm)
    assert known(farm) == [server.endpoint for server in servers]


def test_a_server_on_a_unix_socket_has_no_host_to_bring() -> None:
    farm = SimulatedFarm()
    alone = server()
    alone.siblings = [20205]
    farm.add(alone, whole_host=True)
    settle(farm)
    assert known(farm) == [alone.endpoint]


def test_a_later_list_brings_more_and_takes_nobody_away() -> None:
    farm = farm_of()
    servers = host_of(20204, 20205, 20206)
    farm.add_host(servers[:2])
    settle(farm)
    farm.place(servers[2])
    servers[0].siblings = [20206]
    farm.lose_client(servers[0])
    settle(farm)
    assert len(farm.broker.fleet.ready()) == 3
    assert [n.text for n in farm.notices if n.topic is Topic.FOUND] == ["its host has 1 more server"] * 2


def test_a_sibling_that_the_user_removed_stays_away() -> None:
    farm = farm_of()
    servers = host_of(20204, 20205)
    farm.add_host(servers)
    settle(farm)
    farm.tell(events.ServerRemoved(servers[1].endpoint, "removed by the user"))
    farm.lose_client(servers[0])
    settle(farm)
    assert [server.endpoint for server in farm.broker.fleet.ready()] == [servers[0].endpoint]


@pytest.mark.parametrize(("whole_host", "brought"), [(False, "tcp://127.0.0.1:20205"), (True, "tcp://[::1]:20205")])
def test_a_host_with_two_addresses_brings_its_servers_under_one_of_them(whole_host: bool, brought: str) -> None:
    farm = farm_of()
    servers, doubles = host_of(20204, 20205), host_of(20204, 20205, host="127.0.0.1")
    for sim in (*servers, *doubles):
        farm.place(sim)
        sim.siblings = [20205]
    farm.add(servers[0], whole_host)
    settle(farm)
    farm.add(doubles[0], whole_host=True)
    settle(farm)
    assert set(known(farm)) == {servers[0].endpoint, doubles[0].endpoint, brought}
    assert [ready.endpoint for ready in farm.broker.fleet.ready()] == [servers[0].endpoint, brought]


# Races


def test_a_late_tile_ends_the_race() -> None:
    farm = farm_of(server(0), server(1))
    slow, fast = farm.servers.values()
    while sorted(farm.merged) != sorted(ALL - {0}):
        for work in list(slow.running()) + list(fast.running()):
            owner = slow if work in slow.works else fast
            if work.id != 0:
                farm.finish(owner, work)
                settle(farm)
        farm.pass_time(farm.now + 0.1)
        settle(farm)
    assert [work.id for work in slow.works] == [0]
    farm.pass_time(farm.now + 1.0)
    settle(farm)
    assert [work.id for work in fast.works] == [0]
    farm.finish(slow, slow.works[0])
    settle(farm)
    assert farm.merged[0].server == slow.endpoint
    assert farm.finished.status is Status.COMPLETE
    assert not fast.works  # cancelled


def test_what_a_restarted_server_holds_is_raced_once() -> None:
    farm = farm_of(server(0))
    restarted = farm.servers["ipc:///server-0"]
    farm.crash(restarted, kept=0)
    settle(farm)
    restarted.start()
    farm.pass_time(farm.now + 0.5)
    settle(farm)
    farm.add(server(1))
    settle(farm)
    other = farm.servers["ipc:///server-1"]
    while len(farm.merged) < 12:
        for held in other.running():
            farm.finish(other, held)
        settle(farm)
        farm.pass_time(farm.now + 0.2)
        settle(farm)
    assert {tile.server for tile in farm.merged.values()} == {other.endpoint}


def test_a_tile_that_lost_its_race_is_not_merged() -> None:
    farm = farm_of(server(0), server(1))
    tile = farm.servers["ipc:///server-0"].finish(farm.servers["ipc:///server-0"].works[0])
    peer = link_of(farm, "ipc:///server-0").peer
    for _ in range(2):
        farm.tell(events.MessageReceived(peer, tile.message, tile.payload))
    assert list(farm.merged) == [0]
    assert farm.broker.report().dropped == 1


@pytest.mark.parametrize("change", [{"lease": b"old-----"}, {"epoch": 12345}])
def test_a_tile_of_another_lease_or_frame_is_dropped_and_counted(change: dict[str, object]) -> None:
    farm = farm_of(server())
    sim = farm.servers["ipc:///server-0"]
    tile = sim.finish(sim.works[0])
    assert isinstance(tile.message, Tile)
    farm.say(sim, Said(replace(tile.message, **change), tile.payload))
    settle(farm)
    assert not farm.merged
    assert farm.broker.report().dropped == 1


# Peers that break the protocol


def test_a_tile_that_nobody_asked_for_costs_the_peer_its_connection() -> None:
    farm = farm_of(server(0), server(1))
    sim = farm.servers["ipc:///server-0"]
    tile = sim.finish(sim.works[0]).message
    assert isinstance(tile, Tile)
    shifted = replace(tile, bucket=replace(tile.bucket, x=tile.bucket.x + 1))
    farm.say(sim, Said(shifted, (b"x",)))
    farm.flow()
    assert not farm.merged
    assert any("broke the protocol" in notice.text for notice in farm.notices)
    render_all(farm)
    assert farm.finished.status is Status.COMPLETE


def test_a_peer_that_breaks_the_protocol_three_times_takes_no_part_any_more() -> None:
    farm = farm_of(server(0), server(1))
    for _ in range(3):
        farm.tell(events.PeerMisbehaved(link_of(farm, "ipc:///server-0").peer, "expected a message, found noise"))
        farm.pass_time(farm.now + 1.5)
        settle(farm)
    assert farm.broker.fleet.servers["ipc:///server-0"].phase is Phase.OUT
    render_all(farm)
    assert farm.finished.status is Status.COMPLETE


@pytest.mark.parametrize(
    "change", [{"digest": b"?" * 32}, {"offset": 1}, {"offset": 1 << 40}, {"n": 101}, {"offset": 99, "n": 2}]
)
def test_only_assets_of_this_scene_can_be_read(change: dict[str, object]) -> None:
    farm = farm_of(server())
    sim = farm.servers["ipc:///server-0"]
    get = Get(lease=sim.lease, epoch=sim.epoch, digest=MANIFEST, offset=0, n=100)
    said = farm.broker.handle(events.MessageReceived(link_of(farm, sim.endpoint).peer, replace(get, **change)), 1.0)
    assert not [command for command in said if isinstance(command, commands.ReadAsset)]
    assert [message.code for message in sent(said, ErrorMessage)] == ["protocol"]
    assert [command for command in said if isinstance(command, Disconnect)]


def test_unanswered_reads_are_bounded() -> None:
    farm = farm_of(server())
    sim = farm.servers["ipc:///server-0"]
    peer = link_of(farm, sim.endpoint).peer
    get = Get(lease=sim.lease, epoch=sim.epoch, digest=MANIFEST, offset=0, n=1)
    for _ in range(MAX_READS):
        assert len(farm.broker.handle(events.MessageReceived(peer, get), 1.0)) == 1
    farm.broker.handle(events.AssetRead(peer, MANIFEST, 0, (b"x",)), 1.0)
    assert len(farm.broker.handle(events.MessageReceived(peer, get), 1.0)) == 1
    assert sent(farm.broker.handle(events.MessageReceived(peer, get), 1.0), ErrorMessage)


def test_an_asset_that_cannot_be_read_is_said_to_be_missing() -> None:
    farm = farm_of(server())
    sim = farm.servers["ipc:///server-0"]
    peer = link_of(farm, sim.endpoint).peer
    get = Get(lease=sim.lease, epoch=sim.epoch, digest=MANIFEST, offset=0, n=1)
    farm.broker.handle(events.MessageReceived(peer, get), 1.0)
    (send,) = farm.broker.handle(events.AssetRead(peer, MANIFEST, 0, missing="changed on disk"), 1.0)
    assert isinstance(send, Send)
    assert (send.message.missing, send.payload) == ("changed on disk", ())


# The end


def test_cancel_frees_every_server() -> None:
    farm = farm_of(server(0), server(1))
    said = farm.broker.handle(events.CancelRequested("cancelled"), 1.0)
    assert [sorted(message.buckets) for message in sent(said, Cancel)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(sent(said, Bye)) == 2
    assert said[-1] == commands.Finished(Status.INCOMPLETE, "cancelled")
    assert farm.broker.next_deadline() == float("inf")
    assert farm.broker.handle(events.CancelRequested("again"), 1.1) == []
    farm.broker.check()


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_cancelled_render_restarts_its_servers_too_if_the_user_wants_restarts(is_asked: bool) -> None:
    farm = SimulatedFarm(restart_servers=is_asked)
    farm.tell(events.FrameRequested(FRAME))
    farm.add(server(0))
    farm.tell(events.ServerExpected("ipc:///server-1"))
    farm.add(server(1))
    settle(farm)
    said = farm.broker.handle(events.CancelRequested("cancelled"), 1.0)
    assert [message.restart for message in sent(said, Bye)] == [is_asked, False]


def test_a_server_that_leaves_during_the_render_is_not_restarted() -> None:
    farm = SimulatedFarm(restart_servers=True)
    farm.tell(events.FrameRequested(FRAME))
    farm.add(server(0))
    farm.add(server(1))
    settle(farm)
    farm.tell(events.ServerRemoved("ipc:///server-0", "removed by the user"))
    settle(farm)
    render_all(farm)
    assert [sim.restarts for sim in farm.servers.values()] == [0, 1]


def test_progress_of_a_server_is_shown() -> None:
    farm = farm_of(server())
    sim = farm.servers["ipc:///server-0"]
    farm.say(sim, Said(Progress(lease=sim.lease, epoch=sim.epoch, text="building the tree")))
    settle(farm)
    assert (Topic.PREPARING, "building the tree") in [(notice.topic, notice.text) for notice in farm.notices]


def test_the_report_counts_buckets_and_seconds_per_server() -> None:
    farm = farm_of(server())
    sim = farm.servers["ipc:///server-0"]
    farm.finish(sim, sim.works[0], seconds=0.25)
    farm.finish(sim, sim.works[0], seconds=0.5)
    settle(farm)
    report = farm.broker.report()
    assert (report.buckets, report.done, report.samples, report.samples_done) == (12, 2, 32 * 24 * 16, 2 * 8 * 8 * 16)
    (row,) = report.servers
    assert (row.name, row.phase, row.buckets, row.seconds, row.held) == (sim.endpoint, "rendering", 2, 0.75, 4)


def test_a_broken_ledger_is_reported_with_the_story_that_led_there() -> None:
    farm = farm_of(server())
    farm.broker.frames.live[0].job.entries[0].servers = ()
    sim = farm.servers["ipc:///server-0"]
    farm.crash(sim, kept=0)
    with pytest.raises(Impossible, match=r"before that: .*Grant from .*Ready from"):
        settle(farm)


def test_pings_keep_a_quiet_connection_known() -> None:
    broker = Broker(kernels=KERNELS, seed=b"x", timers=Timers())
    (dial,) = broker.handle(events.ServerAdded("ipc:///a"), 0.0)
    broker.handle(events.DialSucceeded("ipc:///a"), 0.0)
    assert isinstance(dial, commands.Dial)
    said = []
    now = 0.0
    while now < 1.9:
        now = broker.next_deadline()
        said += [(round(now, 6), command) for command in broker.tick(now)]
    assert [(when, type(c.message)) for when, c in said if isinstance(c, Send)][:2] == [(0.0, Ping), (1.0, Ping)]


def test_messages_of_peers_that_are_gone_are_dropped() -> None:
    broker = Broker(kernels=KERNELS, seed=b"x")
    for message in (NoLease(), Grant(lease=b"12345678", threads=1)):
        assert broker.handle(events.MessageReceived(b"nobody", message), 0.0) == []
    assert broker.hearing.dropped == 2


def render_while_one_fails(farm: SimulatedFarm, bad: SimulatedServer, frames: int) -> None:
    """One server fails whatever it gets and the others render, until so many frames are finished."""
    while len(farm.frames_finished) < frames:
        for sim in farm.servers.values():
            for held in sim.running():
                if sim is bad:
                    farm.fail(sim, held)
                else:
                    farm.finish(sim, held)
        settle(farm)
        farm.pass_time(farm.now + 0.1)


def test_a_server_that_is_listed_again_is_set_aside_again() -> None:
    farm = SimulatedFarm(frames=3)
    bad = server(0)
    for sim in (bad, server(1)):
        farm.add(sim)
    for index in range(3):
        farm.tell(events.FrameRequested(make_frame(index=index)))
        farm.tell(events.ServerAdded(bad.endpoint))
        settle(farm)
        assert farm.broker.fleet.servers[bad.endpoint].phase is Phase.READY
        render_while_one_fails(farm, bad, index + 1)
        assert farm.broker.fleet.servers[bad.endpoint].phase is Phase.OUT
    assert farm.finished == commands.Finished(Status.COMPLETE)


def test_what_another_process_failed_is_no_fault_of_the_next_one() -> None:
    farm = farm_of(server(0), server(1))
    bad = next(iter(farm.servers.values()))
    for held in bad.running():
        farm.fail(bad, held)
    settle(farm)
    known = farm.broker.fleet.servers[bad.endpoint]
    assert len(known.failed) == 2
    farm.crash(bad, kept=0)
    bad.start()
    settle(farm)
    farm.pass_time(farm.now + 2.0)
    settle(farm)
    assert known.phase is Phase.READY
    assert not known.failed


def test_restarts_leave_nothing_behind() -> None:
    farm = SimulatedFarm()
    farm.tell(events.FrameRequested(make_frame(width=512, height=512)))  # more buckets than die with a server
    for sim in (server(0), server(1)):
        farm.add(sim)
    settle(farm)
    fickle = next(iter(farm.servers.values()))
    fleet, links = farm.broker.fleet, farm.broker.links
    for times in range(1, MAX_LOSSES + 20):
        farm.crash(fickle, kept=0)
        fickle.start()
        farm.links = {peer: link for peer, link in farm.links.items() if link.phase != "closed"}
        while fickle.boot not in fleet.holders or fleet.servers[fickle.endpoint].phase is not Phase.READY:
            farm.pass_time(farm.now + 0.1)
            farm.flow()
        assert fleet.seen == times + 2
    farm.broker.check()
    assert set(fleet.holders) == {sim.boot for sim in farm.servers.values()}
    assert len(links.lost) == MAX_LOSSES


def test_poison_on_a_server_that_hangs_does_not_hold_up_the_frame() -> None:
    farm = farm_of(server(0, threads=1), server(1))
    stuck, good = farm.servers.values()
    poison = stuck.works[0]
    for _ in range(400):
        for held in good.running():
            if held == poison:
                farm.fail(good, held)
            else:
                farm.finish(good, held)
        settle(farm)
        if farm.finished:
            break
        farm.say(stuck, stuck.beat())
        farm.pass_time(farm.now + 0.1)
    assert farm.finished is not None
    assert [each.bucket.id for each in farm.finished.poisoned] == [poison.id]
    assert set(farm.merged) == ALL - {poison.id}
