"""Announcements of many spawners through one socket, from real announcers and from programs that are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest
import zmq

from dr.client.announcements import DIAL_AGAIN_LAST_S, DIAL_AGAIN_S, Announcements
from dr.keys.folder import load_keys
from dr.keys.security import Security
from dr.keys.zap import Zap
from dr.protocol.envelope import TOPIC
from dr.protocol.messages import Announcement, Availability
from tests.support.keyed_farm import Farm
from tests.support.spawner import free_ports
from workers.server.door import Door, door_to
from workers.spawner.announcer import Announcer

DEADLINE_S = 30.0
HERE = "127.0.0.1"


def value(port: int, state: Availability = Availability.READY) -> Announcement:
    return Announcement(version=1, port=port, boot=b"bootboot", state=state)


class Farmyard:
    """Announcers, and who listens to them. `zap` answers for announcers with keys."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.context: zmq.Context[Any] = stack.enter_context(zmq.Context())
        self.announcers: list[Announcer] = []
        self.zap: Zap | None = None
        self.heard: list[tuple[str, Announcement]] = []
        self.ears = self.listener(Security())

    def listener(self, security: Security) -> Announcements:
        ears = Announcements(self.context, security)
        self.stack.callback(ears.close)
        return ears

    def announcer(self, host: str = HERE, port: int | None = None, door: Door | None = None) -> Announcer:
        """One that announces at `port`, or at any that is free."""
        door = door or door_to(host, Security())
        made = Announcer(zmq.Poller(), self.context, door, port or free_ports(1)[0], ())
        self.announcers.append(made)
        self.stack.callback(made.close)
        return made

    def listen(self, host: str, port: int) -> None:
        self.ears.listen(host, f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")

    def turn(self) -> None:
        sources = [*self.ears.descriptors(), *(each.socket for each in self.announcers)]
        poller = zmq.Poller()
        for source in [*sources, *([self.zap.socket] if self.zap else [])]:
            poller.register(source, zmq.POLLIN)
        poller.poll(10)
        for announcer in self.announcers:
            announcer.hear(monotonic())
        if self.zap:
            self.zap.answer(monotonic())
        self.heard += self.ears.hear()

    def until(self, done: Callable[[], bool]) -> None:
        deadline = monotonic() + DEADLINE_S
        while not done():
            assert monotonic() < deadline, self.heard
            self.turn()

    def end(self, announcer: Announcer) -> None:
        self.announcers.remove(announcer)
        announcer.poller.register(announcer.socket)
        announcer.socket.close(0)

    def hosts(self) -> set[str]:
        return {host for host, _ in self.heard}


@pytest.fixture
def yard() -> Iterator[Farmyard]:
    with ExitStack() as stack:
        yield Farmyard(stack)


def test_last_values_and_news_are_heard_with_the_host_that_was_listened_to(yard: Farmyard) -> None:
    announcer = yard.announcer()
    announcer.publish(value(20204))
    yard.listen(HERE, announcer.port)
    yard.until(lambda: (HERE, value(20204)) in yard.heard)
    announcer.publish(value(20204, Availability.BUSY))
    yard.until(lambda: (HERE, value(20204, Availability.BUSY)) in yard.heard)


def test_fifty_announcers_cost_a_connection_each_and_no_socket(yard: Farmyard) -> None:
    hosts = [f"127.0.0.{number}" for number in range(2, 52)]
    port = free_ports(1)[0]
    for number, host in enumerate(hosts):
        yard.announcer(host, port).publish(value(30000 + number))
    yard.until(lambda: True)
    before = psutil.Process().num_fds()
    for host in hosts:
        yard.listen(host, port)
    yard.until(lambda: len(yard.hosts()) == len(hosts))
    assert {(host, each.port) for host, each in yard.heard} == {
        (host, 30000 + number) for number, host in enumerate(hosts)
    }
    assert len([*yard.ears.descriptors()]) == 2
    assert psutil.Process().num_fds() - before < 3 * len(hosts)  # both ends of each connection are ours
    assert yard.ears.settled


def test_an_announcer_of_ipv6_is_told_from_one_of_ipv4(yard: Farmyard) -> None:
    for number, host in enumerate((HERE, "::1")):
        announcer = yard.announcer(host)
        announcer.publish(value(30000 + number))
        yard.listen(host, announcer.port)
    yard.until(lambda: len(yard.hosts()) == 2)
    assert {(host, each.port) for host, each in yard.heard} == {(HERE, 30000), ("::1", 30001)}


def test_an_address_that_ends_at_loopback_is_heard_under_its_own_name(yard: Farmyard) -> None:
    announcer = yard.announcer()
    announcer.publish(value(20204))
    yard.ears = yard.listener(Security(insecure=True))
    yard.listen("0.0.0.0", announcer.port)
    yard.until(lambda: yard.heard == [("0.0.0.0", value(20204))])


def test_a_host_that_is_forgotten_is_not_heard_and_may_come_again(yard: Farmyard) -> None:
    first, other = yard.announcer("127.0.0.2"), yard.announcer("127.0.0.3")
    for announcer in (first, other):
        announcer.publish(value(20204))
        yard.listen(announcer.door.address.host, announcer.port)
    yard.until(lambda: len(yard.hosts()) == 2)
    yard.ears.forget("127.0.0.2")
    yard.heard.clear()
    first.publish(value(20204, Availability.BUSY))
    other.publish(value(20204, Availability.BUSY))
    yard.until(lambda: bool(yard.heard))
    assert yard.hosts() == {"127.0.0.3"}
    assert len(yard.ears) == 1
    yard.listen("127.0.0.2", first.port)
    yard.until(lambda: "127.0.0.2" in yard.hosts())


def test_an_announcer_that_starts_again_is_dialled_again_after_a_second(yard: Farmyard) -> None:
    announcer = yard.announcer()
    announcer.publish(value(20204))
    yard.listen(HERE, announcer.port)
    yard.until(lambda: bool(yard.heard))
    assert yard.ears.next_deadline() == inf
    before = monotonic()
    announcer.start_over()
    yard.until(lambda: yard.ears.next_deadline() < inf)
    due_s = yard.ears.next_deadline()
    assert due_s >= before + DIAL_AGAIN_S
    yard.heard.clear()
    yard.ears.dial_again(due_s - 0.001)
    assert yard.ears.next_deadline() == due_s
    yard.ears.dial_again(due_s)
    yard.until(lambda: (HERE, value(20204)) in yard.heard)


def test_where_nobody_is_it_is_tried_again_each_second_and_settled(yard: Farmyard) -> None:
    port = free_ports(1)[0]
    before = monotonic()
    yard.listen(HERE, port)
    assert not yard.ears.settled
    for _ in range(3):
        yard.until(lambda: yard.ears.next_deadline() < inf)
        assert yard.ears.settled
        assert DIAL_AGAIN_S <= yard.ears.next_deadline() - before < DIAL_AGAIN_S + DEADLINE_S
        before = monotonic()
        yard.ears.dial_again(inf)
    announcer = yard.announcer(HERE, port)
    announcer.publish(value(20204))
    yard.until(lambda: yard.ears.next_deadline() < inf or bool(yard.heard))
    yard.ears.dial_again(inf)
    yard.until(lambda: (HERE, value(20204)) in yard.heard)


def test_at_the_port_of_a_gate_attempts_become_ever_rarer(yard: Farmyard, caplog: pytest.LogCaptureFixture) -> None:
    gate: zmq.Socket[Any] = yard.context.socket(zmq.ROUTER)
    gate.linger = 0
    yard.stack.callback(gate.close)
    port = gate.bind_to_random_port(f"tcp://{HERE}")
    yard.listen(HERE, port)
    for pause_s in (2.0, 4.0, 8.0, 16.0, DIAL_AGAIN_LAST_S, DIAL_AGAIN_LAST_S):
        before = monotonic()
        yard.until(lambda: yard.ears.next_deadline() < inf)
        assert yard.ears.next_deadline() - before >= pause_s
        yard.ears.dial_again(inf)
    assert caplog.records == []


def test_nonsense_is_skipped(yard: Farmyard) -> None:
    announcer = yard.announcer()
    announcer.publish(value(20204))
    yard.listen(HERE, announcer.port)
    yard.until(lambda: bool(yard.heard))
    yard.heard.clear()
    for frames in ([TOPIC], [TOPIC, b"nonsense"], [TOPIC, b"", b""]):
        announcer.socket.send_multipart(frames)
    announcer.publish(value(20205))
    yard.until(lambda: bool(yard.heard))
    assert yard.heard == [(HERE, value(20205))]


@pytest.mark.parametrize("admitted", [True, False])
def test_announcers_with_keys_are_heard_by_who_is_admitted_and_not_dialled_again_by_others(
    yard: Farmyard, tmp_path: Path, admitted: bool
) -> None:
    farm = Farm(tmp_path)
    home = farm.visit("anna", admitted)
    ring = load_keys({}, farm.places.client.parent)
    yard.zap = Zap(yard.context, ring.admit_client)
    yard.stack.callback(yard.zap.close)
    announcer = yard.announcer(door=door_to(HERE, Security(ring=ring)))
    announcer.publish(value(20204))
    yard.ears = yard.listener(Security(ring=load_keys({}, home / "xdg_config_home" / "dr" / "keys")))
    yard.listen(HERE, announcer.port)
    yard.until(lambda: yard.ears.settled)
    assert yard.heard == ([(HERE, value(20204))] if admitted else [])
    assert yard.ears.next_deadline() == inf


def test_an_announcer_with_keys_is_not_heard_without_them(yard: Farmyard, tmp_path: Path) -> None:
    ring = load_keys({}, Farm(tmp_path).places.client.parent)
    yard.zap = Zap(yard.context, ring.admit_client)
    yard.stack.callback(yard.zap.close)
    announcer = yard.announcer(door=door_to(HERE, Security(ring=ring)))
    announcer.publish(value(20204))
    yard.listen(HERE, announcer.port)
    yard.until(lambda: yard.ears.next_deadline() < inf)
    assert yard.heard == []
