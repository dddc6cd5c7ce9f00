"""Decides about frames, buckets and render threads while one client holds the server. Knows no clock and no socket.

Render threads are numbers: idle, or running one bucket. A thread outlives leases and frames: a bucket that nobody wants
any more keeps its thread until the kernel has noticed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from dr.errors import Impossible, ProtocolError
from dr.protocol.envelope import Payload
from dr.protocol.messages import (
    Bucket,
    BucketWork,
    Cancel,
    Chunk,
    Failed,
    Get,
    Progress,
    Ready,
    ServerMessage,
    Setup,
    Tile,
)
from dr.scene.assets import Asset
from workers.server import commands as do
from workers.server import events as seen
from workers.server.frame import Frame, FrameState
from workers.server.rate import Rate
from workers.server.threads import Running, Threads

MAX_FRAMES = 2
ERROR_CHARS = 2000


class Limits(Struct, frozen=True, kw_only=True):
    """Patience, and what an admitted client may cost this server."""

    beat_s: float = 0.25
    dead_s: float = 3.0  # without a word from the holder, or from one who waits
    setup_s: float = 30.0  # a lease without a frame
    drain_s: float = 4.0  # for running buckets, after a request to stop
    bucket_s: float = 24 * 3600.0
    stuck_s: float = 10.0  # a kernel gives up within a pixel row
    waiters: int = 64
    queued_buckets: int = 65536
    scene_bytes: int = 1 << 40


class Owner(Struct, frozen=True):
    """Whom all this work is for."""

    peer: bytes
    lease: bytes
    name: str = ""


class Work:
    """All that happens under a lease. Commands are appended to `out`, in the order to carry out."""

    def __init__(self, threads: int, limits: Limits, out: list[do.Command]) -> None:
        self.threads = Threads(threads, limits.stuck_s)
        self.limits = limits
        self.out = out
        self.owner: Owner | None = None
        self.frames: dict[int, Frame] = {}  # by epoch, oldest first
        self.queue: deque[tuple[Frame, BucketWork]] = deque()
        self.empty_since_s = 0.0  # when there was a frame last
        self.warm = False
        self.kernels_error = ""
        self.draining = False
        self.rendered = 0  # tiles, since the process began
        self.rendered_before = 0  # of them before this lease
        self.rate = Rate()  # of tiles
        self.tile_s: float | None = None  # when the last tile of this lease was sent

    def begin(self, owner: Owner, now: float) -> None:
        self.owner = owner
        self.rendered_before = self.rendered
        self.tile_s = None
        self.empty_since_s = now

    def end(self, now: float) -> None:
        """Nothing of the lease stays: frames and buckets are dropped, kernels stopped."""
        for frame in list(self.frames.values()):
            self._drop_frame(frame, now)
        self.owner = None

    def drain(self) -> None:
        """Takes nothing new from now on; what runs may end."""
        self.draining = True
        self.queue.clear()

    def tick(self, now: float) -> bool:
        """What the time asks for. Whether a render thread turned out to be stuck."""
        for thread, run in self.threads.running.items():
            if run.wanted and now >= run.begun_s + self.limits.bucket_s:
                self._stop(thread, run, now)
                self._fail_bucket(run.frame, run.bucket, f"took longer than {self.limits.bucket_s:g} s")
        stuck = self.threads.find_stuck(now)
        for thread in stuck:
            text = f"was to stop {self.limits.stuck_s:g} s ago, and its kernel goes on: thread {thread} is stuck"
            self._log_run(self.threads.running[thread], text, do.Level.WARNING)
        return bool(stuck)

    def next_deadline(self) -> float | None:
        running = self.threads.running.values()
        deadlines = [run.begun_s + self.limits.bucket_s for run in running if run.wanted]
        stuck_s = self.threads.next_deadline()
        return min([*deadlines, *([] if stuck_s is None else [stuck_s])], default=None)

    def check(self) -> None:
        """Raises Impossible when this state cannot be."""
        queued = {id(frame) for frame, _ in self.queue}
        ready = {id(frame) for frame in self.frames.values() if frame.state is FrameState.READY}
        idle, running, stuck = self.threads.idle, self.threads.running, self.threads.stuck
        threads = [*idle, *running]
        live = (self.frames.get(run.frame.epoch) is run.frame for run in running.values() if run.wanted)
        proofs = {
            "without a lease there is no frame": self.owner is not None or not self.frames,
            "at most two frames live": len(self.frames) <= MAX_FRAMES,
            "only buckets of ready frames wait": queued <= ready,
            "a thread is idle or running one bucket": len(set(threads)) == len(threads) <= self.threads.count,
            "a thread is stuck with a bucket that nobody wants": not any(running[each].wanted for each in stuck),
            "no bucket waits beside an idle thread": not (self.queue and idle),
            "every wanted bucket belongs to a live frame": all(live),
        }
        for proof, holds in proofs.items():
            if not holds:
                raise Impossible(f"server work: expected that {proof}")

    # -- frames ---------------------------------------------------------------------------------------------------

    def setup(self, setup: Setup, payload: Payload, now: float) -> None:
        if setup.epoch in self.frames or self.draining:
            return
        if len(self.frames) >= MAX_FRAMES:
            self._drop_frame(next(iter(self.frames.values())), now)
        frame = self.frames[setup.epoch] = Frame(setup)
        frame.begun_s = now
        frame.fetching.want([(setup.manifest, setup.manifest_bytes)])
        picture = setup.settings
        self._log(frame, f"set up, {picture.width}x{picture.height}, {picture.samples} samples")
        self._ask(frame)

    def _ask(self, frame: Frame) -> None:
        for part in frame.fetching.next_parts():
            self._tell(frame, Get, digest=part.digest, offset=part.offset, n=part.n)

    def chunk(self, chunk: Chunk, payload: Payload, now: float) -> None:
        frame = self.frames.get(chunk.epoch)
        if frame is None:
            return
        if chunk.missing:
            self._fail_frame(frame, f"{frame.asset_name(chunk.digest)}: {chunk.missing}", True, now)
            return
        data = b"".join(payload)
        complete = frame.fetching.receive(chunk.digest, chunk.offset, len(data))
        self.out.append(do.StoreChunk(frame.epoch, chunk.digest, chunk.offset, data))
        if complete:
            self.out.append(do.SealAsset(frame.epoch, chunk.digest))
        self._ask(frame)

    def asset_sealed(self, event: seen.AssetSealed, now: float) -> None:
        frame = self.frames.get(event.epoch)
        if frame is None:
            return
        frame.fetching.seal(event.digest)
        if frame.manifest is None:
            self.out.append(do.OpenManifest(frame.epoch, event.digest))
        elif frame.fetching.complete:
            self._prepare(frame, now)

    def asset_refused(self, event: seen.AssetRefused, now: float) -> None:
        frame = self.frames.get(event.epoch)
        if frame:
            self._fail_frame(frame, event.error, False, now)

    def manifest_opened(self, event: seen.ManifestOpened, now: float) -> None:
        frame = self.frames.get(event.epoch)
        if frame is None:
            return
        frame.manifest = event.manifest
        size = sum(asset.size for asset in event.manifest.assets)
        if size > self.limits.scene_bytes:
            error = f"expected a scene of at most {self.limits.scene_bytes} bytes, found {size}"
            self._fail_frame(frame, error, False, now)
            return
        empty = frame.fetching.want((asset.digest, asset.size) for asset in event.manifest.assets)
        self.out += [do.SealAsset(frame.epoch, digest) for digest in empty]
        self._ask(frame)
        if frame.fetching.complete:
            self._prepare(frame, now)

    def _prepare(self, frame: Frame, now: float) -> None:
        if frame.manifest is None:
            raise Impossible(f"frame {frame.epoch}: prepared without a manifest")
        frame.move(FrameState.PREPARING)
        if self.kernels_error:
            self._fail_frame(frame, self.kernels_error, False, now)
            return
        self._log(frame, f"fetched {_count(frame.manifest.assets)} in {now - frame.begun_s:.3f} s")
        frame.begun_s = now
        self.out.append(do.PrepareScene(frame.epoch, frame.digest, frame.manifest, frame.settings))

    def scene_prepared(self, event: seen.ScenePrepared, now: float) -> None:
        frame = self.frames.get(event.epoch)
        if frame:
            frame.prepared = True
            self._log(frame, f"prepared in {now - frame.begun_s:.3f} s")
            self._announce_ready(frame)

    def _announce_ready(self, frame: Frame) -> None:
        if frame.prepared and self.warm and frame.state is FrameState.PREPARING:
            frame.move(FrameState.READY)
            self._tell(frame, Ready)

    def preparation_failed(self, event: seen.PreparationFailed, now: float) -> None:
        frame = self.frames.get(event.epoch)
        if frame:
            self._fail_frame(frame, event.error, event.fatal, now)

    def preparation_progressed(self, event: seen.PreparationProgressed, now: float) -> None:
        frame = self.frames.get(event.epoch)
        if frame:
            self._tell(frame, Progress, text=event.text[:ERROR_CHARS])

    def kernels_warmed(self, event: seen.KernelsWarmed, now: float) -> None:
        self.warm = True
        for frame in self.frames.values():
            self._announce_ready(frame)

    def kernels_refused(self, event: seen.KernelsRefused, now: float) -> None:
        self.kernels_error = event.error
        for frame in list(self.frames.values()):
            self._fail_frame(frame, event.error, False, now)

    def kernels_progressed(self, event: seen.KernelsProgressed, now: float) -> None:
        for frame in self.frames.values():
            self._tell(frame, Progress, text=event.text[:ERROR_CHARS])

    def _fail_frame(self, frame: Frame, error: str, fatal: bool, now: float) -> None:
        self._log(frame, f"failed: {_line(error)}")
        self._tell(frame, Failed, error=error[:ERROR_CHARS], fatal=fatal)
        self._drop_frame(frame, now)

    def _drop_frame(self, frame: Frame, now: float) -> None:
        del self.frames[frame.epoch]
        self.queue = deque((owner, bucket) for owner, bucket in self.queue if owner is not frame)
        for thread, run in self.threads.running.items():
            if run.frame is frame and run.wanted:
                self._stop(thread, run, now)
        self.out.append(do.DropFrame(frame.epoch))
        self.empty_since_s = now

    # -- buckets --------------------------------------------------------------------------------------------------

    def bucket(self, message: Bucket, payload: Payload, now: float) -> None:
        frame = self.frames.get(message.epoch)
        if frame is None or self.draining:
            return
        if frame.state is not FrameState.READY:
            raise ProtocolError(f"bucket: frame {frame.epoch} is {frame.state}, wait for `ready`")
        if len(self.queue) + len(message.buckets) > self.limits.queued_buckets:
            raise ProtocolError(f"bucket: expected at most {self.limits.queued_buckets} buckets waiting")
        for bucket in message.buckets:
            fault = frame.fault(bucket)
            if fault:
                self._fail_bucket(frame, bucket, fault)
            else:
                self.queue.append((frame, bucket))

    def start_buckets(self, now: float) -> None:
        while self.queue and self.threads.idle:
            frame, bucket = self.queue.popleft()
            thread = self.threads.idle.pop()
            run = self.threads.running[thread] = Running(frame, bucket, self._client, now)
            self.out.append(do.RenderBucket(thread, frame.epoch, bucket, frame.channels))
            self._log_run(run, f"started on thread {thread}")

    def cancel(self, cancel: Cancel, payload: Payload, now: float) -> None:
        frame = self.frames.get(cancel.epoch)
        if frame is None:
            return
        unwanted = set(cancel.buckets)
        self.queue = deque(
            (owner, bucket) for owner, bucket in self.queue if owner is not frame or bucket.id not in unwanted
        )
        for thread, run in self.threads.running.items():
            if run.frame is frame and run.wanted and run.bucket.id in unwanted:
                self._stop(thread, run, now)

    def _stop(self, thread: int, run: Running, now: float) -> None:
        run.stopped_s = now
        self.out.append(do.StopThread(thread))

    def thread_started(self, event: seen.ThreadStarted, now: float) -> None:
        self.threads.idle.append(event.thread)

    def _free_thread(self, thread: int, now: float) -> Running:
        """The thread is idle again; gives what it was doing. A bucket that nobody waits for has its last line here."""
        stuck = thread in self.threads.stuck
        run = self.threads.free(thread)
        if run.stopped_s is not None:
            late = f" after {now - run.stopped_s:.3f} s: thread {thread} can render again" if stuck else ""
            self._log_run(run, f"stopped{late}", do.Level.WARNING if stuck else do.Level.DETAIL)
        return run

    def tile_rendered(self, event: seen.TileRendered, now: float) -> None:
        run = self._free_thread(event.thread, now)
        if run.wanted:
            self.rendered += 1
            self.rate.add(now)
            self.tile_s = now
            fields = {"bucket": run.bucket, "channels": list(run.frame.channels), "seconds": event.seconds}
            self._tell(run.frame, Tile, event.payload, **fields)
            self._log_run(run, f"done in {event.seconds:.3f} s")

    def bucket_stopped(self, event: seen.BucketStopped, now: float) -> None:
        run = self._free_thread(event.thread, now)
        if run.wanted:  # never asked to stop: nobody else would tell the client
            self._fail_bucket(run.frame, run.bucket, "the render thread gave it up")

    def bucket_failed(self, event: seen.BucketFailed, now: float) -> None:
        run = self._free_thread(event.thread, now)
        if run.wanted:
            self._fail_bucket(run.frame, run.bucket, event.error)

    def _fail_bucket(self, frame: Frame, bucket: BucketWork, error: str) -> None:
        self.out.append(do.Log(f"{_describe(bucket)} of {self._client}: failed: {_line(error)}"))
        self._tell(frame, Failed, bucket=bucket.id, error=error[:ERROR_CHARS])

    @property
    def _client(self) -> str:
        return self.owner.name if self.owner else "nobody"

    def _log(self, frame: Frame, text: str) -> None:
        self.out.append(do.Log(f"frame {frame.epoch:012x} of {self._client}: {text}"))

    def _log_run(self, run: Running, text: str, level: do.Level = do.Level.DETAIL) -> None:
        self.out.append(do.Log(f"{_describe(run.bucket)} of {run.client}: {text}", level))

    def _tell(self, frame: Frame, kind: Callable[..., ServerMessage], payload: Payload = (), **fields: Any) -> None:
        """Says something about a frame to the owner."""
        if self.owner:
            message = kind(lease=self.owner.lease, epoch=frame.epoch, **fields)
            self.out.append(do.Send(self.owner.peer, message, payload))


def _describe(work: BucketWork) -> str:
    """`bucket 7 (16x16 at 32,48, samples 0-16)`"""
    samples = f"{work.sample_begin}-{work.sample_end}"
    return f"bucket {work.id} ({work.width}x{work.height} at {work.x},{work.y}, samples {samples})"


def _line(error: str) -> str:
    return " ".join(error[:ERROR_CHARS].split())


def _count(assets: Sequence[Asset]) -> str:
    """`3 files, 1.2 MB`"""
    size = sum(asset.size for asset in assets)
    return f"{len(assets)} file{'s' if len(assets) != 1 else ''}, {size / 1e6:.1f} MB"
