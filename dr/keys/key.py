"""One CURVE key pair and its text. Knows Z85 and curve arithmetic; knows no file, no name and no socket."""

from __future__ import annotations

import struct
from typing import NoReturn

import zmq
from msgspec import Struct
from zmq.utils import z85

from dr.errors import BadInput

KEY_LETTERS = 40  # 32 bytes in Z85


class Secret:
    """A secret key in Z85 that no print, repr, format or encoder shows; `reveal` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key is not pickled")


class KeyPair(Struct, frozen=True):
    """Both halves of one key; `public` is Z85 text and may be shown to anybody."""

    public: str
    secret: Secret


def make_pair() -> KeyPair:
    """A new pair. The public half never begins with `-`: a command line would take it for an option."""
    while True:
        public, secret = zmq.curve_keypair()
        if not public.startswith(b"-"):
            return KeyPair(public.decode(), Secret(secret.decode()))


def parse_public(text: str, place: str) -> str:
    """The same key. Raises BadInput, which names `place`, when it is none."""
    return _parse(text, place, "public")


def parse_pair(public: str, secret: str, place: str) -> KeyPair:
    """Raises BadInput, which names `place` and never shows the secret, when the halves are broken or do not match."""
    pair = KeyPair(
        parse_public(public, f"{place}: public_key"), Secret(_parse(secret, f"{place}: secret_key", "secret"))
    )
    if zmq.curve_public(pair.secret.reveal().encode()).decode() != pair.public:
        raise BadInput(f"{place}: expected the two halves of one key, found a public_key of another secret_key")
    return pair


def public_text(key: bytes) -> str:
    """Z85 of the 32 bytes that the wire carries."""
    return z85.encode(key).decode()


def _parse(text: str, place: str, half: str) -> str:
    """A wrong key is not repeated in the error: it might be a secret one."""
    expected = f"{place}: expected a {half} key of {KEY_LETTERS} letters (Z85)"
    if len(text) != KEY_LETTERS:
        raise BadInput(f"{expected}, found {len(text)} letters; in a shell put it in single quotes")
    try:
        z85.decode(text)
    except (ValueError, KeyError, struct.error):  # not ASCII; not of the alphabet; beyond 32 bits
        raise BadInput(f"{expected}, found something else; in a shell put it in single quotes") from None
    return text
