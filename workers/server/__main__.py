"""`python -m workers.server`: reads the words by which a parent starts a render server. Knows no work."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from dr.errors import BadInput, Impossible, Refused
from dr.settings import DEFAULT_PORT, load_settings, settings_part
from workers.numa.topology import parse_cpus
from workers.prepare.warmup import import_less
from workers.server.serving import ServeOptions, log_to_stderr, serve
from workers.server.work import Limits


def read_options(words: list[str]) -> tuple[ServeOptions, bool]:
    """(options, whether to log everything)"""
    parser = argparse.ArgumentParser(prog="python -m workers.server")
    parser.add_argument("--endpoint", help="ipc://PATH or tcp://HOST:PORT; wins over --bind and --port")
    parser.add_argument("--bind", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="TCP port; 0: any")
    parser.add_argument("--threads", type=int, help="render threads; default: one per usable CPU")
    parser.add_argument("--cpus", help="CPUs to run on, such as 0-3,8")
    parser.add_argument("--name", help="what clients call this server")
    parser.add_argument("--parent-pid", type=int, help="end when this process, our parent, does")
    parser.add_argument("--verbose", action="store_true", help="log every event of the connections")
    found = parser.parse_args(words)
    options = ServeOptions(
        endpoint=found.endpoint,
        bind=found.bind,
        port=found.port,
        threads=found.threads,
        cpus=tuple(sorted(parse_cpus(found.cpus, "--cpus"))) if found.cpus else None,
        name=found.name,
        parent_pid=found.parent_pid,
        limits=settings_part(load_settings(None, os.environ).values, Limits),
    )
    return options, found.verbose


def main(words: list[str], run: Callable[[ServeOptions], int] = serve) -> int:
    try:
        options, verbose = read_options(words)
        log_to_stderr(verbose)
        return run(options)
    except BadInput as error:
        print(f"dr: {error}", file=sys.stderr)
        return 2
    except Refused as error:
        print(f"dr: {error}", file=sys.stderr)
        return 3
    except Impossible as error:
        print(f"dr: our own bug: {error}", file=sys.stderr)
        return 70


def leave(status: int) -> None:
    """Ends the process at once: a render thread inside a kernel cannot hold it up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    import_less()
    leave(main(sys.argv[1:]))
