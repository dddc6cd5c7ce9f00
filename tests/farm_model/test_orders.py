"""Thousands of orders of loss, delay, doubling, death and misbehaviour, on a simulated clock, around a real broker."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dr.broker import events
from dr.broker.commands import FrameFinished, Status
from dr.broker.frames import MAX_LIVE_FRAMES
from dr.protocol.messages import Tile
from tests.support.model_runs import RUNS
from tests.support.simulated_farm import Said, SimulatedFarm, SimulatedServer, make_frame

T = TypeVar("T")
PICKS = st.integers(0, 10_000)
MAX_ROUNDS = 2_000
WIDTH, HEIGHT = 48, 32
FIRST_PORT = 20204


class FarmMachine(RuleBasedStateMachine):
    """Each rule is something that may happen in a farm; after each the broker's books must balance."""

    def __init__(self) -> None:
        super().__init__()
        self.farm = SimulatedFarm()
        self.frames = 1
        self.adaptive = False
        self.requested = 0
        self.epochs: list[int] = []  # of the frames that were requested
        self.old: list[tuple[bytes, Said]] = []  # messages that reached nobody in time
        self.children: set[str] = set()

    @initialize(
        counts=st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(0, 3)),
        threads=st.integers(1, 3),
        early=st.booleans(),
        restart=st.booleans(),
        frames=st.tuples(st.integers(1, 3), st.booleans()),
    )
    def build(
        self, counts: tuple[int, int, int], threads: int, early: bool, restart: bool, frames: tuple[int, bool]
    ) -> None:
        """Children of our own, every other one of which was expected; a host that is named without a port; callers."""
        own, on_host, callers = counts
        self.frames, self.adaptive = frames
        self.farm = SimulatedFarm(restart_servers=restart, frames=self.frames)
        if early:
            self.request_frame()
        for index in range(own):
            if index % 2:
                self.children.add(f"ipc:///server-{index}")
                self.farm.tell(events.ServerExpected(f"ipc:///server-{index}"))
            self.farm.add(SimulatedServer(f"ipc:///server-{index}", threads))
        self.farm.add_host([SimulatedServer(f"tcp://host:{FIRST_PORT + index}", threads) for index in range(on_host)])
        if callers:
            self.farm.tell(events.ListeningBegan("127.0.0.1:1"))
        for index in range(callers):
            self.farm.place(SimulatedServer(f"cloud-{index}", threads))

    def may_request(self) -> bool:
        live = self.requested - len(self.farm.frames_finished)
        return self.requested < self.frames and live < MAX_LIVE_FRAMES and self.farm.finished is None

    @precondition(may_request)
    @rule()
    def request_frame(self) -> None:
        frame = make_frame(WIDTH, HEIGHT, 16, index=self.requested, adaptive=self.adaptive)
        self.requested += 1
        self.farm.tell(events.FrameRequested(frame))
        if self.farm.broker.frames.live:
            self.epochs.append(self.farm.broker.frames.live[-1].epoch)

    # The network

    @rule(pick=PICKS)
    def connect(self, pick: int) -> None:
        if link := choose(self.farm.links_in("dialing"), pick):
            self.farm.connect(link)

    @rule(pick=PICKS, count=st.integers(1, 6))
    def deliver_to_server(self, pick: int, count: int) -> None:
        links = [link for link in self.farm.links_in("open") if link.to_server and self.farm.listens(link)]
        if link := choose(links, pick):
            for _ in range(count):
                if link.to_server:
                    self.farm.deliver_to_server(link)

    @rule(pick=PICKS, count=st.integers(1, 6))
    def deliver_to_client(self, pick: int, count: int) -> None:
        if link := choose([link for link in self.farm.links_in("open", "closing") if link.to_client], pick):
            for _ in range(count):
                if link.to_client and link.phase in {"open", "closing"}:
                    self.old.append((link.peer, link.to_client[0]))
                    self.farm.deliver_to_client(link)

    @rule(count=st.integers(1, 8))
    def flow(self, count: int) -> None:
        for _ in range(count):
            self.farm.flow()

    @rule(pick=PICKS)
    def double_a_message(self, pick: int) -> None:
        if link := choose([link for link in self.farm.links_in("open") if link.to_client], pick):
            link.to_client.appendleft(link.to_client[0])

    @rule(pick=PICKS)
    def deliver_an_old_message_again(self, pick: int) -> None:
        if old := choose(self.old, pick):
            self.farm.tell(events.MessageReceived(old[0], old[1].message, old[1].payload))

    @rule(pick=PICKS)
    def cut_a_cable(self, pick: int) -> None:
        if link := choose(self.farm.links_in("open"), pick):
            link.phase = "cut"

    @rule(pick=PICKS)
    def see_a_connection_close(self, pick: int) -> None:
        if link := choose(self.farm.links_in("closing"), pick):
            self.farm.close(link)

    @rule(pick=PICKS)
    def see_a_close_that_is_no_news(self, pick: int) -> None:
        if server := choose(list(self.farm.servers.values()), pick):
            self.farm.tell(events.DialSucceeded(server.endpoint))
            if not any(link.endpoint == server.endpoint for link in self.farm.links_in("open", "dialing")):
                self.farm.tell(events.ConnectionLost(server.endpoint, "no news"))

    @rule()
    def answer_a_read(self) -> None:
        if self.farm.reads:
            self.farm.answer_read()

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3, 1.0, 2.5, 7.0]))
    def pass_time(self, seconds: float) -> None:
        self.farm.pass_time(self.farm.now + seconds)

    # The servers

    @rule(pick=PICKS, seconds=st.sampled_from([0.0, 0.01, 0.2, 3.0]))
    def finish_a_bucket(self, pick: int, seconds: float) -> None:
        if server := self._choose_busy(pick):
            work = server.running()[pick % len(server.running())]
            self.farm.finish(server, work, seconds)

    @rule(pick=PICKS)
    def fail_a_bucket(self, pick: int) -> None:
        if server := self._choose_busy(pick):
            self.farm.fail(server, server.running()[0])

    @rule(pick=PICKS, kept=st.integers(0, 4))
    def kill_a_server(self, pick: int, kept: int) -> None:
        if server := self._choose_live(pick):
            self.farm.crash(server, kept)

    @rule(pick=PICKS)
    def restart_a_server(self, pick: int) -> None:
        if server := choose([server for server in self.farm.servers.values() if not server.is_up], pick):
            server.start()

    @rule(pick=PICKS)
    def hang_or_wake_a_server(self, pick: int) -> None:
        if server := self._choose_live(pick):
            if not server.is_hung:
                for held in server.works:
                    self.farm.blame(held)
            server.is_hung = not server.is_hung

    @rule(pick=PICKS)
    def server_drains(self, pick: int) -> None:
        if (server := self._choose_live(pick)) and server.holder:
            self.farm.say(server, server.drain())

    @rule(pick=PICKS)
    def server_gives_its_client_up(self, pick: int) -> None:
        if (server := self._choose_live(pick)) and server.holder:
            self.farm.lose_client(server)

    @rule(pick=PICKS)
    def a_server_dials_in(self, pick: int) -> None:
        """For the first time or again, whether or not we know that it has gone; or one that we have dialled, too."""
        server = self._choose_live(pick) if self.farm.broker.fleet.listens else None
        if server and not server.is_hung and server.endpoint not in self.children:  # ours have nobody to dial
            self.farm.call(server)

    @rule(pick=PICKS)
    def user_removes_whoever_takes_part(self, pick: int) -> None:
        if server := choose(list(self.farm.broker.fleet), pick):
            self.farm.tell(events.ServerRemoved(server.endpoint, "removed by the user"))

    @rule(pick=PICKS)
    def another_client_takes_or_returns_a_server(self, pick: int) -> None:
        if not (server := self._choose_live(pick)) or server.holder:
            return
        if not server.is_lent:
            server.is_lent = True
        elif waiting := server.return_from_other(self.farm.now):
            peer, said = waiting
            self.farm.links[peer].to_client.extend(Said(message) for message in said)

    @rule(pick=PICKS, epoch=st.booleans())
    def say_a_tile_of_another_lease_or_frame(self, pick: int, epoch: bool) -> None:
        if server := self._choose_busy(pick):
            held = server.works[0]
            tile = server.finish(held).message
            assert isinstance(tile, Tile)
            wrong = {"epoch": tile.epoch ^ 1} if epoch else {"lease": b"wrong..."}
            self.farm.say(server, Said(msgspec.structs.replace(tile, **wrong), (b"pixels that must not be seen",)))
            server.works.appendleft(held)

    @rule(pick=PICKS, ports=st.lists(st.integers(FIRST_PORT - 1, FIRST_PORT + 4) | st.just(0), max_size=6))
    def a_server_names_other_siblings(self, pick: int, ports: list[int]) -> None:
        if server := choose(list(self.farm.servers.values()), pick):
            server.siblings = ports

    # The user and the hostile

    @rule(pick=PICKS)
    def peer_speaks_nonsense(self, pick: int) -> None:
        if link := choose(self.farm.links_in("open"), pick):
            self.farm.tell(events.PeerMisbehaved(link.peer, "nonsense"))

    @rule(pick=PICKS)
    def user_removes_a_server(self, pick: int) -> None:
        if server := choose(list(self.farm.servers.values()), pick):
            self.farm.tell(events.ServerRemoved(server.endpoint, "removed by the user"))

    @rule(pick=PICKS)
    def user_adds_it_again(self, pick: int) -> None:
        if server := choose([each for each in self.farm.servers.values() if "://" in each.endpoint], pick):
            self.farm.tell(events.ServerAdded(server.endpoint))

    # What must always hold

    @invariant()
    def books_balance(self) -> None:
        self.farm.broker.check()

    @invariant()
    def a_process_takes_part_once(self) -> None:
        boots = [server.boot for server in self.farm.broker.fleet if server.lease]
        assert len(boots) == len(set(boots))

    @invariant()
    def the_report_tells_what_was_merged(self) -> None:
        assert self.farm.broker.report().done == sum(map(len, self.farm.pictures.values()))

    def teardown(self) -> None:
        """From wherever we are, a farm that heals finishes all frames: every pixel once, no lease left."""
        if not self.farm.servers:
            return
        self._heal()
        end = self.farm.finished
        assert end is not None
        if "no server can render" not in end.reason:
            assert len(self.farm.frames_finished) == self.frames
        for finished in self.farm.frames_finished:
            self._check_picture(finished)
        assert (end.status is Status.COMPLETE) == (len(self.farm.frames_finished) == self.frames and not end.poisoned)
        assert not [server.endpoint for server in self.farm.servers.values() if server.holder or server.waiter]
        asked = self.farm.broker.restart_servers
        aside = {server.endpoint for server in self.farm.broker.fleet if server.verdict}  # by the very last event
        byes = {place: restart for place, restart in self.farm.byes.items() if place not in aside}
        assert byes == {place: asked and place not in self.children for place in byes}
        dialled = {server.endpoint[:12] for server in self.farm.broker.fleet if not server.dials_in}
        assert dialled <= {"ipc:///serve", "ipc:///heale", "tcp://host:2"}
        lives = sum(server.lives for server in self.farm.servers.values() if server.dials_in)
        assert sum(server.dials_in for server in self.farm.broker.fleet) <= lives

    def _check_picture(self, finished: FrameFinished) -> None:
        """Each pixel was rendered or given up, once, and nothing was given up without a reason."""
        given_up = [poisoned.bucket for poisoned in finished.poisoned]
        works = [tile.bucket for tile in self.farm.pictures.get(finished.frame, {}).values()] + given_up
        cells = [(x, y) for w in works for x in range(w.x, w.x + w.width, 8) for y in range(w.y, w.y + w.height, 8)]
        assert len(cells) == len(set(cells)) == WIDTH * HEIGHT // 64
        assert sum(work.width * work.height for work in works) == WIDTH * HEIGHT
        seen = min(self.farm.seen_at_poison, default=0)
        for work in given_up:
            blames = self.farm.blames.get((self.epochs[finished.frame], work.id), 0)
            assert blames >= min(2, seen), f"bucket {work.id} was poisoned without a reason"

    def _heal(self) -> None:
        if self.farm.finished is None:
            self.farm.add(SimulatedServer("ipc:///healer", 2))
        for _ in range(MAX_ROUNDS):
            while self.may_request():
                self.request_frame()
            for server in self.farm.servers.values():
                self._heal_server(server)
            moved = self.farm.flow()
            self.farm.broker.check()
            if self.farm.finished and not moved:
                break
            if not moved:
                self.farm.pass_time(self.farm.now + 0.2)
                self._dial_in_again()
        for server in self.farm.servers.values():
            server.waiter = None  # its loop finds the closed client unreachable, or silent
        self.farm.pass_time(self.farm.now + 10.0)

    def _dial_in_again(self) -> None:
        for server in self.farm.servers.values():
            if server.dials_in and not self.farm.is_calling(server):
                self.farm.call(server)

    def _heal_server(self, server: SimulatedServer) -> None:
        server.is_hung = False
        if not server.is_up:
            server.start()
        if server.is_lent and (waiting := server.return_from_other(self.farm.now)):
            self.farm.links[waiting[0]].to_client.extend(Said(message) for message in waiting[1])
        for work in server.running():
            self.farm.finish(server, work)

    def _choose_live(self, pick: int) -> SimulatedServer | None:
        return choose([server for server in self.farm.servers.values() if server.is_up], pick)

    def _choose_busy(self, pick: int) -> SimulatedServer | None:
        live = [server for server in self.farm.servers.values() if server.is_up and not server.is_hung]
        return choose([server for server in live if server.works], pick)


def choose(things: list[T], pick: int) -> T | None:
    return things[pick % len(things)] if things else None


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


class TestManyOrders(FarmMachine.TestCase):  # type: ignore[misc]
    settings = settings(
        max_examples=100, stateful_step_count=60, deadline=None, derandomize=True, suppress_health_check=QUIET
    )


@pytest.mark.slow
class TestVeryManyOrders(FarmMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=RUNS, stateful_step_count=60, deadline=None, suppress_health_check=QUIET)
