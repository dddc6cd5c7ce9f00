"""Compiles the kernels once per host and loads them. Knows the compile cache; knows no scene and no server.

numba's own cache looks only at the file that a function stands in: after an edit of a callee the old code would keep
running. So the cache folder is named by a digest of all sources; a marker in it says that the compiling is complete.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeAlias

import workers
from dr.errors import DrError, Refused
from dr.scene.code_digest import digest_sources, source_files
from workers.prepare.folders import LockFile, private, user_folder
from workers.prepare.lifeline import die_with_parent

Say: TypeAlias = Callable[[str], None]

CACHE_VARIABLE = "DR_KERNEL_CACHE"
FOLDERS_KEPT = 4  # compile caches of other versions, most recently used first
DIGEST_CHARS = 24
COMPILERS = ("numba", "llvmlite", "numpy")
REQUIRED_X86 = ("avx2", "fma", "bmi2")  # x86-64-v3: fused multiply-add decides bits


def kernel_folders() -> list[Path]:
    """Where kernels may stand."""
    root = Path(workers.__path__[0])
    return [root / "kernels", root / "prepare"]


@cache
def kernel_digest() -> str:
    """Names the compile cache: what is compiled, and by what."""
    return digest_sources(kernel_folders(), COMPILERS)[:DIGEST_CHARS]


def import_less() -> None:
    """Hides scipy from numba, which imports it where it is installed, for linear algebra that kernels do not use.

    Halves the time in which kernels are loaded. For processes of our own, before they import numba.
    """
    sys.modules.setdefault("scipy", None)  # type: ignore[arg-type]


def use_kernel_cache() -> Path:
    """Points numba at this version's cache folder, also in child processes. Call it before kernels are imported."""
    chosen = os.environ.get(CACHE_VARIABLE)
    root = private(Path(chosen)) if chosen else user_folder("kernels")
    folder = private(root / kernel_digest())
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    return folder


def check_cpu() -> None:
    """Raises Refused where the kernels would not give the same bits: a CPU without fused multiply-add."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return
    if machine not in ("x86_64", "amd64"):
        raise Refused(f"expected an x86-64-v3 or AArch64 CPU, found {machine}: kernels cannot run here")
    missing = [name for name in REQUIRED_X86 if name not in _cpu_features()]
    if missing:
        raise Refused(f"expected an x86-64-v3 CPU (2013 or later), found one without {', '.join(missing)}")


def _cpu_features() -> set[str]:
    """The features that numba compiles for: its own override, or what this CPU has."""
    import llvmlite.binding as llvm

    override = os.environ.get("NUMBA_CPU_FEATURES")
    if override:
        return {word[1:] for word in override.split(",") if word.startswith("+")}
    return {name for name, present in llvm.get_host_cpu_features().items() if present}


def warm_up(say: Say) -> None:
    """Loads the kernels into this process. When they were never compiled on this host, a child compiles them first.

    Raises DrError when that fails; `say` gets a line for each step of the compiling.
    """
    folder = use_kernel_cache()
    check_cpu()
    if not _marker(folder).exists():
        _compile_in_child(say)
    with suppress(OSError):
        os.utime(folder)
    load_kernels()


def kernels_compiled() -> bool:
    """Whether this host's cache holds the kernels of this version."""
    return _marker(use_kernel_cache()).exists()


def _compile_in_child(say: Say) -> None:
    words = [sys.executable, "-m", "workers.prepare.warmup", "--parent-pid", str(os.getpid())]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        last = ""
        for line in process.stdout or ():
            last = line.rstrip()
            say(last)
    if process.returncode:
        raise DrError(f"compiling kernels failed with status {process.returncode}: {last}")


def compile_kernels(say: Say) -> None:
    """Compiles all kernels into the cache. One process per host does it, under a lock; the others wait."""
    folder = use_kernel_cache()
    check_cpu()
    lock = LockFile(folder / "lock")
    lock.exclude(lambda: say("waiting for another process of this host to compile the kernels"))
    try:
        if not _marker(folder).exists():
            with _Progress(say):
                load_kernels()
                load_preparation()
            _marker(folder).touch()
            _prune(folder.parent, keep=folder)
    finally:
        lock.close()


def load_kernels() -> None:
    """Makes the door callable at full speed: numba compiles it or finds it in the cache, and it renders nothing."""
    import numpy as np

    from workers.kernels import bucket
    from workers.kernels.records import FILM_CHANNELS, SCENE

    door: Any = bucket.render_bucket
    record: Any = np.zeros(1, SCENE)[0]
    film = np.zeros((1, 0, 0, FILM_CHANNELS), np.float32)
    door(record, 0, 0, 0, 0, 0, 0, film, np.ones(1, np.uint8))


def load_preparation() -> None:
    """The same for all that preparation calls."""
    from workers.prepare.rehearsal import rehearse

    rehearse(threads=1)


class _Progress:
    """Says how many kernels have been compiled, out of those that rendering and preparation can reach."""

    def __init__(self, say: Say) -> None:
        from numba.core import event

        self.say = say
        self.event: Any = event
        self.kernels = {id(kernel) for kernel in reachable(doors())}
        self.compiled: set[int] = set()

    def __enter__(self) -> None:
        progress = self

        class Listener(self.event.Listener):  # type: ignore[misc, name-defined]
            def on_start(self, event: Any) -> None:
                pass

            def on_end(self, event: Any) -> None:
                progress.count(id(event.data["dispatcher"]))

        self.listener = Listener()
        self.event.register("numba:compile", self.listener)

    def __exit__(self, *reason: object) -> None:
        self.event.unregister("numba:compile", self.listener)

    def count(self, kernel: int) -> None:
        if kernel in self.kernels and kernel not in self.compiled:
            self.compiled.add(kernel)
            self.say(f"compiling kernels, first run only: {len(self.compiled)} of {len(self.kernels)}")


def doors() -> list[Any]:
    """The kernels that Python calls: the one that renders, and those that the modules of preparation import."""
    import workers.prepare.rehearsal  # noqa: F401  imports all of preparation
    from workers.kernels.bucket import render_bucket

    modules = [module for name, module in sys.modules.items() if name.startswith("workers.prepare.")]
    return [render_bucket, *(value for module in modules for value in vars(module).values() if _is_kernel(value))]


def reachable(entrances: Iterable[Any]) -> list[Any]:
    """All kernels that these may call, themselves included, found by the names in their code."""
    found: dict[int, Any] = {}
    waiting = list(entrances)
    while waiting:
        kernel = waiting.pop()
        if id(kernel) not in found:
            found[id(kernel)] = kernel
            waiting += [value for value in _named_values(kernel.py_func) if _is_kernel(value)]
    return list(found.values())


def _is_kernel(value: Any) -> bool:
    return hasattr(value, "py_func")  # a numba dispatcher


def _named_values(function: Any) -> Iterable[Any]:
    code: CodeType = function.__code__
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    yield from (cell.cell_contents for cell in cells.values())
    values = [function.__globals__[name] for name in code.co_names if name in function.__globals__]
    yield from values
    for module in values:
        if isinstance(module, ModuleType):
            yield from (vars(module)[name] for name in code.co_names if name in vars(module))


def _marker(folder: Path) -> Path:
    """Says that this CPU's kernels of this installation are compiled: numba's cache minds both, and file dates too."""
    import llvmlite.binding as llvm

    stamp = hashlib.sha256(f"{llvm.get_host_cpu_name()} {sorted(_cpu_features())}".encode())
    stamp.update(os.environ.get("NUMBA_CPU_NAME", "").encode())
    for path in (path for folder in kernel_folders() for path in source_files(folder)):
        status = path.stat()
        stamp.update(f"{path} {status.st_mtime_ns} {status.st_size}".encode())
    return folder / f"complete-{stamp.hexdigest()[:DIGEST_CHARS]}"


def _prune(root: Path, keep: Path) -> None:
    """Removes the caches of versions that were not used for longest."""
    folders = [path for path in root.iterdir() if path.is_dir() and _is_digest(path.name) and path != keep]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in folders[FOLDERS_KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)


def _is_digest(name: str) -> bool:
    return len(name) == DIGEST_CHARS and set(name) <= set("0123456789abcdef")


def main(words: list[str]) -> int:
    """`python -m workers.prepare.warmup`: lines of progress on stdout, the last one says the error, if any."""
    if words[:1] == ["--parent-pid"] and not die_with_parent(int(words[1]), signal.SIGKILL):
        return 0
    try:
        compile_kernels(lambda text: print(text, flush=True))
    except DrError as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    import_less()
    sys.exit(main(sys.argv[1:]))
