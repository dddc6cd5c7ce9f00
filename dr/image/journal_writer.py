"""Appends tiles to a journal from a thread of its own, and brings them to the disk in groups. Knows no file's name."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from io import FileIO
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import TypeAlias

from dr.image.journal_file import reason
from dr.image.journal_format import encode_tile
from dr.protocol.envelope import Payload
from dr.protocol.messages import BucketWork

GROUP_S = 1.0  # how long what is written may wait to be brought to the disk
QUEUE_BYTES = 256 << 20  # pixels that may wait to be written: two seconds of 2,000 tiles a second

log = logging.getLogger("dr.journal")

_Tile: TypeAlias = tuple[BucketWork, Payload]


class Writer:
    """Writes at once what it is given, from `position` on, and waits for the disk at most once in GROUP_S.

    What comes while QUEUE_BYTES wait is left out: tiles do not depend on each other, so that one that is missing costs
    its own time in a resume, whereas waiting would stop the farm and a longer queue would eat the memory.
    """

    def __init__(self, file: FileIO, nonce: bytes, position: int) -> None:
        self.fault = ""  # why nothing more is written
        self.left_out = 0  # tiles that found no room
        self._file = file
        self._nonce = nonce
        self._position = position  # behind the last whole record
        self._is_kept = True
        self._queue: SimpleQueue[_Tile | None] = SimpleQueue()
        self._given_bytes = self._taken_bytes = 0  # each is changed by one thread alone
        self._thread = Thread(target=self._run, name="journal", daemon=True)  # a disk that hangs keeps no process
        file.seek(position)
        self._thread.start()

    def give(self, work: BucketWork, payload: Payload) -> None:
        """Queues a tile; called by one thread. Waits for nothing."""
        size = sum(map(len, payload))
        if self.fault:
            return
        if self._given_bytes - self._taken_bytes + size > QUEUE_BYTES:
            self.left_out += 1
            return
        self._given_bytes += size
        self._queue.put((work, payload))

    def stop(self, keep: bool = True) -> None:
        """Ends the thread: after all that was given is on the disk or, when nobody will `keep` the file, at once."""
        self._is_kept = keep
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._write_groups()
        except Exception as error:  # a thread that dies in silence would leave the queue to fill up
            log.warning("cannot write: %s", reason(error), exc_info=not isinstance(error, OSError))
            self.fault = reason(error)
            self._save_whole_records()
            while not self._queue.empty():  # nobody else takes from it, and what waits keeps its memory
                self._queue.get()

    def _save_whole_records(self) -> None:
        with suppress(OSError):
            self._file.truncate(self._position)
            os.fsync(self._file.fileno())

    def _write_groups(self) -> None:
        due: float | None = None  # when what was written last must be brought to the disk
        while True:
            try:
                tile = self._queue.get(timeout=None if due is None else max(0.0, due - monotonic()))
            except Empty:
                os.fsync(self._file.fileno())
                due = None
                continue
            if tile is None:
                break
            if self._is_kept:
                self._write(*tile)
                due = due or monotonic() + GROUP_S
            if due is not None and monotonic() >= due:
                os.fsync(self._file.fileno())
                due = None
        if self._is_kept:
            os.fsync(self._file.fileno())

    def _write(self, work: BucketWork, payload: Payload) -> None:
        record = encode_tile(self._nonce, self._position, work, payload)
        rest = memoryview(record)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._position += len(record)
        self._taken_bytes += sum(map(len, payload))
