"""Which servers may be dialled, with keys and without, and what becomes of names."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dr.client.addresses import Servers, resolve_servers, saved_words
from dr.errors import BadInput, Refused
from dr.keys.ring import KeyRing
from dr.keys.security import Security
from dr.settings import ServerAddress
from tests.support.keys import pair_of

WITH_KEYS = Security(ring=KeyRing(client=pair_of("anna"), farm_public=pair_of("farm").public))


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
    assert resolve_servers([text]).endpoints == dict.fromkeys(endpoints, False)


@pytest.mark.parametrize("text", ["127.0.0.1", "[::1]", "::1"])
def test_a_host_without_a_port_stands_for_all_its_servers(text: str) -> None:
    host = "[::1]" if ":" in text else text
    assert resolve_servers([text]).endpoints == {f"tcp://{host}:20204": True}


@pytest.fixture
def _both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*words: Any, **options: Any) -> list[Any]:
        kind = socket.SOCK_STREAM
        return [(socket.AF_INET6, kind, 6, "", ("::1", 0, 0, 0)), (socket.AF_INET, kind, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.usefixtures("_both_families")
def test_localhost_is_dialled_as_a_literal() -> None:
    assert resolve_servers(["localhost:3000"]).endpoints == {"tcp://127.0.0.1:3000": False}


@pytest.mark.usefixtures("_both_families")
def test_every_address_of_a_name_may_be_wanted() -> None:
    found = resolve_servers(["dns+any:localhost"]).endpoints
    assert found == {"tcp://127.0.0.1:20204": True, "tcp://[::1]:20204": True}


@pytest.mark.parametrize("texts", [("127.0.0.1:20204", "127.0.0.1"), ("127.0.0.1", "127.0.0.1:20204")])
def test_a_server_that_is_named_twice_is_dialled_once_and_keeps_the_wider_meaning(texts: tuple[str, ...]) -> None:
    assert resolve_servers(texts).endpoints == {"tcp://127.0.0.1:20204": True}


def test_a_saved_list_reads_like_what_a_user_types() -> None:
    saved = [
        ServerAddress(host="node7"),
        ServerAddress(host="node7", port=20204),
        ServerAddress(host="::1", port=30000),
        ServerAddress(host="::1"),
        ServerAddress(host="node8", enabled=False),
    ]
    assert saved_words(saved) == ["node7", "node7:20204", "[::1]:30000", "[::1]"]


OTHERS = ["10.0.0.1", "render1:20204", "[fe80::1]:1", "0.0.0.0", "dns+any:farm"]


@pytest.mark.parametrize("text", OTHERS)
def test_another_machine_is_refused_without_keys_and_the_error_says_how_to_make_them(text: str) -> None:
    with pytest.raises(Refused, match=r"needs a farm key, here is none; make keys with `dr keys init`") as refused:
        resolve_servers([text])
    assert str(refused.value).startswith(f"server {text!r}: ")


@pytest.fixture
def _names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A name server that knows `render1` and `farm`; `dead` hangs until the test is over, `localhost` is forged."""
    known = {"render1": ["10.0.0.5"], "farm": ["10.0.0.6", "fd00::6"], "localhost": ["10.9.9.9"]}
    over = threading.Event()

    def look_up(name: str, *words: Any, **options: Any) -> list[Any]:
        if name == "dead":
            over.wait(30.0)
        if name not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (literal, 0)) for literal in known[name]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield
    over.set()


@pytest.mark.usefixtures("_names")
@pytest.mark.parametrize("security", [WITH_KEYS, Security(insecure=True)])
def test_other_machines_are_dialled_with_keys_or_insecurely_as_literals(security: Security) -> None:
    words = ["render1:30000", "dns+any:farm:30000", "10.0.0.1", "[fd00::1]:5"]
    assert list(resolve_servers(words, security).endpoints) == [
        "tcp://10.0.0.5:30000",
        "tcp://10.0.0.6:30000",
        "tcp://[fd00::6]:30000",
        "tcp://10.0.0.1:20204",
        "tcp://[fd00::1]:5",
    ]


@pytest.mark.usefixtures("_names")
def test_a_localhost_that_is_another_machine_needs_keys() -> None:
    with pytest.raises(Refused, match="needs a farm key"):
        resolve_servers(["localhost:3000"])
    assert list(resolve_servers(["localhost:3000"], WITH_KEYS).endpoints) == ["tcp://10.9.9.9:3000"]


def test_no_name_server_hears_of_a_name_that_may_not_be_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **options: asked.append(words))
    with pytest.raises(Refused):
        resolve_servers(["localhost", "render1"])
    assert asked == []


@pytest.mark.parametrize("text", ["127.0.0.1", "10.0.0.1"])
@pytest.mark.parametrize("kind", [BadInput, Refused])
def test_keys_that_cannot_be_loaded_are_told_who_would_need_them(kind: type[BadInput | Refused], text: str) -> None:
    security = Security(trouble=kind("farm.key: line 3: nonsense"))
    with pytest.raises(kind, match=f"server '{text}': farm.key: line 3: nonsense"):
        resolve_servers([text], security)
    assert list(resolve_servers(["ipc:///run/dr/1"], security).endpoints) == ["ipc:///run/dr/1"]


@pytest.mark.usefixtures("_names")
def test_names_that_do_not_resolve_leave_the_others_and_are_told_in_a_line_for_each_reason() -> None:
    names = [f"node{number}" for number in range(200)]
    servers = resolve_servers(["render1", *names, "dead"], WITH_KEYS, within_s=1.0)
    assert servers.require().endpoints == {"tcp://10.0.0.5:20204": True}
    assert servers.complaints() == [
        "cannot resolve 'node0', 'node1', 'node2' and 197 more: Name or service not known",
        "cannot resolve 'dead': no answer within 1 s; is the name server there?",
    ]


@pytest.mark.usefixtures("_names")
def test_a_host_that_does_not_resolve_is_one_clear_line_where_it_is_the_only_one() -> None:
    with pytest.raises(
        BadInput, match=r"^server: cannot resolve 'render2': Name or service not known; use IP addresses"
    ):
        resolve_servers(["render2"], WITH_KEYS).require()


def test_no_server_at_all_is_nothing_to_complain_about() -> None:
    assert resolve_servers([]).require() == Servers({}, {}, {})
