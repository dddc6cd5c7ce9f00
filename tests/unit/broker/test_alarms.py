"""Alarms ring once, in order, and never later than the earliest time that was asked for."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from dr.broker.alarms import Alarms

NAMES = st.sampled_from("abcde")
TIMES = st.integers(0, 20).map(float) | st.just(inf)


def test_an_alarm_rings_once_at_the_earliest_time_that_was_set() -> None:
    alarms = Alarms()
    for time in (5.0, 3.0, 9.0, inf):
        alarms.set("a", time)
    assert alarms.next() == 3.0
    assert alarms.take(2.9) == []
    assert alarms.take(100.0) == ["a"]
    assert alarms.take(100.0) == []
    assert alarms.next() == inf


def test_an_alarm_that_is_set_for_never_does_not_ring() -> None:
    alarms = Alarms()
    alarms.set("a", inf)
    assert alarms.take(inf) == []
    assert alarms.next() == inf


@given(st.lists(st.tuples(st.sampled_from(["set", "take", "drop"]), NAMES, TIMES), max_size=60))
def test_it_is_a_table_of_names_and_times(steps: list[tuple[str, str, float]]) -> None:
    alarms, table = Alarms(), dict[str, float]()
    for verb, name, time in steps:
        if verb == "set" and time < table.get(name, inf):
            table[name] = time
        if verb == "set":
            alarms.set(name, time)
        elif verb == "drop":
            alarms.drop(name)
            table.pop(name, None)
        else:
            due = sorted((when, each) for each, when in table.items() if when <= time)
            assert alarms.take(time) == [each for _, each in due]
            table = {each: when for each, when in table.items() if when > time}
        assert alarms.next() == min(table.values(), default=inf)
        assert {each: alarms.time_of(each) for each in "abcde"} == {each: table.get(each, inf) for each in "abcde"}
