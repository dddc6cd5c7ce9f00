"""A render server as a real process, and a client that speaks to it word by word. Every wait has a deadline."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import zmq

from dr.protocol.envelope import join, split_server
from dr.protocol.messages import (
    Announcement,
    AnyMessage,
    Beat,
    Bucket,
    BucketWork,
    Bye,
    Channel,
    Chunk,
    Get,
    Grant,
    Hello,
    Kind,
    Ping,
    Progress,
    Ready,
    ServerStatus,
    Setup,
    Tile,
    Welcome,
)
from dr.protocol.tiles import Pixels, unpack
from dr.scene.assets import Manifest
from dr.scene.model import RenderSettings
from tests.support.serving import digest_of, manifest_of
from workers.server.words import read_report

T = TypeVar("T")
FAKE = (sys.executable, "-m", "tests.support.fake_server")
REAL = (sys.executable, "-m", "workers.server")
ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0  # a loaded machine is slow, not broken
SETTINGS = RenderSettings(width=256, height=128, samples=32)
CHANNELS = [Channel.BEAUTY, Channel.ALPHA, Channel.OBJECT_ID]


class ServerProcess:
    """Use as a context manager; `folder` is private and holds the Unix socket and all caches."""

    def __init__(self, folder: Path, *words: str, command: tuple[str, ...] = FAKE, **environment: str) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        self.words = [*command, *(words or ("--endpoint", f"ipc://{folder}/gate"))]
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), **environment}
        self.unread = b""  # of its stdout

    def __enter__(self) -> ServerProcess:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            self.words, stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment, cwd=ROOT
        )
        return self

    def __exit__(self, *reason: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        """The next line of its stdout, without its end; "" when it has ended."""
        assert self.process.stdout
        while b"\n" not in self.unread:
            assert select.select([self.process.stdout], [], [], PATIENCE_S)[0], "the server says nothing"
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return ""
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        return line.decode()

    def endpoint(self) -> str:
        """Waits until the server listens."""
        line = self.line()
        assert line.startswith("listening on "), line or self.process.communicate()[1].decode()
        return line.removeprefix("listening on ")

    def report(self) -> Announcement:
        """The next change of state that a supervised server tells."""
        line = self.line()
        report = read_report(line)
        assert report, f"expected a report, found {line!r}"
        return report


class RawClient:
    """A DEALER that knows nothing by itself: each test writes its own conversation."""

    def __init__(self, endpoint: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.reconnect_ivl = -1
        self.socket.sndtimeo = 1000
        self.prepare()
        self.socket.connect(endpoint)
        self.progress: list[str] = []  # what the server said while it prepared

    def prepare(self) -> None:
        """Sets what must be set before the socket connects."""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *reason: object) -> None:
        self.socket.close(0)
        self.context.term()

    def say(self, message: AnyMessage, payload: tuple[bytes, ...] = ()) -> None:
        """A server that is gone hears nothing: its connection takes no words any more."""
        with suppress(zmq.Again):
            self.socket.send_multipart(join(message, payload))

    def hear(self, *kinds: type[T], within_s: float = PATIENCE_S) -> T:
        """The next message of one of these kinds; others on the way are dropped."""
        message, _ = self.hear_payload(*kinds, within_s=within_s)
        return message

    def hear_payload(self, *kinds: type[T], within_s: float = PATIENCE_S) -> tuple[T, tuple[Any, ...]]:
        deadline = time.monotonic() + within_s
        while self.socket.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            message, payload = split_server(self.socket.recv_multipart())
            if isinstance(message, Progress):
                self.progress.append(message.text)
                deadline = time.monotonic() + within_s  # it is at work
            if isinstance(message, Beat):
                self.say(Ping(n=0))  # so are we
            if isinstance(message, kinds):
                return message, payload
        raise AssertionError(f"no {' or '.join(kind.__name__ for kind in kinds)} within {within_s} s")

    def take_lease(self, name: str = "ada") -> bytes:
        self.say(Hello(version=1, want=True, name=name))
        assert self.hear(Welcome)
        return self.hear(Grant).lease

    def set_up(
        self, lease: bytes, files: dict[str, bytes], epoch: int = 1, until: type[Any] = Ready, **fields: Any
    ) -> Any:
        """Sends a frame, its main file first, and serves its assets until the server is ready (or says `until`)."""
        manifest = manifest_of(files, main=next(iter(files)))
        blobs = {digest_of(data): data for data in (*files.values(), manifest.encode())}
        self.say(setup_message(lease, manifest, epoch, **fields))
        while isinstance(heard := self.hear(Get, until), Get):
            chunk = Chunk(lease=lease, epoch=epoch, digest=heard.digest, offset=heard.offset)
            self.say(chunk, (blobs[heard.digest][heard.offset : heard.offset + heard.n],))
        return heard

    def render(self, lease: bytes, *works: BucketWork, epoch: int = 1) -> dict[int, Pixels]:
        """Pixels by bucket id."""
        self.say(Bucket(lease=lease, epoch=epoch, buckets=list(works)))
        tiles = [self.hear_payload(Tile) for _ in works]
        return {tile.bucket.id: unpack(tile.bucket, tile.channels, payload) for tile, payload in tiles}

    def leave(self, lease: bytes, restart: bool = False) -> None:
        self.say(Bye(lease=lease, restart=restart))

    def ask_status(self, **fields: Any) -> tuple[Welcome, ServerStatus]:
        """Watches the farm: no lease, no place in the queue."""
        self.say(Hello(**{"version": 1, "kind": Kind.STATUS, "name": "watcher", **fields}))
        return self.hear(Welcome), self.hear(ServerStatus)


def setup_message(lease: bytes, manifest: Manifest, epoch: int, **fields: Any) -> Setup:
    data = manifest.encode()
    plain = {"manifest": digest_of(data), "manifest_bytes": len(data), "settings": SETTINGS, "channels": CHANNELS}
    return Setup(lease=lease, epoch=epoch, **{**plain, **fields})
