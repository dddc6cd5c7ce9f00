"""Where a server may listen: with keys, without, and with --insecure."""

from __future__ import annotations

import logging

import pytest

from dr.errors import BadInput, Refused
from dr.keys.ring import KeyRing
from dr.keys.security import Guard, Security
from dr.protocol.address import IpcAddress
from tests.support.keys import pair_of
from workers.server.door import Door, door_of, door_to, log_guard

FARM = pair_of("farm")
NONE = Security()
PUBLIC = Security(ring=KeyRing(client=pair_of("anna"), farm_public=FARM.public))
WHOLE = Security(ring=KeyRing(farm_public=FARM.public, farm_secret=FARM.secret))
LOOPBACK = ["127.0.0.1", "localhost", "127.0.0.2", "::1", "[::1]"]
OTHERS = ["*", "0.0.0.0", "::", "192.0.2.1", "[2001:db8::1]", "::ffff:127.0.0.1"]


def guard_of(bind: str, security: Security) -> Guard:
    """The same for a bare address and for one with a port."""
    host = f"[{bind}]" if ":" in bind and "[" not in bind else bind
    door = door_of(f"tcp://{host}:0", security)
    assert isinstance(door, Door)
    assert door.guard is door_to(bind, security).guard
    return door.guard


@pytest.mark.parametrize("bind", [*LOOPBACK, *OTHERS])
def test_with_a_farm_key_every_address_asks_for_keys_loopback_too(bind: str) -> None:
    assert guard_of(bind, WHOLE) is Guard.CURVE


@pytest.mark.parametrize("bind", LOOPBACK)
@pytest.mark.parametrize("security", [NONE, PUBLIC])
def test_without_a_farm_key_loopback_is_open(bind: str, security: Security) -> None:
    assert guard_of(bind, security) is Guard.OPEN


@pytest.mark.parametrize("bind", OTHERS)
@pytest.mark.parametrize(
    ("security", "text"), [(NONE, "make keys with `dr keys init`"), (PUBLIC, "`dr keys export-farm FILE`")]
)
def test_without_a_farm_key_other_addresses_are_refused_with_the_command(
    bind: str, security: Security, text: str
) -> None:
    with pytest.raises(Refused) as caught:
        guard_of(bind, security)
    assert text in str(caught.value)
    assert "--insecure" in str(caught.value)
    assert bind in str(caught.value)


@pytest.mark.parametrize("bind", [*LOOPBACK, *OTHERS])
@pytest.mark.parametrize("ring", [NONE.ring, WHOLE.ring])
def test_insecure_listens_everywhere_and_asks_for_nothing(bind: str, ring: KeyRing) -> None:
    assert guard_of(bind, Security(ring=ring, insecure=True)) is Guard.INSECURE


@pytest.mark.parametrize(
    ("security", "host"),
    [
        (NONE, "127.0.0.1"),
        (PUBLIC, "127.0.0.1"),
        (WHOLE, "*"),
        (Security(ring=WHOLE.ring, insecure=True), "127.0.0.1"),
    ],
)
def test_the_default_is_all_interfaces_with_a_farm_key_and_else_loopback(security: Security, host: str) -> None:
    assert door_to("", security).address.host == host


def test_a_unix_socket_needs_no_key_and_a_name_is_no_address() -> None:
    assert door_of("ipc:///run/dr/gate", NONE) == IpcAddress("/run/dr/gate")
    with pytest.raises(BadInput, match=r"--bind host\.example: expected an IP address"):
        door_to("host.example", WHOLE)


@pytest.mark.parametrize(
    ("guard", "level", "text"),
    [
        (Guard.CURVE, "INFO", "clients need a key"),
        (Guard.OPEN, "INFO", "any user of this machine can connect; `dr keys init` closes it"),
        (Guard.INSECURE, "WARNING", "INSECURE: no keys are used (--insecure)"),
    ],
)
def test_the_log_says_who_can_come_in(guard: Guard, level: str, text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        log_guard(logging.getLogger("dr.server"), guard)
    (record,) = caplog.records
    assert record.levelname == level
    assert text in record.getMessage()
