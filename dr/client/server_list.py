"""What `dr servers ...` does to a list of servers. Knows entries and the words that name them; knows no file's text."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from dr.client.addresses import EVERY, saved_word
from dr.client.resolver import Found, is_literal
from dr.errors import BadInput, did_you_mean
from dr.protocol.address import IpcAddress, parse_address
from dr.settings import ServerAddress

MOST_ADDRESSES = 64  # that an entry holds
HOW_TO_ADD = "dr servers add HOST adds one"
_Key: TypeAlias = tuple[str, int | None]  # host, as names are compared, and port


class Row(Struct, eq=False):
    """An entry, and where in the file's list it comes from; None: it is new."""

    entry: ServerAddress
    source: int | None = None


class ServerList:
    """The entries of one file. Each method gives a line for each change, and for each word that changes nothing."""

    def __init__(self, entries: Iterable[ServerAddress]) -> None:
        self.rows = [Row(entry, number) for number, entry in enumerate(entries)]

    @property
    def entries(self) -> list[ServerAddress]:
        return [row.entry for row in self.rows]

    def add(self, words: Iterable[str]) -> list[str]:
        wanted = [entry for word in words for entry in parse_entries(word)]
        known = self._by_key()
        return [self._add(entry, known) for entry in wanted]

    def edit(self, old: str, new: str) -> list[str]:
        """Names an entry anew. A bare host for a bare host renames all entries of that host, which keep their ports."""
        to = parse_entries(new)
        if len(to) > 1:
            raise BadInput(f"server {new!r}: expected one server, HOST or HOST:PORT, found {len(to)} ports")
        rows = self.find(old)
        keeps_port = to[0].port is None and all(_key(row.entry)[0] == _word_key(old) for row in rows)
        if len(rows) > 1 and not keeps_port:
            raise BadInput(f"server {old!r}: expected one entry, found {', '.join(_words(rows))}; say which")
        named = [replace(to[0], port=row.entry.port) if keeps_port else to[0] for row in rows]
        others = {_key(row.entry) for row in self.rows if row not in rows}
        for entry in named:
            if _key(entry) in others:
                raise BadInput(f"server {saved_word(entry)!r}: is listed already; dr servers remove {old}")
        return [_rename(row, entry) for row, entry in zip(rows, named, strict=True)]

    def remove(self, words: Iterable[str]) -> list[str]:
        found = self._find_all(words)
        gone = set(found)
        self.rows = [row for row in self.rows if row not in gone]
        return [f"{word}: removed" for word in _words(found)]

    def enable(self, words: Iterable[str], enabled: bool) -> list[str]:
        state = "enabled" if enabled else "disabled"
        lines = []
        for row in self._find_all(words):
            changes = row.entry.enabled != enabled
            row.entry = replace(row.entry, enabled=enabled)
            lines.append(f"{saved_word(row.entry)}: {state}{'' if changes else ' already, nothing changed'}")
        return lines

    def merge(self, entries: Iterable[ServerAddress]) -> list[str]:
        """Adds what is missing and takes over what is enabled; all else stays. Silent where nothing changes."""
        known = self._by_key()
        changes = [self._merge(entry, known) for entry in entries]
        return [line for line in changes if line]

    def store(self, found: Mapping[str, Found]) -> list[str]:
        """Keeps the addresses of the hosts that were looked up. Those of a host without an answer stay as they were."""
        return [_store(row, found[name]) for row in self.rows if (name := host_name(row.entry)) in found]

    def become(self, entries: Sequence[ServerAddress]) -> None:
        """Makes it these entries; those that are there in this order already stay where they are."""
        known: dict[_Key, list[Row]] = {}
        for row in reversed(self.rows):
            known.setdefault(_key(row.entry), []).append(row)
        rows = [Row(entry, _take_source(known, entry)) for entry in entries]
        kept = [row.source for row in rows if row.source is not None]
        new_first = any(row.source is not None for row in rows[len(kept) :])
        if new_first or kept != sorted(kept):
            rows = [Row(entry) for entry in entries]
        self.rows = rows

    def find(self, word: str) -> list[Row]:
        """The entries that a word names: a bare host names all that are listed for it. BadInput where there is none."""
        try:
            wanted = parse_entries(word)
        except BadInput:
            named = [row for row in self.rows if word in (row.entry.host, saved_word(row.entry))]
            if named:  # whatever a person wrote into the file can be taken out again
                return named
            raise
        keys = {_key(entry) for entry in wanted}
        hosts = {host for host, port in keys if port is None}
        found = [row for row in self.rows if _key(row.entry) in keys or _key(row.entry)[0] in hosts]
        if found:
            return found
        hint = did_you_mean(word, _words(self.rows)) or ("; dr servers list shows all" if self.rows else "")
        raise BadInput(f"server {word!r}: expected one of the list, which {_size(self.rows)}{hint}")

    def _find_all(self, words: Iterable[str]) -> list[Row]:
        """In the order of the list, each once."""
        found = {row for word in words for row in self.find(word)}
        return [row for row in self.rows if row in found]

    def _by_key(self) -> dict[_Key, Row]:
        """Of entries that a person wrote twice, the first."""
        return {_key(row.entry): row for row in reversed(self.rows)}

    def _append(self, entry: ServerAddress, known: dict[_Key, Row]) -> None:
        self.rows.append(Row(entry))
        known[_key(entry)] = self.rows[-1]

    def _add(self, entry: ServerAddress, known: dict[_Key, Row]) -> str:
        same, word = known.get(_key(entry)), saved_word(entry)
        if same is None:
            self._append(entry, known)
            return f"{word}: added"
        if same.entry.enabled:
            return f"{word}: is listed already, nothing changed"
        same.entry = replace(same.entry, enabled=True)
        return f"{word}: was listed already, now enabled"

    def _merge(self, entry: ServerAddress, known: dict[_Key, Row]) -> str:
        same, word = known.get(_key(entry)), saved_word(entry)
        if same is None:
            self._append(entry, known)
            return f"{word}: added{'' if entry.enabled else ', disabled'}"
        if same.entry.enabled == entry.enabled:
            return ""
        same.entry = replace(same.entry, enabled=entry.enabled)
        return f"{word}: {'enabled' if entry.enabled else 'disabled'}"


def parse_entries(word: str) -> list[ServerAddress]:
    """What a user's word names: an entry for a whole host or a port, several for a range. BadInput for no address."""
    address = parse_address(word)
    if isinstance(address, IpcAddress):
        raise BadInput(f"server {word!r}: expected a host; a Unix socket is named with dr render --server")
    host = EVERY + address.host if address.every and not is_literal(address.host) else address.host
    if address.ports is None:
        return [ServerAddress(host=host)]
    first, last = address.ports
    return [ServerAddress(host=host, port=port) for port in range(first, last + 1)]


def host_name(entry: ServerAddress) -> str:
    """What to look up for an entry: its host without `dns+any:`."""
    return entry.host.removeprefix(EVERY)


def describe(entry: ServerAddress) -> dict[str, object]:
    """For --json."""
    return {
        "server": saved_word(entry),
        "host": entry.host,
        "port": entry.port,
        "enabled": entry.enabled,
        "addresses": entry.addresses,
    }


def _rename(row: Row, entry: ServerAddress) -> str:
    old, word = saved_word(row.entry), saved_word(entry)
    if old == word:
        return f"{word}: is named so already, nothing changed"
    same_host = _key(entry)[0] == _key(row.entry)[0]
    addresses = row.entry.addresses if same_host else ()  # stored ones are those of the old host
    row.entry = replace(entry, enabled=row.entry.enabled, addresses=addresses)
    return f"{old}: now {word}"


def _store(row: Row, found: Found) -> str:
    word, stored = saved_word(row.entry), ", ".join(row.entry.addresses)
    if not found.literals:
        return f"{word}: no address: {found.trouble}{'; stored: ' + stored if stored else ''}"
    literals = found.literals[:MOST_ADDRESSES]
    shown = ", ".join(literals)
    if is_literal(host_name(row.entry)):
        return f"{word}: is an address"
    if literals == row.entry.addresses:
        return f"{word}: {shown}, as stored"
    row.entry = replace(row.entry, addresses=literals)
    return f"{word}: {shown}, stored{' instead of ' + stored if stored else ''}"


def _take_source(known: Mapping[_Key, list[Row]], entry: ServerAddress) -> int | None:
    """Where the file has the entry, each place once."""
    rows = known.get(_key(entry))
    return rows.pop().source if rows else None


def _words(rows: Iterable[Row]) -> list[str]:
    return [saved_word(row.entry) for row in rows]


def _size(rows: Sequence[Row]) -> str:
    if not rows:
        return f"is empty; {HOW_TO_ADD}"
    return "has one entry" if len(rows) == 1 else f"has {len(rows)} entries"


def _key(entry: ServerAddress) -> _Key:
    """Equal for entries that mean the same servers."""
    return _host_key(entry.host), entry.port


def _word_key(word: str) -> str | None:
    """Of a bare host; None where the word names a port."""
    try:
        entry = parse_entries(word)[0]
    except BadInput:
        return None
    return _host_key(entry.host) if entry.port is None else None


@lru_cache(4096)
def _host_key(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().rstrip(".")
