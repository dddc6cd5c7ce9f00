"""What the benches compute from what they measure."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bench import bare, farm, scenes
from bench.table import print_table
from dr.broker.buckets import Order, cut_frame
from dr.scene.model import RenderSettings

LOG = """\
2026-11-20 13:28:47.085 INFO    dr.client: local-1 says: 2026-11-20 13:28:47,041 INFO listening on ipc:///tmp/dr/1
2026-11-20 13:28:47.185 INFO    dr.client: dial ipc:///tmp/dr/1
2026-11-20 13:28:48.467 INFO    dr.client: joined local-1: renders with 1 thread
2026-11-20 13:28:48.469 INFO    dr.client: tile 0 from local-1 after 0.001 s
2026-11-20 13:28:48.999 INFO    dr.client: tile 1 from local-1 after 0.001 s
"""


def seconds_between(earlier: str, later: str) -> float:
    patterns = dict(farm.MILESTONES)
    first, second = farm.first_time(LOG, patterns[earlier]), farm.first_time(LOG, patterns[later])
    assert first is not None
    assert second is not None
    return second - first


def test_milestones_are_read_off_the_first_line_that_tells_them() -> None:
    assert seconds_between("the server is ready", "the first tile has arrived") == pytest.approx(0.002, abs=1e-6)


def test_a_servers_own_line_counts_from_its_own_time_stamp() -> None:
    dialled = "the scene is surveyed, the client dials"
    assert seconds_between("a server listens", dialled) == pytest.approx(0.144, abs=1e-6)


def test_a_milestone_that_the_log_does_not_tell_has_no_time() -> None:
    assert farm.first_time(LOG, "the server is in Paris") is None


def test_the_cost_of_a_tree_of_processes_contains_its_grandchildren() -> None:
    burn = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    assert farm.run([sys.executable, "-c", script]).cpu_s >= 0.2


def test_the_bare_process_renders_every_bucket_once_whatever_the_number_of_threads() -> None:
    settings = RenderSettings(width=70, height=50, samples=16)
    works = cut_frame(settings, bare.BUCKET_SIZE, Order.SPIRAL)
    for threads in (1, 2):
        framebuffer = bare.render_frame(
            lambda work: np.full((1, work.height, work.width, 12), work.id, np.float32), settings, threads
        )
        assert framebuffer.complete
        for work in works:
            assert (framebuffer.sums[work.y : work.y + work.height, work.x : work.x + work.width] == work.id).all()


def test_a_scene_that_needs_no_data_is_always_here() -> None:
    assert scenes.is_here("demo")


def test_a_table_is_aligned_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("what", "s"), [("a long one", "1"), ("b", "12.5")])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines == [
        "| what       |    s |",
        "|------------|-----:|",
        "| a long one |    1 |",
        "| b          | 12.5 |",
    ]
