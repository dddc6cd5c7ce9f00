"""Names are looked up beside the loop: it waits for none of them."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from workers.server.dialout_names import Found, Names, look_up

DEADLINE_S = 30.0


@pytest.fixture
def names() -> Iterator[Names]:
    made = Names()
    yield made
    made.close()


def take(names: Names) -> list[Found]:
    assert select.select([names.fd], [], [], DEADLINE_S)[0]
    return names.take()


@pytest.mark.parametrize(("host", "literal"), [("127.0.0.1", "127.0.0.1"), ("0::1", "::1")])
def test_a_literal_asks_nobody(host: str, literal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "getaddrinfo")
    assert look_up(host) == Found(host, (literal,))


def test_addresses_of_ipv4_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [(0, 0, 0, "", (literal, 0)) for literal in ("::1", "127.0.0.1", "::1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **more: entries)
    assert look_up("host") == Found("host", ("127.0.0.1", "127.0.0.2", "::1"))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 300])
def test_a_name_without_an_address_says_why(names: Names, host: str) -> None:
    names.ask(host)
    (found,) = take(names)
    assert (found.host, found.literals) == (host, ())
    assert found.trouble


def test_a_resolver_that_hangs_holds_up_nobody(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()

    def resolve(host: str, *words: Any, **more: Any) -> list[Any]:
        if host == "slow":
            assert hung.wait(DEADLINE_S)
        return [(0, 0, 0, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for host in ("slow", "slow", "fast"):
        names.ask(host)
    assert take(names) == [Found("fast", ("127.0.0.1",))]
    assert names.take() == []
    hung.set()
    assert take(names) == [Found("slow", ("127.0.0.1",))]


def test_an_answer_that_comes_after_the_end_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **more: closed.wait(DEADLINE_S) and [])
    names = Names()
    names.ask("host")
    (thread,) = [each for each in threading.enumerate() if each.name == "names"]
    names.close()
    closed.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
