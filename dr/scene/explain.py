"""Turns a decoder's complaint into BadInput with file and place. Knows how msgspec words its errors, and no format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from dr.errors import BadInput, closest

_PATH = re.compile(r"^(?P<text>.*) - at `\$\.?(?P<path>.+)`$", re.DOTALL)
T = TypeVar("T")


def explain(name: str, error: Exception) -> BadInput:
    """`chair.gltf: nodes[0].children[2]: Expected `int` >= 0`"""
    if isinstance(error, RecursionError):
        return BadInput(f"{name}: expected a scene description, found values nested too deeply")
    found = _PATH.match(str(error))
    if found is None:
        return BadInput(f"{name}: {error}")
    return BadInput(f"{name}: {found['path']}: {found['text']}")


def pick(items: Sequence[T], index: int, what: str, place: str) -> T:
    """`items[index]`, where the index comes from a file."""
    if index >= len(items):
        raise BadInput(f"{place}: expected an index into {what}, which has {len(items)} entries; found {index}")
    return items[index]


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the closest known one, or all of them."""
    words = sorted(known)
    near = closest(word, words)
    return f"did you mean {near!r}?" if near else f"known are {', '.join(words)}"
