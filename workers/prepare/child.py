"""A server's end of the preparing process: starts it early, gives it a job, hears its answers. Knows no scene."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

from dr.errors import BadInput, DrError
from workers.prepare.__main__ import Answer, Job

PREPARE_S = 3600.0  # longer than any scene takes; a hang ends some day
MAX_LINE_BYTES = 1 << 20


class PrepareProcess:
    """One process, one job. Use: `start` early, `run` once, then `close`; `kill` comes from any thread."""

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-m", "workers.prepare")) -> None:
        words = [*command, "--parent-pid", str(os.getpid())]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def run(self, job: Job, say: Callable[[str], None]) -> None:
        """Returns when the scene is prepared. Raises BadInput when it is bad, DrError when the process failed."""
        stdin = self.process.stdin
        if stdin is None:
            raise DrError("the preparing process has no stdin")
        with suppress(BrokenPipeError):  # it has died already: the answers end, too, and say how
            stdin.write(msgspec.json.encode(job) + b"\n")
            stdin.flush()
        for line in self._lines():
            answer = msgspec.json.decode(line, type=Answer)
            if answer.done:
                return
            if answer.error:
                raise (BadInput if answer.fatal else DrError)(answer.error)
            say(answer.progress)
        raise DrError(f"preparing the scene: the process {self._fate()}")

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        """Lets the process go: the prepared file may be removed from now on."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with suppress(OSError):
                    stream.close()
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _lines(self) -> Iterator[bytes]:
        stdout = self.process.stdout
        if stdout is None:
            return
        deadline = time.monotonic() + PREPARE_S
        partial = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while selector.select(deadline - time.monotonic()):
                data = os.read(stdout.fileno(), 65536)
                if not data or len(partial) > MAX_LINE_BYTES:
                    return
                *lines, partial = (partial + data).split(b"\n")
                yield from lines
        self.kill()
        raise DrError(f"preparing the scene: not done after {PREPARE_S:g} s")

    def _fate(self) -> str:
        try:
            status = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if status < 0:
            name = signal.Signals(-status).name
            return f"was killed by {name}: out of memory, or a file that its decoder cannot bear"
        return f"ended with status {status}"
