from __future__ import annotations

import pytest

from dr.errors import BadInput
from dr.protocol.address import (
    IpcAddress,
    ListenAddress,
    TcpAddress,
    parse_address,
    parse_bind,
    parse_listen,
    with_port,
)

GOOD = {
    "node7": TcpAddress("node7"),
    " node7 ": TcpAddress("node7"),
    "node7.farm.example": TcpAddress("node7.farm.example"),
    "node7:30000": TcpAddress("node7", (30000, 30000)),
    "node7:30000-30007": TcpAddress("node7", (30000, 30007)),
    "127.0.0.1:20204": TcpAddress("127.0.0.1", (20204, 20204)),
    "[::1]:20204": TcpAddress("::1", (20204, 20204)),
    "[2001:DB8::1]": TcpAddress("2001:db8::1"),
    "::1": TcpAddress("::1"),
    "dns+any:farm.example": TcpAddress("farm.example", None, True),
    "dns+any:farm.example:20204-20205": TcpAddress("farm.example", (20204, 20205), True),
    "ipc:///run/dr/server.sock": IpcAddress("/run/dr/server.sock"),
}

BAD = {
    "": "expected HOST, HOST:PORT",
    ":20204": "found the host ''",
    "two words": "found the host 'two words'",
    "tcp://node7:1": "expected HOST",
    "node7:": "expected a port from 1 to 65535, found ''",
    "node7:0": "expected a port from 1 to 65535, found '0'",
    "node7:65536": "found '65536'",
    "node7:http": "found 'http'",
    "node7:1-2-3": "found '2-3'",
    "node7:-5": "found ''",
    "node7:9-5": "expected the smaller port first, found 9-5",
    "node7:1-5000": "expected at most 1024 ports, found 5000",
    "node7:\u0661": "found '\u0661'",
    "[node7]:5": "expected an IPv6 address between the brackets, found 'node7'",
    "[::1": "expected HOST",
    "300.1.2.3": "expected an IPv4 address of four numbers 0-255",
    "-oProxy": "found the host '-oProxy'",
    "ipc://server.sock": "expected an absolute path after ipc://",
    "ipc:///" + "x" * 120: "expected a path of at most 107 bytes, found 121",
}


@pytest.mark.parametrize("text", GOOD)
def test_an_address_is_understood(text: str) -> None:
    assert parse_address(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_a_wrong_address_is_named_with_what_was_expected(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_address(text)
    assert BAD[text] in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("node7", ("tcp://node7:20204",)),
        ("node7:5-7", ("tcp://node7:5", "tcp://node7:6", "tcp://node7:7")),
        ("[::1]:5", ("tcp://[::1]:5",)),
        ("ipc:///a/b", ("ipc:///a/b",)),
    ],
)
def test_endpoints_are_what_zeromq_dials(text: str, endpoints: tuple[str, ...]) -> None:
    assert parse_address(text).endpoints() == endpoints


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [
        ("localhost:5", True),
        ("LOCALHOST.", True),
        ("127.4.5.6", True),
        ("[::1]:5", True),
        ("ipc:///a", True),
        ("0.0.0.0:5", False),
        ("192.168.0.1", False),
        ("localhost.example:5", False),
    ],
)
def test_only_this_machine_is_loopback(text: str, is_loopback: bool) -> None:
    assert parse_address(text).is_loopback is is_loopback


@pytest.mark.parametrize(
    ("text", "whole_host"),
    [("node7", True), ("[::1]", True), ("dns+any:node7", True), ("node7:20204", False), ("ipc:///a", False)],
)
def test_a_host_without_a_port_means_all_its_servers(text: str, whole_host: bool) -> None:
    assert parse_address(text).whole_host is whole_host


@pytest.mark.parametrize(
    ("endpoint", "other"),
    [
        ("tcp://127.0.0.1:20204", "tcp://127.0.0.1:5"),
        ("tcp://[::1]:20204", "tcp://[::1]:5"),
        ("tcp://node7:20204", "tcp://node7:5"),
        ("ipc:///run/dr:1", None),
    ],
)
def test_another_port_of_the_same_host_is_named_like_it(endpoint: str, other: str | None) -> None:
    assert with_port(endpoint, 5) == other


LISTEN = {
    "tcp://127.0.0.1:20204": (ListenAddress("127.0.0.1", 20204), True, "tcp://127.0.0.1:20204"),
    " localhost:0 ": (ListenAddress("127.0.0.1", 0), True, "tcp://127.0.0.1:0"),
    "127.9.9.9:1": (ListenAddress("127.9.9.9", 1), True, "tcp://127.9.9.9:1"),
    "[::1]:65535": (ListenAddress("::1", 65535), True, "tcp://[::1]:65535"),
    "*:20204": (ListenAddress("*", 20204), False, "tcp://*:20204"),
    "0.0.0.0:20204": (ListenAddress("0.0.0.0", 20204), False, "tcp://0.0.0.0:20204"),
    "[::]:0": (ListenAddress("::", 0), False, "tcp://[::]:0"),
    "192.0.2.7:5": (ListenAddress("192.0.2.7", 5), False, "tcp://192.0.2.7:5"),
    "[::ffff:127.0.0.1]:5": (ListenAddress("::ffff:7f00:1", 5), False, "tcp://[::ffff:7f00:1]:5"),
}

NOT_TO_LISTEN = {
    "": "expected one address and port to listen on, HOST:PORT",
    "127.0.0.1": "expected one address and port",
    "::1": "expected one address and port",
    "127.0.0.1:1-2": "expected one address and port",
    "127.0.0.1:": "expected one address and port",
    "127.0.0.1:65536": "expected a port from 1 to 65535, or 0 for any, found 65536",
    "host.example:1": "localhost, or * for all interfaces, found 'host.example'",
    "127.1:1": "expected an IP address of this machine",
    "0:1": "expected an IP address of this machine",
    "[]:1": "expected an IP address of this machine",
    "ipc://gate": "expected an absolute path after ipc://",
}


@pytest.mark.parametrize("text", LISTEN)
def test_a_place_to_listen_is_understood(text: str) -> None:
    address, is_loopback, endpoint = LISTEN[text]
    found = parse_listen(text)
    assert isinstance(found, ListenAddress)
    assert (found, found.is_loopback, found.endpoint()) == (address, is_loopback, endpoint)
    assert found.endpoint(7).endswith(":7")


def test_a_unix_socket_to_listen_on_is_understood() -> None:
    assert parse_listen("ipc:///run/dr/gate") == IpcAddress("/run/dr/gate")


@pytest.mark.parametrize("text", NOT_TO_LISTEN)
def test_a_wrong_place_to_listen_is_named_with_what_was_expected(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_listen(text)
    assert NOT_TO_LISTEN[text] in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.parametrize(("text", "host"), [("[::1]", "::1"), ("::", "::"), ("LOCALHOST.", "127.0.0.1"), ("*", "*")])
def test_an_address_without_a_port_is_understood(text: str, host: str) -> None:
    assert parse_bind(text, "--bind") == host
