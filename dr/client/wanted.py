"""Reads lists of servers, and says how one differs from another in a user's words. Knows no address of a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from dr.client.addresses import saved_word
from dr.client.listing import Word
from dr.protocol.address import parse_address
from dr.settings import ServerAddress

WORDS_SHOWN = 3  # of each kind of change, in one line


class ListChange(Struct, frozen=True):
    """`line` tells the user, empty when nothing changed; `reasons` say why a word is in the list no more."""

    line: str
    reasons: Mapping[str, str]


def read_words(wanted: Sequence[str] | Sequence[ServerAddress]) -> list[Word]:
    """The enabled ones, each once. Raises BadInput for one that is no address."""
    stored: dict[str, tuple[str, ...]] = {}
    for each in wanted:
        if isinstance(each, str):
            stored.setdefault(each, ())
        elif each.enabled:
            word = saved_word(each)
            stored[word] = tuple(dict.fromkeys((*stored.get(word, ()), *each.addresses)))
    return [Word(text, parse_address(text), addresses) for text, addresses in stored.items()]


def compare_lists(
    before: Sequence[str] | Sequence[ServerAddress], after: Sequence[ServerAddress], place: str
) -> ListChange:
    """`place` is where the list stands, as `dr.toml`."""
    old, new = _enabled_by_word(before), _enabled_by_word(after)
    kinds: dict[str, list[str]] = {"added": [], "enabled": [], "disabled": [], "removed": []}
    reasons = {}
    for word in new:
        if new[word] and not old.get(word):
            kinds["enabled" if word in old else "added"].append(word)
    for word in old:
        if old[word] and not new.get(word):
            kind = "disabled" if word in new else "removed"
            kinds[kind].append(word)
            reasons[word] = f"{kind} in {place}" if word in new else f"{kind} from {place}"
    told = [f"{_join(words)} {kind}" for kind, words in kinds.items() if words]
    return ListChange(f"{place} changed: {', '.join(told)}" if told else "", reasons)


def _enabled_by_word(servers: Sequence[str] | Sequence[ServerAddress]) -> dict[str, bool]:
    enabled: dict[str, bool] = {}
    for each in servers:
        word, on = (each, True) if isinstance(each, str) else (saved_word(each), each.enabled)
        enabled[word] = enabled.get(word, False) or on
    return enabled


def _join(words: Sequence[str]) -> str:
    shown = ", ".join(words[:WORDS_SHOWN])
    more = len(words) - WORDS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
