"""What a lone `dr serve` writes about its work, and that nobody who does not read it holds it up."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dr.protocol.messages import BucketWork
from tests.support.farm import DEADLINE_S, start_dr, wait_for_line
from tests.support.server_process import RawClient
from tests.support.spawner import free_ports

SCENE = {"scene.json": b"{}"}


@contextmanager
def served(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    with start_dr(folder, "serve", f"-port={port}", "--threads", 1) as process:
        try:
            wait_for_line(process, "listening on")
            yield process
        finally:
            process.kill()


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0


def log_of(folder: Path, port: int) -> list[str]:
    (path,) = folder.rglob(f"server-{port}.log")
    return path.read_text().splitlines()


def test_a_lone_server_has_a_log_file_with_a_line_for_each_bucket(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with served(tmp_path, port) as process:
        with RawClient(f"tcp://127.0.0.1:{port}") as client:
            lease = client.take_lease("ada@vault")
            client.set_up(lease, SCENE)
            client.render(lease, BucketWork(7, 16, 32, 16, 8, 0, 32))
            client.leave(lease)
        stop(process)
    lines = log_of(tmp_path, port)
    bucket = "bucket 7 (16x8 at 16,32, samples 0-32) of ada@vault"
    for words in (
        f"listening on tcp://127.0.0.1:{port}",
        "lease given to ada@vault",
        "set up, 256x128, 32 samples",
        "fetched 1 file, 0.0 MB in ",
        "preparing scene.json, 1 files",
        "prepared in ",
        f"{bucket}: started on thread 0",
        f"{bucket}: done in ",
        "lease ended after 1 bucket: the client says bye",
        "stop: SIGTERM",
    ):
        (line,) = [line for line in lines if words in line]
        assert " INFO    dr.server" in line


def test_a_server_works_on_when_nobody_reads_its_terminal(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    count = 2000
    with served(tmp_path, port) as process:
        assert process.stderr
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        with RawClient(f"tcp://127.0.0.1:{port}") as client:
            lease = client.take_lease()
            client.set_up(lease, SCENE)
            for begin in range(0, count, 500):
                client.render(lease, *(BucketWork(i, 0, 0, 1, 1, 0, 32) for i in range(begin, begin + 500)))
        stop(process)
    assert sum(": done in " in line for line in log_of(tmp_path, port)) == count
