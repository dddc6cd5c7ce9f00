"""The ways in which things go wrong. Knows nothing of where they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class DrError(Exception):
    """Base of every error that this project raises on purpose; `str()` is one clear line for a person."""


class BadInput(DrError):
    """The user's file, option or setting is wrong. The text names the file and the place, and says what to do."""


class ProtocolError(DrError):
    """A peer sent something that the protocol does not allow. Costs the peer its connection, never the loop."""


class PeerLost(DrError):
    """A peer is gone: closed, killed, silent or unreachable."""


class Refused(DrError):
    """A peer answered and said no: wrong version, wrong key. Final for that peer."""


class Impossible(DrError):
    """A state that cannot be: our own bug. Carries the recent story and stops."""


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that was probably meant by `word`, whatever its case."""
    by_folded = {choice.casefold(): choice for choice in choices}
    close = get_close_matches(word.casefold(), by_folded, n=1)
    return by_folded[close[0]] if close else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown `word`: `" (did you mean 'roughness'?)"`, or nothing when none is close."""
    near = closest(word, choices)
    return f" (did you mean {near!r}?)" if near else ""


def printable(text: str) -> str:
    """Text out of a file or from a peer, without line ends and what a terminal obeys."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)
