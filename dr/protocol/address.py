"""Reads the words by which a user names a server, or a place to listen. Resolves no name and opens nothing."""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

from dr.errors import BadInput
from dr.settings import DEFAULT_PORT

LAST_PORT = 65535
MAX_PORTS = 1024  # of one range
MAX_PATH_BYTES = 107  # of a Unix socket: sun_path without its final zero
_EXPECTED = "expected HOST, HOST:PORT, HOST:FIRST-LAST, [IPv6]:PORT, dns+any:HOST or ipc:///PATH"
EVERY_INTERFACE = "*"
_IPC, _TCP, _EVERY = "ipc://", "tcp://", "dns+any:"
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_LISTEN = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*):(?P<port>[0-9]{1,9})")
_PLACE = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<ports>[^/]*))?")


class TcpAddress(Struct, frozen=True):
    """One host and its ports. `ports` is None for a bare HOST: all its servers, from the default port on.

    `every` (dns+any:HOST) means each address that the name resolves to, not the first one that answers.
    """

    host: str
    ports: tuple[int, int] | None = None  # first and last
    every: bool = False

    @property
    def whole_host(self) -> bool:
        """Whether all servers of the host are meant; its endpoints are then the first to ask."""
        return self.ports is None

    @property
    def is_loopback(self) -> bool:
        """Whether the address stays on this machine. Any name but localhost counts as one that does not."""
        ip = _literal(self.host)
        return ip.is_loopback if ip else self.host.lower().rstrip(".") == "localhost"

    def endpoints(self) -> tuple[str, ...]:
        """ZeroMQ endpoints, one per port, as `tcp://host:port`."""
        first, last = self.ports or (DEFAULT_PORT, DEFAULT_PORT)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return tuple(f"{_TCP}{host}:{port}" for port in range(first, last + 1))


class IpcAddress(Struct, frozen=True):
    """A Unix socket; private to this machine, so it needs no key."""

    path: str
    is_loopback: bool = True
    whole_host: bool = False

    def endpoints(self) -> tuple[str, ...]:
        return (f"{_IPC}{self.path}",)


class ListenAddress(Struct, frozen=True):
    """Where to listen: an IP literal of this machine, or `*` for all its interfaces. Port 0: any that is free."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether other machines cannot reach it."""
        ip = _literal(self.host)
        return ip is not None and ip.is_loopback

    def endpoint(self, port: int | None = None) -> str:
        """For ZeroMQ, with another port if one is given."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{_TCP}{host}:{self.port if port is None else port}"


def parse_address(text: str) -> TcpAddress | IpcAddress:
    """Raises BadInput, naming the text and what was expected."""
    words = text.strip()
    if words.startswith(_IPC):
        return _parse_ipc(words)
    every = words.startswith(_EVERY)
    match = _PLACE.fullmatch(words.removeprefix(_EVERY))
    if ip := _literal(words):
        return TcpAddress(str(ip))
    if not match:
        raise BadInput(f"server {text!r}: {_EXPECTED}")
    host = _parse_v6(match["v6"], text) if match["v6"] is not None else _parse_host(match["host"], text)
    ports = None if match["ports"] is None else _parse_ports(match["ports"], text)
    return TcpAddress(host, ports, every)


def parse_listen(text: str) -> ListenAddress | IpcAddress:
    """HOST:PORT or ipc://PATH, to listen on. Raises BadInput, naming the text and what was expected."""
    words = text.strip()
    if words.startswith(_IPC):
        return _parse_ipc(words)
    match = _LISTEN.fullmatch(words.removeprefix(_TCP))
    if not match:
        raise BadInput(f"{text}: expected one address and port to listen on, HOST:PORT")
    host, port = parse_bind(match["host"], text), int(match["port"])
    if port > LAST_PORT:
        raise BadInput(f"{text}: expected a port from 1 to {LAST_PORT}, or 0 for any, found {port}")
    return ListenAddress(host, port)


def parse_bind(text: str, place: str) -> str:
    """The host of a ListenAddress. Raises BadInput, which names `place`.

    A name is refused but for localhost: whether others can reach what it stands for may change while we listen.
    """
    host = text.strip().removeprefix("[").removesuffix("]")
    if host == EVERY_INTERFACE:
        return host
    ip = _literal("127.0.0.1" if host.lower().rstrip(".") == "localhost" else host)
    if ip is None:
        expected = "an IP address of this machine, localhost, or * for all interfaces"
        raise BadInput(f"{place}: expected {expected}, found {text!r}")
    return str(ip)


def with_port(endpoint: str, port: int) -> str | None:
    """The endpoint of another port of the same host; None where there are no ports, as on a Unix socket."""
    if not endpoint.startswith(_TCP):
        return None
    return f"{endpoint.rpartition(':')[0]}:{port}"


def _parse_ipc(text: str) -> IpcAddress:
    path = text.removeprefix(_IPC)
    if not path.startswith("/") or "\0" in path:
        raise BadInput(f"server {text!r}: expected an absolute path after ipc://")
    if len(path.encode()) > MAX_PATH_BYTES:
        found = len(path.encode())
        raise BadInput(f"server {text!r}: expected a path of at most {MAX_PATH_BYTES} bytes, found {found}")
    return IpcAddress(path)


def _parse_v6(host: str, text: str) -> str:
    ip = _literal(host)
    if ip is None or ip.version != 6:
        raise BadInput(f"server {text!r}: expected an IPv6 address between the brackets, found {host!r}")
    return str(ip)


def _parse_host(host: str, text: str) -> str:
    if not _HOST.fullmatch(host):
        raise BadInput(f"server {text!r}: {_EXPECTED}; found the host {host!r}")
    if host.replace(".", "").isdigit() and _literal(host) is None:
        raise BadInput(f"server {text!r}: expected an IPv4 address of four numbers 0-255, found {host!r}")
    return host


def _parse_ports(ports: str, text: str) -> tuple[int, int]:
    first, _, last = ports.partition("-")
    low, high = _parse_port(first, text), _parse_port(last if "-" in ports else first, text)
    if low > high:
        raise BadInput(f"server {text!r}: expected the smaller port first, found {ports}")
    if high - low >= MAX_PORTS:
        raise BadInput(f"server {text!r}: expected at most {MAX_PORTS} ports, found {high - low + 1}")
    return low, high


def _parse_port(port: str, text: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise BadInput(f"server {text!r}: expected a port from 1 to 65535, found {port!r}")
    return int(port)


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
