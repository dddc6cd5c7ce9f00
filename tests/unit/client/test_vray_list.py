"""V-Ray's vray_dr.cfg: what is taken over, and a line about whatever is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.client.addresses import saved_word
from dr.client.vray_list import NOT_HERE, NUMBERS, SWITCHES, parse_vray_list
from dr.settings import Settings

FILE = """\
// my farm
render1 1 20204
render2 0 20204
10.0.0.7 1 20207  // the old one

restart_slaves 1
list_in_scene 0
max_servers 4
use_local_machine 0
transfer_missing_assets 1
use_cached_assets 1
cache_limit_type 2
cache_limit 100.000000
"""
NOTES = tuple(
    f"line {number}, '{line}': there is no such setting here, skipped"
    for number, line in enumerate(FILE.splitlines(), start=1)
    if line.split(" ")[0] in NOT_HERE
)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]


def words(text: str) -> list[str]:
    """The servers; disabled ones in brackets."""
    entries = parse_vray_list(text.encode()).servers
    return [saved_word(entry) if entry.enabled else f"({saved_word(entry)})" for entry in entries]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_servers_and_settings_are_taken_over_and_the_rest_is_named(encoding: str, line_end: str) -> None:
    found = parse_vray_list(FILE.replace("\n", line_end).encode(encoding))
    assert [saved_word(entry) for entry in found.servers] == ["render1", "render2", "10.0.0.7:20207"]
    assert [entry.enabled for entry in found.servers] == [True, False, True]
    assert found.settings == {
        "restart_servers_on_render_end": True,
        "save_servers_in_scene": False,
        "max_servers": 4,
        "use_local_host": False,
    }
    assert found.notes == NOTES
    assert len(NOTES) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 1", ["a"]),
        ("a 0", ["(a)"]),
        ("a\t1   20204", ["a"]),
        ("a 20207", ["a:20207"]),
        ("a 20204", ["a"]),
        ("a 1 20207", ["a:20207"]),
        ("a 1 20204-20206", ["a:20204", "a:20205", "a:20206"]),
        ("a 1 20204\nA 1 20205", ["a:20204", "A:20205"]),
        ("a 1 20204\na 0 20204", ["(a)"]),
        ("::1 1 20204\nfe80::1 1 7", ["[::1]", "[fe80::1]:7"]),
        ("hp_z230_18 1", ["hp_z230_18"]),
        ("restart_slaves 1 20204", ["restart_slaves"]),
        ("", []),
        ("max_servers 2\na 1 20204", ["a"]),
    ],
)
def test_a_line_names_a_server(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("a", "line 1, 'a': expected HOST ENABLED PORT, skipped"),
        ("a 2 20204", "line 1, 'a 2 20204': expected HOST ENABLED PORT, skipped"),
        ("a 1 20204 x", "line 1, 'a 1 20204 x': expected HOST ENABLED PORT, skipped"),
        ("\na 1 99999", "line 2, 'a 1 99999': server 'a:99999': expected a port from 1 to 65535, found '99999'"),
        ("max_servers x", "line 1, 'max_servers x': expected a number from 0 to 65536, skipped"),
        ("use_local_machine 2", "line 1, 'use_local_machine 2': expected a number from 0 to 1, skipped"),
        ("max_servers 0\nnew_thing 1", "line 2, 'new_thing 1': this setting is not known, skipped"),
        ("autostart_local_slave 0", "line 1, 'autostart_local_slave 0': there is no such setting here, skipped"),
    ],
)
def test_a_line_that_is_not_taken_over_is_named(text: str, note: str) -> None:
    found = parse_vray_list(text.encode())
    assert found.servers == ()
    assert found.notes == (note,)


@given(st.binary(), st.sampled_from([b"", b"\xff\xfe", b"\xfe\xff"]))
def test_no_file_is_an_error(data: bytes, mark: bytes) -> None:
    found = parse_vray_list(mark + data)
    assert all(len(note.splitlines()) == 1 and note.isprintable() for note in found.notes)


def test_settings_that_we_have_are_taken_over_and_those_we_lack_are_not() -> None:
    ours = {*SWITCHES.values(), *(name for name, _ in NUMBERS.values())}
    assert ours <= set(Settings.__struct_fields__)
    assert not set(NOT_HERE) & set(Settings.__struct_fields__)
