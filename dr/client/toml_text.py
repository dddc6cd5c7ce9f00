"""Edits a list of tables, and plain values, in the text of a TOML file; every other byte stays as it is.

Knows how TOML is written, as `servers = [{...}]` and as `[[servers]]`; knows no server. The text is valid TOML: whoever
calls has read it with tomllib.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

from msgspec import Struct

from dr.client.toml_items import DEPTHS, INDENT, Item, Items, is_trivia, tokens_of

Value: TypeAlias = bool | int | str | Sequence[str]


class _Line(Struct):
    """A statement with its line end, or a line without one: a `header` [name], a `value` name = ..., or `blank`."""

    tokens: list[str]
    kind: str
    name: str = ""

    def text(self) -> str:
        return "".join(self.tokens)


class TomlText:
    """The text of one file, and its list of tables called `name`."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._lines = _read_lines(text)

    def text(self) -> str:
        return "".join(line.text() for line in self._lines)

    def append(self, tables: Sequence[Mapping[str, Value]]) -> None:
        """Puts tables behind the last, written as that one is. A list that is missing is made."""
        if not tables:
            return
        array = self._value(self._name)
        if array:
            items = _items(array)
            for table in tables:
                items.append(_inline(table), self._newline)
            _set_items(array, items)
        elif self._blocks():
            for table in tables:
                self._append_block(table)
        else:
            rows = "".join(f"{INDENT}{_inline(table)},{self._newline}" for table in tables)
            self._insert_value(f"{self._name} = [{self._newline}{rows}]")

    def remove(self, indexes: Sequence[int]) -> None:
        array = self._value(self._name)
        items = _items(array) if array else None
        for index in sorted(indexes, reverse=True):
            if items:
                items.remove(index)
            else:
                self._remove_block(index)
        if array and items:
            _set_items(array, items)

    def change(self, changes: Mapping[int, Mapping[str, Value | None]]) -> None:
        """Sets fields of tables, by index; None takes a field out."""
        array = self._value(self._name)
        items = _items(array) if array else None
        for index, fields in changes.items():
            for field, value in fields.items():
                if items:
                    _change_inline(items.items[index], field, value)
                else:
                    self._change_block(index, field, value)
        if array and items:
            _set_items(array, items)

    def set_value(self, name: str, value: Value) -> None:
        """Sets a value of the file's first level."""
        line = self._value(name)
        if line:
            line.tokens = _with_value(line.tokens, format_value(value))
        else:
            self._insert_value(f"{name} = {format_value(value)}")

    def _value(self, name: str) -> _Line | None:
        """The line that sets a value of the first level."""
        top = self._lines[: self._first_header()]
        return next((line for line in top if line.kind == "value" and line.name == name), None)

    def _first_header(self) -> int:
        return next((at for at, line in enumerate(self._lines) if line.kind == "header"), len(self._lines))

    def _insert_value(self, text: str) -> None:
        """Behind the last value of the first level, else in front of the first table."""
        end = self._first_header()
        values = [at for at in range(end) if self._lines[at].kind == "value"]
        if values:
            self._insert(values[-1] + 1, [text])
        else:
            self._insert(end, [text, *[""] * (end < len(self._lines))])

    def _insert(self, at: int, texts: Sequence[str]) -> None:
        """Puts lines before line `at`. A file whose last line has no end keeps that."""
        ends = [self._newline] * len(texts)
        if at and at == len(self._lines) and not _has_end(self._lines[-1]):
            self._lines[-1].tokens.append(self._newline)
            ends[-1] = ""
        new = [line for text, end in zip(texts, ends, strict=True) for line in _read_lines(text + end)]
        self._lines[at:at] = new

    def _delete(self, first: int, stop: int) -> None:
        """Takes lines out. A file whose last line has no end keeps that."""
        loses_end = stop == len(self._lines) and not _has_end(self._lines[-1])
        del self._lines[first:stop]
        if loses_end and self._lines and _has_end(self._lines[-1]):
            self._lines[-1].tokens.pop()

    def _blocks(self) -> list[tuple[int, int]]:
        """First line of each `[[name]]`, and the line behind its last value."""
        starts = [at for at, line in enumerate(self._lines) if line.kind == "header"]
        return [
            (start, max(at + 1 for at in range(start, stop) if self._lines[at].kind != "blank"))
            for start, stop in pairwise([*starts, len(self._lines)])
            if self._lines[start].name == self._name
        ]

    def _append_block(self, table: Mapping[str, Value]) -> None:
        blocks = self._blocks()
        start, stop = blocks[-1]
        apart = len(blocks) == 1 or not self._lines[start - 1].text().strip()
        fields = [f"{field} = {format_value(value)}" for field, value in table.items()]
        self._insert(stop, [*[""] * apart, f"[[{self._name}]]", *fields])

    def _remove_block(self, index: int) -> None:
        """With the empty lines above it, but not with comments."""
        start, stop = self._blocks()[index]
        first = start
        while first and self._lines[first - 1].kind == "blank":
            first -= 1
        has_comment = any(line.text().strip() for line in self._lines[first:start])
        self._delete(start if has_comment else first, stop)

    def _change_block(self, index: int, field: str, value: Value | None) -> None:
        start, stop = self._blocks()[index]
        lines = range(start + 1, stop)
        found = next((at for at in lines if self._lines[at].name == field), None)
        if found is None and value is not None:
            last = self._lines[stop - 1].tokens[0]
            blanks = last if last[0] in " \t" else ""
            self._insert(stop, [f"{blanks}{field} = {format_value(value)}"])
        elif found is not None and value is None:
            self._delete(found, found + 1)
        elif found is not None and value is not None:
            line = self._lines[found]
            line.tokens = _with_value(line.tokens, format_value(value))


def format_value(value: Value) -> str:
    """As TOML writes it. JSON's strings are TOML's but for one character."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[{', '.join(map(format_value, value))}]"


def _inline(table: Mapping[str, Value]) -> str:
    return f"{{ {', '.join(f'{field} = {format_value(value)}' for field, value in table.items())} }}"


def _change_inline(item: Item, field: str, value: Value | None) -> None:
    table = Items(item.body[1:-1])
    found = next((at for at, each in enumerate(table.items) if _key(each.body) == field), None)
    if found is None and value is not None:
        table.append(f"{field} = {format_value(value)}", "")
    elif found is not None and value is None:
        table.remove(found)
    elif found is not None and value is not None:
        table.items[found].body = _with_value(table.items[found].body, format_value(value))
    item.body = ["{", *tokens_of(table.text()), "}"]


def _items(array: _Line) -> Items:
    first, last = _value_span(array.tokens)
    return Items(array.tokens[first + 1 : last])


def _set_items(array: _Line, items: Items) -> None:
    first, last = _value_span(array.tokens)
    array.tokens[first + 1 : last] = tokens_of(items.text())


def _with_value(tokens: list[str], text: str) -> list[str]:
    first, last = _value_span(tokens)
    return [*tokens[:first], *tokens_of(text), *tokens[last + 1 :]]


def _value_span(tokens: Sequence[str]) -> tuple[int, int]:
    """The first and the last token of the value behind the equals sign."""
    begin = tokens.index("=") + 1
    real = [at for at in range(begin, len(tokens)) if not is_trivia(tokens[at])]
    return real[0], real[-1]


def _key(tokens: Sequence[str]) -> str:
    return _key_name("".join(tokens[: tokens.index("=")]))


def _key_name(key: str) -> str:
    """The name that a key spells, bare or quoted; nothing for a dotted one."""
    [(name, value)] = tomllib.loads(f"{key.strip()} = 0").items()
    return name if value == 0 else ""


def _has_end(line: _Line) -> bool:
    return line.tokens[-1][-1] == "\n"


def _read_lines(text: str) -> list[_Line]:
    lines: list[_Line] = []
    tokens: list[str] = []
    depth = 0
    for token in tokens_of(text):
        tokens.append(token)
        depth += DEPTHS.get(token, 0)
        if token[-1] == "\n" and token[0] in "\r\n" and depth == 0:
            lines.append(_read_line(tokens))
            tokens = []
    return [*lines, _read_line(tokens)] if tokens else lines


def _read_line(tokens: list[str]) -> _Line:
    real = [token for token in tokens if not is_trivia(token)]
    if not real:
        return _Line(tokens, "blank")
    if real[0] != "[":
        return _Line(tokens, "value", _key(tokens))
    is_list = real[1] == "["
    return _Line(tokens, "header", _key_name("".join(real[2:-2])) if is_list else "")
