"""Two threads that get a server ready: one warms the kernels up, one prepares scenes. Knows no client and no bucket."""

from __future__ import annotations

import logging
import threading

from msgspec.structs import replace

from dr.errors import BadInput, DrError
from workers.server.engine import Engine, Shelf
from workers.server.events import (
    KernelsProgressed,
    KernelsRefused,
    KernelsWarmed,
    PreparationFailed,
    PreparationProgressed,
    PreparingEvent,
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
        self.inside.send("prepare", replace(job, ticket=self.shelf.expect(job.epoch)))

    def drop(self, epoch: int) -> None:
        ticket = self.shelf.drop(epoch)
        if ticket is not None:
            self.engine.abandon(ticket)

    def close(self) -> bool:
        """Ends both threads; False when one is still busy."""
        self.shelf.clear()
        self.inside.send("prepare", Leave())
        self.engine.close()
        for thread in self.threads:
            thread.join(JOIN_S)
        return not any(thread.is_alive() for thread in self.threads)

    def _warm_up(self, line: Line) -> None:
        said: list[str] = []

        def say(text: str) -> None:
            if not said:  # one line for the log, however many steps there are
                log.info("not ready yet: %s", text)
            said.append(text)
            line.send(KernelsProgressed(text))

        try:
            self.engine.warm_up(say)
            if said:
                log.info("the kernels are ready")
            line.send(KernelsWarmed())
        except DrError as error:
            log.error("this machine cannot render: %s", error)
            line.send(KernelsRefused(str(error)))
        except Exception as error:
            log.exception("kernels failed")
            line.send(KernelsRefused(f"kernels: {type(error).__name__}: {error}"))
        line.close()

    def _run(self, line: Line) -> None:
        while isinstance(job := line.receive(), PrepareJob):
            if self.shelf.wants(job.epoch, job.ticket):
                self._prepare_one(job, line)
        line.close()

    def _prepare_one(self, job: PrepareJob, line: Line) -> None:
        def tell(event: PreparingEvent) -> None:
            if self.shelf.wants(job.epoch, job.ticket):  # else its frame is gone, and another may have its epoch
                line.send(event)

        try:
            scene = self.engine.prepare(job, lambda text: tell(PreparationProgressed(job.epoch, text)))
            if self.shelf.put(job.epoch, job.ticket, scene):
                tell(ScenePrepared(job.epoch))
        except BadInput as error:
            tell(PreparationFailed(job.epoch, str(error), fatal=True))
        except DrError as error:
            tell(PreparationFailed(job.epoch, str(error), fatal=False))
        except Exception as error:
            log.exception("preparation failed")
            tell(PreparationFailed(job.epoch, f"{type(error).__name__}: {error}", fatal=False))
