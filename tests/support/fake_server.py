"""`python -m tests.support.fake_server`: the real render server with the engine that has no kernels.

SIGUSR1 blocks its loop for ever, SIGUSR2 the whole interpreter; threads of libzmq, and with SIGUSR1 those that render,
live on. FAULTS in the environment: JSON with words for its engine, and with `kernels`, the digest of its code.
"""

import ctypes
import json
import os
import signal
import sys
import threading

from tests.support.fake_engine import FakeEngine
from workers.server.__main__ import leave, main
from workers.server.serving import serve

FAULTS = "FAKE_SERVER_FAULTS"


def block_loop(*_: object) -> None:
    """Signal handlers run in the main thread, which is the loop's."""
    while True:
        threading.Event().wait()


def hold_interpreter(*_: object) -> None:
    """A call through PyDLL keeps the interpreter's lock."""
    while True:
        ctypes.PyDLL(None).pause()


def pose_as(kernels: str) -> None:
    """Says that our code that decides pixels has another digest."""
    from dr.scene import code_digest

    code_digest.code_digest = lambda: kernels  # type: ignore[assignment]


if __name__ == "__main__":
    faults = json.loads(os.environ.get(FAULTS, "{}"))
    signal.signal(signal.SIGUSR1, block_loop)
    signal.signal(signal.SIGUSR2, hold_interpreter)
    if "kernels" in faults:
        pose_as(faults.pop("kernels"))
    leave(main(sys.argv[1:], lambda options: serve(options, FakeEngine(faults))))
