"""Reading pieces of scene files by digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from dr.client.files import SceneFiles
from dr.errors import BadInput
from dr.scene.assets import Asset, Manifest, Role

DATA = bytes(range(256)) * 4
DIGEST = hashlib.sha256(DATA).digest()


@pytest.fixture
def files(tmp_path: Path) -> SceneFiles:
    (tmp_path / "a.glb").write_bytes(DATA)
    manifest = Manifest(main="a.glb", assets=(Asset("a.glb", Role.SCENE, len(DATA), DIGEST),))
    return SceneFiles(manifest, tmp_path)


def test_a_piece_is_read_by_digest(files: SceneFiles) -> None:
    assert files.read(DIGEST, 10, 20) == DATA[10:30]
    assert files.read(DIGEST, 1000, 100) == DATA[1000:]


def test_the_manifest_is_a_file_like_any_other(files: SceneFiles) -> None:
    data = files.read(files.manifest_digest, 0, 1 << 20)
    assert hashlib.sha256(data).digest() == files.manifest_digest
    assert Manifest.decode(data).main == "a.glb"
    assert files.sizes() == {DIGEST: len(DATA), files.manifest_digest: len(data)}


def test_what_is_not_in_the_manifest_is_not_read(files: SceneFiles) -> None:
    with pytest.raises(BadInput, match="no file of this scene has the digest 0000"):
        files.read(bytes(32), 0, 1)


def test_a_file_that_was_rewritten_is_refused_by_name(files: SceneFiles, tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    with pytest.raises(BadInput, match=r"a\.glb: changed while it was being rendered; render again"):
        files.read(DIGEST, 0, 1)


def test_a_file_that_grew_is_refused_by_name(files: SceneFiles, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(DATA + b"!")
    with pytest.raises(BadInput, match=r"a\.glb: changed"):
        files.read(DIGEST, 0, 1)


def test_a_file_that_is_gone_is_one_clear_line(files: SceneFiles, tmp_path: Path) -> None:
    (tmp_path / "a.glb").unlink()
    with pytest.raises(BadInput, match=r"a\.glb: cannot be read any more: No such file"):
        files.read(DIGEST, 0, 1)
