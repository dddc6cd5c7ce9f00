"""The client's ROUTER against gates with and without keys, over loopback: what each failed handshake is called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from dr.broker.events import ConnectionLost, DialRefused, DialSucceeded
from dr.client.guard import load_security
from dr.client.link import Change, Link
from dr.errors import Refused
from dr.keys.changes import init_keys
from dr.keys.folder import KeyPlaces, key_places
from dr.keys.ring import KeyRing
from dr.keys.security import Security
from dr.protocol.envelope import join, split_server
from dr.protocol.messages import Ping, Pong
from tests.support.gate import Gate
from tests.support.keys import pair_of

DEADLINE_MS = 30_000
FARM, ANNA, BERT, MALLORY = map(pair_of, ("farm", "anna", "bert", "mallory"))
SERVER = KeyRing(farm_public=FARM.public, farm_secret=FARM.secret, clients={ANNA.public: "anna"})
MEMBER = Security(ring=KeyRing(client=ANNA, farm_public=FARM.public))
STRANGER = Security(ring=KeyRing(client=BERT, farm_public=FARM.public))
ELSEWHERE = Security(ring=KeyRing(client=ANNA, farm_public=MALLORY.public))
NO_KEYS, INSECURE = Security(), Security(insecure=True)

NOT_ADMITTED = f"your key is not admitted there; ask for `dr keys authorize NAME '{BERT.public}'`"
WRONG_FARM = "no render server of this farm answers there: another farm key, or a server without keys"
KEYS_NEEDED = "no render server answers there, or one that needs keys: `dr keys import-farm FILE` brings them"
LEFT_OUT = "no render server answers there, or one that needs keys: leave --insecure out"


def pong(message: object) -> list[Pong]:
    return [Pong(n=message.n)] if isinstance(message, Ping) else []


@pytest.fixture
def guarded() -> Iterator[Gate]:
    with Gate(SERVER, pong) as gate:
        yield gate


@pytest.fixture
def plain() -> Iterator[Gate]:
    with Gate(None, pong) as gate:
        yield gate


def dial(link: Link, endpoint: str) -> tuple[bytes, Change]:
    """(routing id, how it went)"""
    peer = b"\x01" + os.urandom(8)
    link.dial(endpoint, peer)
    while link.monitor.poll(DEADLINE_MS):
        for change in link.changes():
            return peer, change
    raise AssertionError("nothing happened")


def outcome(security: Security, endpoint: str) -> Change:
    link = Link(security)
    try:
        return dial(link, endpoint)[1]
    finally:
        link.close()


def ask(link: Link, peer: bytes, number: int) -> None:
    """A ping and its pong."""
    assert link.send(peer, join(Ping(n=number)))
    assert link.socket.poll(DEADLINE_MS)
    ((sender, *frames),) = link.messages()
    assert (sender, split_server(frames)[0]) == (peer, Pong(n=number))


def test_a_key_that_is_admitted_opens_the_gate(guarded: Gate) -> None:
    assert outcome(MEMBER, guarded.endpoint) == DialSucceeded(guarded.endpoint)


def test_a_holder_of_the_farm_key_needs_no_other(guarded: Gate) -> None:
    holder = Security(ring=KeyRing(farm_public=FARM.public, farm_secret=FARM.secret))
    assert outcome(holder, guarded.endpoint) == DialSucceeded(guarded.endpoint)


def test_a_key_that_is_not_admitted_is_refused_for_good_and_the_reason_holds_the_public_key(guarded: Gate) -> None:
    assert outcome(STRANGER, guarded.endpoint) == DialRefused(guarded.endpoint, NOT_ADMITTED)


@pytest.mark.parametrize(
    ("security", "reason"), [(ELSEWHERE, WRONG_FARM), (NO_KEYS, KEYS_NEEDED), (INSECURE, LEFT_OUT)]
)
def test_another_farm_and_missing_keys_are_tried_again_with_a_hint(
    guarded: Gate, security: Security, reason: str
) -> None:
    assert outcome(security, guarded.endpoint) == ConnectionLost(guarded.endpoint, reason)


def test_a_server_without_keys_is_never_spoken_to_by_a_client_with_keys(plain: Gate) -> None:
    assert outcome(MEMBER, plain.endpoint) == ConnectionLost(plain.endpoint, WRONG_FARM)
    assert plain.heard == []


@pytest.mark.parametrize("security", [NO_KEYS, INSECURE])
def test_without_keys_loopback_is_open(plain: Gate, security: Security) -> None:
    assert outcome(security, plain.endpoint) == DialSucceeded(plain.endpoint)


def test_one_socket_dials_unix_sockets_without_keys_and_tcp_with_them_in_any_order(
    guarded: Gate, tmp_path: Path
) -> None:
    link, context = Link(MEMBER), zmq.Context()
    local: zmq.Socket[Any] = context.socket(zmq.DEALER)
    local.linger = 0
    endpoint = f"ipc://{tmp_path}/s"
    local.bind(endpoint)
    try:
        for number in range(3):
            ours, change = dial(link, endpoint)
            assert change == DialSucceeded(endpoint)
            theirs, change = dial(link, guarded.endpoint)
            assert change == DialSucceeded(guarded.endpoint)
            ask(link, theirs, number)
            assert link.send(ours, [b"hello"])
            assert local.poll(DEADLINE_MS)
            assert local.recv_multipart() == [b"hello"]
    finally:
        link.close()
        context.destroy(linger=0)


def test_another_machine_is_never_dialled_without_keys() -> None:
    link = Link(NO_KEYS)
    try:
        with pytest.raises(Refused, match="needs a farm key"):
            link.dial("tcp://192.0.2.1:20204", b"\x01peer")
    finally:
        link.close()


# What is loaded for a client


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyPlaces:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return key_places({}, tmp_path / "dr" / "keys")


def test_keys_are_loaded_where_there_are_some(places: KeyPlaces) -> None:
    assert load_security({}, insecure=False) == Security()
    init_keys(places, "anna")
    loaded = load_security({}, insecure=False)
    assert loaded.ring.farm
    assert (loaded.insecure, loaded.trouble) == (False, None)


def test_insecure_means_no_keys_even_where_there_are_some(places: KeyPlaces) -> None:
    init_keys(places, "anna")
    assert load_security({}, insecure=True) == Security(insecure=True)


def test_a_file_that_others_can_read_is_no_keys_but_a_trouble(places: KeyPlaces) -> None:
    init_keys(places, "anna")
    places.farm.chmod(0o644)
    loaded = load_security({}, insecure=False)
    assert loaded.ring == KeyRing()
    assert isinstance(loaded.trouble, Refused)
    assert "chmod 600" in str(loaded.trouble)
