"""One prepared file per scene and host, and what happens when its users come and go in any order."""

import threading

import pytest

from dr.errors import BadInput
from dr.scene.model import RenderSettings
from workers.prepare import folders
from workers.prepare.folders import LockFile, PrivateFolder, private
from workers.prepare.shared import SharedScene, make_once, remove_unused, scene_key, scene_path

KEY = "abc"
WAIT_S = 20


def write(path):
    path.write_text("prepared")


def never(*arguments):
    raise AssertionError("called")


def use(folder):
    """Prepares and takes the file, as a server and its child do."""
    made = make_once(folder, KEY, write, never)
    shared = SharedScene(folder, KEY)
    made.close()
    return shared


def test_the_last_user_removes_the_file(tmp_path):
    first, second = use(tmp_path), SharedScene(tmp_path, KEY)
    first.close()
    assert scene_path(tmp_path, KEY).read_text() == "prepared"
    second.close()
    assert list(tmp_path.iterdir()) == []
    second.close()


def test_a_file_that_is_there_is_not_made_again(tmp_path):
    scene_path(tmp_path, KEY).write_text("there")
    make_once(tmp_path, KEY, never, never).close()
    assert scene_path(tmp_path, KEY).read_text() == "there"


def test_one_makes_the_file_and_the_others_wait_for_it(tmp_path):
    begun, go_on, waiting = threading.Event(), threading.Event(), threading.Event()
    makers = []

    def slow(path):
        makers.append(path)
        begun.set()
        assert go_on.wait(WAIT_S)
        write(path)

    locks = []
    first = threading.Thread(target=lambda: locks.append(make_once(tmp_path, KEY, slow, never)))
    second = threading.Thread(target=lambda: locks.append(make_once(tmp_path, KEY, slow, waiting.set)))
    first.start()
    assert begun.wait(WAIT_S)
    second.start()
    assert waiting.wait(WAIT_S)
    go_on.set()
    first.join(WAIT_S)
    locks[0].close()
    second.join(WAIT_S)
    assert len(locks) == 2
    assert makers == [scene_path(tmp_path, KEY)]


def test_a_failure_leaves_nothing_and_the_next_may_try(tmp_path):
    def fail(path):
        path.with_suffix(".partial").write_text("as far as the disk went")
        raise BadInput("no")

    with pytest.raises(BadInput):
        make_once(tmp_path, KEY, fail, never)
    assert list(tmp_path.iterdir()) == []
    use(tmp_path).close()


def test_a_file_that_is_gone_cannot_be_shared(tmp_path):
    with pytest.raises(FileNotFoundError):
        SharedScene(tmp_path, KEY)


def test_what_nobody_uses_is_removed_and_what_is_used_stays(tmp_path):
    shared = use(tmp_path)
    (tmp_path / "old.scene").write_text("left behind")
    (tmp_path / "old.lock").touch()
    remove_unused(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["abc.lock", "abc.scene"]
    shared.close()


def test_the_key_knows_what_preparation_reads_and_nothing_else():
    plain = RenderSettings()
    key = scene_key(b"manifest", False, plain, "code")
    assert key == scene_key(b"manifest", False, RenderSettings(samples=1, seed=7, max_depth=2), "code")
    others = [
        scene_key(b"other", False, plain, "code"),
        scene_key(b"manifest", False, plain, "newer"),
        scene_key(b"manifest", False, RenderSettings(default_light=False), "code"),
        scene_key(b"manifest", False, RenderSettings(width=10), "code"),
    ]
    assert len({key, *others}) == 5


def test_frames_share_a_key_where_nothing_moves_and_nowhere_else():
    frames = [RenderSettings(frame=3), RenderSettings(frame=4), RenderSettings(frame=4, fps=30.0)]
    assert len({scene_key(b"manifest", False, settings, "code") for settings in frames}) == 1
    assert len({scene_key(b"manifest", True, settings, "code") for settings in frames}) == 3
    assert scene_key(b"manifest", True, RenderSettings(), "code") != scene_key(
        b"manifest", False, RenderSettings(), "code"
    )


def test_a_private_folder_is_private_and_goes_with_its_owner(tmp_path):
    parent = private(tmp_path / "servers")
    assert parent.stat().st_mode & 0o777 == 0o700
    mine = PrivateFolder(parent)
    other = PrivateFolder(parent)
    assert mine.path.exists(), "a living process keeps its folder"
    mine.close()
    other.close()
    assert list(parent.iterdir()) == []


def test_what_a_dead_process_left_behind_is_removed(tmp_path):
    dead = tmp_path / "server-dead"
    dead.mkdir()
    LockFile(dead / "lock").close()
    PrivateFolder(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_took_for_left_behind_is_made_anew(tmp_path, monkeypatch):
    exclude = LockFile.exclude

    def be_late(lock, waiting=None):
        monkeypatch.setattr(LockFile, "exclude", exclude)
        folders._remove_left_behind(tmp_path)  # what the other process does between our two steps
        exclude(lock, waiting)

    monkeypatch.setattr(LockFile, "exclude", be_late)
    mine = PrivateFolder(tmp_path)
    assert [mine.path] == list(tmp_path.iterdir())
    mine.close()
