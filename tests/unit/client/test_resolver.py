"""Names are looked up beside the loop: it waits for none of them, and none for another."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from dr.client import resolver as room
from dr.client.resolver import Found, Resolver, look_up

DEADLINE_S = 30.0
HERE = [(0, 0, 0, "", ("127.0.0.1", 0))]


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    made = Resolver()
    yield made
    made.close()


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Every name that begins with `dead` waits for this; the others are this machine."""
    over = threading.Event()

    def look_up(name: str, *words: Any, **options: Any) -> list[Any]:
        if name.startswith("dead"):
            assert over.wait(DEADLINE_S)
        return HERE

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield over
    over.set()


def take(resolver: Resolver, count: int) -> dict[str, Found]:
    """So many answers, waited for as a loop does."""
    found: dict[str, Found] = {}
    until = monotonic() + DEADLINE_S
    while len(found) < count:
        assert select.select([resolver.fd], [], [], until - monotonic())[0], f"only {found}"
        found |= resolver.take()
    return found


def workers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "resolver"]


def test_addresses_of_ipv4_come_first(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [(0, 0, 0, "", (literal, 0)) for literal in ("::1", "127.0.0.1", "::1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **options: entries)
    resolver.ask("host")
    assert take(resolver, 1) == {"host": Found(("127.0.0.1", "127.0.0.2", "::1"))}


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 300])
def test_a_name_without_an_address_says_why(resolver: Resolver, name: str) -> None:
    resolver.ask(name)
    found = take(resolver, 1)[name]
    assert found.literals == ()
    assert found.trouble


def test_names_that_hang_hold_up_no_others(resolver: Resolver, hung: threading.Event) -> None:
    dead = [f"dead{number}" for number in range(100)]
    live = [f"live{number}" for number in range(100)]
    for name in (*dead, *live):
        resolver.ask(name)
    assert take(resolver, 100) == dict.fromkeys(live, Found(("127.0.0.1",)))
    hung.set()
    assert take(resolver, 100) == dict.fromkeys(dead, Found(("127.0.0.1",)))


def test_a_name_that_is_awaited_is_not_asked_twice(resolver: Resolver, hung: threading.Event) -> None:
    for name in ("dead", "dead", "live"):
        resolver.ask(name)
    assert take(resolver, 1) == {"live": Found(("127.0.0.1",))}
    hung.set()
    assert take(resolver, 1) == {"dead": Found(("127.0.0.1",))}
    assert resolver.take() == {}


def test_threads_are_bounded_and_the_rest_waits_for_its_turn(
    resolver: Resolver, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "THREADS", 3)
    before = workers()
    for number in range(10):
        resolver.ask(f"dead{number}")
    assert len(set(workers()) - set(before)) == 3
    hung.set()
    assert len(take(resolver, 10)) == 10


def test_an_answer_that_comes_after_the_end_harms_nobody(hung: threading.Event) -> None:
    before = workers()
    resolver = Resolver()
    resolver.ask("dead")
    (thread,) = set(workers()) - set(before)
    resolver.close()
    hung.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_many_hosts_at_once_are_looked_up_for_a_limited_time(hung: threading.Event) -> None:
    assert look_up(["10.0.0.1", "0::1", "live", "dead"], within_s=0.5) == {
        "10.0.0.1": Found(("10.0.0.1",)),
        "0::1": Found(("::1",)),
        "live": Found(("127.0.0.1",)),
        "dead": Found(trouble="no answer within 0.5 s; is the name server there?"),
    }
