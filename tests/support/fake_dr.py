"""`python -m tests.support.fake_dr WORDS`: the real `dr`, whose servers on this host are the ones without kernels."""

import sys

from dr.cli import main
from dr.client import local
from workers.spawner import loop

if __name__ == "__main__":
    local.SERVER_COMMAND = loop.SERVER_COMMAND = (sys.executable, "-m", "tests.support.fake_server")
    sys.exit(main())
