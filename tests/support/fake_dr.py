"""`python -m tests.support.fake_dr WORDS`: the real `dr`, whose local servers are the ones without kernels."""

import sys

from dr.cli import main
from dr.client import local

if __name__ == "__main__":
    local.SERVER_COMMAND = (sys.executable, "-m", "tests.support.fake_server")
    sys.exit(main())
