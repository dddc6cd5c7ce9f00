"""`python -m tests.support.fake_dr WORDS`: the real `dr`, whose servers on this host are the ones without kernels."""

import sys
from functools import partial

from dr.cli import main
from dr.client import local
from workers.spawner import loop

if __name__ == "__main__":
    local.SERVER_COMMAND = loop.SERVER_COMMAND = (sys.executable, "-m", "tests.support.fake_server")
    if sys.argv[1:2] == ["serve"]:
        from tests.support.fake_engine import FakeEngine
        from workers.server import serving

        serving.serve = partial(serving.serve, engine=FakeEngine())
    sys.exit(main())
