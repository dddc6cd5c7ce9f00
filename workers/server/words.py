"""The words between a server process and whoever started it: options, a report per change, exit statuses.

Knows how they are spelt; starts nothing and does nothing. A parent writes options with `as_words` and the child reads
them with `read_options`. On its stdout the child says `listening on ENDPOINT`, and then, if `supervised`, one line of
JSON per change of its state (dr.protocol.messages.Announcement).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from dr.protocol.messages import Announcement, EngineKind
from dr.settings import DEFAULT_PORT
from workers.numa.ranges import format_ranges, parse_ranges
from workers.server.work import Limits

READY_WORD = "listening on"
RESTART_STATUS = 75  # exit status (EX_TEMPFAIL): start me again at once, that was asked for


class ServeOptions(Struct, frozen=True, kw_only=True):
    """How to serve. `endpoint` (tcp://HOST:PORT, ipc://PATH) wins over `bind` and `port`; TCP port 0 means any.

    No `bind`: all interfaces where there is a farm key, else loopback.
    """

    endpoint: str | None = None
    bind: str = ""
    port: int = DEFAULT_PORT
    engine: EngineKind = EngineKind.PRODUCTION
    threads: int | None = None  # None: one per CPU that the process may use
    cpus: tuple[int, ...] | None = None  # None: those it may use already
    nodes: tuple[int, ...] = ()  # NUMA nodes that these CPUs belong to, for people
    memory_nodes: tuple[int, ...] = ()  # where its memory shall lie; none: wherever a thread touches it first
    name: str | None = None
    announce: int = 0  # port of this host's announcements; 0: there are none
    siblings: tuple[int, ...] = ()  # ports of the other servers of the same spawner
    supervised: bool = False  # a spawner reads our reports and starts us again
    parent_pid: int | None = None  # end when this process, our parent, does
    insecure: bool = False  # use no keys, even where there are some
    dial: tuple[str, ...] = ()  # HOST:PORT of clients that listen
    limits: Limits = Limits()


def as_words(options: ServeOptions) -> list[str]:
    """The command-line words from which `read_options` makes the same options; limits travel in the environment."""
    words = []
    for name, (write, _) in _LISTS.items():
        if value := getattr(options, name):
            words += [_flag(name), write(value)]
    for name in _PLAIN:
        if (value := getattr(options, name)) is not None:
            words += [_flag(name), str(value)]
    words += [f"--dial={place}" for place in options.dial]
    return [*words, *(_flag(name) for name in _FLAGS if getattr(options, name))]


def read_options(words: list[str], limits: Limits) -> tuple[ServeOptions, bool]:
    """(options, whether to log everything). Raises BadInput; ends the process for what argparse refuses."""
    parser = argparse.ArgumentParser(prog="python -m workers.server")
    parser.add_argument("--endpoint", help="ipc://PATH or tcp://HOST:PORT; wins over --bind and --port")
    parser.add_argument("--bind", default="", help="address to listen on; none: all with a farm key, else loopback")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="TCP port; 0: any")
    parser.add_argument("--engine", type=EngineKind, default=EngineKind.PRODUCTION, help="production or rt")
    parser.add_argument("--threads", type=int, help="render threads; default: one per usable CPU")
    parser.add_argument("--name", help="what clients call this server")
    parser.add_argument("--announce", type=int, default=0, help="port of this host's announcements")
    parser.add_argument("--parent-pid", type=int, help="end when this process, our parent, does")
    parser.add_argument("--supervised", action="store_true", help="report each change of state on stdout")
    parser.add_argument("--insecure", action="store_true", help="use no keys: for a closed lab network")
    parser.add_argument("--dial", action="append", default=[], help="HOST:PORT of a client that listens")
    parser.add_argument("--verbose", action="store_true", help="log every event of the connections")
    for name in _LISTS:
        parser.add_argument(_flag(name), help="numbers such as 0-3,8")
    found = vars(parser.parse_args(words))
    verbose, dial = found.pop("verbose"), tuple(found.pop("dial"))
    lists = {name: read(found.pop(name), _flag(name)) for name, (_, read) in _LISTS.items()}
    return ServeOptions(**found, **lists, dial=dial, limits=limits), verbose


def report_line(announcement: Announcement) -> str:
    """What a supervised server prints when its state has changed."""
    return msgspec.json.encode(announcement).decode()


def read_report(line: str) -> Announcement | None:
    """What such a line says; None for any other line."""
    try:
        return msgspec.json.decode(line, type=Announcement)
    except msgspec.DecodeError:
        return None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _read_numbers(text: str | None, flag: str) -> tuple[int, ...]:
    return parse_ranges(text, flag) if text else ()


def _read_cpus(text: str | None, flag: str) -> tuple[int, ...] | None:
    return _read_numbers(text, flag) or None


_PLAIN = ("endpoint", "bind", "port", "engine", "threads", "name", "announce", "parent_pid")
_FLAGS = ("supervised", "insecure")
_LISTS: dict[str, tuple[Callable[[Iterable[int]], str], Callable[[str | None, str], Any]]] = {
    "cpus": (format_ranges, _read_cpus),
    "nodes": (format_ranges, _read_numbers),
    "memory_nodes": (format_ranges, _read_numbers),
    "siblings": (format_ranges, _read_numbers),
}
