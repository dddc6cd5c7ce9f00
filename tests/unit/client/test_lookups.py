"""When names are looked up, and what the user is told, on a simulated clock."""

from __future__ import annotations

from math import inf

from dr.client.lookups import GATHER_S, RENEW_EVERY_S, RENEW_S, Lookups
from dr.client.resolver import LOOK_UP_S


def asked(names: dict[str, bool]) -> Lookups:
    """These names, asked at 0."""
    lookups = Lookups()
    lookups.want(names, 0.0)
    assert lookups.take_due(0.0) == [*names]
    return lookups


def fail(lookups: Lookups, name: str, now: float, reason: str = "unknown") -> None:
    lookups.answered(name, False, now)
    lookups.complain(name, reason, now)


def test_a_name_that_fails_is_asked_again_after_2_4_8_up_to_30_seconds() -> None:
    lookups = asked({"a": False})
    now = 0.0
    for pause_s in (2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        fail(lookups, "a", now)
        lookups.take_all_complaints()
        assert lookups.next_deadline() == now + pause_s
        now += pause_s
        assert lookups.take_due(now) == ["a"]


def test_a_name_with_addresses_is_asked_again_and_sooner_where_all_are_wanted() -> None:
    lookups = asked({"a": False, "b": True})
    for name in "ab":
        lookups.answered(name, True, 1.0)
    assert lookups.next_deadline() == 1.0 + RENEW_EVERY_S
    assert lookups.take_due(1.0 + RENEW_EVERY_S) == ["b"]
    assert lookups.take_due(1.0 + RENEW_S) == ["a"]


def test_a_name_is_asked_once_while_its_answer_is_awaited() -> None:
    lookups = asked({"a": False})
    assert lookups.take_due(1e6) == []


def test_silence_counts_twice_for_stored_addresses_and_for_the_user() -> None:
    lookups = asked({"a": False})
    assert lookups.next_deadline() == 0.5
    assert lookups.take_silent(0.4) == []
    assert lookups.take_silent(0.5) == ["a"]
    assert lookups.next_deadline() == LOOK_UP_S
    assert lookups.take_silent(LOOK_UP_S) == []
    complaint = "cannot resolve 'a': no answer within 5 s; is the name server there?"
    assert lookups.take_complaints(LOOK_UP_S) == [complaint]
    assert lookups.next_deadline() == inf


def test_names_that_fail_for_one_reason_share_a_line_and_are_told_once() -> None:
    lookups = asked({"a": False, "b": False, "c": False, "d": False})
    fail(lookups, "a", 0.1)
    fail(lookups, "b", 0.3)
    fail(lookups, "c", 0.3, "refused")
    assert lookups.take_complaints(0.3) == []
    told = ["cannot resolve 'a', 'b': unknown", "cannot resolve 'c': refused"]
    assert lookups.take_complaints(0.1 + GATHER_S) == told
    fail(lookups, "a", 2.2)
    assert lookups.take_all_complaints() == []
    fail(lookups, "a", 5.0, "refused")
    assert lookups.take_all_complaints() == ["cannot resolve 'a': refused"]


def test_complaints_wait_for_nobody_when_every_name_has_answered() -> None:
    lookups = asked({"a": False, "b": False})
    fail(lookups, "a", 0.1)
    lookups.answered("b", True, 0.2)
    assert lookups.take_complaints(0.2) == ["cannot resolve 'a': unknown"]


def test_a_name_that_has_had_addresses_is_no_complaint_when_it_fails() -> None:
    lookups = asked({"a": False})
    lookups.answered("a", True, 0.0)
    lookups.take_due(RENEW_S)
    fail(lookups, "a", RENEW_S)
    assert lookups.take_all_complaints() == []
    assert not lookups.lacks("a")


def test_a_name_that_is_wanted_no_more_is_not_asked_and_no_complaint() -> None:
    lookups = asked({"a": False, "b": False})
    fail(lookups, "a", 0.0)
    lookups.want({"b": False}, 0.1)
    fail(lookups, "a", 0.2)
    assert lookups.take_all_complaints() == []
    assert lookups.take_due(1e6) == []


def test_giving_up_names_silence_and_reasons() -> None:
    lookups = asked({"a": False, "b": False})
    fail(lookups, "a", 0.0)
    assert lookups.give_up(2.0, 2.0) == [
        "cannot resolve 'a': unknown",
        "cannot resolve 'b': no answer within 2 s; is the name server there?",
    ]
