"""The list of servers: what each command does to it, and what becomes of the two files that keep it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.client.addresses import saved_word
from dr.client.resolver import Found
from dr.client.saved_lists import edit_settings, read_settings, save_in_scene, scene_with_list
from dr.client.server_list import ServerList, parse_entries
from dr.errors import BadInput
from dr.protocol.address import parse_address
from dr.scene.formats.scene_toml_schema import SceneTable
from dr.scene.formats.toml_tables import read_tables
from dr.settings import ServerAddress

A, B, B1, OFF = (
    ServerAddress(host="a"),
    ServerAddress(host="b"),
    ServerAddress(host="b", port=1),
    ServerAddress(host="off", enabled=False),
)
SCENE = '# my scene\n[[objects]]\nname = "box" # a box\nbox = { min = [0, 0, 0], max = [1, 1, 1] }\n'
DEADLINE_S = 60.0


def listed(*entries: ServerAddress) -> ServerList:
    return ServerList(entries)


def words(servers: ServerList) -> list[str]:
    return [saved_word(entry) if entry.enabled else f"({saved_word(entry)})" for entry in servers.entries]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("box", ["box"]),
        ("box:7", ["box:7"]),
        ("box:7-9", ["box:7", "box:8", "box:9"]),
        ("[::1]:7", ["[::1]:7"]),
        ("0:0::1", ["[::1]"]),
        ("dns+any:farm", ["dns+any:farm"]),
        ("dns+any:farm:7", ["dns+any:farm:7"]),
        ("dns+any:10.0.0.1", ["10.0.0.1"]),
    ],
)
def test_a_word_becomes_entries_and_an_entry_the_same_word(word: str, expected: list[str]) -> None:
    assert [saved_word(entry) for entry in parse_entries(word)] == expected


HOSTS = st.sampled_from(["box", "Box-2.example.org.", "10.0.0.1", "::1", "fe80::a", "dns+any:farm"])


@given(st.builds(ServerAddress, host=HOSTS, port=st.none() | st.integers(1, 65535)))
def test_an_entry_survives_the_way_through_its_word(entry: ServerAddress) -> None:
    assert parse_entries(saved_word(entry)) == [entry]
    parse_address(saved_word(entry))


def test_adding_enables_what_is_there() -> None:
    servers = listed(A, OFF)
    assert servers.add(["A", "off", "new:1-2"]) == [
        "A: is listed already, nothing changed",
        "off: was listed already, now enabled",
        "new:1: added",
        "new:2: added",
    ]
    assert words(servers) == ["a", "off", "new:1", "new:2"]


def test_a_word_that_is_added_twice_is_listed_once() -> None:
    servers = listed()
    assert servers.add(["x", "X"]) == ["x: added", "X: is listed already, nothing changed"]
    assert words(servers) == ["x"]


def test_a_bare_host_means_all_its_entries() -> None:
    servers = listed(A, B, B1)
    assert servers.enable(["b"], enabled=False) == ["b: disabled", "b:1: disabled"]
    assert servers.enable(["b:1", "B"], enabled=False) == [
        "b: disabled already, nothing changed",
        "b:1: disabled already, nothing changed",
    ]
    assert servers.enable(["b:1"], enabled=True) == ["b:1: enabled"]
    assert words(servers) == ["a", "(b)", "b:1"]
    assert servers.remove(["B."]) == ["b: removed", "b:1: removed"]
    assert words(servers) == ["a"]


@pytest.mark.parametrize(
    ("old", "new", "lines", "after"),
    [
        ("a", "c", ["a: now c"], ["c", "b", "b:1"]),
        ("a", "c:5", ["a: now c:5"], ["c:5", "b", "b:1"]),
        ("b", "c", ["b: now c", "b:1: now c:1"], ["a", "c", "c:1"]),
        ("b:1", "b:2", ["b:1: now b:2"], ["a", "b", "b:2"]),
        ("a", "A", ["a: now A"], ["A", "b", "b:1"]),
        ("a", "a", ["a: is named so already, nothing changed"], ["a", "b", "b:1"]),
    ],
)
def test_an_entry_is_named_anew(old: str, new: str, lines: list[str], after: list[str]) -> None:
    servers = listed(A, B, B1)
    assert servers.edit(old, new) == lines
    assert words(servers) == after


def test_a_new_name_keeps_the_switch_and_forgets_the_old_hosts_addresses() -> None:
    servers = listed(ServerAddress(host="a", enabled=False, addresses=("10.0.0.1",)))
    servers.edit("a", "a:7")
    assert servers.entries == [ServerAddress(host="a", port=7, enabled=False, addresses=("10.0.0.1",))]
    servers.edit("a:7", "b:7")
    assert servers.entries == [ServerAddress(host="b", port=7, enabled=False)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b", "c:1", r"^server 'b': expected one entry, found b, b:1; say which$"),
        ("a", "b", r"^server 'b': is listed already; dr servers remove a$"),
        ("a", "c:1-2", r"^server 'c:1-2': expected one server, HOST or HOST:PORT, found 2 ports$"),
        ("a:3", "c", r"^server 'a:3': expected one of the list, which has 3 entries; dr servers list shows all$"),
        ("a", "c d", r"^server 'c d': expected HOST, "),
    ],
)
def test_a_new_name_that_cannot_be_is_refused(old: str, new: str, message: str) -> None:
    servers = listed(A, B, B1)
    with pytest.raises(BadInput, match=message):
        servers.edit(old, new)
    assert words(servers) == ["a", "b", "b:1"]


@pytest.mark.parametrize(
    ("entries", "word", "message"),
    [
        ([], "x", r"^server 'x': expected one of the list, which is empty; dr servers add HOST adds one$"),
        ([ServerAddress(host="render1")], "rendr1", r"which has one entry \(did you mean 'render1'\?\)$"),
        ([A], "ipc:///a", r"^server 'ipc:///a': expected a host; a Unix socket is named with dr render --server$"),
        ([A], "a:0", r"^server 'a:0': expected a port from 1 to 65535, found '0'$"),
    ],
)
def test_a_server_that_is_not_listed_is_one_line(entries: list[ServerAddress], word: str, message: str) -> None:
    servers = listed(*entries)
    with pytest.raises(BadInput, match=message):
        servers.remove([*(entry.host for entry in entries), word])
    assert servers.entries == entries


def test_what_a_person_wrote_wrongly_can_be_taken_out() -> None:
    servers = listed(A, ServerAddress(host="no such host!"))
    assert servers.remove(["no such host!"]) == ["no such host!: removed"]
    assert servers.entries == [A]


def test_addresses_are_stored_and_those_of_silent_names_stay() -> None:
    old = ServerAddress(host="old", addresses=("10.0.0.9",))
    servers = listed(A, old, ServerAddress(host="::1"), ServerAddress(host="dns+any:b"))
    found = {
        "a": Found(("10.0.0.1", "fd00::1")),
        "old": Found(trouble="Name or service not known"),
        "::1": Found(("::1",)),
        "b": Found(("10.0.0.2",)),
    }
    assert servers.store(found) == [
        "a: 10.0.0.1, fd00::1, stored",
        "old: no address: Name or service not known; stored: 10.0.0.9",
        "[::1]: is an address",
        "dns+any:b: 10.0.0.2, stored",
    ]
    assert [entry.addresses for entry in servers.entries] == [("10.0.0.1", "fd00::1"), ("10.0.0.9",), (), ("10.0.0.2",)]
    assert servers.store({"a": Found(("10.0.0.1", "fd00::1"))}) == ["a: 10.0.0.1, fd00::1, as stored"]
    assert servers.store({"a": Found(("10.0.0.5",))}) == ["a: 10.0.0.5, stored instead of 10.0.0.1, fd00::1"]


ENTRIES = st.lists(
    st.builds(
        ServerAddress,
        host=st.sampled_from(["a", "b", "C", "::1", "dns+any:f"]),
        port=st.none() | st.integers(1, 3),
        enabled=st.booleans(),
        addresses=st.sampled_from([(), ("10.0.0.1",), ("10.0.0.1", "fd00::1")]),
    ),
    max_size=6,
)


def as_array(entries: list[ServerAddress]) -> str:
    rows = "".join(f"  {inline(entry)}, # {number}\n" for number, entry in enumerate(entries))
    return f"servers = [\n{rows}  # end\n]\n{SCENE}"


def as_blocks(entries: list[ServerAddress]) -> str:
    tables = "".join(f"# {number}\n[[servers]]\n{block(entry)}\n" for number, entry in enumerate(entries))
    return f"{SCENE}\n{tables}# end\n"


def inline(entry: ServerAddress) -> str:
    return "{" + ", ".join(block(entry).splitlines()) + "}"


def block(entry: ServerAddress) -> str:
    fields = msgspec.to_builtins(entry)
    return "\n".join(
        f"{name}={msgspec.json.encode(value).decode()}" for name, value in fields.items() if value is not None
    )


LAYOUTS: dict[str, Callable[[list[ServerAddress]], str]] = {"array": as_array, "tables": as_blocks}


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=50)
@given(before=ENTRIES, after=ENTRIES)
def test_a_scene_takes_any_list_over_any_other(
    layout: str, before: list[ServerAddress], after: list[ServerAddress]
) -> None:
    text = LAYOUTS[layout](before)
    saved = scene_with_list(text, after, "s.scene.toml")
    assert (saved != text) == (before != after)
    assert scene_servers(saved) == after
    assert all(line in saved for line in SCENE.splitlines())
    assert "# end\n" in saved
    assert scene_with_list(saved, after, "s.scene.toml") == saved


def scene_servers(text: str) -> list[ServerAddress]:
    return read_tables(text.encode(), SceneTable, "s.scene.toml").servers


def test_a_scene_that_has_the_list_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "s.scene.toml"
    path.write_text(as_array([A, B1]))
    assert save_in_scene(path, [A, OFF, B1])
    assert scene_servers(path.read_text()) == [A, OFF, B1]
    facts = path.stat()
    assert not save_in_scene(path, [A, OFF, B1])
    assert path.stat() == facts


def test_entries_that_stay_keep_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "s.scene.toml"
    path.write_text("servers = [\n {host='a'}, # first\n {host='b'},\n]\n" + SCENE)
    assert save_in_scene(path, [A, ServerAddress(host="b", enabled=False), B1])
    assert path.read_text() == (
        "servers = [\n {host='a'}, # first\n {host='b', enabled = false},\n { host = \"b\", port = 1 },\n]\n" + SCENE
    )


def test_a_list_in_another_order_is_written_as_the_old_one_was(tmp_path: Path) -> None:
    text = as_blocks([A, B1])
    saved = scene_with_list(text, [B1, A], "s.scene.toml")
    assert scene_servers(saved) == [B1, A]
    assert saved.count("[[servers]]") == 2


def test_a_list_that_names_a_server_twice_is_not_written_again() -> None:
    text = as_array([A, B, B])
    assert scene_with_list(text, [A, B, B], "s.scene.toml") == text


def test_a_scene_without_a_list_gets_none_from_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "s.scene.toml"
    path.write_text(SCENE)
    assert not save_in_scene(path, [])
    assert path.read_text() == SCENE
    assert save_in_scene(path, [A])
    assert path.read_text() == '# my scene\nservers = [\n    { host = "a" },\n]\n\n' + SCENE.removeprefix(
        "# my scene\n"
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("box.glb", "", r"box\.glb: expected a \.scene\.toml, .*\[\[objects\]\] with file = \"box\.glb\"$"),
        ("gone.scene.toml", None, r"gone\.scene\.toml: expected a scene file, found none$"),
        ("s.scene.toml", "objets = []", r"s\.scene\.toml: objets: unknown key; did you mean 'objects'\?$"),
        ("s.scene.toml", "servers = [{host = 3}]", r"s\.scene\.toml: servers\[0\]\.host: Expected `str`, got `int`$"),
        ("s.scene.toml", "servers =", r"s\.scene\.toml: not valid TOML: "),
    ],
)
def test_a_file_that_cannot_keep_a_list_is_refused_and_left(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=message):
        save_in_scene(path, [A])
    assert [each.read_text() for each in tmp_path.iterdir()] == ([] if text is None else [text])


def add(path: Path, *names: str) -> list[str]:
    return edit_settings(path, lambda draft: draft.servers.add(names))


def test_a_settings_file_is_made_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "dr.toml"
    assert add(path, "a") == ["a: added"]
    assert path.read_text() == 'servers = [\n    { host = "a" },\n]\n'
    assert [each.name for each in path.parent.iterdir()] == ["dr.toml"]


def test_an_edit_that_changes_nothing_touches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "dr.toml"
    path.write_text("servers = [{host = 'a'}]")
    facts = path.stat()
    assert add(path, "a") == ["a: is listed already, nothing changed"]
    assert path.stat() == facts


def test_line_ends_mode_and_link_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "farm.toml", tmp_path / "dr.toml"
    real.write_bytes(b"# c\r\nthreads = 1\r\nlog_folder = 'logs'\r\n")
    real.chmod(0o640)
    link.symlink_to("real/farm.toml")
    add(link, "a")
    assert link.is_symlink()
    assert os.readlink(link) == "real/farm.toml"
    assert real.read_bytes() == (
        b"# c\r\nthreads = 1\r\nlog_folder = 'logs'\r\nservers = [\r\n    { host = \"a\" },\r\n]\r\n"
    )
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert [each.name for each in real.parent.iterdir()] == ["farm.toml"]


def test_a_link_to_a_file_that_is_not_there_yet_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "dr.toml"
    link.symlink_to("later.toml")
    add(link, "a")
    assert link.is_symlink()
    assert read_settings(tmp_path / "later.toml").servers == (A,)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"thraeds = 1", r"dr\.toml: unknown setting 'thraeds' \(did you mean 'threads'\?\)$"),
        (b"servers = [{prot = 1}]", r"dr\.toml: servers .*unknown field `prot`|missing required field `host`"),
        (b"servers = [", r"dr\.toml: expected TOML"),
        (b"threads = 1 # \xff", r"dr\.toml: expected UTF-8 text, found byte 0xff$"),
        (b"ping_s = 5.0", r"settings: expected ping_s <= dead_s"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused_by_name_and_left(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "dr.toml"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=message):
        add(path, "a")
    assert path.read_bytes() == data
    assert [each.name for each in tmp_path.iterdir()] == ["dr.toml"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    folder = Path("/sys/kernel") if os.geteuid() == 0 else tmp_path  # root may write wherever the system lets it
    if folder == tmp_path:
        tmp_path.chmod(0o555)
    with pytest.raises(BadInput, match=r"dr\.toml: cannot write it: [^;]+; nothing was changed$"):
        add(folder / "dr.toml", "a")
    assert not (folder / "dr.toml").exists()


def test_a_name_that_is_no_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for name in ("", "loop", "file/dr.toml"):
        with pytest.raises(BadInput):
            add(tmp_path / name, "a")


ADD = """
import sys
from pathlib import Path
from dr.client.saved_lists import edit_settings
path, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(5):
    edit_settings(path, lambda draft: draft.servers.add([f"{name}{number}"]))
"""


def test_two_processes_that_add_at_the_same_time_both_win(tmp_path: Path) -> None:
    path = tmp_path / "dr.toml"
    path.write_text("# ours\n")
    racers = [
        subprocess.Popen([sys.executable, "-c", ADD, path, name], stdin=PIPE, stdout=PIPE, text=True) for name in "xyz"
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        racer.communicate(timeout=DEADLINE_S)
        assert racer.returncode == 0
    hosts = [entry.host for entry in read_settings(path).servers]
    assert sorted(hosts) == sorted(f"{name}{number}" for name in "xyz" for number in range(5))
    assert [each.name for each in tmp_path.iterdir()] == ["dr.toml"]
