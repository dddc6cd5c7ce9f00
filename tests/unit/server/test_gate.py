"""What the gate keeps for a peer whose pipe is full."""

import pytest
import zmq

from dr.keys.security import Security
from dr.protocol.messages import Pong
from workers.server import gate as module
from workers.server.events import PeerUnreachable
from workers.server.gate import Gate

PEER = b"peer"


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """A gate none of whose pipes takes anything."""

    def full(gate, frames):
        raise zmq.Again

    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    context = zmq.Context()
    gate = Gate(context, f"ipc://{folder}/gate", Security())
    monkeypatch.setattr(Gate, "_push", full)
    yield gate
    gate.close()
    context.term()


def test_what_a_full_pipe_does_not_take_is_kept(gate):
    for n in range(3):
        assert gate.send(PEER, Pong(n=n), ()) is None
    assert gate.send_waiting() == []
    assert len(gate.waiting[PEER]) == 3


def test_a_peer_that_never_reads_is_given_up_and_costs_no_more_memory(gate, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    said = [gate.send(PEER, Pong(n=n), ()) for n in range(3)]
    assert said == [None, None, PeerUnreachable(PEER)]
    assert PEER not in gate.waiting
