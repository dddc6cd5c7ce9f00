"""Knows which servers are wanted: words of a user, and what their names resolve to. Asks nobody; knows no time, no key.

Each change gives the events by which a broker follows. A server that several words name goes with the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from dr.broker.events import ServerAdded, ServerRemoved
from dr.client.resolver import is_literal, literal_of
from dr.protocol.address import IpcAddress, TcpAddress

Listed: TypeAlias = ServerAdded | ServerRemoved


class Word(Struct, frozen=True):
    """What names servers, as the user wrote it. `stored`: IP literals for a host whose name does not resolve."""

    text: str
    address: TcpAddress | IpcAddress
    stored: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The host that is to be looked up; empty when there is nothing to look up."""
        return self.address.host if isinstance(self.address, TcpAddress) and not is_literal(self.address.host) else ""

    @property
    def every(self) -> bool:
        """Whether all addresses of the host are meant."""
        return isinstance(self.address, TcpAddress) and self.address.every

    def endpoints(self, literals: Sequence[str]) -> tuple[str, ...]:
        """What ZeroMQ connects to, where its name stands for `literals`: for all of them, or for the first."""
        if isinstance(self.address, IpcAddress):
            return self.address.endpoints()
        if not self.name:
            literals = literal_of(self.address.host).literals
        chosen = literals if self.address.every else literals[:1]
        return tuple(end for literal in chosen for end in TcpAddress(literal, self.address.ports).endpoints())


class Listing:
    """`endpoints` are listed now, in order; True where one stands for all servers of its host."""

    def __init__(self) -> None:
        self.words: dict[str, Word] = {}  # by text
        self.literals: dict[str, tuple[str, ...]] = {}  # by name
        self.endpoints: dict[str, bool] = {}
        self._ends: dict[str, tuple[str, ...]] = {}  # endpoints of each word
        self._namers: dict[str, dict[str, bool]] = {}  # words that name an endpoint, and whether its whole host

    def want(self, words: Iterable[Word], reasons: Mapping[str, str]) -> list[Listed]:
        """These words are the list now; `reasons` says why one that was there is not."""
        self.words = {word.text: word for word in words}
        names = {word.name for word in self.words.values()}
        self.literals = {name: literals for name, literals in self.literals.items() if name in names}
        gone = {text: () for text in self._ends if text not in self.words}
        ends = {text: self._read(word) for text, word in self.words.items()}
        return self._change({**gone, **ends}, lambda text: reasons.get(text, "not wanted any more"))

    def answer(self, name: str, literals: Sequence[str]) -> list[Listed]:
        """The name stands for these addresses now, the one that a plain HOST means first."""
        words = [word for word in self.words.values() if word.name == name]
        if words:
            self.literals[name] = tuple(literals)
        now = f"its name stands for {', '.join(literals) or 'no address'} now"
        return self._change({word.text: self._read(word) for word in words}, lambda _: now)

    def names(self) -> dict[str, bool]:
        """Hosts that are to be looked up; True where some word means all addresses of one."""
        names: dict[str, bool] = {}
        for word in self.words.values():
            if word.name:
                names[word.name] = names.get(word.name, False) or word.every
        return names

    def _read(self, word: Word) -> tuple[str, ...]:
        return word.endpoints(self.literals.get(word.name, ()))

    def _change(self, ends: Mapping[str, tuple[str, ...]], why_gone: Callable[[str], str]) -> list[Listed]:
        """Each text names these endpoints from now on; those that no text names go, before others come."""
        last: dict[str, str] = {}  # the text that let go of an endpoint
        touched: dict[str, None] = {}
        for text, new in ends.items():
            for endpoint in self._ends.pop(text, ()):
                del self._namers[endpoint][text]
                touched[endpoint] = None
                if endpoint not in new:
                    last[endpoint] = text
            if new:
                self._ends[text] = new
            for endpoint in new:
                self._namers.setdefault(endpoint, {})[text] = self.words[text].address.whole_host
                touched[endpoint] = None
        return self._settle(touched, lambda endpoint: why_gone(last[endpoint]))

    def _settle(self, touched: Iterable[str], why_gone: Callable[[str], str]) -> list[Listed]:
        """A host that is not wanted whole any more goes and comes: so go its other servers."""
        removed: list[Listed] = []
        added: list[Listed] = []
        for endpoint in touched:
            namers = self._namers[endpoint]
            before, whole = self.endpoints.get(endpoint), any(namers.values())
            if before is not None and (not namers or (before and not whole)):
                removed.append(ServerRemoved(endpoint, why_gone(endpoint)))
                del self.endpoints[endpoint]
            if namers and self.endpoints.get(endpoint) is not whole:
                self.endpoints[endpoint] = whole
                added.append(ServerAdded(endpoint, whole_host=whole))
            if not namers:
                del self._namers[endpoint]
        return [*removed, *added]
