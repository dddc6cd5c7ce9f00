"""Which servers may be dialled while there are no keys."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from dr.client.addresses import resolve_servers, saved_words
from dr.errors import BadInput, Refused
from dr.settings import ServerAddress


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("127.0.0.1:3000", ["tcp://127.0.0.1:3000"]),
        ("127.0.0.1:3000-3002", ["tcp://127.0.0.1:3000", "tcp://127.0.0.1:3001", "tcp://127.0.0.1:3002"]),
        ("[::1]:3000", ["tcp://[::1]:3000"]),
        ("ipc:///run/dr/1", ["ipc:///run/dr/1"]),
    ],
)
def test_an_address_of_this_machine_may_be_dialled(text: str, endpoints: list[str]) -> None:
    assert resolve_servers([text]) == dict.fromkeys(endpoints, False)


@pytest.mark.parametrize("text", ["127.0.0.1", "[::1]", "::1"])
def test_a_host_without_a_port_stands_for_all_its_servers(text: str) -> None:
    host = "[::1]" if ":" in text else text
    assert resolve_servers([text]) == {f"tcp://{host}:20204": True}


@pytest.fixture
def _both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*words: Any, **options: Any) -> list[Any]:
        kind = socket.SOCK_STREAM
        return [(socket.AF_INET6, kind, 6, "", ("::1", 0, 0, 0)), (socket.AF_INET, kind, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.usefixtures("_both_families")
def test_localhost_is_dialled_as_a_literal() -> None:
    assert resolve_servers(["localhost:3000"]) == {"tcp://127.0.0.1:3000": False}


@pytest.mark.usefixtures("_both_families")
def test_every_address_of_a_name_may_be_wanted() -> None:
    assert resolve_servers(["dns+any:localhost"]) == {"tcp://127.0.0.1:20204": True, "tcp://[::1]:20204": True}


@pytest.mark.parametrize("texts", [("127.0.0.1:20204", "127.0.0.1"), ("127.0.0.1", "127.0.0.1:20204")])
def test_a_server_that_is_named_twice_is_dialled_once_and_keeps_the_wider_meaning(texts: tuple[str, ...]) -> None:
    assert resolve_servers(texts) == {"tcp://127.0.0.1:20204": True}


def test_a_saved_list_reads_like_what_a_user_types() -> None:
    saved = [
        ServerAddress(host="node7"),
        ServerAddress(host="node7", port=20204),
        ServerAddress(host="::1", port=30000),
        ServerAddress(host="::1"),
        ServerAddress(host="node8", enabled=False),
    ]
    assert saved_words(saved) == ["node7", "node7:20204", "[::1]:30000", "[::1]"]


@pytest.mark.parametrize("text", ["10.0.0.1", "render1:20204", "[fe80::1]:1", "0.0.0.0"])
def test_another_machine_is_refused_until_there_are_keys(text: str) -> None:
    with pytest.raises(Refused, match=r"need keys \(`dr keys`\), which come with a later version"):
        resolve_servers([text])


def test_a_host_that_does_not_resolve_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: Any, **options: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(BadInput, match="cannot resolve 'localhost': Name or service not known"):
        resolve_servers(["localhost"])
