"""How fast the farm is: its threads and their measured rates, in samples per second. Knows no bucket and no clock."""

from __future__ import annotations

from dr.broker.buckets import SAMPLES_PER_S
from dr.broker.worker import Worker


class Speed:
    """Sums over the servers that render, kept up to date one by one, so that asking costs nothing."""

    def __init__(self) -> None:
        self.threads = 0
        self._measured_threads = 0
        self._measured_rate = 0.0
        self._counted: dict[bytes, tuple[int, float]] = {}  # boot to threads and rate

    @property
    def typical(self) -> float:
        """Of one thread; a guess before anything was measured."""
        return self._measured_rate / self._measured_threads if self._measured_threads else SAMPLES_PER_S

    @property
    def total(self) -> float:
        """Of all threads; those that were not measured yet count as typical ones."""
        return self.typical * self.threads

    def of(self, worker: Worker) -> float:
        """Of one thread of this server."""
        return worker.pace.rate or self.typical

    def count(self, boot: bytes, worker: Worker) -> None:
        """The server renders, or has another rate than before."""
        rate = worker.pace.rate
        threads, old = self._counted.get(boot, (0, 0.0))
        if old and threads == worker.threads:
            self._measured_rate += threads * (rate - old)
        else:
            self.forget(boot)
            threads = worker.threads
            self.threads += threads
            if rate:
                self._measured_threads += threads
                self._measured_rate += threads * rate
        self._counted[boot] = threads, rate

    def forget(self, boot: bytes) -> None:
        """The server renders no more. One that is not counted is none."""
        threads, rate = self._counted.pop(boot, (0, 0.0))
        self.threads -= threads
        if rate:
            self._measured_threads -= threads
            self._measured_rate -= threads * rate
