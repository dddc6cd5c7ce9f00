"""Real processes for farm tests: `dr` and `dr serve` with an engine that has no kernels, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30


def environment(folder: Path) -> dict[str, str]:
    """A user of its own: every cache, log and temporary folder below `folder`."""
    temporary = folder / "t"
    temporary.mkdir(exist_ok=True)
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    homes = {name: str(folder / name.lower()) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")}
    return {**os.environ, **homes, "TMPDIR": str(temporary), "PYTHONPATH": paths, "COLUMNS": "120"}


def write_scene(folder: Path, **behaviour: Any) -> Path:
    """A scene that tells the engine without kernels how to behave (see tests.support.fake_engine)."""
    path = folder / "scene.gltf"
    path.write_text(json.dumps({"asset": {"version": "2.0"}, **behaviour}))
    return path


def start_dr(folder: Path, *words: object) -> subprocess.Popen[str]:
    """`dr WORDS` in a process group of its own, as a shell would start it."""
    command = [sys.executable, "-m", "tests.support.fake_dr", *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment(folder), cwd=ROOT, process_group=0
    )


def run_dr(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Runs `dr WORDS` to its end."""
    process = start_dr(folder, *words)
    out, err = process.communicate(timeout=DEADLINE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def facts_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The object that `--json` printed last."""
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


@contextmanager
def serving(folder: Path, *words: object, module: str = "tests.support.fake_server") -> Iterator[str]:
    """A server on a free port of this machine; gives HOST:PORT. The real one shares this user's compiled kernels."""
    command = [sys.executable, "-m", module, "--port", "0", *map(str, words)]
    env = environment(folder) if module.startswith("tests.") else {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on tcp://"), line
            yield line.split("//")[1].strip()
        finally:
            process.terminate()
            try:
                process.wait(DEADLINE_S)
            finally:
                process.kill()


def wait_for_line(process: subprocess.Popen[str], words: str) -> str:
    """Reads stderr up to the line that holds `words`."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"{words!r} was never said")


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)


def assert_all_gone(processes: list[psutil.Process], folder: Path) -> None:
    """No process lives on, no socket and no temporary folder is left."""
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE_S)
    assert alive == []
    assert list((folder / "t").iterdir()) == []
