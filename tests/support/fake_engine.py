"""An engine without kernels: pixels are a formula, the main scene file is JSON that says how to behave.

{"bucket_s": SECONDS per bucket, "broken_buckets": [x, ...] rectangles that raise, "bad": TEXT, "prepare": "hang"}
"""

from __future__ import annotations

import json
import threading
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


def expected_film(bucket: BucketWork) -> Film:
    """Each plane of a pixel depends on its place, its plane and the samples in its layer alone; exact in float32."""
    y, x = np.mgrid[bucket.y : bucket.y + bucket.height, bucket.x : bucket.x + bucket.width]
    pixel = (x * 3 + y * 5)[:, :, None] + np.arange(PLANES)
    layers = layer_count(bucket)
    counts = [bucket.sample_end - bucket.sample_begin] if layers == 1 else [SAMPLE_CHUNK] * layers
    return np.stack([pixel * count for count in counts]).astype(np.float32)


class FakeScene:
    def __init__(self, words: dict[str, Any]) -> None:
        self.words = words

    def close(self) -> None:
        pass


class FakeEngine:
    def __init__(self) -> None:
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
        say("reading the scene")
        if "bad" in words:
            raise BadInput(words["bad"])
        if words.get("prepare") == "hang":
            self.abandoned.wait()
            raise DrError("abandoned")
        return FakeScene(words)

    def abandon(self, ticket: int) -> None:
        self.abandoned.set()

    def render(self, scene: FakeScene, bucket: BucketWork, cancel: CancelFlag) -> Film | None:
        if bucket.x in scene.words.get("broken_buckets", []):
            raise ValueError(f"bucket at {bucket.x} is broken")
        clock, seconds = threading.Event(), scene.words.get("bucket_s", 0.0)
        while seconds > 0 and not cancel[0]:
            clock.wait(min(seconds, 0.002))
            seconds -= 0.002
        return None if cancel[0] else expected_film(bucket)

    def close(self) -> None:
        self.abandoned.set()
