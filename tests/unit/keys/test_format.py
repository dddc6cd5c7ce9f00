"""The text of key files: both ways, and what a damaged one says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.errors import BadInput
from dr.keys.format import FarmKey, check_name, format_client, format_farm, parse_client, parse_farm
from tests.support.keys import pair_of

EXAMPLES = settings(max_examples=400, derandomize=True, deadline=None)
FARM, ANNA, BERT = map(pair_of, ("farm", "anna", "bert"))
WHOLE = FarmKey(public=FARM.public, secret=FARM.secret, clients={"anna": ANNA.public, 'b"e\\r t': BERT.public})
CLIENT_TEXT, FARM_TEXT = format_client(ANNA), format_farm(WHOLE)
SECRETS = (FARM.secret.reveal(), ANNA.secret.reveal())


def is_name(text: str) -> bool:
    try:
        return check_name(text, "x") == text
    except BadInput:
        return False


NAMES = st.text(min_size=1, max_size=64).filter(is_name)


def test_a_client_key_comes_back_from_its_text() -> None:
    assert parse_client(CLIENT_TEXT.encode(), "file") == ANNA


@EXAMPLES
@given(st.lists(NAMES, unique=True, max_size=5))
def test_a_farm_key_comes_back_from_its_text_whatever_its_clients_are_called(names: list[str]) -> None:
    farm = FarmKey(public=FARM.public, secret=FARM.secret, clients={name: pair_of(name).public for name in names})
    assert parse_farm(format_farm(farm).encode(), "file") == farm


def test_the_public_half_comes_back_from_its_text_which_holds_no_secret() -> None:
    half = FarmKey(public=FARM.public)
    assert parse_farm(format_farm(half).encode(), "file") == half
    assert FARM.secret.reveal() not in format_farm(half)


@pytest.mark.parametrize("text", [CLIENT_TEXT, FARM_TEXT])
def test_a_secret_file_says_so_in_its_first_line(text: str) -> None:
    assert "KEEP IT SECRET" in text.splitlines()[0]


def test_equal_keys_give_equal_files() -> None:
    backwards = FarmKey(public=FARM.public, secret=FARM.secret, clients=dict(reversed(WHOLE.clients.items())))
    assert format_farm(backwards) == FARM_TEXT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "file: expected version = 1, found 'none'; it is no key file"),
        ("é", "file: expected a key file (TOML): Invalid"),
        ("[[[", "file: expected a key file (TOML): "),
        (FARM_TEXT.replace("version = 1", "version = 2"), "expected version = 1, found 2; this dr is too old for it"),
        (FARM_TEXT.replace("version = 1", "version = true"), "expected version = 1, found True"),
        (FARM_TEXT.replace("version = 1", "version = 1.0"), "file: Expected `int`, got `float` - at `version`"),
        (CLIENT_TEXT, "expected kind = 'farm', found 'client'; choose another file"),
        (FARM_TEXT.replace("secret_key", "secret_kay"), "unknown entry 'secret_kay' (did you mean 'secret_key'?)"),
        (FARM_TEXT.replace(f'"{FARM.public}"', "5"), "Expected `str`, got `int` - at `public_key`"),
        (FARM_TEXT.replace(FARM.public, BERT.public, 1), "expected the two halves of one key"),
        (FARM_TEXT.replace(FARM.public, FARM.public[:-1]), "file: public_key: expected a public key of 40 letters"),
        (FARM_TEXT.replace(ANNA.public, "?"), "file: [clients] 'anna': expected a public key of 40 letters"),
        (FARM_TEXT.replace(ANNA.public, BERT.public), "[clients]: expected one name per key, found "),
        (FARM_TEXT.replace('"anna"', '""'), "file: [clients]: expected a name of 1 to 64 printable letters"),
        (FARM_TEXT.replace('"anna"', r'"a\nb"'), "found 'a?b'"),
        (FARM_TEXT.replace('"anna"', '"farm"'), "expected a name that does not begin with '-' and is not 'farm'"),
        (FARM_TEXT.replace(f'secret_key = "{SECRETS[0]}"\n', ""), "expected secret_key beside [clients], found none"),
    ],
)
def test_a_damaged_farm_file_is_one_line_that_names_file_and_place(text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_farm(text.encode(), "file")
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FARM_TEXT, "expected kind = 'client', found 'farm'"),
        (CLIENT_TEXT + "[clients]\n", "expected no [clients] in a client key, found some"),
        (CLIENT_TEXT.replace(f'secret_key = "{SECRETS[1]}"\n', ""), "expected secret_key, found none"),
    ],
)
def test_a_damaged_client_file_is_one_line_that_names_file_and_place(text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_client(text.encode(), "file")
    assert str(caught.value).startswith("file: ")
    assert words in str(caught.value)


PIECES = st.sampled_from(
    [b"", b"\0", b'"', b"\n", b"[", b"=", b"\xff", b"#", b"\\u0000", b"[clients]", b"=" * 300, b"[" * 3000]
)


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """A few places cut out, and something else or another part of the file put there."""
    data = text.encode()
    for _ in range(draw(st.integers(1, 3))):
        first, length = draw(st.integers(0, len(data))), draw(st.integers(0, 60))
        other = draw(st.integers(0, len(data)))
        piece = draw(PIECES | st.binary(max_size=8) | st.just(data[other : other + 44]))
        data = data[:first] + piece + data[first + length :]
    return data


@EXAMPLES
@given(damaged(FARM_TEXT) | damaged(CLIENT_TEXT) | st.binary(max_size=200))
def test_any_damage_is_a_key_or_one_line_of_bad_input_without_a_secret(data: bytes) -> None:
    for parse in (parse_farm, parse_client):
        message = ""
        try:
            parse(data, "file")
        except BadInput as error:
            message = str(error)
        assert message == "" or message.startswith("file: ")
        assert message.isprintable()
        assert len(message) < 600
        assert not [secret for secret in SECRETS if secret in message]


@pytest.mark.parametrize(
    "text",
    [
        FARM_TEXT.replace('"anna" = ', f'"{SECRETS[0]}" = "" # '),
        FARM_TEXT.replace('"anna" = ', f'"-{SECRETS[0]}" = '),
        FARM_TEXT.replace('"anna" = ', f'"{SECRETS[0]}" = "{BERT.public}" # '),
        FARM_TEXT.replace("public_key", f'"{SECRETS[0]}"'),
        FARM_TEXT.replace("version = 1", f'version = "{SECRETS[0]}"'),
        FARM_TEXT.replace('"farm"', f'"{SECRETS[0]}"'),
        FARM_TEXT.replace(FARM.public, SECRETS[0]),
        FARM_TEXT.replace(FARM.public, SECRETS[0] + "x"),
        FARM_TEXT.replace("secret_key = ", "secret_key = ["),
        FARM_TEXT.replace("secret_key = ", ""),
    ],
    ids=lambda text: str(len(text)),
)
def test_a_secret_in_a_wrong_place_is_not_repeated(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_farm(text.encode(), "file")
    assert SECRETS[0][:24] not in str(caught.value)
