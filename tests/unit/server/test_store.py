import hashlib
import random
from pathlib import Path

import pytest

from dr.errors import BadInput, DrError
from workers.server.store import Store

DATA = random.Random(5).randbytes(1000)
DIGEST = hashlib.sha256(DATA).digest()
PARTS = [(offset, DATA[offset : offset + 300]) for offset in range(0, 1000, 300)]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
def test_parts_in_any_order_make_the_file(tmp_path, order):
    store = Store(tmp_path)
    for i in order:
        store.write(1, DIGEST, *PARTS[i])
    store.seal(1, DIGEST)
    assert store.path(1, DIGEST).read_bytes() == DATA


def test_other_bytes_than_promised_are_refused(tmp_path):
    store = Store(tmp_path)
    store.write(1, DIGEST, 0, DATA[:-1] + b"?")
    with pytest.raises(BadInput, match="expected SHA-256"):
        store.seal(1, DIGEST)


def test_an_empty_asset_is_a_file_too(tmp_path):
    store = Store(tmp_path)
    digest = hashlib.sha256(b"").digest()
    store.seal(1, digest)
    assert store.path(1, digest).read_bytes() == b""


def test_a_dropped_frame_leaves_nothing_and_others_stay(tmp_path):
    store = Store(tmp_path)
    for epoch in (1, 2):
        store.write(epoch, DIGEST, 0, DATA)
    store.drop(1)
    assert len(list(tmp_path.iterdir())) == 1
    store.seal(2, DIGEST)
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_named(tmp_path):
    store = Store(tmp_path / "gone")
    with pytest.raises(DrError, match="cannot store an asset"):
        store.write(1, DIGEST, 0, DATA)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_full_in_the_end_is_named_too(tmp_path):
    store = Store(tmp_path)
    store.path(1, DIGEST).symlink_to("/dev/full")
    store.write(1, DIGEST, 0, b"stays in the buffer")
    with pytest.raises(DrError, match="No space left"):
        store.seal(1, DIGEST)
    store.drop(1)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_asset_without_a_disk_is_refused(tmp_path):
    with pytest.raises(DrError, match="cannot store an asset"):
        Store(tmp_path / "gone").seal(1, DIGEST)
