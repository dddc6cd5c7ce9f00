"""What the benches of a farm that lives compute from what they hear, and the servers that they measure with."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bench.broker import bench_farm, bench_machine
from bench.instant import InstantServer, make_frame, pixels_of
from bench.live import Figure, share_of, tiles_of
from bench.timed_server import TimedEngine
from dr.protocol.messages import Bucket, BucketWork, Tile
from tests.support.fake_engine import FakeScene, expected_film
from tests.support.fault_farm import Line

RATE = 16 * 16 * 16 / 0.05  # samples a second: 50 ms for WORK
WORK = BucketWork(0, 0, 0, 16, 16, 0, 16)


def test_tiles_are_read_off_the_log_of_a_client() -> None:
    lines = [
        Line("2026-11-20 13:28:48.467 INFO    dr.client: joined one: renders with 1 thread", 1.0),
        Line("2026-11-20 13:28:48.469 INFO    dr.client: tile 0 from one after 0.250 s", 2.0),
        Line("2026-11-20 13:28:48.999 INFO    dr.client: tile 12 from one after 1.500 s", 3.5),
    ]
    assert tiles_of(lines) == [(2.0, 0.25), (3.5, 1.5)]


def test_threads_are_busy_for_the_share_of_their_time_in_which_they_render() -> None:
    assert share_of([(2.0, 1.0), (2.0, 1.0), (3.0, 1.0), (3.0, 0.5)], threads=2) == pytest.approx(3.5 / 4)


def test_the_worst_of_a_time_is_the_longest_and_of_a_share_the_smallest() -> None:
    times, shares = Figure("a", 50.0, found=[10, 40, 20]), Figure("b", 98.0, "%", found=[99, 97, 98], most=False)
    assert times.row() == ("a", "50", "20", "40", "ms", "3")
    assert shares.row() == ("b", "98", "98", "97", "%", "3")


def test_a_timed_thread_takes_as_long_as_its_samples_and_gives_the_usual_pixels() -> None:
    begun = time.monotonic()
    film = TimedEngine().render(FakeScene({"rate": RATE}), WORK, np.zeros(1, np.uint8))
    assert time.monotonic() - begun >= 0.05
    assert film is not None
    assert np.array_equal(film, expected_film(WORK))


def test_a_timed_thread_gives_up_what_is_cancelled() -> None:
    assert TimedEngine().render(FakeScene({"rate": RATE / 1e6}), WORK, np.ones(1, np.uint8)) is None


def test_an_instant_server_answers_every_bucket_with_a_tile_of_its_size() -> None:
    server = InstantServer(0, 2)
    (tile,) = server.hear(Bucket(lease=b"lease--8", epoch=1, buckets=[WORK]))
    assert isinstance(tile, Tile)
    assert tile.bucket == WORK
    assert pixels_of(tile) == (bytes(16 * 16 * 4 * 4),)


def test_the_broker_alone_is_measured_to_the_end_of_its_frame() -> None:
    assert 0 < bench_machine(make_frame(200), servers=2, threads=2, wire=True) < 1


@pytest.mark.slow
def test_the_clients_loop_is_measured_in_a_process_of_its_own() -> None:
    found = bench_farm(200, servers=3, threads=2)
    assert found.per_s > 0
    assert 0 < found.loop_cpu_s <= found.cpu_s
    assert 0 <= found.connected_mb <= found.peak_mb
