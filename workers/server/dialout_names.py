"""Looks up the addresses of hosts beside a loop that must never wait. Knows the system's resolver; knows no port.

A dead resolver holds its caller for half a minute, and a thread in it cannot be stopped: one that answers after `close`
answers nobody.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue

from msgspec import Struct


class Found(Struct, frozen=True):
    """IP literals of a host, IPv4 first. None: `trouble` says why."""

    host: str
    literals: tuple[str, ...] = ()
    trouble: str = ""


class Names:
    """Whoever waits for answers polls `fd` for reading and then calls `take`."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._answers: SimpleQueue[Found] = SimpleQueue()
        self._asked: set[str] = set()

    @property
    def fd(self) -> int:
        return self._reader.fileno()

    def ask(self, host: str) -> None:
        """`take` gives the answer some time, once for all that have asked meanwhile."""
        if host not in self._asked:
            self._asked.add(host)
            threading.Thread(target=self._look_up, args=(host,), name="names", daemon=True).start()

    def take(self) -> list[Found]:
        """The answers that have come."""
        with suppress(BlockingIOError):
            self._reader.recv(4096)
        found = []
        with suppress(Empty):
            while True:
                found.append(self._answers.get_nowait())
        self._asked -= {each.host for each in found}
        return found

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _look_up(self, host: str) -> None:
        self._answers.put(look_up(host))
        with suppress(OSError):  # full: whoever waits is awake already; closed: nobody waits
            self._writer.send(b"!")


def look_up(host: str) -> Found:
    """Waits for the system's resolver, unless `host` is an IP literal."""
    try:
        return Found(host, (str(ipaddress.ip_address(host)),))
    except ValueError:
        pass
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Found(host, trouble=getattr(error, "strerror", None) or str(error))
    literals = dict.fromkeys(str(entry[4][0]) for entry in entries)
    return Found(host, tuple(sorted(literals, key=lambda literal: ":" in literal)))
