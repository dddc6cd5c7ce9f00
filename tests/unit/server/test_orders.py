"""Signals, `stop` and the end of a stream, as a loop hears them."""

from __future__ import annotations

import os
import select
import signal

import pytest

from workers.server.events import RestartRequested, StopRequested
from workers.server.orders import Orders

WAIT_S = 30
NUMBERS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


def heard(orders: Orders) -> list[StopRequested | RestartRequested]:
    ready, _, _ = select.select(orders.sources(), [], [], WAIT_S)
    assert ready
    return orders.hear(ready)


@pytest.fixture(autouse=True)
def handlers():
    """What this process does with its signals stays as it was."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def orders():
    orders = Orders(restarts=True)
    with orders.signals():
        yield orders
    orders.close()


def test_each_signal_is_one_order_and_their_order_stays(orders):
    for number in NUMBERS:
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
        assert callable(signal.getsignal(signal.SIGTERM))
    orders.close()


def test_a_signal_that_comes_when_the_server_is_leaving_changes_nothing():
    orders = Orders(restarts=True)
    with orders.signals():
        pass
    orders.close()
    for number in NUMBERS:
        os.kill(os.getpid(), number)
