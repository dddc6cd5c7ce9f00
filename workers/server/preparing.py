"""Two threads that get a server ready: one warms the kernels up, one prepares scenes. Knows no client and no bucket."""

from __future__ import annotations

import logging
import threading

from dr.errors import BadInput, DrError
from workers.server.engine import Engine, Shelf
from workers.server.events import (
    KernelsProgressed,
    KernelsRefused,
    KernelsWarmed,
    PreparationFailed,
    PreparationProgressed,
    ScenePrepared,
)
from workers.server.inside import Inside, Leave, Line, PrepareJob

JOIN_S = 0.2

log = logging.getLogger("dr.server")


class Preparer:
    """Its methods belong to the loop's thread."""

    def __init__(self, engine: Engine, shelf: Shelf, inside: Inside) -> None:
        self.engine = engine
        self.shelf = shelf
        self.inside = inside
        self.threads = [
            threading.Thread(target=run, args=(inside.line(name),), name=name, daemon=True)
            for name, run in (("warm-up", self._warm_up), ("prepare", self._run))
        ]
        for thread in self.threads:
            thread.start()

    def get_ready(self) -> None:
        self.engine.start()

    def prepare(self, job: PrepareJob) -> None:
        self.shelf.expect(job.epoch)
        self.inside.send("prepare", job)

    def drop(self, epoch: int) -> None:
        if self.shelf.drop(epoch):
            self.engine.abandon()

    def close(self) -> bool:
        """Ends both threads; False when one is still busy."""
        self.shelf.clear()
        self.inside.send("prepare", Leave())
        self.engine.close()
        for thread in self.threads:
            thread.join(JOIN_S)
        return not any(thread.is_alive() for thread in self.threads)

    def _warm_up(self, line: Line) -> None:
        try:
            self.engine.warm_up(lambda text: line.send(KernelsProgressed(text)))
            line.send(KernelsWarmed())
        except DrError as error:
            line.send(KernelsRefused(str(error)))
        except Exception as error:
            log.exception("kernels failed")
            line.send(KernelsRefused(f"kernels: {type(error).__name__}: {error}"))
        line.close()

    def _run(self, line: Line) -> None:
        while isinstance(job := line.receive(), PrepareJob):
            if self.shelf.wants(job.epoch):
                self._prepare_one(job, line)
        line.close()

    def _prepare_one(self, job: PrepareJob, line: Line) -> None:
        try:
            scene = self.engine.prepare(job, lambda text: line.send(PreparationProgressed(job.epoch, text)))
            if self.shelf.put(job.epoch, scene):
                line.send(ScenePrepared(job.epoch))
        except BadInput as error:
            line.send(PreparationFailed(job.epoch, str(error), fatal=True))
        except DrError as error:
            line.send(PreparationFailed(job.epoch, str(error), fatal=False))
        except Exception as error:
            log.exception("preparation failed")
            line.send(PreparationFailed(job.epoch, f"{type(error).__name__}: {error}", fatal=False))
