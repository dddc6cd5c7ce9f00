"""Looks up the addresses of hosts beside a loop that must never wait. Knows the system's resolver; knows no port.

A dead resolver holds each caller for half a minute, and a thread in it cannot be stopped: such threads are left behind,
and one that answers after `close` answers nobody.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic

from msgspec import Struct

LOOK_UP_S = 5.0  # for all names together
THREADS = 256  # so that names without an answer do not hold up the others


class Found(Struct, frozen=True):
    """IP literals of a host, IPv4 first. None: `trouble` says why."""

    literals: tuple[str, ...] = ()
    trouble: str = ""


class Resolver:
    """Whoever waits for answers polls `fd` for reading and then calls `take`. Everything is called from one thread."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._answers: SimpleQueue[tuple[str, Found]] = SimpleQueue()
        self._asked: set[str] = set()
        self._lock = threading.Lock()  # of the two below
        self._todo: deque[str] = deque()
        self._threads = 0

    @property
    def fd(self) -> int:
        return self._reader.fileno()

    def ask(self, host: str) -> None:
        """`take` gives the answer some time, once for all that have asked meanwhile."""
        if host in self._asked:
            return
        self._asked.add(host)
        with self._lock:
            self._todo.append(host)
            grows = self._threads < THREADS
            self._threads += grows
        if grows:
            threading.Thread(target=self._work, name="resolver", daemon=True).start()

    def take(self, within_s: float = 0.0) -> dict[str, Found]:
        """The answers that have come; where there is none yet, it may be waited for."""
        self._reader.settimeout(within_s)
        with suppress(BlockingIOError, TimeoutError):
            self._reader.recv(4096)
        found: dict[str, Found] = {}
        with suppress(Empty):
            while True:
                host, answer = self._answers.get_nowait()
                found[host] = answer
        self._asked -= found.keys()
        return found

    def close(self) -> None:
        with self._lock:
            self._todo.clear()
        self._reader.close()
        self._writer.close()

    def _work(self) -> None:
        while (host := self._next()) is not None:
            self._answers.put((host, ask_system(host)))
            with suppress(OSError):  # full: whoever waits is awake already; closed: nobody waits
                self._writer.send(b"!")

    def _next(self) -> str | None:
        """None, and one thread less, when there is nothing to do."""
        with self._lock:
            if self._todo:
                return self._todo.popleft()
            self._threads -= 1
            return None


def look_up(hosts: Iterable[str], within_s: float = LOOK_UP_S) -> dict[str, Found]:
    """What each host resolves to, or why it does not."""
    hosts = dict.fromkeys(hosts)
    names = [host for host in hosts if not is_literal(host)]
    answers = _ask_all(names, within_s) if names else {}
    return {host: answers.get(host) or literal_of(host) for host in hosts}


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def literal_of(host: str) -> Found:
    """What an IP literal resolves to: itself, as everybody writes it."""
    return Found((str(ipaddress.ip_address(host)),))


def no_answer(within_s: float) -> Found:
    return Found(trouble=f"no answer within {within_s:g} s; is the name server there?")


def ask_system(name: str) -> Found:
    """Waits for the system's resolver."""
    try:
        entries = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Found(trouble=getattr(error, "strerror", None) or str(error))
    literals = dict.fromkeys(str(entry[4][0]) for entry in entries)
    return Found(tuple(sorted(literals, key=lambda literal: ":" in literal)))


def _ask_all(names: list[str], within_s: float) -> dict[str, Found]:
    until_s = monotonic() + within_s
    answers: dict[str, Found] = {}
    resolver = Resolver()
    try:
        for name in names:
            resolver.ask(name)
        while len(answers) < len(names) and monotonic() < until_s:
            answers |= resolver.take(max(0.0, until_s - monotonic()))
    finally:
        resolver.close()
    return {name: answers.get(name) or no_answer(within_s) for name in names}
