"""A long way between two hosts: a TCP proxy that hands every byte on after a delay. Knows no message.

Bytes keep their order and their rate: whatever has arrived waits, however much it is, and leaves when its time has
come. `python -m tests.support.delay_proxy HOST:PORT ONE_WAY_S [BYTES]` says where it listens and serves until it is
killed. With BYTES it breaks its first connection when it has brought so many from the target.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIECE_BYTES = 1 << 20
END = b""


class Way:
    """One direction of one connection. `waiting`: pieces with the time at which they leave; END closes the way."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.waiting: deque[tuple[float, memoryview]] = deque()
        self.is_over = False
        self.left_bytes = inf  # that it may still hand on; then it breaks

    def take(self, leaves_s: float) -> bool:
        """Takes what has arrived; False at the end of it."""
        try:
            data = self.source.recv(PIECE_BYTES)
        except BlockingIOError:
            return True
        except OSError:  # reset: the other side shall see an end, too
            data = END
        self.waiting.append((leaves_s, memoryview(data)))
        return bool(data)

    def hand_on(self, now: float) -> None:
        """Sends what is due, as far as the target takes it."""
        while self.waiting and self.waiting[0][0] <= now:
            leaves_s, data = self.waiting.popleft()
            if not data:
                self._end()
                return
            if len(data) >= self.left_bytes:
                self._break(data)
                return
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._end()
                return
            self.left_bytes -= sent
            if sent < len(data):
                self.waiting.appendleft((leaves_s, data[sent:]))
                return

    def _break(self, data: memoryview) -> None:
        """Hands on what is allowed, and then there is no connection any more, on either side."""
        self.target.setblocking(True)
        self.target.sendall(data[: int(self.left_bytes)])
        for side in (self.source, self.target):
            side.shutdown(socket.SHUT_RDWR)
        self.is_over = True
        self.waiting.clear()

    def _end(self) -> None:
        self.is_over = True
        self.waiting.clear()
        with suppress(OSError):
            self.target.shutdown(socket.SHUT_WR)


class DelayProxy:
    """One thread calls `run`; each connection to `port` of loopback becomes one to the target."""

    def __init__(self, target: tuple[str, int], one_way_s: float, break_after_bytes: float = inf) -> None:
        self.target = target
        self.one_way_s = one_way_s
        self.break_after_bytes = break_after_bytes  # of the first connection
        self.door = socket.create_server(("127.0.0.1", 0))
        self.door.setblocking(False)
        self.port: int = self.door.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.door, selectors.EVENT_READ)
        self.pairs: list[tuple[Way, Way]] = []

    def run(self) -> None:
        while True:
            for key, _ in self.selector.select(self._patience_s()):
                if key.data is None:
                    self._accept()
                elif not key.data.take(time.monotonic() + self.one_way_s):
                    self.selector.unregister(key.fileobj)
            for pair in list(self.pairs):
                self._serve(pair)

    def _accept(self) -> None:
        near, _ = self.door.accept()
        try:
            far = socket.create_connection(self.target)
        except OSError:
            near.close()
            return
        pair = Way(near, far), Way(far, near)
        pair[1].left_bytes, self.break_after_bytes = self.break_after_bytes, inf
        for way in pair:
            way.source.setblocking(False)
            way.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(way.source, selectors.EVENT_READ, way)
        self.pairs.append(pair)

    def _serve(self, pair: tuple[Way, Way]) -> None:
        now = time.monotonic()
        for way in pair:
            way.hand_on(now)
        if all(way.is_over for way in pair):
            self.pairs.remove(pair)
            for way in pair:
                with suppress(KeyError, ValueError):
                    self.selector.unregister(way.source)
                way.source.close()

    def _patience_s(self) -> float | None:
        """Until the next piece is due; a target that is full is tried again soon."""
        due = [way.waiting[0][0] for pair in self.pairs for way in pair if way.waiting]
        return max(0.0005, min(due) - time.monotonic()) if due else None


@contextmanager
def far_away(place: str, one_way_s: float, break_after_bytes: float = inf) -> Iterator[str]:
    """A proxy in a process of its own before HOST:PORT; gives HOST:PORT of its door."""
    words = [sys.executable, "-m", "tests.support.delay_proxy", place, str(one_way_s), str(break_after_bytes)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def main(place: str, *numbers: str) -> None:
    host, _, port = place.rpartition(":")
    proxy = DelayProxy((host, int(port)), *map(float, numbers))
    print(f"127.0.0.1:{proxy.port}", flush=True)
    proxy.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
