"""Looks up the addresses of hosts, many at once and never for ever. Knows the system's resolver; knows no port.

A dead resolver holds each caller for half a minute, and a thread in it cannot be stopped: such threads are left behind.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TypeAlias

from msgspec import Struct

LOOK_UP_S = 5.0  # for all names together
THREADS = 256  # so that names without an answer do not hold up the others


class Found(Struct, frozen=True):
    """IP literals of a host, IPv4 first. None: `trouble` says why."""

    literals: tuple[str, ...] = ()
    trouble: str = ""


_Answers: TypeAlias = SimpleQueue[tuple[str, Found]]


def look_up(hosts: Iterable[str], within_s: float = LOOK_UP_S) -> dict[str, Found]:
    """What each host resolves to, or why it does not."""
    hosts = dict.fromkeys(hosts)
    names = [host for host in hosts if not _is_literal(host)]
    answers = _ask_all(names, within_s) if names else {}
    return {host: answers.get(host) or Found((str(ipaddress.ip_address(host)),)) for host in hosts}


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _ask_all(names: list[str], within_s: float) -> dict[str, Found]:
    until_s = monotonic() + within_s
    late = Found(trouble=f"no answer within {within_s:g} s; is the name server there?")
    answers = dict.fromkeys(names, late)
    todo: SimpleQueue[str] = SimpleQueue()
    done: _Answers = SimpleQueue()
    over = threading.Event()
    for name in names:
        todo.put(name)
    for _ in range(min(len(names), THREADS)):
        threading.Thread(target=_work, args=(todo, done, over), daemon=True).start()
    try:
        for _ in names:
            name, answer = done.get(timeout=max(0.0, until_s - monotonic()))
            answers[name] = answer
    except Empty:
        pass
    finally:
        over.set()
    return answers


def _work(todo: SimpleQueue[str], done: _Answers, over: threading.Event) -> None:
    while not over.is_set():
        try:
            name = todo.get_nowait()
        except Empty:
            return
        done.put((name, _ask(name)))


def _ask(name: str) -> Found:
    try:
        entries = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Found(trouble=getattr(error, "strerror", None) or str(error))
    literals = dict.fromkeys(str(entry[4][0]) for entry in entries)
    return Found(tuple(sorted(literals, key=lambda literal: ":" in literal)))
