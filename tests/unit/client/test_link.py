"""The client's ROUTER against a bound one, over a Unix socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from dr.broker.events import ConnectionLost, DialSucceeded
from dr.client.link import Change, Link
from dr.keys.security import Security

DEADLINE_MS = 10_000


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link(Security())
    yield link
    link.close()


class Gate:
    """A server's end."""

    def __init__(self, endpoint: str) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(endpoint)

    def receive(self) -> list[bytes]:
        assert self.socket.poll(DEADLINE_MS)
        return self.socket.recv_multipart()

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/s"


@pytest.fixture
def gate(endpoint: str) -> Iterator[Gate]:
    gate = Gate(endpoint)
    yield gate
    gate.close()


def next_change(link: Link) -> Change:
    """The next connection made or lost."""
    while link.monitor.poll(DEADLINE_MS):
        for change in link.changes():
            return change
    raise AssertionError("nothing happened")


def new_peer() -> bytes:
    return b"\x01" + os.urandom(8)


def test_a_dial_that_succeeds_is_told_and_carries_frames_both_ways(link: Link, gate: Gate, endpoint: str) -> None:
    peer = new_peer()
    link.dial(endpoint, peer)
    assert next_change(link) == DialSucceeded(endpoint)
    assert link.send(peer, [b"header", b"pixels"])
    sender, *frames = gate.receive()
    assert frames == [b"header", b"pixels"]
    gate.socket.send_multipart([sender, b"answer"])
    assert link.socket.poll(DEADLINE_MS)
    assert list(link.messages()) == [[peer, b"answer"]]


def test_a_server_that_goes_is_told_at_once(link: Link, endpoint: str) -> None:
    gate = Gate(endpoint)
    peer = new_peer()
    link.dial(endpoint, peer)
    assert next_change(link) == DialSucceeded(endpoint)
    gate.close()
    assert next_change(link) == ConnectionLost(endpoint, "the connection was closed")
    assert not link.send(peer, [b"too late"])


def test_a_dial_to_nobody_is_lost(link: Link, endpoint: str) -> None:
    link.dial(endpoint, new_peer())
    assert next_change(link) == ConnectionLost(endpoint, "nobody listens there")


def test_an_endpoint_may_be_dialled_again_with_a_fresh_id(link: Link, endpoint: str) -> None:
    link.dial(endpoint, new_peer())
    assert isinstance(next_change(link), ConnectionLost)
    gate = Gate(endpoint)
    peer = new_peer()
    link.dial(endpoint, peer)
    assert next_change(link) == DialSucceeded(endpoint)
    assert link.send(peer, [b"hello"])
    assert gate.receive()[1:] == [b"hello"]
    gate.close()


def test_after_hanging_up_the_peer_is_not_reachable(link: Link, gate: Gate, endpoint: str) -> None:
    peer = new_peer()
    link.dial(endpoint, peer)
    assert next_change(link) == DialSucceeded(endpoint)
    link.hang_up(endpoint)
    again = new_peer()
    link.dial(endpoint, again)
    assert next_change(link) == DialSucceeded(endpoint)
    assert link.send(again, [b"here"])
    assert not link.send(peer, [b"gone"])


def test_last_words_leave_before_the_link_closes(gate: Gate, endpoint: str) -> None:
    link = Link(Security())
    peer = new_peer()
    link.dial(endpoint, peer)
    assert next_change(link) == DialSucceeded(endpoint)
    link.send(peer, [b"bye"])
    link.close()
    assert gate.receive()[1:] == [b"bye"]
