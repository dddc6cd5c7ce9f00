"""The same bits on other CPUs: code compiled for plain x86-64-v3 against code compiled for this very machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
V3_FEATURES = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse3,+ssse3,+sse4.1,+sse4.2,+cx16,+sahf,+xsave"


def rendered(cache: Path, **variables: str) -> dict[str, Any]:
    """Digest and target of the demo scene, rendered by a process with a compile cache of its own."""
    command = [sys.executable, "-m", "tests.support.target_digest", str(ROOT / "examples" / "demo.scene.toml")]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environment = plain | {"DR_KERNEL_CACHE": str(cache)} | variables
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names an x86-64 target")
def test_code_for_x86_64_v3_gives_the_bits_of_code_for_this_machine(tmp_path: Path) -> None:
    native = rendered(tmp_path / "native")
    plain = rendered(tmp_path / "v3", NUMBA_CPU_NAME="x86-64-v3", NUMBA_CPU_FEATURES=V3_FEATURES)
    assert "x86-64-v3" in plain["target"]
    assert V3_FEATURES in plain["target"]
    assert plain["registers"] == ["fma", "xmm", "ymm"]
    assert "ymm" in native["registers"]
    assert native["target"] != plain["target"]
    assert native["digest"] == plain["digest"]
