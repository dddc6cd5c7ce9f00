"""A folder for keys, and keys in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr.keys.changes import init_keys
from dr.keys.folder import KeyPlaces, key_places


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def places(folder: Path) -> KeyPlaces:
    """Of a user who has no keys yet."""
    return key_places({}, folder)


@pytest.fixture
def made(places: KeyPlaces) -> KeyPlaces:
    """Of a user `anna` who ran `dr keys init`."""
    init_keys(places, "anna")
    return places
