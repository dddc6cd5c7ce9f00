"""One key: its text, its halves, and that nothing shows the secret one."""

from __future__ import annotations

import pickle
import pprint
import string
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from dr.errors import BadInput
from dr.keys.key import KeyPair, Secret, make_pair, parse_pair, parse_public, public_text
from dr.keys.ring import KeyRing
from tests.support.keys import pair_of

PAIR = pair_of("anna")


def test_a_new_pair_is_a_curve_pair_whose_public_half_is_no_option() -> None:
    pairs = [make_pair() for _ in range(200)]
    assert all(zmq.curve_public(pair.secret.reveal().encode()).decode() == pair.public for pair in pairs)
    assert not [pair for pair in pairs if pair.public.startswith("-")]
    assert len({pair.public for pair in pairs}) == 200


@given(st.binary(min_size=32, max_size=32))
def test_the_bytes_of_the_wire_and_the_text_of_a_file_are_the_same_key(key: bytes) -> None:
    assert z85.decode(parse_public(public_text(key), "KEY")) == key


@given(st.text(max_size=50) | st.text(alphabet=string.printable, min_size=40, max_size=40))
def test_a_text_is_a_key_or_one_line_of_bad_input_that_does_not_repeat_it(text: str) -> None:
    message = ""
    try:
        assert len(z85.decode(parse_public(text, "KEY"))) == 32
    except BadInput as error:
        message = str(error)
    assert message == "" or message.startswith("KEY: expected a public key of 40 letters (Z85), found ")
    assert message.isprintable()
    assert len(text) < 20 or text not in message


@pytest.mark.parametrize(
    "text",
    ["", "x" * 39, "x" * 41, "#" * 40, "é" * 40, '"' * 40, " " * 40, "\0" * 40, "\ud800" * 40],
    ids=[
        "empty",
        "short",
        "long",
        "beyond 32 bits",
        "not ASCII",
        "not of the alphabet",
        "spaces",
        "zeros",
        "surrogate",
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="KEY: expected a public key"):
        parse_public(text, "KEY")


def test_halves_of_two_keys_are_no_pair() -> None:
    other = make_pair()
    with pytest.raises(BadInput, match="found a public_key of another secret_key") as caught:
        parse_pair(other.public, PAIR.secret.reveal(), "file")
    assert PAIR.secret.reveal() not in str(caught.value)


def test_a_broken_secret_is_not_repeated() -> None:
    broken = PAIR.secret.reveal()[:-1]
    with pytest.raises(BadInput) as caught:
        parse_pair(PAIR.public, broken, "file")
    assert broken not in str(caught.value)
    assert str(caught.value).startswith("file: secret_key: expected a secret key of 40 letters (Z85), found 39 letters")


HOLDERS: list[Any] = [
    PAIR.secret,
    PAIR,
    KeyRing(client=PAIR, farm_public=PAIR.public, farm_secret=PAIR.secret),
    [PAIR],
    {"a": PAIR},
    msgspec.structs.asdict(PAIR),
]


@pytest.mark.parametrize("holder", HOLDERS, ids=["secret", "pair", "ring", "list", "dict", "fields"])
def test_no_text_of_what_holds_a_secret_shows_it(holder: Any) -> None:
    texts = [str(holder), repr(holder), f"{holder}", "%s %r" % (holder, holder), pprint.pformat(holder)]  # noqa: UP031
    assert not [text for text in texts if PAIR.secret.reveal() in text or PAIR.secret.reveal()[:12] in text]


@pytest.mark.parametrize("encode", [msgspec.json.encode, msgspec.msgpack.encode, pickle.dumps])
def test_what_holds_a_secret_cannot_be_encoded_by_mistake(encode: Any) -> None:
    with pytest.raises(TypeError):
        encode(PAIR)


def test_pairs_are_compared_by_both_halves() -> None:
    again = KeyPair(PAIR.public, Secret(PAIR.secret.reveal()))
    assert again == PAIR
    assert hash(again) == hash(PAIR)
    assert KeyPair(PAIR.public, make_pair().secret) != PAIR
