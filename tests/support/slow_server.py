"""`python -m tests.support.slow_server`: a server without kernels that needs minutes for a bucket."""

import sys

from dr.protocol.messages import BucketWork
from tests.support.fake_engine import FakeEngine, FakeScene
from workers.server.__main__ import leave, main
from workers.server.engine import CancelFlag, Film
from workers.server.serving import serve


class SlowEngine(FakeEngine):
    def render(self, scene: FakeScene, bucket: BucketWork, cancel: CancelFlag) -> Film | None:
        return super().render(FakeScene({"bucket_s": 300.0}), bucket, cancel)


if __name__ == "__main__":
    leave(main(sys.argv[1:], lambda options: serve(options, SlowEngine())))
