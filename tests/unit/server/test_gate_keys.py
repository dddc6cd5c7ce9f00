"""The gate with keys, real sockets: whose message it is, who is dropped, and that a routing id proves nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from dr.errors import Refused
from dr.keys.ring import KeyRing
from dr.keys.security import Guard, Security
from dr.keys.zap import Zap
from dr.protocol.messages import ErrorMessage, Hello, Ping, Pong
from tests.support.keyed_client import KeyedClient
from tests.support.keys import pair_of
from tests.support.server_process import PATIENCE_S
from workers.server.events import MessageArrived, MessageRefused, PeerRevoked
from workers.server.gate import DROPS_PER_TURN, Gate

FARM, ANNA, BERT = map(pair_of, ("farm", "anna", "bert"))
RING = KeyRing(farm_public=FARM.public, farm_secret=FARM.secret, clients={ANNA.public: "anna", BERT.public: "bert"})
WITHOUT_ANNA = KeyRing(farm_public=FARM.public, farm_secret=FARM.secret, clients={BERT.public: "bert"})


def guest(pair: Any) -> KeyRing:
    return KeyRing(client=pair, farm_public=FARM.public)


class Open:
    """A gate, and the loop around it."""

    def __init__(self, security: Security) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.zap = Zap(self.context, security.ring.admit_client)
        self.gate = Gate(self.context, "tcp://127.0.0.1:0", security)
        self.poller = zmq.Poller()
        for source in (self.zap.socket, self.gate.socket):
            self.poller.register(source, zmq.POLLIN)

    def wait(self, wanted: Callable[[Any], bool] = lambda event: True) -> Any:
        """The next event that is wanted; the others are dropped."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.poller.poll(20)
            self.zap.answer(0.0)
            event = self.gate.receive()
            if event and wanted(event):
                return event
        raise AssertionError("no such event")

    def client(self, ring: KeyRing, routing_id: bytes = b"") -> KeyedClient:
        """Its handshake is answered by `wait`."""
        return KeyedClient(self.gate.endpoint, ring, routing_id)

    def close(self) -> None:
        self.gate.close()
        self.zap.close()
        self.context.term()


@pytest.fixture
def door() -> Iterator[Open]:
    door = Open(Security(ring=RING))
    yield door
    door.close()


def test_a_message_carries_the_key_and_the_name_of_its_connection(door: Open) -> None:
    for pair, name in ((ANNA, "anna (ws7)"), (BERT, "bert (ws7)"), (FARM, "farm (ws7)")):
        with door.client(guest(pair)) as client:
            client.say(Hello(version=1, name="ws7"))
            event = door.wait()
            assert (event.key, event.message) == (pair.public, Hello(version=1, name=name))
            door.gate.send(event.peer, Pong(n=1), ())
            assert client.hear(Pong) == Pong(n=1)
    assert door.gate.guard is Guard.CURVE


def test_without_keys_a_message_carries_none_and_a_name_stays_as_it_is() -> None:
    door = Open(Security(ring=RING, insecure=True))
    with KeyedClient(door.gate.endpoint, None) as client:
        client.say(Hello(version=1, name="ws7"))
        event = door.wait()
        assert (event.key, event.message.name, door.gate.guard) == ("", "ws7", Guard.INSECURE)
    door.close()


def test_what_is_no_message_is_refused_with_keys_as_without(door: Open) -> None:
    with door.client(guest(ANNA)) as client:
        client.socket.send_multipart([b"rubbish", b"x", b"y"])
        assert isinstance(door.wait(), MessageRefused)


def test_a_revoked_peer_is_told_of_once_and_then_dropped_without_a_word(door: Open) -> None:
    with door.client(guest(ANNA)) as revoked, door.client(guest(BERT)) as other:
        revoked.say(Ping(n=1))
        peer = door.wait().peer
        assert door.gate.take_keys(WITHOUT_ANNA, {}) == []
        for n in range(3 * DROPS_PER_TURN):
            revoked.say(Ping(n=n))
        assert door.wait() == PeerRevoked(peer, ANNA.public)
        other.say(Ping(n=7))
        event = door.wait()
        assert (event.key, event.message) == (BERT.public, Ping(n=7)), "nothing of the revoked one in between"


def test_clients_that_are_known_are_revoked_without_a_word_of_theirs(door: Open) -> None:
    known = {b"a": ANNA.public, b"b": BERT.public, b"c": ""}
    assert door.gate.take_keys(RING, known) == []
    assert door.gate.take_keys(WITHOUT_ANNA, known) == [PeerRevoked(b"a", ANNA.public)]


def test_a_key_that_is_admitted_again_is_heard_again(door: Open) -> None:
    with door.client(guest(ANNA)) as client:
        door.gate.take_keys(WITHOUT_ANNA, {})
        client.say(Ping(n=1))
        assert isinstance(door.wait(), PeerRevoked)
        door.gate.take_keys(RING, {})
        client.say(Ping(n=2))
        assert door.wait().message == Ping(n=2)


def test_whoever_takes_a_routing_id_over_is_told_apart_by_its_key(door: Open) -> None:
    with door.client(guest(ANNA), b"same") as first:
        first.say(Ping(n=1))
        assert door.wait() == MessageArrived(b"same", Ping(n=1), (), ANNA.public)
    deadline = time.monotonic() + PATIENCE_S
    while door.gate.send(b"same", Pong(n=0), ()) is None:  # until the gate has noticed
        assert time.monotonic() < deadline
        door.gate.drain_monitor()
        door.gate.monitor.poll(5)
    with door.client(guest(BERT), b"same") as second:
        second.say(Ping(n=2))
        assert door.wait() == MessageArrived(b"same", Ping(n=2), (), BERT.public)


def test_only_frames_of_who_is_revoked_are_dropped_when_a_routing_id_changes_hands(door: Open) -> None:
    door.gate.revoked.add(b"same")
    with door.client(guest(BERT), b"same") as client:
        client.say(ErrorMessage(code="x", text="y"))
        assert door.wait().key == BERT.public


def test_a_gate_for_other_machines_is_refused_without_a_key(tmp_path: Path) -> None:
    with zmq.Context() as context:
        for place in ("0.0.0.0", "*", "[::]", "192.0.2.1"):
            with pytest.raises(Refused, match="needs a farm key, here is none"):
                Gate(context, f"tcp://{place}:0", Security())
