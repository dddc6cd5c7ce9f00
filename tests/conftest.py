"""What every test needs: kernels compiled by their digest, no keys of the user's own, the way to the real scenes."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from workers.prepare.warmup import use_kernel_cache

if "NUMBA_CACHE_DIR" not in os.environ:
    use_kernel_cache()

os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="dr-test-config-")  # tests make the keys that they need
os.environ.pop("DR_FARM_KEY_FILE", None)
atexit.register(shutil.rmtree, os.environ["XDG_CONFIG_HOME"], ignore_errors=True)

DATA = Path(os.environ.get("DR_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with real scenes and references; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"needs the scenes in DR_DATA ({DATA} is not there)")
    return DATA
