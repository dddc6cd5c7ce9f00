"""Which log files there are, and what leaves this machine in a pack of them."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.client import log_files
from dr.client.log_files import HOME, NO_KEY, Cleaner, find_logs, pack_logs, read_tail
from dr.errors import BadInput
from dr.keys.key import KeyPair, make_pair
from dr.keys.ring import KeyRing

NOBODY = KeyRing()


def write(path: Path, text: str, changed_s: float) -> Path:
    path.write_text(text)
    os.utime(path, (changed_s, changed_s))
    return path


def test_logs_are_found_newest_first_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "render-20260101-120000-7.log", "a", 10.0)
    write(tmp_path / "spawner-20204.log", "bb", 30.0)
    write(tmp_path / "spawner-20204.log.1", "ccc", 20.0)
    write(tmp_path / "server-20210.log", "d", 5.0)
    write(tmp_path / "notes.txt", "e", 40.0)
    write(tmp_path / "other.log", "f", 50.0)
    (tmp_path / "server-1.log").mkdir()
    found = [(log.path.name, log.kind, log.size) for log in find_logs(tmp_path)]
    assert found == [
        ("spawner-20204.log", "spawner", 2),
        ("spawner-20204.log.1", "spawner", 3),
        ("render-20260101-120000-7.log", "render", 1),
        ("server-20210.log", "server", 1),
    ]


def test_a_folder_that_is_not_there_holds_no_logs(tmp_path: Path) -> None:
    assert find_logs(tmp_path / "nowhere") == []


@given(st.lists(st.text("ab\u00e9 ", max_size=50), max_size=30), st.integers(1, 40), st.integers(1, 64))
def test_the_tail_is_what_the_last_lines_say(lines: list[str], count: int, step: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_files, "TAIL_BYTES", step)
        path = Path(folder) / "a.log"
        path.write_text("".join(f"{line}\n" for line in lines))
        assert read_tail(path, count) == lines[-count:]


def test_a_pack_holds_facts_and_logs_and_is_this_users_alone(tmp_path: Path) -> None:
    write(tmp_path / "render-1.log", "hello\n", 1.0)
    out = tmp_path / "out.zip"
    packed = pack_logs(out, find_logs(tmp_path), {"facts.json": "{}"}, NOBODY)
    assert [(each.name, each.size, each.cut) for each in packed] == [
        ("facts.json", 2, False),
        ("render-1.log", 6, False),
    ]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with zipfile.ZipFile(out) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "facts.json": b"{}",
            "logs/render-1.log": b"hello\n",
        }


def test_a_pack_replaces_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.zip"
    out.write_text("mine")
    with pytest.raises(BadInput, match="exists already; choose another name with -o FILE"):
        pack_logs(out, [], {}, NOBODY)
    assert out.read_text() == "mine"
    with pytest.raises(BadInput, match="cannot write it"):
        pack_logs(tmp_path / "nowhere" / "out.zip", [], {}, NOBODY)


def test_a_pack_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        pack_logs(tmp_path / "out.zip", [], {"facts.json": None}, NOBODY)  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


def test_a_pack_is_bounded_and_keeps_the_newest_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "PACK_BYTES", 25)
    write(tmp_path / "render-1.log", "oldest line\n", 1.0)
    write(tmp_path / "render-2.log", "first line\nsecond line\n", 2.0)
    write(tmp_path / "render-3.log", "newest\n", 3.0)
    packed = pack_logs(tmp_path / "out.zip", find_logs(tmp_path), {}, NOBODY)
    assert [(each.name, each.size, each.cut) for each in packed[:2]] == [
        ("render-3.log", 7, False),
        ("render-2.log", 12, True),
    ]
    assert sum(each.size for each in packed) <= 25
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.read("logs/render-2.log") == b"second line\n"


def test_home_is_a_tilde_and_no_other_folder_is() -> None:
    clean = Cleaner(NOBODY, Path("/home/ada"))
    assert clean.text("/home/ada/x.exr and '/home/ada': /home/adam/y") == f"{HOME}/x.exr and '{HOME}': /home/adam/y"


def test_paths_digests_and_addresses_stay() -> None:
    clean = Cleaner(NOBODY, Path("/"))
    lines = (
        f"kernels {'0123456789abcdef' * 4}",
        "/data/projects/a-long-name/scenes/chair_of_many_parts.scene.toml: no camera",
        "tcp://[fe80::1234:5678:9abc:def0]:20204: nobody listens there",
    )
    for line in lines:
        assert clean.text(line) == line


def ring_of(client: KeyPair, farm: KeyPair, guest: str) -> KeyRing:
    return KeyRing(client=client, farm_public=farm.public, farm_secret=farm.secret, clients={guest: "guest"})


def test_keys_of_this_user_and_of_its_farm_never_leave() -> None:
    client, farm, guest = make_pair(), make_pair(), make_pair()
    clean = Cleaner(ring_of(client, farm, guest.public), Path("/home/ada"))
    secrets = [client.secret.reveal(), farm.secret.reveal(), client.public, farm.public, guest.public]
    text = "".join(f"x{key}y {key}. '{key}' NAME={key}/{key}\n" for key in secrets)
    assert not [key for key in secrets if key in clean.text(text)]


def test_keys_of_others_are_taken_out_by_their_looks() -> None:
    clean = Cleaner(NOBODY, Path("/home/ada"))
    signs = frozenset("+=^!*?&<>(){}@%$#")
    keys = [pair.public for pair in (make_pair() for _ in range(200)) if signs & set(pair.public)]
    assert len(keys) > 190
    for key in keys:
        assert clean.text(f"refused the key {key} from 10.0.0.7") == f"refused the key {NO_KEY} from 10.0.0.7"
