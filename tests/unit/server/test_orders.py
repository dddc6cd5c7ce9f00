"""Signals, `stop` and the end of a stream, as a loop hears them."""

from __future__ import annotations

import os
import select
import signal

import pytest

from workers.server.events import RestartRequested, StopRequested
from workers.server.orders import Orders

WAIT_S = 30


def heard(orders: Orders) -> list[StopRequested | RestartRequested]:
    ready, _, _ = select.select(orders.sources(), [], [], WAIT_S)
    assert ready
    return orders.hear(ready)


@pytest.fixture
def orders():
    orders = Orders(restarts=True)
    with orders.signals():
        yield orders
    orders.close()


def test_each_signal_is_one_order_and_their_order_stays(orders):
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    events = []
    while len(events) < 3:
        events += heard(orders)
    assert events == [RestartRequested("SIGHUP"), StopRequested("SIGTERM"), StopRequested("SIGINT")]


def test_stop_is_an_order_however_often_it_is_given(orders):
    for _ in range(100_000):
        orders.stop()
    assert set(heard(orders)) == {StopRequested("told to stop")}


def test_the_end_of_the_parents_stream_is_an_order_to_go_at_once(orders):
    reader, writer = os.pipe()
    orders.watch_parent(reader)
    os.write(writer, b"a word is no end")
    assert heard(orders) == []
    os.close(writer)
    assert heard(orders) == [StopRequested("the parent process is gone", at_once=True)]
    assert orders.parent_fd is None
    os.close(reader)


def test_a_server_without_a_spawner_leaves_sighup_alone():
    before = signal.getsignal(signal.SIGHUP)
    orders = Orders(restarts=False)
    with orders.signals():
        assert signal.getsignal(signal.SIGHUP) == before
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    orders.close()
