"""`python -m bench.timed_server`: the real render server, whose threads wait as long as samples take them.

Knows no kernel. `rate` in the words for its engine (FAULTS of tests.support.fake_server): samples a second of a thread.
So a server can be ten times slower than another, and 2 CPUs are enough for a farm.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

from dr.protocol.messages import BucketWork
from tests.support.fake_engine import FakeEngine, FakeScene, expected_film
from tests.support.fake_server import FAULTS
from workers.server.__main__ import leave, main
from workers.server.engine import CancelFlag, Film
from workers.server.serving import serve

LOOK_S = 0.005  # between two looks at the flag that cancels, as a kernel looks after each row of pixels


class TimedEngine(FakeEngine):
    """A bucket takes its samples by the rate; computing the pixels that it gives is within that time."""

    def render(self, scene: FakeScene, bucket: BucketWork, cancel: CancelFlag) -> Film | None:
        begun = time.monotonic()
        samples = bucket.width * bucket.height * (bucket.sample_end - bucket.sample_begin)
        ends = begun + samples / scene.words["rate"]
        film, clock = expected_film(bucket, scene.frame), threading.Event()
        while not cancel[0] and (left_s := ends - time.monotonic()) > 0:
            clock.wait(min(left_s, LOOK_S))
        return None if cancel[0] else film


if __name__ == "__main__":
    words = json.loads(os.environ.get(FAULTS, "{}"))
    leave(main(sys.argv[1:], lambda options: serve(options, TimedEngine(words))))
