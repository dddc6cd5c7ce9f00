"""The thread that writes pictures."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from dr.client.finisher import Finisher
from dr.errors import BadInput


def test_jobs_are_done_one_after_the_other() -> None:
    done: list[int] = []
    finisher = Finisher()
    for number in range(20):
        finisher.put(partial(done.append, number))
    finisher.finish()
    assert done == list(range(20))


def test_the_backlog_counts_what_is_being_done() -> None:
    gate, finisher = threading.Event(), Finisher()
    finisher.put(lambda: gate.wait(30))
    finisher.put(lambda: None)
    assert finisher.backlog == 2
    gate.set()
    finisher.finish()
    assert finisher.backlog == 0


def test_a_picture_that_cannot_be_written_does_not_end_the_thread() -> None:
    def fail() -> None:
        raise BadInput("the disk is full")

    done, finisher = threading.Event(), Finisher()
    finisher.put(fail)
    finisher.put(done.set)
    finisher.finish()
    assert (finisher.failures, done.is_set()) == (["the disk is full"], True)


def test_a_bug_of_ours_is_raised_where_the_render_is_waited_for() -> None:
    finisher = Finisher()
    finisher.put(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        finisher.finish()


def test_nothing_to_do_costs_no_thread() -> None:
    Finisher().finish()
