"""The preparing thread over inproc: what it says about frames that are gone, and about an epoch that comes back."""

import threading

import pytest
import zmq

from dr.errors import DrError
from dr.scene.model import RenderSettings
from tests.support.fake_engine import FakeEngine, FakeScene
from workers.server.engine import Shelf
from workers.server.events import KernelsWarmed, ScenePrepared
from workers.server.inside import Inside, PrepareJob
from workers.server.preparing import Preparer

WAIT_S = 20


class SlowEngine(FakeEngine):
    """The first preparation waits until it is abandoned, and ends only when `may_end` is set."""

    def __init__(self):
        super().__init__()
        self.begun, self.may_end = threading.Event(), threading.Event()

    def warm_up(self, say):
        pass

    def prepare(self, job, say):
        if not self.begun.is_set():
            self.begun.set()
            assert self.abandoned.wait(WAIT_S)
            assert self.may_end.wait(WAIT_S)
            raise DrError("abandoned")
        return FakeScene({})


@pytest.fixture
def engine():
    return SlowEngine()


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A thread that was not joined would keep sockets of a context that nobody ends, until it stops some other test."""
    monkeypatch.setattr("workers.server.preparing.JOIN_S", WAIT_S)


@pytest.fixture
def preparer(engine):
    context = zmq.Context()
    inside = Inside(context)
    preparer = Preparer(engine, Shelf(), inside)
    yield preparer
    engine.may_end.set()
    assert preparer.close()
    inside.close()
    context.term()


def next_event(preparer):
    assert preparer.inside.socket.poll(WAIT_S * 1000)
    return preparer.inside.receive()


def test_the_end_of_an_abandoned_preparation_is_no_failure_of_the_frame_that_has_its_epoch_now(preparer, engine):
    job = PrepareJob(epoch=1, key="k", main="a", files={}, settings=RenderSettings())
    assert next_event(preparer) == KernelsWarmed()
    preparer.prepare(job)
    assert engine.begun.wait(WAIT_S)
    preparer.drop(1)
    preparer.prepare(job)
    engine.may_end.set()
    assert next_event(preparer) == ScenePrepared(1)


def test_a_long_warm_up_is_told_in_two_lines_of_the_log(engine, caplog):
    engine.warm_up = lambda say: [say(f"compiling kernels: {step} of 100") for step in range(100)]
    assert warm_up_log(engine, caplog) == [
        ("INFO", "not ready yet: compiling kernels: 0 of 100"),
        ("INFO", "the kernels are ready"),
    ]


def test_a_machine_that_cannot_render_says_so_in_the_log(engine, caplog):
    def refuse(say):
        raise DrError("this CPU lacks fma")

    engine.warm_up = refuse
    assert warm_up_log(engine, caplog) == [("ERROR", "this machine cannot render: this CPU lacks fma")]


def warm_up_log(engine, caplog):
    caplog.set_level("INFO")
    context = zmq.Context()
    inside = Inside(context)
    preparer = Preparer(engine, Shelf(), inside)
    preparer.threads[0].join(WAIT_S)
    assert preparer.close()
    inside.close()
    context.term()
    return [(record.levelname, record.getMessage()) for record in caplog.records]
