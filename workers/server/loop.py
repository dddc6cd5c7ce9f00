"""Carries out what the state decides: sockets, files, threads and the clock. Knows nothing of buckets."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import zmq
from msgspec import Struct
from msgspec.structs import replace

from dr.errors import DrError, Impossible
from dr.protocol.messages import Announcement, Here
from dr.protocol.version import PROTOCOL_VERSION
from dr.scene.assets import Manifest
from workers.prepare.folders import PrivateFolder
from workers.prepare.shared import scene_key
from workers.server import commands as do
from workers.server.dialout import DialOut
from workers.server.dialout_target import Target
from workers.server.engine import Engine, Shelf
from workers.server.events import AssetRefused, AssetSealed, Event, ManifestOpened, RestartRequested
from workers.server.gate import Gate
from workers.server.identity import Identity
from workers.server.inside import Inside, PrepareJob
from workers.server.keeper import Keeper
from workers.server.orders import Orders
from workers.server.parent import Reports, stdout_fd
from workers.server.preparing import Preparer
from workers.server.renderer import Renderer
from workers.server.state import ServerState
from workers.server.store import Store
from workers.server.work import Limits

MESSAGES_PER_TURN = 64  # then the other sockets have their turn
RETRY_S = 0.005  # while a peer's pipe is full
RETRY_REPORT_S = 0.1  # while the parent's is
STORY_LENGTH = 50  # events that a report of our own bug shows

log = logging.getLogger("dr.server")
_LOUDNESS: dict[do.Level, Callable[..., None]] = {
    do.Level.DETAIL: logging.getLogger("dr.server.buckets").info,
    do.Level.INFO: log.info,
    do.Level.WARNING: log.warning,
}


class Ways(Struct, frozen=True, kw_only=True):
    """How clients come to a server, and the keys that they need."""

    endpoint: str
    keeper: Keeper
    targets: Sequence[Target] = ()  # clients that are dialled


class Loop:
    """One server: `run` returns the exit status of its process."""

    def __init__(
        self, identity: Identity, ways: Ways, engine: Engine, folder: PrivateFolder, limits: Limits | None = None
    ) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.state = ServerState(identity, seed=os.urandom(32), limits=limits)
        self.keeper = ways.keeper
        self.keeper.open(self.context)
        self.farm = self.keeper.farm  # whose key our sockets have
        self.gate = self._open_gate(ways.endpoint)
        self.inside = Inside(self.context)
        self.folder = folder
        self.store = Store(folder.path)
        self.identity = identity
        shelf = Shelf()
        self.preparer = Preparer(engine, shelf, self.inside)
        self.renderer = Renderer(engine, shelf, self.inside, identity.threads)
        self.orders = Orders(restarts=identity.supervised)
        self.reports = Reports(stdout_fd())
        self.pending: deque[Event] = deque()
        self.story: deque[str] = deque(maxlen=STORY_LENGTH)
        self.status: int | None = None  # of the process, once it shall end
        self.begun_s = time.monotonic()
        self.poller = zmq.Poller()
        outside = (self.gate.socket, self.gate.monitor, *self.keeper.sources())
        for source in (*outside, self.inside.socket, *self.orders.sources()):
            self.poller.register(source, zmq.POLLIN)
        self.dialout = DialOut(self.context, self.poller, Here(version=PROTOCOL_VERSION, boot=identity.boot))
        self.dialout.dial(ways.targets, self.keeper.security)

    def _open_gate(self, endpoint: str) -> Gate:
        try:
            return Gate(self.context, endpoint, self.keeper.security)
        except BaseException:
            self.keeper.close()
            raise

    def watch_parent(self, fd: int) -> None:
        """The end of this stream is the parent's death."""
        self.orders.watch_parent(fd)
        self.poller.register(fd, zmq.POLLIN)

    def stop(self) -> None:
        """Asks the loop to end; may be called from any thread and from a signal handler."""
        self.orders.stop()

    def run(self, say: Callable[[str], None]) -> int:
        """Tells `say` where it may be dialled, serves, and gives the exit status."""
        # Signals stay orders until all is given back: one that comes late must not kill what cleans up.
        with closing(self.orders), self.orders.signals(), closing(self):
            say(self.gate.endpoint)
            self._carry_out(self.state.tick(time.monotonic()))
            while self.status is None:
                self._turn()
            for way in (self.gate, self.dialout):
                way.say_last_words()
            return self.status

    def _turn(self) -> None:
        ready = dict(self.poller.poll(self._patience_ms()))
        if self.gate.monitor in ready:
            self.gate.drain_monitor()
        self._keep_keys(ready)
        self.pending.extend(self.orders.hear(ready))
        self.reports.send()
        self.pending.extend(self.gate.send_waiting())
        self.pending.extend(self.dialout.turn(ready, time.monotonic()))
        for receive in (self.inside.receive, self.gate.receive, self.dialout.receive):
            for _ in range(MESSAGES_PER_TURN):
                event = receive()
                if event is None:
                    break
                self.pending.append(event)
                self._settle()
        self._carry_out(self.state.tick(time.monotonic()))
        self._settle()

    def _keep_keys(self, ready: Container[Any]) -> None:
        """Lets in who has a key, and acts on keys that have changed."""
        now = time.monotonic()
        self.keeper.answer(ready, now)
        if not self.keeper.look(now):
            return
        clients = {peer: key for peer, key in self.state.clients().items() if not self.dialout.owns(peer)}
        self.pending.extend(self.gate.take_keys(self.keeper.ring, clients))
        self.pending.extend(self.dialout.take_keys(self.keeper.security, now))
        if self.keeper.farm != self.farm and self.gate.guard is not None:
            self.farm = self.keeper.farm
            self._restart_with_new_farm_key()

    def _restart_with_new_farm_key(self) -> None:
        """A bound socket keeps the key that it has: clients with the new one can come when it is bound anew."""
        if self.identity.supervised:
            self.pending.append(RestartRequested("the farm key has changed"))
        else:
            log.warning("the farm key has changed: restart this server, or clients that have the new one cannot come")

    def _patience_ms(self) -> int | None:
        if self.pending:
            return 0
        deadlines = (self.state.next_deadline(), self.keeper.next_deadline(), self.dialout.next_deadline())
        waits = [max(0.0, deadline - time.monotonic()) for deadline in deadlines if deadline is not None]
        waits += [RETRY_S] if self.gate.waiting or self.dialout.waiting else []
        waits += [RETRY_REPORT_S] if self.reports.waiting else []
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

    def _way_to(self, peer: bytes) -> Gate | DialOut:
        return self.dialout if self.dialout.owns(peer) else self.gate

    def _send(self, command: do.Send) -> Event | None:
        return self._way_to(command.peer).send(command.peer, command.message, command.payload)

    def _send_status(self, command: do.SendStatus) -> Event | None:
        """Memory is this process's alone: the one that prepares scenes comes and goes."""
        import psutil  # takes a while, and few ask

        status = replace(
            command.status,
            memory_bytes=psutil.Process().memory_info().rss,
            up_s=time.monotonic() - self.begun_s,
            clock_s=time.time(),
            cache_free_bytes=_free_bytes(self.folder.path),
        )
        return self._way_to(command.peer).send(command.peer, status, ())

    def _report(self, command: do.Report) -> None:
        if self.identity.supervised:
            self.reports.put(
                Announcement(
                    version=PROTOCOL_VERSION,
                    port=int(self.gate.endpoint.rpartition(":")[2]),
                    boot=self.identity.boot,
                    state=command.state,
                    holder=command.holder,
                )
            )

    def _log(self, command: do.Log) -> None:
        _LOUDNESS[command.level]("%s", command.text)

    def _forget_peer(self, command: do.ForgetPeer) -> None:
        self._way_to(command.peer).forget(command.peer)

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
            key=scene_key(command.key, command.manifest.animated, command.settings, self.identity.kernels),
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
        self.status = command.status

    def close(self) -> None:
        """Gives back sockets, files and threads. A thread that is stuck keeps its context and dies with the process."""
        self.gate.close()
        self.dialout.close()
        self.keeper.close()
        rendered = self.renderer.close()
        prepared = self.preparer.close()
        self.store.close()
        self.folder.close()
        self.inside.close()
        if rendered and prepared:
            self.context.term()


def _free_bytes(folder: Path) -> int:
    """How much may still be written on that disk; -1 where that cannot be told."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return -1


_DEEDS: dict[type, Callable[[Loop, Any], Event | None]] = {
    do.Send: Loop._send,
    do.SendStatus: Loop._send_status,
    do.Report: Loop._report,
    do.Log: Loop._log,
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
