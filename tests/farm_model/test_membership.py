"""Servers that are listed, removed, listed again, announced, lent and given back in any order, on few seats or many."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dr.broker import commands, events
from dr.broker.commands import Status
from dr.broker.fleet import WORKING, Phase
from tests.support.model_runs import RUNS
from tests.support.simulated_farm import Said, SimulatedFarm, SimulatedServer, make_frame, port_of

HOSTS = {"one": range(20204, 20207), "two": range(30000, 30003)}
PLACES = [f"tcp://{host}:{port}" for host, ports in HOSTS.items() for port in ports]
WHOLE = {host: f"tcp://{host}:{ports[0]}" for host, ports in HOSTS.items()}
PLACE, HOST = st.sampled_from(PLACES), st.sampled_from([*HOSTS])
CHILD = "ipc:///child"
MAX_ROUNDS = 2_000


def host_of(place: str) -> str:
    return place.removeprefix("tcp://").rpartition(":")[0]


class WatchedFarm(SimulatedFarm):
    """Keeps what was dialled."""

    def __init__(self, max_servers: int) -> None:
        super().__init__(max_servers=max_servers, patient=True)
        self.dialled: list[str] = []

    def _carry_out(self, wanted: Sequence[commands.Command]) -> None:
        self.dialled += [command.endpoint for command in wanted if isinstance(command, commands.Dial)]
        super()._carry_out(wanted)


class MembershipMachine(RuleBasedStateMachine):
    """`listed` and `whole`: what the user wants now; `banned`: what was removed by itself, whatever its host is."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = make_frame()
        self.begin(0)

    @initialize(seats=st.integers(0, 3), child=st.booleans())
    def build(self, seats: int, child: bool) -> None:
        self.begin(seats)
        if child:
            self.farm.tell(events.ServerExpected(CHILD))
            self.farm.add(SimulatedServer(CHILD, 1))

    def begin(self, seats: int) -> None:
        self.seats = seats
        self.farm = WatchedFarm(seats)
        self.listed: set[str] = set()
        self.whole: set[str] = set()
        self.banned: set[str] = set()
        for number, place in enumerate(PLACES):
            server = SimulatedServer(place, 1 + number % 2)
            server.siblings = [port for port in HOSTS[host_of(place)] if port != port_of(server)]
            server.announce = 40000
            self.farm.place(server)
        self.farm.tell(events.FrameRequested(self.frame))

    def is_wanted(self, place: str) -> bool:
        if place == CHILD or place in self.listed:
            return True
        return host_of(place) in self.whole and place not in self.banned

    # The user

    @rule(place=PLACE)
    def list_a_server(self, place: str) -> None:
        self.listed.add(place)
        self.banned.discard(place)
        self.farm.tell(events.ServerAdded(place))

    @rule(host=HOST)
    def list_a_host(self, host: str) -> None:
        self.whole.add(host)
        self.banned.discard(WHOLE[host])
        self.farm.tell(events.ServerAdded(WHOLE[host], whole_host=True))

    @rule(place=PLACE)
    def remove_a_server(self, place: str) -> None:
        self.listed.discard(place)
        self.whole -= {host for host in HOSTS if WHOLE[host] == place}
        if place in self.farm.broker.fleet.servers:
            self.banned.add(place)
        self.farm.tell(events.ServerRemoved(place, "removed from dr.toml"))

    @rule(host=HOST)
    def remove_a_host(self, host: str) -> None:
        self.remove_a_server(WHOLE[host])

    @rule(place=PLACE, forged=st.booleans())
    def announce(self, place: str, forged: bool) -> None:
        boot = b"forged.." if forged else self.farm.servers[place].boot
        self.farm.tell(events.ServerAnnounced(place, boot))

    # The farm

    @rule(count=st.integers(1, 8))
    def flow(self, count: int) -> None:
        for _ in range(count):
            self.farm.flow()

    @rule(pick=st.integers(0, 1000))
    def connect(self, pick: int) -> None:
        if links := self.farm.links_in("dialing"):
            self.farm.connect(links[pick % len(links)])

    @rule(pick=st.integers(0, 1000), to_server=st.booleans())
    def deliver(self, pick: int, to_server: bool) -> None:
        links = [link for link in self.farm.links_in("open") if (link.to_server if to_server else link.to_client)]
        if not links:
            return
        link = links[pick % len(links)]
        if not to_server:
            self.farm.deliver_to_client(link)
        elif self.farm.listens(link):
            self.farm.deliver_to_server(link)

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3, 1.0, 2.1, 7.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self.farm.pass_time(self.farm.now + seconds)

    @rule(place=PLACE, kept=st.integers(0, 3))
    def kill_or_start_a_server(self, place: str, kept: int) -> None:
        server = self.farm.servers[place]
        if server.is_up:
            self.farm.crash(server, kept)
        else:
            server.start()

    @rule(place=PLACE)
    def drain_a_server(self, place: str) -> None:
        server = self.farm.servers[place]
        if server.is_up and server.holder:
            self.farm.say(server, server.drain())

    @rule(place=PLACE, name=st.sampled_from(["anna", "bert"]))
    def another_client_comes_or_goes(self, place: str, name: str) -> None:
        server = self.farm.servers[place]
        server.lent_to = name
        if not server.is_lent:
            server.is_lent = server.holder is None
        elif waiting := server.return_from_other(self.farm.now):
            self.farm.links[waiting[0]].to_client.extend(Said(message) for message in waiting[1])

    @rule(place=PLACE)
    def finish_a_bucket(self, place: str) -> None:
        server = self.farm.servers[place]
        if server.is_up and server.works:
            self.farm.finish(server, server.works[0])

    # What must always hold

    @invariant()
    def books_and_seats_balance(self) -> None:
        self.farm.broker.check()

    @invariant()
    def seats_are_never_exceeded(self) -> None:
        seated = [each for each in self.farm.broker.fleet if each.phase in WORKING and each.endpoint != CHILD]
        assert not self.seats or len(seated) <= self.seats

    @invariant()
    def nobody_is_dialled_who_is_not_wanted(self) -> None:
        assert [place for place in self.farm.dialled if not self.is_wanted(place)] == []
        self.farm.dialled.clear()

    @invariant()
    def who_was_removed_is_out(self) -> None:
        strays = [each.endpoint for each in self.farm.broker.fleet if not self.is_wanted(each.endpoint)]
        assert all(self.farm.broker.fleet.servers[place].phase is Phase.OUT for place in strays) or self.farm.finished

    def teardown(self) -> None:
        """With one living server that is wanted, the frame is completed, and nobody is held."""
        self.list_a_server(PLACES[-1])
        for _ in range(MAX_ROUNDS):
            for server in self.farm.servers.values():
                self._heal(server)
            moved = self.farm.flow()
            self.farm.broker.check()
            self.seats_are_never_exceeded()
            self.nobody_is_dialled_who_is_not_wanted()
            if self.farm.finished and not moved:
                break
            if not moved:
                self.farm.pass_time(self.farm.now + 0.2)
        end = self.farm.finished
        assert end is not None
        works = [tile.bucket for tile in self.farm.merged.values()] + [each.bucket for each in end.poisoned]
        assert sum(work.width * work.height for work in works) == 32 * 24
        assert end.status is (Status.INCOMPLETE if end.poisoned else Status.COMPLETE)
        self.farm.pass_time(self.farm.now + 10.0)
        assert not [server.endpoint for server in self.farm.servers.values() if server.holder]

    def _heal(self, server: SimulatedServer) -> None:
        if not server.is_up:
            server.start()
        if server.is_lent and (waiting := server.return_from_other(self.farm.now)):
            self.farm.links[waiting[0]].to_client.extend(Said(message) for message in waiting[1])
        for work in server.running():
            self.farm.finish(server, work)


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


class TestMembership(MembershipMachine.TestCase):  # type: ignore[misc]
    settings = settings(
        max_examples=50, stateful_step_count=50, deadline=None, derandomize=True, suppress_health_check=QUIET
    )


@pytest.mark.slow
class TestMembershipForLong(MembershipMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=RUNS // 2, stateful_step_count=50, deadline=None, suppress_health_check=QUIET)
