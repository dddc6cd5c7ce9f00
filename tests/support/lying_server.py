"""`python -m tests.support.lying_server`: a server without kernels, one of whose pixels is not what it should be."""

import sys

from dr.protocol.messages import BucketWork
from tests.support.fake_engine import FakeEngine, FakeScene
from workers.server.__main__ import leave, main
from workers.server.engine import CancelFlag, Film
from workers.server.serving import serve


class LyingEngine(FakeEngine):
    def render(self, scene: FakeScene, bucket: BucketWork, cancel: CancelFlag) -> Film | None:
        film = super().render(scene, bucket, cancel)
        if film is not None and (bucket.x, bucket.y) == (0, 0):
            film[:, 3, 5, 0] += 8
        return film


if __name__ == "__main__":
    leave(main(sys.argv[1:], lambda options: serve(options, LyingEngine())))
