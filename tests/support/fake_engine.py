"""An engine without kernels: pixels are a formula, the main scene file is JSON that says how to behave.

{"bucket_s": SECONDS per bucket, "broken_buckets": [x, ...] rectangles that raise, "bad": TEXT, "prepare": "hang",
 "raises": TEXT in each bucket, "hangs": COUNT of buckets, the first ones, that never end, whoever cancels them,
 "hangs_at", "kills_at": [[x, y], ...] pixels whose bucket never ends, or kills the process,
 "held": {"from_y": Y, "until": PATH} buckets from this row on, which end when there is such a file}

Words that the engine was made with win over those of the scene: one server of a farm may behave otherwise.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from dr.errors import BadInput, DrError
from dr.protocol.messages import CHANNEL_WIDTHS, BucketWork
from dr.protocol.tiles import layer_count
from dr.protocol.version import SAMPLE_CHUNK
from workers.server.engine import CancelFlag, Film, Say
from workers.server.inside import PrepareJob

PLANES = sum(CHANNEL_WIDTHS.values())


def expected_film(bucket: BucketWork, frame: int = 0) -> Film:
    """Each plane of a pixel depends on place, plane, frame and the samples in its layer alone; exact in float32."""
    y, x = np.mgrid[bucket.y : bucket.y + bucket.height, bucket.x : bucket.x + bucket.width]
    pixel = (x * 3 + y * 5 + frame * 1000)[:, :, None] + np.arange(PLANES)
    layers = layer_count(bucket)
    counts = [bucket.sample_end - bucket.sample_begin] if layers == 1 else [SAMPLE_CHUNK] * layers
    return np.stack([pixel * count for count in counts]).astype(np.float32)


def covers(bucket: BucketWork, pixels: Sequence[tuple[int, int]]) -> bool:
    """Any of them."""
    end_x, end_y = bucket.x + bucket.width, bucket.y + bucket.height
    return any(bucket.x <= x < end_x and bucket.y <= y < end_y for x, y in pixels)


def is_held(bucket: BucketWork, from_y: float = inf, until: str = "") -> bool:
    return bucket.y + bucket.height > from_y and not Path(until).exists()


class FakeScene:
    def __init__(self, words: dict[str, Any], frame: int = 0) -> None:
        self.words = words
        self.frame = frame

    def close(self) -> None:
        pass


class FakeEngine:
    def __init__(self, own: Mapping[str, Any] | None = None) -> None:
        self.own = dict(own or {})
        self.hung = 0
        self.abandoned = threading.Event()

    def start(self) -> None:
        pass

    def warm_up(self, say: Say) -> None:
        say("compiling kernels, first run only: 1 of 1")

    def prepare(self, job: PrepareJob, say: Say) -> FakeScene:
        self.abandoned.clear()
        try:
            words = json.loads(Path(job.files[job.main]).read_bytes())
        except ValueError:
            words = {}
        words = {**words, **self.own}
        say("reading the scene")
        if "bad" in words:
            raise BadInput(words["bad"])
        if words.get("prepare") == "hang":
            self.abandoned.wait()
            raise DrError("abandoned")
        return FakeScene(words, job.settings.frame)

    def abandon(self, ticket: int) -> None:
        self.abandoned.set()

    def render(self, scene: FakeScene, bucket: BucketWork, cancel: CancelFlag) -> Film | None:
        if bucket.x in scene.words.get("broken_buckets", []):
            raise ValueError(f"bucket at {bucket.x} is broken")
        if "raises" in scene.words:
            raise RuntimeError(scene.words["raises"])
        if covers(bucket, scene.words.get("kills_at", [])):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._hangs(scene.words, bucket):
            print(f"a kernel hangs in the bucket at {bucket.x},{bucket.y}", file=sys.stderr, flush=True)
            while True:
                threading.Event().wait()
        clock = threading.Event()
        while is_held(bucket, **scene.words.get("held", {})) and not cancel[0]:
            clock.wait(0.01)
        seconds = scene.words.get("bucket_s", 0.0)
        while seconds > 0 and not cancel[0]:
            clock.wait(min(seconds, 0.002))
            seconds -= 0.002
        return None if cancel[0] else expected_film(bucket, scene.frame)

    def _hangs(self, words: Mapping[str, Any], bucket: BucketWork) -> bool:
        if self.hung < words.get("hangs", 0):
            self.hung += 1
            return True
        return covers(bucket, words.get("hangs_at", []))

    def close(self) -> None:
        self.abandoned.set()
