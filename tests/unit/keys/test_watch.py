"""Keys that change while a process runs, on a clock of the test's own."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from dr.errors import Refused
from dr.keys import watch as module
from dr.keys.changes import authorize, renew_farm, revoke
from dr.keys.folder import KeyPlaces, load_keys
from dr.keys.ring import KeyRing
from dr.keys.watch import KeyWatch
from tests.support.keys import pair_of

BERT = pair_of("bert")


class Watching:
    """A loop that calls `look` twice a second; `seen` are the rings in force, with the time."""

    def __init__(self, places: KeyPlaces) -> None:
        self.now_s = 1000.0
        self.folder = places.client.parent
        self.watch = KeyWatch({}, self.folder, self.now_s)

    def run(self, seconds: float) -> float | None:
        """When the ring became another one, after so many seconds at most."""
        start = self.now_s
        while self.now_s < start + seconds:
            self.now_s += 0.5
            if self.watch.look(self.now_s):
                return self.now_s - start
        return None

    @property
    def is_up_to_date(self) -> bool:
        return self.watch.ring == load_keys({}, self.folder)


@pytest.fixture
def watching(made: KeyPlaces) -> Watching:
    return Watching(made)


def test_an_authorized_key_is_in_force_within_two_seconds(made: KeyPlaces, watching: Watching) -> None:
    assert watching.run(10) is None
    authorize(made, "bert", BERT.public)
    assert not watching.is_up_to_date
    after_s = watching.run(10)
    assert after_s is not None
    assert after_s <= 2
    assert watching.is_up_to_date
    assert watching.watch.ring.client_name(BERT.public) == "bert"


def test_a_revoked_key_is_out_within_two_seconds(made: KeyPlaces, watching: Watching) -> None:
    authorize(made, "bert", BERT.public)
    watching.run(2)
    revoke(made, "bert")
    after_s = watching.run(10)
    assert after_s is not None
    assert after_s <= 2
    assert watching.watch.ring.admit_client(BERT.public) is None


def test_another_farm_key_is_noticed(made: KeyPlaces, watching: Watching) -> None:
    before = watching.watch.ring
    renew_farm(made)
    assert watching.run(2)
    assert watching.watch.ring.farm_public != before.farm_public
    assert watching.is_up_to_date


def test_keys_that_are_made_later_are_noticed(places: KeyPlaces, tmp_path: Path) -> None:
    watching = Watching(places)
    assert watching.watch.ring == KeyRing()
    from dr.keys.changes import init_keys

    init_keys(places, "anna")
    assert watching.run(2)
    assert watching.watch.ring.farm


def break_it(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def empty_it(path: Path) -> None:
    path.write_bytes(b"")


def open_it(path: Path) -> None:
    path.chmod(0o644)


def remove_it(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [break_it, empty_it, open_it, remove_it])
@pytest.mark.parametrize("which", ["farm", "client"])
def test_a_file_that_is_broken_or_unsafe_or_gone_keeps_the_keys_and_is_told_once(
    made: KeyPlaces, watching: Watching, which: str, harm, caplog: pytest.LogCaptureFixture
) -> None:
    path, before = getattr(made, which), watching.watch.ring
    good = path.read_bytes()
    harm(path)
    with caplog.at_level(logging.INFO, "dr.keys"):
        assert watching.run(10) is None
        assert watching.watch.ring is before
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith(f"the keys stay as they were: {path}: ")
        assert caplog.messages[0].isprintable()
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(good)
        watching.run(2)
        assert watching.is_up_to_date
        assert caplog.messages[1:] == ["keys loaded, clients that are admitted: 1"]


def test_a_file_that_is_written_in_pieces_is_read_when_it_is_whole(made: KeyPlaces, watching: Watching) -> None:
    authorize(made, "bert", BERT.public)
    whole = made.farm.read_bytes()
    with made.farm.open("wb", buffering=0) as stream:
        for first in range(0, len(whole), 100):
            assert watching.run(2) is None
            stream.write(whole[first : first + 100])
    assert watching.run(2)
    assert watching.watch.ring.client_name(BERT.public) == "bert"


def test_a_failed_reading_is_tried_again_even_if_the_file_looks_the_same(
    made: KeyPlaces, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorize(made, "bert", BERT.public)
    real = module.load_keys

    def fail(*source):
        monkeypatch.setattr(module, "load_keys", real)
        raise Refused("not now")

    monkeypatch.setattr(module, "load_keys", fail)
    assert watching.run(3)
    assert watching.is_up_to_date


def test_a_change_right_after_the_look_is_not_lost(
    made: KeyPlaces, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.load_keys

    def change_after_reading(*source) -> KeyRing:
        monkeypatch.setattr(module, "load_keys", real)
        ring = real(*source)
        revoke(made, "bert")
        return ring

    authorize(made, "bert", BERT.public)
    monkeypatch.setattr(module, "load_keys", change_after_reading)
    assert watching.run(2)
    assert watching.watch.ring.client_name(BERT.public) == "bert"
    assert watching.run(2)
    assert watching.watch.ring.client_name(BERT.public) is None


def test_files_that_do_not_change_are_not_read(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*source):
        raise AssertionError("it was read")

    monkeypatch.setattr(module, "load_keys", read)
    assert watching.run(10) is None


def test_a_file_that_was_touched_is_no_other_ring(made: KeyPlaces, watching: Watching) -> None:
    before = watching.watch.ring
    os.utime(made.farm)
    assert watching.run(3) is None
    assert watching.watch.ring == before


def test_between_two_looks_nothing_is_read(made: KeyPlaces, watching: Watching) -> None:
    authorize(made, "bert", BERT.public)
    assert not watching.watch.look(watching.watch.due_s - 0.001)
    assert watching.watch.look(watching.watch.due_s)
