"""`python -m tests.support.fake_server`: the real render server with the engine that has no kernels."""

import sys

from tests.support.fake_engine import FakeEngine
from workers.server.__main__ import leave, main
from workers.server.serving import serve

if __name__ == "__main__":
    leave(main(sys.argv[1:], lambda options: serve(options, FakeEngine())))
