"""What every test needs: kernels compiled into a folder of their own digest, and the way to the real scenes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.prepare.warmup import use_kernel_cache

if "NUMBA_CACHE_DIR" not in os.environ:
    use_kernel_cache()

DATA = Path(os.environ.get("DR_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with real scenes and references; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"needs the scenes in DR_DATA ({DATA} is not there)")
    return DATA
