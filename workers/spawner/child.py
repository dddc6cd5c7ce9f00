"""One child process as its parent sees it: whole lines, and the reason of its end. Knows nothing of what lines mean.

Its stdin is a pipe that we hold: when we die, even by kill -9, it reads the end and leaves. It has a process group of
its own, because a terminal's Ctrl-C is the parent's to handle.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

from dr.errors import printable

READ_BYTES = 65536
MAX_LINE_BYTES = 1 << 16  # a longer line is read in pieces
LAST_READS = 64  # of each stream once the process is dead: a grandchild may go on writing for ever
KEPT_LINES = 40


class Child:
    """Raises OSError when the program cannot be started. Start it from the main thread (workers.prepare.lifeline)."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, process_group=0)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdout, self.stderr = self.process.stdout.fileno(), self.process.stderr.fileno()
        for fd in (self.stdout, self.stderr):
            os.set_blocking(fd, False)
        self.last_words: deque[str] = deque(maxlen=KEPT_LINES)  # the parent chooses them; `reason` quotes the last
        self._partial = {self.stdout: b"", self.stderr: b""}

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def status(self) -> int | None:
        """Exit status, minus the number of the signal that killed it, or None while it lives."""
        return self.process.poll()

    def read_lines(self, fd: int) -> tuple[list[str], bool]:
        """(the lines that have arrived on `stdout` or `stderr`, whether that stream has ended). Never waits."""
        data = _read(fd)
        return ([], False) if data is None else (self._split(fd, data), not data)

    def read_rest(self, fd: int) -> list[str]:
        """What a dead process left in a stream."""
        rest: list[str] = []
        for _ in range(LAST_READS):
            data = _read(fd)
            rest += self._split(fd, data or b"")
            if not data:
                break
        return rest

    def _split(self, fd: int, data: bytes) -> list[str]:
        """The lines that are whole now, empty ones left out; what is left over without a line's end is the last one."""
        *lines, partial = (self._partial[fd] + data).split(b"\n")
        if not data or len(partial) > MAX_LINE_BYTES:
            lines, partial = [*lines, partial], b""
        self._partial[fd] = partial
        return [text for line in lines if (text := printable(line.decode("utf-8", "replace").rstrip()))]

    def reason(self) -> str:
        """Why it ended, in words for a person."""
        status = self.process.returncode
        if status == -signal.SIGKILL:
            return "killed by SIGKILL"  # what it said before has nothing to do with that
        if status is None:
            how = "closed its output"
        elif status < 0:
            how = f"killed by {_signal_name(-status)}"
        else:
            how = f"ended with status {status}"
        return f"{how}: {self.last_words[-1]}" if self.last_words else how

    def send_signal(self, number: signal.Signals) -> None:
        """To the process alone; one that has ended hears nothing."""
        with suppress(OSError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """Ends it at once, and whatever it started."""
        if self.status is None:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended by then."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Ends it, if it still lives, and gives back its streams."""
        self.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def _read(fd: int) -> bytes | None:
    """What has arrived, nothing at the end of the stream, None when nothing has arrived yet."""
    try:
        return os.read(fd, READ_BYTES)
    except BlockingIOError:
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names of their own
        return f"signal {number}"
