"""Files that are this user's alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from dr.errors import BadInput, DrError, Refused
from dr.keys import file as module
from dr.keys.file import MAX_BYTES, PRIVATE, PUBLIC, Found, check_private, keep_aside, locked, read_file, write_file

ME = os.geteuid()


@pytest.fixture
def generous_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("generous_umask")
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("mode", [PRIVATE, PUBLIC])
def test_a_file_is_written_whole_with_its_mode_whatever_the_umask(tmp_path: Path, mode: int, replace: bool) -> None:
    write_file(tmp_path / "key", "text", mode, replace)
    assert (tmp_path / "key").read_text() == "text"
    assert mode_of(tmp_path / "key") == mode
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.usefixtures("generous_umask")
@pytest.mark.parametrize("replace", [False, True])
def test_nobody_else_can_read_a_key_even_while_it_is_written(
    tmp_path: Path, replace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(descriptor: int) -> None:
        seen.extend(mode_of(path) for path in tmp_path.iterdir())

    monkeypatch.setattr(module.os, "fsync", look)
    monkeypatch.setattr(module.os, "fchmod", lambda descriptor, mode: look(descriptor))
    write_file(tmp_path / "key", "text", PRIVATE, replace)
    assert seen
    assert set(seen) == {PRIVATE}


def test_what_is_there_is_replaced_only_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    with pytest.raises(BadInput, match="exists already; choose another name, or --force"):
        write_file(path, "new", PRIVATE, replace=False)
    assert path.read_text() == "old"
    write_file(path, "new", PRIVATE, replace=True)
    assert path.read_text() == "new"
    assert mode_of(path) == PRIVATE


@pytest.mark.parametrize("target", ["nothing", "secret"])
def test_a_link_in_the_place_of_a_new_file_leads_nobody_astray(tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_text("old")
    (tmp_path / "key").symlink_to(tmp_path / target)
    with pytest.raises(BadInput, match="exists already"):
        write_file(tmp_path / "key", "new", PRIVATE, replace=False)
    assert (tmp_path / "secret").read_text() == "old"
    assert not (tmp_path / "nothing").exists()


def test_of_many_who_make_the_same_file_one_wins(tmp_path: Path) -> None:
    path, start = tmp_path / "key", Barrier(8)

    def write(n: int) -> bool:
        start.wait(30)
        try:
            write_file(path, f"text {n}", PRIVATE, replace=False)
        except BadInput:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert sum(won) == 1
    assert path.read_text() == f"text {won.index(True)}"
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("replace", [False, True])
def test_what_fails_halfway_leaves_nothing_new(tmp_path: Path, replace: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    if replace:
        path.write_text("old")
    before = os.listdir(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(BadInput, match="key: cannot write it: No space left on device"):
        write_file(path, "new", PRIVATE, replace)
    assert os.listdir(tmp_path) == before


def test_a_disk_that_keeps_no_modes_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "fchmod", lambda descriptor, mode: os.chmod(descriptor, 0o755))
    with pytest.raises(BadInput, match="cannot keep a file private"):
        write_file(tmp_path / "key", "text", PRIVATE, replace=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_this_user_alone_is_private(mode: int) -> None:
    check_private(Path("key"), Found(b"", mode, ME), is_secret=True)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o602, 0o610, 0o777, 0o440])
def test_a_secret_that_others_can_touch_is_refused_with_the_command_that_helps(mode: int) -> None:
    with pytest.raises(Refused) as caught:
        check_private(Path("key"), Found(b"", mode, ME), is_secret=True)
    expected = f"key: expected a file that only you can read or change, found mode {mode:o}; chmod 600 key"
    assert str(caught.value) == expected


def test_what_is_no_secret_may_be_read_by_others_but_not_changed() -> None:
    check_private(Path("key"), Found(b"", 0o644, ME), is_secret=False)
    for mode in (0o664, 0o646):
        with pytest.raises(Refused, match="that only you can change"):
            check_private(Path("key"), Found(b"", mode, ME), is_secret=False)


@pytest.mark.parametrize("is_secret", [False, True])
def test_a_file_of_another_user_is_refused(is_secret: bool) -> None:
    with pytest.raises(Refused, match=rf"expected a file of yours \(user {ME}\), found one of user {ME + 1}"):
        check_private(Path("key"), Found(b"", 0o600, ME + 1), is_secret)


def test_what_is_read_is_judged_by_the_file_and_not_by_the_link_to_it(tmp_path: Path) -> None:
    path = tmp_path / "real"
    path.write_text("text")
    path.chmod(0o644)
    (tmp_path / "key").symlink_to(path)
    assert read_file(tmp_path / "key") == Found(b"text", 0o644, ME)


def test_a_missing_file_is_none_and_anything_but_a_file_is_refused(tmp_path: Path) -> None:
    assert read_file(tmp_path / "none") is None
    (tmp_path / "file").touch()
    assert read_file(tmp_path / "file" / "key") is None
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "loop", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(BadInput):
            read_file(path)


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch()
    os.truncate(path, MAX_BYTES)
    assert read_file(path) is not None
    os.truncate(path, 1 << 40)
    with pytest.raises(BadInput, match="at most 1048576 bytes"):
        read_file(path)


@pytest.mark.skipif(ME != 0, reason="only root can become another user")
def test_a_key_in_a_home_that_one_may_not_enter_is_none_and_one_that_one_may_not_read_is_an_error() -> None:
    code = """
import os, tempfile, pathlib
from dr.errors import BadInput
from dr.keys.file import read_file
home = pathlib.Path(tempfile.mkdtemp())
(home / "key").touch(mode=0o600)
os.setuid(65534)
assert read_file(home / "key") is None
own = pathlib.Path(tempfile.mkdtemp())
(own / "key").touch(mode=0o000)
try:
    read_file(own / "key")
except BadInput as error:
    raise SystemExit(0 if str(error).endswith("cannot read it: Permission denied") else str(error))
raise SystemExit("it was read")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_kept_file_gets_the_next_free_number(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert keep_aside(path) is None
    for number in (1, 2):
        write_file(path, f"{number}", PRIVATE, replace=True)
        aside = keep_aside(path)
        assert aside == tmp_path / f"key.old-{number}"
        assert mode_of(aside) == PRIVATE
    write_file(path, "3", PRIVATE, replace=True)
    assert [(tmp_path / name).read_text() for name in ("key.old-1", "key.old-2", "key")] == ["1", "2", "3"]


def test_the_folder_of_keys_is_private_and_one_at_a_time_changes_it(tmp_path: Path) -> None:
    folder, inside, most = tmp_path / "a" / "keys", [0], [0]

    def change(n: int) -> None:
        with locked(folder):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            write_file(folder / "key", f"{n}", PRIVATE, replace=True)
            inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(64)))
    assert most == [1]
    assert mode_of(folder) == 0o700


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DrError, match="cannot write in that folder"), locked(tmp_path / "file" / "keys"):
        pass
