"""Where a server dials next, with which key, and when: no socket, no clock."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.errors import BadInput, Refused
from dr.keys.ring import KeyRing
from dr.keys.security import Security
from tests.support.keys import pair_of
from workers.server.dialout_target import MAX_COMPLAINTS, Attempt, End, Target, keys_at, parse_targets

FARM, ANNA, BERT = map(pair_of, ("farm", "anna", "bert"))
RING = KeyRing(farm_public=FARM.public, farm_secret=FARM.secret, clients={ANNA.public: "anna", BERT.public: "bert"})
KEYS, NO_KEYS, INSECURE = Security(ring=RING), Security(), Security(insecure=True)
KEY_ORDER = (FARM.public, ANNA.public, BERT.public)
V4, V6 = "127.0.0.1", "::1"


def target() -> Target:
    (one,) = parse_targets(["localhost:20300"], NO_KEYS)
    return one


def planned(*literals: str, keys: tuple[str | None, ...] = KEY_ORDER) -> Target:
    made = target()
    made.plan(dict.fromkeys(literals, keys), 0.0)
    return made


def run_round(made: Target, how: End) -> list[Attempt]:
    """The attempts of a round each of which ends like this."""
    tried = []
    while made.attempts:
        tried.append(made.next_attempt())
        made.end(tried[-1], how, 0.0, 0.5)
    return tried


def test_a_round_tries_each_key_at_each_address() -> None:
    assert run_round(planned(V4, V6), End.STRANGE) == [Attempt(place, key) for place in (V4, V6) for key in KEY_ORDER]


@pytest.mark.parametrize("how", [End.SILENT, End.REFUSED])
def test_where_no_key_can_help_the_next_address_follows(how: End) -> None:
    assert run_round(planned(V4, V6), how) == [Attempt(V4, FARM.public), Attempt(V6, FARM.public)]


@pytest.mark.parametrize("how", [End.CLOSED, End.SENT_AWAY, End.REVOKED])
def test_a_connection_that_ends_ends_its_round(how: End) -> None:
    assert len(run_round(planned(V4, V6), how)) == 1


def test_what_worked_last_comes_first_in_the_next_round_then_its_key_at_other_addresses() -> None:
    made = planned(V4, V6)
    best = Attempt(V6, BERT.public)
    made.hear(best)
    made.plan(dict.fromkeys((V4, V6), KEY_ORDER), 0.0)
    assert [made.next_attempt() for _ in range(3)] == [best, Attempt(V4, BERT.public), Attempt(V4, FARM.public)]


def test_a_key_that_is_gone_is_not_tried_though_it_worked_last() -> None:
    made = planned(V4)
    made.hear(Attempt(V4, BERT.public))
    made.plan({V4: (FARM.public,)}, 0.0)
    assert list(made.attempts) == [Attempt(V4, FARM.public)]


@given(chance=st.floats(0, 1), rounds=st.integers(1, 12))
def test_pauses_grow_from_a_tenth_of_a_second_to_one_with_jitter_of_half(chance: float, rounds: int) -> None:
    made, full_s = target(), [0.1, 0.2, 0.4, 0.8]
    for number in range(rounds):
        made.plan({V4: (None,)}, 10.0)
        made.end(made.next_attempt(), End.SILENT, 10.0, chance)
        expected_s = (full_s[number] if number < 4 else 1.0) * (0.5 + 0.5 * chance)
        assert made.due_s == pytest.approx(10.0 + expected_s)


def test_a_client_that_speaks_makes_the_next_pause_short_again() -> None:
    made = target()
    for _ in range(6):
        made.pause(0.0, 1.0)
    assert made.due_s == 1.0
    made.hear(Attempt(V4, None))
    made.end(Attempt(V4, None), End.CLOSED, 0.0, 1.0)
    assert made.due_s == 0.1


def test_keys_follow_each_other_at_a_pace(caplog: pytest.LogCaptureFixture) -> None:
    made = planned(V4)
    made.end(made.next_attempt(), End.STRANGE, 5.0, 1.0)
    assert made.due_s == pytest.approx(5.02)
    assert caplog.messages == []


def test_nothing_is_due_while_a_dial_is_under_way() -> None:
    made = planned(V4)
    assert made.due_s == 0.0
    made.next_attempt()
    assert made.due_s is None


def test_the_log_tells_once_that_nobody_answers_and_once_that_nobody_does_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    made = target()
    for _ in range(2):
        for _ in range(3):
            made.plan({V4: (None,)}, 0.0)
            run_round(made, End.SILENT)
        for _ in range(3):
            made.hear(Attempt(V4, None))
        made.end(Attempt(V4, None), End.CLOSED, 0.0, 0.5)
    assert caplog.messages == [
        "localhost:20300: nobody answers there; dialling on",
        *["localhost:20300 answers", "localhost:20300 does not answer any more: the connection was closed; dialling on"]
        * 2,
    ]


def test_a_client_that_never_says_the_same_twice_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    made = target()
    for number in range(10_000):
        made.complain(f"twin: {number}")
    assert len(caplog.messages) == MAX_COMPLAINTS


def test_the_worst_of_a_round_is_told_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    made = planned(V4, V6, keys=(FARM.public,))
    for how in (End.STRANGE, End.SILENT):
        made.end(made.next_attempt(), how, 0.0, 0.5)
    assert caplog.messages == ["localhost:20300: no client that is admitted here listens there; dialling on"]


# Words and keys


@pytest.mark.parametrize(
    "word", ["", "host", "host:1-9", "host:0", "dns+any:host:1", "ipc:///a", "a b:1", "*:20300", ":20300"]
)
def test_a_word_that_names_no_client_says_what_is_expected(word: str) -> None:
    with pytest.raises(BadInput, match="expected HOST:PORT or") as caught:
        parse_targets([word], INSECURE)
    assert str(caught.value).startswith(f"--dial {word!r}: ")


def test_a_client_that_is_named_twice_is_dialled_once() -> None:
    assert [each.name for each in parse_targets(["[::1]:1", "localhost:1", "[0::1]:1"], NO_KEYS)] == [
        "[::1]:1",
        "localhost:1",
    ]


def test_another_machine_needs_the_farm_key_and_loopback_does_not() -> None:
    for place in ("192.0.2.1:1", "render-client:1"):
        with pytest.raises(Refused, match=r"^--dial .*`dr keys init`"):
            parse_targets([place], NO_KEYS)
        assert parse_targets([place], KEYS)
        assert parse_targets([place], INSECURE)
    assert parse_targets(["127.0.0.1:1"], NO_KEYS)


def test_a_name_that_turns_out_to_be_another_machine_is_not_dialled_without_keys() -> None:
    assert keys_at("127.0.0.1", NO_KEYS) == (None,)
    assert keys_at("127.0.0.1", KEYS) == KEY_ORDER
    assert keys_at("192.0.2.1", INSECURE) == (None,)
    with pytest.raises(Refused, match=r"192\.0\.2\.1"):
        keys_at("192.0.2.1", NO_KEYS)
