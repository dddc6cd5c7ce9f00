"""The process in which a scene is prepared: one JSON job on stdin, JSON lines on stdout. Knows no server and no wire.

It starts early, imports what takes time and waits. Lines out: {"progress": TEXT} any number of times, then
{"done": true} or {"error": TEXT, "fatal": BOOL}. After `done` it keeps the file from removal until its stdin ends.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from dr.errors import BadInput, DrError
from dr.scene.assets import Blobs
from dr.scene.model import RenderSettings
from workers.prepare.lifeline import die_with_parent
from workers.prepare.shared import make_once
from workers.prepare.warmup import import_less, kernels_compiled, load_preparation, use_kernel_cache


class Job(Struct, frozen=True, kw_only=True):
    files: dict[str, str]  # name in the manifest -> path of its bytes
    main: str
    settings: RenderSettings
    folder: str  # where prepared files lie
    key: str
    threads: int


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    progress: str = ""
    done: bool = False
    error: str = ""
    fatal: bool = False


def private_stdout() -> BinaryIO:
    """Our stdout for answers alone; whatever else prints there goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return answers


def get_ready() -> None:
    """Loads kernels that are compiled already, unless a job waits: it would load the few that it needs."""
    if select.select([0], [], [], 0)[0] or not kernels_compiled():
        return
    load_preparation()


def run_job(line: bytes, tell: Callable[[Answer], None]) -> Any:
    """Prepares one scene. What comes back must be kept as long as the file shall stay."""
    from workers.prepare.prepare import prepare_scene

    job = msgspec.json.decode(line, type=Job)
    files = Blobs({name: Path(path) for name, path in job.files.items()})

    def say(text: str) -> None:
        tell(Answer(progress=text))

    def make(path: Path) -> None:
        prepare_scene(files, job.main, job.settings, path, job.threads, say)

    waiting = lambda: say("waiting for another server of this host to prepare the scene")  # noqa: E731
    return make_once(Path(job.folder), job.key, make, waiting)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.prepare")
    parser.add_argument("--parent-pid", type=int, required=True)
    options = parser.parse_args()
    if not die_with_parent(options.parent_pid, signal.SIGKILL):
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is our parent's to handle
    use_kernel_cache()
    out = private_stdout()

    def tell(answer: Answer) -> None:
        out.write(msgspec.json.encode(answer) + b"\n")

    try:
        import workers.prepare.prepare  # noqa: F401  takes time: it imports numba

        get_ready()
        line = sys.stdin.buffer.readline()
        if not line:
            return 0
        kept = run_job(line, tell)
    except BadInput as error:
        tell(Answer(error=str(error), fatal=True))
        return 0
    except DrError as error:
        tell(Answer(error=str(error)))
        return 0
    except Exception as error:
        traceback.print_exc()
        tell(Answer(error=f"preparing the scene: {type(error).__name__}: {error}"))
        return 1
    tell(Answer(done=True))
    sys.stdin.buffer.read()
    kept.close()
    return 0


if __name__ == "__main__":
    import_less()
    sys.exit(main())
