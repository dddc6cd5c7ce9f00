"""The engine that makes real pixels: prepares scenes in a process of its own, renders them with the kernels.

The only module of the server that meets workers.prepare and workers.kernels, and it imports them late: the gate opens
before numba is loaded.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dr.errors import DrError
from dr.protocol.messages import CHANNEL_WIDTHS, BucketWork
from dr.protocol.tiles import layer_count
from workers.prepare.__main__ import Job
from workers.prepare.child import PrepareProcess
from workers.prepare.shared import SharedScene, remove_unused
from workers.server.engine import CancelFlag, Film, Say
from workers.server.inside import PrepareJob

FILM_PLANES = sum(CHANNEL_WIDTHS.values())


@dataclass
class KernelScene:
    """A mapped scene and its use of the shared file."""

    prepared: Any  # workers.prepare.scene_file.Prepared
    shared: SharedScene

    def close(self) -> None:
        """The file may go; the mapping lives as long as a render thread holds this object."""
        self.shared.close()


class KernelEngine:
    def __init__(self, scenes: Path, threads: int) -> None:
        """`scenes`: the folder of prepared files that the servers of this host share."""
        self.scenes = scenes
        self.threads = threads
        self._lock = threading.Lock()
        self._waiting: PrepareProcess | None = None
        self._busy: PrepareProcess | None = None
        self._ticket = 0  # of the job that keeps it busy
        self._closed = False
        remove_unused(scenes)

    def start(self) -> None:
        with self._lock:
            if not self._closed and (self._waiting is None or not self._waiting.alive):
                with suppress(OSError):  # no memory, no process: the job tries again and says why it cannot
                    self._waiting = PrepareProcess()

    def warm_up(self, say: Say) -> None:
        from workers.prepare.warmup import warm_up

        warm_up(say)

    def prepare(self, job: PrepareJob, say: Say) -> KernelScene:
        from workers.prepare.scene_file import open_scene

        shared = self._prepare_file(job, say)
        try:
            return KernelScene(open_scene(shared.path, job.settings), shared)
        except BaseException:
            shared.close()
            raise

    def _prepare_file(self, job: PrepareJob, say: Say) -> SharedScene:
        child = self._take_child(job.ticket)
        try:
            child.run(
                Job(
                    files=job.files,
                    main=job.main,
                    settings=job.settings,
                    folder=str(self.scenes),
                    key=job.key,
                    threads=self.threads,
                ),
                say,
            )
            return SharedScene(self.scenes, job.key)  # before the child lets go of it
        finally:
            with self._lock:
                self._busy = None
            child.close()

    def _take_child(self, ticket: int) -> PrepareProcess:
        with self._lock:
            if self._closed:
                raise DrError("the server is stopping")
            self._busy = self._waiting if self._waiting and self._waiting.alive else PrepareProcess()
            self._waiting, self._ticket = None, ticket
            return self._busy

    def abandon(self, ticket: int) -> None:
        with self._lock:
            if self._busy and self._ticket == ticket:
                self._busy.kill()

    def render(self, scene: KernelScene, bucket: BucketWork, cancel: CancelFlag) -> Film | None:
        from workers.kernels import bucket as kernels

        door: Any = kernels.render_bucket
        film = np.empty((layer_count(bucket), bucket.height, bucket.width, FILM_PLANES), np.float32)
        area = (bucket.x, bucket.y, bucket.width, bucket.height)
        samples = (bucket.sample_begin, bucket.sample_end)
        status = door(scene.prepared.record, *area, *samples, film, cancel)
        return None if status == kernels.CANCELLED else film

    def close(self) -> None:
        with self._lock:
            self._closed = True
            children = [child for child in (self._waiting, self._busy) if child]
            for child in children:
                child.kill()
            waiting, self._waiting = self._waiting, None
        if waiting:
            waiting.close()
