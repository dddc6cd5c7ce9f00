"""The items of a TOML array or inline table, cut apart so that one can come, go or change while all else stays.

Knows TOML's punctuation, blanks and comments; knows no value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

INDENT = "    "
LONG = 100  # columns after which an array goes on in a new line
NEWLINE = re.compile(r"\r?\n")
_LAST_LINE = re.compile(r"\r?\n[ \t]*\Z")
_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\]|\\.)*"|' + r"'[^']*'|"
    r"#[^\r\n]*|\r?\n|[ \t]+|[\[\]{},=]|[^\s\"'#\[\]{},=]+|.",
    re.DOTALL,
)
DEPTHS = {"[": 1, "{": 1, "]": -1, "}": -1}


class Item(Struct):
    """One item with what surrounds it: `lead`, body, `gap`, the comma, and `note`, a comment in the same line."""

    lead: str
    body: list[str]
    gap: str = ""
    comma: bool = True
    note: str = ""

    def text(self) -> str:
        return "".join((self.lead, *self.body, self.gap, "," * self.comma, self.note))

    def comments_behind(self, has_own_line: bool) -> str:
        """What stands behind the item, if there is a comment that is not the item's own, in the same line."""
        first_end = NEWLINE.search(self.gap)
        gap = self.gap[first_end.start() if first_end else len(self.gap) :] if has_own_line else self.gap
        left = gap if has_own_line and not first_end else gap + self.note
        return left if "#" in left else ""


class Items:
    """What stands between two brackets or braces, token by token."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.items: list[Item] = []
        self.end = ""
        chunks = _cut_at_commas(tokens)
        for number, chunk in enumerate(chunks):
            self._take(chunk, is_last=number == len(chunks) - 1)

    def text(self) -> str:
        return "".join(item.text() for item in self.items) + self.end

    def append(self, body: str, newline: str) -> None:
        """Puts an item behind the last, laid out as that one is. `newline` begins a line where one is needed."""
        if self.items:
            item = self._next(newline)
        else:
            item = self._first()
        item.body = tokens_of(body)
        self.items.append(item)

    def remove(self, index: int) -> None:
        """Takes an item out, with the comment behind it if its line is its own. Other comments stay."""
        gone = self.items.pop(index)
        line = _LAST_LINE.search(gone.lead)
        left = gone.comments_behind(has_own_line=line is not None)
        follower = self.items[index] if index < len(self.items) else None
        if follower and not left and not NEWLINE.search(follower.lead):
            follower.lead = gone.lead
            return
        left = gone.lead[: line.start()] + left if line else left
        note = self.items[index - 1].note if index else ""
        if follower:
            follower.lead = _join(note, left, follower.lead)
            return
        self.end = _join(note, left, self.end)
        if self.items and not gone.comma:
            self.items[-1].comma = False

    def _take(self, chunk: list[str], is_last: bool) -> None:
        """Makes an item of the tokens up to a comma; those behind the last one are the end, unless one is missing."""
        first = next((at for at, token in enumerate(chunk) if not is_trivia(token)), len(chunk))
        last = next((at for at in range(len(chunk), first, -1) if not is_trivia(chunk[at - 1])), first)
        lead, body, gap = chunk[:first], chunk[first:last], chunk[last:]
        if self.items:
            self.items[-1].note, lead = _cut_note(lead)
        if not is_last:
            self.items.append(Item("".join(lead), body, "".join(gap)))
        elif body:
            note, gap = _cut_note(gap)
            self.items.append(Item("".join(lead), body, comma=False, note=note))
            self.end = "".join(gap)
        else:
            self.end = "".join(lead)

    def _first(self) -> Item:
        """The surroundings of the first item: a line of its own where the brackets stand in two lines."""
        found = _LAST_LINE.search(self.end)
        if found is None:
            return Item(self.end, [], comma=False)
        lead, self.end = self.end[: found.start()], found.group()
        newline = NEWLINE.match(self.end)
        assert newline
        return Item(lead + newline.group() + INDENT, [])

    def _next(self, newline: str) -> Item:
        last = self.items[-1]
        line = _LAST_LINE.search(last.lead)
        if line:
            lead = line.group()
        else:
            lead = newline + INDENT if last.note or len(self.text()) > LONG else " "
        ends_with_comma, last.comma = last.comma, True
        return Item(lead, [], comma=ends_with_comma)


def tokens_of(text: str) -> list[str]:
    """The words, punctuation, blanks, comments and line ends of valid TOML; joined they are `text` again."""
    return _TOKEN.findall(text)


def is_trivia(token: str) -> bool:
    return token[0] in " \t\r\n#"


def _cut_at_commas(tokens: Iterable[str]) -> list[list[str]]:
    chunks: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += DEPTHS.get(token, 0)
        if token == "," and depth == 0:
            chunks.append([])
        else:
            chunks[-1].append(token)
    return chunks


def _cut_note(trivia: list[str]) -> tuple[str, list[str]]:
    """The comment that stands in the same line as what is before the trivia, and the rest."""
    comment = next((at for at, token in enumerate(trivia[:2]) if token[0] == "#"), None)
    if comment is None or any(token[0] in "\r\n" for token in trivia[:comment]):
        return "", trivia
    return "".join(trivia[: comment + 1]), trivia[comment + 1 :]


def _join(note: str, left: str, right: str) -> str:
    """The blanks and comments of `left` and `right`, which stand behind a `note`; a comment ends with its line."""
    is_open = "#" in (note + left).rpartition("\n")[2] and not NEWLINE.match(right.lstrip(" \t"))
    return left + "\n" * is_open + right
