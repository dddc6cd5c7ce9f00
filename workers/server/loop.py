"""Carries out what the state decides: sockets, files, threads and the clock. Knows nothing of buckets."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import zmq

from dr.errors import DrError, Impossible
from dr.scene.assets import Manifest
from workers.prepare.folders import PrivateFolder
from workers.prepare.shared import scene_key
from workers.server import commands as do
from workers.server.engine import Engine, Shelf
from workers.server.events import AssetRefused, AssetSealed, Event, ManifestOpened, StopRequested
from workers.server.gate import Gate
from workers.server.inside import Inside, PrepareJob
from workers.server.preparing import Preparer
from workers.server.renderer import Renderer
from workers.server.state import Identity, ServerState
from workers.server.store import Store
from workers.server.work import Limits

MESSAGES_PER_TURN = 64  # then the other sockets have their turn
RETRY_S = 0.005  # while a peer's pipe is full
STORY_LENGTH = 50  # events that a report of our own bug shows

log = logging.getLogger("dr.server")


class Loop:
    """One server: `run` returns when it was told to stop."""

    def __init__(
        self, identity: Identity, endpoint: str, engine: Engine, folder: PrivateFolder, limits: Limits | None = None
    ) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.state = ServerState(identity, seed=os.urandom(32), limits=limits)
        self.gate = Gate(self.context, endpoint)
        self.inside = Inside(self.context)
        self.folder = folder
        self.store = Store(folder.path)
        self.kernels = identity.kernels
        shelf = Shelf()
        self.preparer = Preparer(engine, shelf, self.inside)
        self.renderer = Renderer(engine, shelf, self.inside, identity.threads)
        self.wake_reader, self.wake_writer = socket.socketpair()
        self.wake_reader.setblocking(False)
        self.wake_writer.setblocking(False)
        self.parent_fd: int | None = None
        self.pending: deque[Event] = deque()
        self.story: deque[str] = deque(maxlen=STORY_LENGTH)
        self.running = True
        self.poller = zmq.Poller()
        for source in (self.gate.socket, self.gate.monitor, self.inside.socket, self.wake_reader.fileno()):
            self.poller.register(source, zmq.POLLIN)

    def watch_parent(self, fd: int) -> None:
        """The end of this stream is the parent's death."""
        self.parent_fd = fd
        self.poller.register(fd, zmq.POLLIN)

    def stop(self) -> None:
        """Asks the loop to end; may be called from any thread and from a signal handler."""
        with suppress(OSError):  # full: it is awake already; closed: it has ended
            self.wake_writer.send(b"\0")

    def run(self, announce: Callable[[str], None]) -> None:
        """Tells `announce` where it may be dialled, and serves."""
        try:
            with self._signals():
                announce(self.gate.endpoint)
                while self.running:
                    self._turn()
        finally:
            self.close()

    def _turn(self) -> None:
        ready = dict(self.poller.poll(self._patience_ms()))
        if self.gate.monitor in ready:
            self.gate.drain_monitor()
        self._hear_orders(ready)
        self.pending.extend(self.gate.send_waiting())
        for receive in (self.inside.receive, self.gate.receive):
            for _ in range(MESSAGES_PER_TURN):
                event = receive()
                if event is None:
                    break
                self.pending.append(event)
                self._settle()
        self._carry_out(self.state.tick(time.monotonic()))
        self._settle()

    def _hear_orders(self, ready: dict[Any, int]) -> None:
        """A signal, `stop`, or the parent's death."""
        if self.wake_reader.fileno() in ready:
            self.wake_reader.recv(4096)
            self.pending.append(StopRequested("told to stop"))
        if self.parent_fd in ready and not os.read(self.parent_fd or 0, 4096):
            self.poller.unregister(self.parent_fd)
            self.pending.append(StopRequested("the parent process is gone"))

    def _patience_ms(self) -> int | None:
        if self.pending:
            return 0
        deadline = self.state.next_deadline()
        waits = [max(0.0, deadline - time.monotonic())] if deadline is not None else []
        waits += [RETRY_S] if self.gate.waiting else []
        return int(min(waits) * 1000) + 1 if waits else None

    def _settle(self) -> None:
        """Lets the state answer all that has happened."""
        while self.pending:
            event = self.pending.popleft()
            self.story.append(repr(event)[:200])
            try:
                self._carry_out(self.state.handle(event, time.monotonic()))
            except Impossible as error:
                raise Impossible(f"{error}; the last events were:\n" + "\n".join(self.story)) from error

    def _carry_out(self, commands: list[do.Command]) -> None:
        for command in commands:
            event = _DEEDS[type(command)](self, command)
            if event is not None:
                self.pending.append(event)

    # -- deeds ----------------------------------------------------------------------------------------------------

    def _send(self, command: do.Send) -> Event | None:
        return self.gate.send(command.peer, command.message, command.payload)

    def _forget_peer(self, command: do.ForgetPeer) -> None:
        log.info("lease ended")
        self.gate.forget(command.peer)

    def _store_chunk(self, command: do.StoreChunk) -> Event | None:
        try:
            self.store.write(command.epoch, command.digest, command.offset, command.data)
        except DrError as error:
            return AssetRefused(command.epoch, str(error))
        return None

    def _seal_asset(self, command: do.SealAsset) -> Event:
        try:
            self.store.seal(command.epoch, command.digest)
        except DrError as error:
            return AssetRefused(command.epoch, str(error))
        return AssetSealed(command.epoch, command.digest)

    def _open_manifest(self, command: do.OpenManifest) -> Event:
        try:
            data = self.store.path(command.epoch, command.digest).read_bytes()
            return ManifestOpened(command.epoch, Manifest.decode(data))
        except (DrError, OSError) as error:
            return AssetRefused(command.epoch, str(error))

    def _prepare_scene(self, command: do.PrepareScene) -> None:
        files = {asset.name: str(self.store.path(command.epoch, asset.digest)) for asset in command.manifest.assets}
        job = PrepareJob(
            epoch=command.epoch,
            key=scene_key(command.key, command.settings, self.kernels),
            main=command.manifest.main,
            files=files,
            settings=command.settings,
        )
        log.info("preparing %s, %d files", job.main, len(files))
        self.preparer.prepare(job)

    def _get_ready(self, command: do.GetReady) -> None:
        self.preparer.get_ready()

    def _drop_frame(self, command: do.DropFrame) -> None:
        self.preparer.drop(command.epoch)
        self.store.drop(command.epoch)

    def _render_bucket(self, command: do.RenderBucket) -> None:
        self.renderer.render(command)

    def _stop_thread(self, command: do.StopThread) -> None:
        self.renderer.stop(command.thread)

    def _exit(self, command: do.Exit) -> None:
        self.running = False

    # -- the process ----------------------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT wake the loop; other threads than the main one cannot ask for that and use `stop`."""

        def wake(number: int, frame: FrameType | None) -> None:
            self.stop()

        try:
            before = {number: signal.signal(number, wake) for number in (signal.SIGTERM, signal.SIGINT)}
            # A signal just before the poll would not be heard: Python's handler runs after it. This byte ends the poll.
            signal.set_wakeup_fd(self.wake_writer.fileno(), warn_on_full_buffer=False)
        except ValueError:
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if before:
                signal.set_wakeup_fd(-1)

    def close(self) -> None:
        """Gives back sockets, files and threads. A thread that is stuck keeps its context and dies with the process."""
        self.gate.close()
        rendered = self.renderer.close()
        prepared = self.preparer.close()
        self.store.close()
        self.folder.close()
        self.inside.close()
        self.wake_reader.close()
        self.wake_writer.close()
        if rendered and prepared:
            self.context.term()


_DEEDS: dict[type, Callable[[Loop, Any], Event | None]] = {
    do.Send: Loop._send,
    do.ForgetPeer: Loop._forget_peer,
    do.StoreChunk: Loop._store_chunk,
    do.SealAsset: Loop._seal_asset,
    do.OpenManifest: Loop._open_manifest,
    do.GetReady: Loop._get_ready,
    do.PrepareScene: Loop._prepare_scene,
    do.DropFrame: Loop._drop_frame,
    do.RenderBucket: Loop._render_bucket,
    do.StopThread: Loop._stop_thread,
    do.Exit: Loop._exit,
}
