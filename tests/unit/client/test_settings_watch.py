"""Edits of a real settings file, on a simulated clock."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from dr.client.settings_watch import FLUX_S, LOOK_S, SettingsWatch
from dr.settings import ServerAddress, load_settings

KEEPS = "; this render keeps the servers that it has"


class Editor:
    """The file, its watch and the clock."""

    def __init__(self, folder: Path, text: str | None = "") -> None:
        self.path = folder / "dr.toml"
        self.now = 0.0
        self.reads = 0
        if text is not None:
            self.path.write_text(text)
        self.watch = SettingsWatch(self.path, self.load, self.now)

    def load(self) -> Sequence[ServerAddress]:
        self.reads += 1
        return load_settings(self.path, {}).values.servers

    def write(self, *hosts: str) -> None:
        servers = ", ".join(f'{{host = "{host}"}}' for host in hosts)
        self.path.write_text(f"servers = [{servers}]\n")

    def replace(self, *hosts: str) -> None:
        """As a careful program does: never half a file."""
        whole, self.path = self.path, self.path.with_suffix(".new")
        self.write(*hosts)
        os.replace(self.path, whole)
        self.path = whole

    def look(self) -> list[str] | None:
        """The hosts that the next look brings."""
        self.now = self.watch.due_s
        servers = self.watch.look(self.now)
        return None if servers is None else [each.host for each in servers]

    def wait(self) -> list[str]:
        """The hosts that the looks of the next second bring, at last."""
        until_s, found = self.now + 1.0, None
        while self.watch.due_s <= until_s:
            found = self.look() or found
        assert found is not None
        return found


@pytest.fixture
def editor(tmp_path: Path) -> Editor:
    """A file that was read once, and is empty."""
    made = Editor(tmp_path)
    assert made.look() == []
    return made


def test_the_first_look_reads_what_may_have_changed_before(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    editor.write("a")
    assert editor.wait() == ["a"]


def test_a_file_that_did_not_change_is_not_read(editor: Editor) -> None:
    assert [editor.look() for _ in range(8)] == [None] * 8
    assert editor.reads == 1


def test_a_look_that_comes_too_early_does_nothing(editor: Editor) -> None:
    editor.write("a")
    assert editor.watch.look(editor.now + LOOK_S / 2) is None
    assert editor.watch.due_s == editor.now + LOOK_S


@pytest.mark.parametrize("edit", [Editor.write, Editor.replace])
def test_an_edit_is_read_when_the_file_rests_within_a_second(editor: Editor, edit) -> None:
    edit(editor, "a", "b")
    assert editor.look() is None
    assert editor.look() == ["a", "b"]
    assert editor.now <= 1.0


def test_two_edits_in_a_row_are_both_waited_for(editor: Editor) -> None:
    for hosts in (["a"], ["a", "b"], ["b"]):
        editor.write(*hosts)
        assert editor.look() is None
        assert editor.look() == hosts


def test_a_file_that_comes_later_is_read(tmp_path: Path) -> None:
    editor = Editor(tmp_path, None)
    assert [editor.look() for _ in range(4)] == [None] * 4
    assert editor.watch.take_complaint() == ""
    editor.write("a")
    assert editor.wait() == ["a"]


def test_a_torn_write_is_not_seen_when_the_rest_follows(editor: Editor) -> None:
    editor.path.write_text('servers = [{host = "a"}, {ho')
    assert editor.look() is None
    editor.write("a", "b")
    assert editor.wait() == ["a", "b"]
    assert editor.watch.take_complaint() == ""
    assert editor.reads == 2


def test_a_file_that_changes_all_the_time_is_read_all_the_same(editor: Editor) -> None:
    before, found = editor.now, None
    for number in range(3):
        assert found is None
        editor.write("a" * (number + 1))
        found = editor.look()
    assert found == ["aaa"]
    assert FLUX_S <= editor.now - before <= 1.0


def test_a_torn_write_in_a_file_that_changes_all_the_time_is_no_news(editor: Editor) -> None:
    for number in range(6):
        editor.path.write_text("servers = [" + "{" * number)
        assert editor.look() is None
        assert editor.watch.take_complaint() == ""
    editor.write("a")
    assert editor.wait() == ["a"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("servers = [", "expected TOML"),
        ("servers = [{hots = 1}]", "servers"),
        ("max_servers = -1", "max_servers"),
    ],
)
def test_a_broken_file_is_told_once_and_has_no_effect(editor: Editor, text: str, reason: str) -> None:
    editor.path.write_text(text)
    assert [editor.look() for _ in range(8)] == [None] * 8
    complaint = editor.watch.take_complaint()
    assert complaint.startswith(str(editor.path))
    assert complaint.endswith(KEEPS)
    assert reason in complaint
    assert editor.watch.take_complaint() == ""
    editor.path.write_text(f"{text} ")
    assert [editor.look() for _ in range(4)] == [None] * 4
    editor.write("a")
    assert editor.wait() == ["a"]
    editor.path.write_text(text)
    assert [editor.look() for _ in range(4)] == [None] * 4
    assert editor.watch.take_complaint() == complaint


def test_a_deleted_file_is_told_once_and_read_when_it_is_there_again(editor: Editor) -> None:
    editor.write("a")
    assert editor.wait() == ["a"]
    editor.path.unlink()
    assert [editor.look() for _ in range(4)] == [None] * 4
    assert editor.watch.take_complaint() == f"{editor.path} is gone{KEEPS}"
    assert editor.watch.take_complaint() == ""
    editor.write("a")
    assert editor.wait() == ["a"]


def test_a_file_that_is_gone_for_a_moment_is_not_told(editor: Editor) -> None:
    editor.path.unlink()
    assert editor.look() is None
    editor.write("a")
    assert editor.wait() == ["a"]
    assert editor.watch.take_complaint() == ""


def test_a_folder_in_its_place_is_told(editor: Editor) -> None:
    editor.path.unlink()
    editor.path.mkdir()
    assert [editor.look() for _ in range(4)] == [None] * 4
    assert "cannot read" in editor.watch.take_complaint()
