"""The digest of all code that decides pixels."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from dr.scene import code_digest

PROGRAM = "import sys; from dr.scene.code_digest import code_digest as d; print(d(), 'numba' in sys.modules)"


def digest_of(root: Path) -> list[str]:
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, cwd=root, capture_output=True, check=True, text=True).stdout.split()


def test_any_change_of_a_source_changes_it_and_numba_stays_unloaded(tmp_path):
    root = Path(code_digest.__file__).parents[2]
    for package in ("dr", "workers"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    digest, numba_loaded = digest_of(tmp_path)
    assert numba_loaded == "False"
    assert len(digest) == 64
    assert digest_of(tmp_path)[0] == digest
    seen = {digest}
    for folder in ("workers/kernels", "workers/prepare", "dr/scene/formats"):
        (tmp_path / folder / "new.py").write_text("# new\n")
        seen.add(digest_of(tmp_path)[0])
    (tmp_path / "workers/kernels/new.py").rename(tmp_path / "workers/kernels/other.py")
    seen.add(digest_of(tmp_path)[0])
    assert len(seen) == 5


def test_code_that_decides_no_pixel_does_not_count():
    names = [folder.name for folder in code_digest.source_folders()]
    assert names == ["scene", "kernels", "prepare"]
