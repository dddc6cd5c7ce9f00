"""Announcements over real sockets of this machine: who subscribes knows all, and nobody can do harm by subscribing."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as some

from dr.errors import BadInput, Refused
from dr.keys.security import Security
from dr.protocol.envelope import TOPIC, split_announcement
from dr.protocol.messages import Announcement, Availability
from tests.support.spawner import Subscriber, free_ports
from workers.server.door import door_to
from workers.spawner.announcer import MAX_FRAME_BYTES, MAX_STRANGE, RESEND_S, TRIES, Announcer, candidates
from workers.spawner.host import host_id

DEADLINE_S = 30
LOOPBACK = door_to("127.0.0.1", Security())


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as context:
        yield context


@pytest.fixture
def announcer(context: zmq.Context[Any]) -> Iterator[Announcer]:
    announcer = Announcer(zmq.Poller(), context, LOOPBACK, free_ports(1)[0], range(20204, 20212))
    yield announcer
    announcer.close()


def value(port: int, state: Availability = Availability.READY, holder: str = "") -> Announcement:
    return Announcement(version=1, port=port, boot=b"bootboot", state=state, holder=holder)


def serve_until(announcer: Announcer, done: Callable[[], bool]) -> None:
    """What the spawner's loop does, until something has happened."""
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        now = time.monotonic()
        assert now < deadline
        due = announcer.next_deadline()
        announcer.socket.poll(10 if due is None else max(0, min(10, int((due - now) * 1000) + 1)))
        announcer.hear(time.monotonic())


def raw_subscriber(port: int) -> socket.socket:
    """Speaks ZMTP 3 by hand: libzmq's own SUB dies of a megabyte topic before it can send one."""
    peer = socket.create_connection(("127.0.0.1", port))
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    ready = b"\5READY\x0bSocket-Type" + struct.pack("!I", 3) + b"SUB"
    peer.sendall(greeting + bytes([4, len(ready)]) + ready)
    peer.setblocking(False)
    return peer


def is_closed(peer: socket.socket) -> bool:
    try:
        while peer.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True


def hear(announcer: Announcer, subscriber: Subscriber, count: int) -> list[Announcement]:
    """The next announcements that a subscriber receives."""
    serve_until(announcer, lambda: len(subscriber.take()) >= count)
    return [split_announcement(frames) for frames in subscriber.heard]


def hear_until(announcer: Announcer, subscriber: Subscriber, last: Announcement) -> list[Announcement]:
    """All announcements that a subscriber receives up to this one."""
    serve_until(announcer, lambda: last in [split_announcement(frames) for frames in subscriber.take()])
    return [split_announcement(frames) for frames in subscriber.heard]


def test_a_subscriber_hears_what_is_published(announcer: Announcer) -> None:
    with Subscriber(announcer.port) as subscriber:
        announcer.publish(value(20204))
        hear(announcer, subscriber, 1)
        announcer.publish(value(20204, Availability.BUSY, "ada"))
        heard = hear_until(announcer, subscriber, value(20204, Availability.BUSY, "ada"))
        assert set(heard[:-1]) == {value(20204)}, "the first one comes as it is published, or as a last value, or both"
        assert bytes(subscriber.heard[0][0]) == b"server.%s.20204" % host_id().encode()


def test_a_late_subscriber_hears_the_last_value_of_every_port_once(announcer: Announcer) -> None:
    for port in range(20204, 20212):
        announcer.publish(value(port, Availability.BUSY, "ada"))
        announcer.publish(value(port))
    with Subscriber(announcer.port) as subscriber:
        assert hear(announcer, subscriber, 8) == [value(port) for port in range(20204, 20212)]


def test_the_second_subscriber_to_a_topic_hears_all_last_values_too(announcer: Announcer) -> None:
    announcer.publish(value(20204))
    with Subscriber(announcer.port) as first:
        hear(announcer, first, 1)
        with Subscriber(announcer.port) as second:
            assert hear(announcer, second, 1) == [value(20204)]


def test_subscriptions_that_come_together_are_answered_together(announcer: Announcer) -> None:
    announcer.publish(value(20204))
    subscribers = [Subscriber(announcer.port) for _ in range(20)]
    serve_until(announcer, lambda: all(each.take() for each in subscribers))
    announcer.publish(value(20205))  # follows whatever was sent before
    serve_until(announcer, lambda: all(split_announcement(each.take()[-1]).port == 20205 for each in subscribers))
    assert all(len(each.heard) <= 1 + 20 for each in subscribers)
    for each in subscribers:
        each.close()


def test_last_values_are_sent_again_only_so_often(announcer: Announcer) -> None:
    announcer.publish(value(20204))
    with Subscriber(announcer.port) as subscriber:
        hear(announcer, subscriber, 1)
        begun, before = announcer.resent_s, len(subscriber.heard)
        with Subscriber(announcer.port) as other:
            assert announcer.socket.poll(DEADLINE_S * 1000)
            announcer.hear(begun + RESEND_S / 2)
            assert announcer.next_deadline() == begun + RESEND_S
            announcer.resend(begun + 0.9 * RESEND_S)
            assert other.take() == []
            announcer.resend(begun + RESEND_S)
            assert announcer.next_deadline() is None
            assert other.wait() == subscriber.wait(before + 1)[before:] == [subscriber.heard[0]]


def test_a_subscription_to_other_things_is_no_reason_to_send(announcer: Announcer) -> None:
    announcer.publish(value(20204))
    for topic in (b"server.0000000000000000.20204", b"weather", b"server.%s.20204 " % host_id().encode()):
        with Subscriber(announcer.port, topic):
            assert announcer.socket.poll(DEADLINE_S * 1000)
            announcer.hear(0.0)
            assert announcer.next_deadline() is None
    assert announcer.resent_s < 0


@pytest.mark.parametrize("bind", ["localhost", "127.0.0.1", "127.0.0.2", "[::1]", "::1"])
def test_any_loopback_address_may_be_bound(context: zmq.Context[Any], bind: str) -> None:
    announcer = Announcer(zmq.Poller(), context, door_to(bind, Security()), free_ports(1)[0], ())
    announcer.publish(value(20204))
    with Subscriber(announcer.port, host={"localhost": "127.0.0.1", "::1": "[::1]"}.get(bind, bind)) as subscriber:
        hear(announcer, subscriber, 1)
    announcer.close()


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.0.2.1", "::", "example.com", "*"])
def test_other_machines_hear_nothing_without_keys(context: zmq.Context[Any], bind: str) -> None:
    with pytest.raises((Refused, BadInput)):
        Announcer(zmq.Poller(), context, door_to(bind, Security()), 20205, ())


def test_a_taken_port_moves_the_announcer_to_the_next_that_no_server_owns(context: zmq.Context[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        announcer = Announcer(zmq.Poller(), context, LOOPBACK, taken, (taken + 1,))
        assert taken + 1 < announcer.port <= taken + 1 + TRIES
        announcer.close()


def test_a_host_without_a_free_port_is_one_clear_line(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.spawner.announcer.TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(BadInput, match=f"expected a free port among {port} to {port}; choose another"):
            Announcer(zmq.Poller(), context, LOOPBACK, port, ())


@given(wanted=some.integers(1, 65535), ports=some.sets(some.integers(1, 65535), max_size=200))
def test_ports_are_tried_upwards_and_never_those_of_servers(wanted: int, ports: set[int]) -> None:
    tried = candidates(wanted, ports)
    assert len(tried) == len(set(tried)) == TRIES
    assert not ports & set(tried)
    assert all(1 <= port <= 65535 for port in tried)
    assert wanted in ports or tried[0] == wanted
    upwards = [port for port in tried if port >= wanted]
    assert tried[: len(upwards)] == sorted(upwards)


def test_hostile_subscribers_disturb_nobody(announcer: Announcer) -> None:
    """Floods of subscriptions, messages to a publisher, rubbish, and one that never reads."""
    rng = random.Random(7)
    announcer.publish(value(20204))
    with Subscriber(announcer.port) as honest, zmq.Context() as strange:
        hear(announcer, honest, 1)
        flood, sender = strange.socket(zmq.SUB), strange.socket(zmq.XSUB)
        for attacker in (flood, sender):
            attacker.linger = 0
            attacker.sndhwm = 0
            attacker.connect(f"tcp://127.0.0.1:{announcer.port}")
        for _ in range(20_000):
            flood.subscribe(rng.randbytes(rng.randrange(40)))
        for _ in range(2_000):
            sender.send(b"\1")
            sender.send(b"\1" + TOPIC)
            sender.send(rng.randbytes(20), zmq.SNDMORE)
        for data in (b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 5000, b""):
            with socket.create_connection(("127.0.0.1", announcer.port)) as rubbish:
                rubbish.sendall(data)
        announcer.publish(value(20205, Availability.GONE))
        serve_until(announcer, lambda: split_announcement(honest.take()[-1]).port == 20205)
        flood.close(0)
        sender.close(0)


def test_topics_that_are_not_ours_are_forgotten_before_they_fill_the_memory(announcer: Announcer) -> None:
    announcer.publish(value(20204))
    with Subscriber(announcer.port) as honest, Subscriber(announcer.port, b"a") as strange:
        hear(announcer, honest, 1)
        first = announcer.socket
        for i in range(MAX_STRANGE + 1):
            strange.socket.subscribe(b"weather.%d" % i)
        serve_until(announcer, lambda: announcer.socket is not first)
        assert first.closed
        strange.close()
        hear(announcer, honest, 2)  # it has redialled


def test_a_megabyte_topic_does_not_arrive(announcer: Announcer) -> None:
    with raw_subscriber(announcer.port) as giant:
        topic = b"s" * (1 << 20)
        giant.setblocking(True)
        with suppress(ConnectionError):
            giant.sendall(b"\2" + struct.pack("!Q", 1 + len(topic)) + b"\1" + topic)
        giant.setblocking(False)
        serve_until(announcer, lambda: is_closed(giant))
        assert announcer.strange == 0


def test_a_turn_is_short_while_subscriptions_flood_in(announcer: Announcer) -> None:
    process = psutil.Process(os.getpid())
    for port in range(20204, 20212):
        announcer.publish(value(port))
    with zmq.Context() as strange, strange.socket(zmq.XSUB) as flood:
        flood.linger = 0
        flood.sndhwm = 0
        flood.connect(f"tcp://127.0.0.1:{announcer.port}")
        for i in range(100_000):
            flood.send(b"\1" + TOPIC[: i % 8])
        longest_s, turns = 0.0, 0
        while announcer.socket.poll(500):
            begun = process.cpu_times().user
            announcer.hear(time.monotonic())
            longest_s = max(longest_s, process.cpu_times().user - begun)
            turns += 1
        assert turns >= 100_000 / 2 / 1000
        assert longest_s < 1.0


def test_what_subscribers_may_send_is_small() -> None:
    assert len(b"\1server.") + 16 + len(".65535") < MAX_FRAME_BYTES < 1024
