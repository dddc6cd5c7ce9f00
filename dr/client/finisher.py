"""Writes pictures while the next ones are rendered: a thread of its own. Knows jobs; knows no bucket and no server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

from dr.errors import BadInput

Job: TypeAlias = Callable[[], object]

log = logging.getLogger("dr.client")


class Finisher:
    """Does one job after the other. Called from one thread but for `_run`."""

    def __init__(self) -> None:
        self.failures: list[str] = []  # what the jobs could not write
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._error: BaseException | None = None  # of ours
        self._thread: threading.Thread | None = None

    @property
    def backlog(self) -> int:
        """How many jobs are waiting or being done."""
        with self._lock:
            return self._waiting

    def put(self, job: Job) -> None:
        """A job may raise BadInput, which is kept in `failures`."""
        with self._lock:
            self._waiting += 1
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="finisher", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Waits for every job. Raises what was our own bug in one of them."""
        if self._thread:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        if self._error:
            raise self._error

    def _run(self) -> None:
        while job := self._jobs.get():
            try:
                job()
            except BadInput as error:
                log.warning("%s", error)
                self.failures.append(str(error))
            except Exception as error:  # the loop's thread must hear of it
                log.exception("a picture could not be finished")
                self._error = self._error or error
            finally:
                with self._lock:
                    self._waiting -= 1
