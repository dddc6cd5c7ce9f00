"""The client's open door: who comes in, who is gone, and who must stay outside."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zmq

from dr.broker.events import DialSucceeded, SendFailed
from dr.client.link import Change, Link
from dr.client.listen import Listener, check_listen
from dr.errors import BadInput, Refused
from dr.keys.key import KeyPair
from dr.keys.ring import KeyRing
from dr.keys.security import Guard, Security
from dr.keys.sockets import secure_dial_out
from tests.support.gate import Gate
from tests.support.keys import pair_of

DEADLINE_MS = 30_000
FARM, ANNA, MALLORY = map(pair_of, ("farm", "anna", "mallory"))
CLIENT = Security(ring=KeyRing(client=ANNA, farm_public=FARM.public))
NO_KEYS, INSECURE = Security(), Security(insecure=True)
ANY = "127.0.0.1:0"


def server_ring(farm: KeyPair = FARM) -> KeyRing:
    return KeyRing(farm_public=farm.public, farm_secret=farm.secret, clients={ANNA.public: "anna"})


class Caller:
    """A server's end, with a routing id of its own choice."""

    def __init__(self, place: str, ring: KeyRing | None = None, name: bytes = b"") -> None:
        self.name = name or b"\x02" + os.urandom(8)
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.reconnect_ivl = -1
        self.socket.routing_id = self.name
        if ring:
            secure_dial_out(self.socket, ring, ANNA.public)
        self.monitor = self.socket.get_monitor_socket()
        self._fate: set[str] = set()
        self.socket.connect(f"tcp://{place}")

    def say(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def fate(self) -> set[str]:
        """What has become of its connection so far."""
        while self.monitor.poll(0):
            kind = int.from_bytes(self.monitor.recv_multipart()[0][:2], sys.byteorder)
            self._fate.add(zmq.Event(kind).name or "")
        return self._fate

    def leave(self) -> None:
        """May be called twice."""
        self.context.destroy(linger=0)


@pytest.fixture
def call() -> Iterator[Callable[..., Caller]]:
    made: list[Caller] = []

    def make(*words: Any, **more: Any) -> Caller:
        made.append(Caller(*words, **more))
        return made[-1]

    yield make
    for caller in made:
        caller.leave()


@pytest.fixture
def open_link() -> Iterator[Callable[..., Link]]:
    made: list[Link] = []

    def make(security: Security = NO_KEYS, listen: str = ANY) -> Link:
        made.append(Link(security, listen))
        return made[-1]

    yield make
    for link in made:
        link.close()


def door(link: Link) -> Listener:
    assert link.listener
    return link.listener


def turn(link: Link, until: Callable[[], Any]) -> tuple[list[list[bytes]], list[SendFailed]]:
    """(messages, losses) up to the moment when something is true, or there are some."""
    deadline, messages, losses = monotonic() + DEADLINE_MS / 1000, list[list[bytes]](), list[SendFailed]()
    poller = zmq.Poller()
    for source in link.sources():
        poller.register(source, zmq.POLLIN)
    while not (messages or losses or until()):
        assert monotonic() < deadline
        poller.poll(20)
        messages += link.messages()
        losses += link.losses()
    return messages, losses


def next_change(link: Link) -> Change:
    """How a dial went."""
    while link.monitor.poll(DEADLINE_MS):
        for change in link.changes():
            return change
    raise AssertionError("nothing happened")


def never() -> bool:
    return False


def test_a_server_that_dials_in_is_heard_and_answered(open_link: Any, call: Any) -> None:
    link = open_link()
    caller = call(door(link).place)
    caller.say(b"here", b"pixels")
    assert turn(link, never) == ([[caller.name, b"here", b"pixels"]], [])
    assert link.send(caller.name, [b"hello"])
    assert caller.socket.poll(DEADLINE_MS)
    assert caller.socket.recv_multipart() == [b"hello"]


def test_who_is_gone_is_known_at_once_among_those_who_stay(open_link: Any, call: Any) -> None:
    link = open_link()
    callers = [call(door(link).place) for _ in range(20)]
    for caller in callers:
        caller.say(b"here")
        assert turn(link, never)[0] == [[caller.name, b"here"]]
    callers[7].leave()
    began = monotonic()
    assert turn(link, never) == ([], [SendFailed(callers[7].name, "the connection was closed")])
    assert monotonic() - began < 1.0  # far below the protocol's ping; a loaded machine is slow
    assert not link.send(callers[7].name, [b"hello"])
    assert [link.send(caller.name, [b"hello"]) for caller in callers].count(True) == 19


def test_a_descriptor_that_is_used_again_belongs_to_the_newcomer(open_link: Any, call: Any) -> None:
    link = open_link()
    for _ in range(5):
        caller = call(door(link).place)
        caller.say(b"here")
        assert turn(link, never)[0] == [[caller.name, b"here"]]
        caller.leave()
        assert turn(link, never)[1] == [SendFailed(caller.name, "the connection was closed")]
    assert not door(link).knows(caller.name)


def test_one_that_goes_without_a_word_is_no_loss(open_link: Any, call: Any) -> None:
    link = open_link()
    silent, caller = call(door(link).place), call(door(link).place)
    caller.say(b"here")
    turn(link, never)
    silent.leave()
    caller.leave()
    assert turn(link, never)[1] == [SendFailed(caller.name, "the connection was closed")]


def test_a_second_server_with_the_same_routing_id_does_not_get_the_words_of_the_first(
    open_link: Any, call: Any
) -> None:
    link = open_link()
    first = call(door(link).place)
    first.say(b"here")
    turn(link, never)
    second = call(door(link).place, name=first.name)
    second.say(b"here")
    assert link.send(first.name, [b"hello"])
    assert first.socket.poll(DEADLINE_MS)
    assert not second.socket.poll(100)


def test_dialled_servers_and_those_that_dial_in_share_one_link(open_link: Any, call: Any) -> None:
    with Gate(server_ring(), lambda message: []) as gate:
        link = open_link(CLIENT)
        caller = call(door(link).place, server_ring())
        caller.say(b"here")
        assert turn(link, never)[0] == [[caller.name, b"here"]]
        link.dial(gate.endpoint, b"\x01peer")
        assert next_change(link) == DialSucceeded(gate.endpoint)
        assert link.send(b"\x01peer", [b"x"])
        assert link.send(caller.name, [b"x"])


# Keys


def test_a_holder_of_the_farm_key_comes_in(open_link: Any, call: Any) -> None:
    link = open_link(CLIENT)
    assert door(link).guard is Guard.CURVE
    caller = call(door(link).place, server_ring())
    caller.say(b"here")
    assert turn(link, never)[0] == [[caller.name, b"here"]]


@pytest.mark.parametrize(
    ("ring", "fates"),
    [
        (server_ring(MALLORY), {"HANDSHAKE_FAILED_AUTH"}),
        (None, {"HANDSHAKE_FAILED_NO_DETAIL", "HANDSHAKE_FAILED_PROTOCOL", "DISCONNECTED"}),
    ],
    ids=["another farm's key", "no key"],
)
def test_who_does_not_hold_the_farm_key_stays_outside(
    ring: KeyRing | None, fates: set[str], open_link: Any, call: Any
) -> None:
    link = open_link(CLIENT)
    caller = call(door(link).place, ring)
    caller.say(b"here")
    heard, _ = turn(link, lambda: fates & caller.fate())
    assert heard == []
    assert "HANDSHAKE_SUCCEEDED" not in caller.fate()


@pytest.mark.parametrize("security", [NO_KEYS, INSECURE])
def test_without_keys_loopback_is_open(security: Security, open_link: Any, call: Any) -> None:
    link = open_link(security)
    assert door(link).guard is Guard.OPEN
    caller = call(door(link).place)
    caller.say(b"here")
    assert turn(link, never)[0] == [[caller.name, b"here"]]


# Places


def test_other_machines_come_in_with_keys_alone() -> None:
    for place in ("*:20300", "192.0.2.1:20300", "[::]:20300"):
        with pytest.raises(Refused, match=r"^--listen .*`dr keys init`"):
            check_listen(place, NO_KEYS)
        assert check_listen(place, CLIENT)[1] is Guard.CURVE
        assert check_listen(place, INSECURE)[1] is Guard.OPEN


@pytest.mark.parametrize("place", ["", "20300", "render-client:20300", "127.0.0.1", "127.0.0.1:70000", "127.0.0.1:1-9"])
def test_a_word_that_names_no_place_is_bad_input(place: str) -> None:
    with pytest.raises(BadInput, match=r"^--listen .*: expected"):
        check_listen(place, NO_KEYS)


def test_a_unix_socket_needs_no_listening(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="servers of this machine need no --listen"):
        check_listen(f"ipc://{tmp_path}/s", NO_KEYS)


def test_a_taken_port_is_told_in_one_line_and_nothing_is_left_open(open_link: Any) -> None:
    place = door(open_link()).place
    with pytest.raises(BadInput, match="the port is taken by another program; choose another place") as caught:
        Link(NO_KEYS, place)
    assert str(caught.value).startswith(f"--listen {place}: ")


def test_keys_that_cannot_be_used_are_told_also_for_loopback() -> None:
    broken = Security(trouble=Refused("farm.key: others can read it; chmod 600 farm.key"))
    with pytest.raises(Refused, match=r"--listen 127\.0\.0\.1:1: farm.key: others can read it"):
        check_listen("127.0.0.1:1", broken)
