"""Render threads over inproc, without a gate: one bucket at a time, cancels that hit the right one."""

import numpy as np
import pytest
import zmq

from dr.protocol.messages import Channel
from tests.support.fake_engine import FakeEngine, FakeScene, expected_film
from tests.support.serving import bucket_work
from workers.kernels import records
from workers.server.commands import RenderBucket
from workers.server.engine import Shelf
from workers.server.events import BucketFailed, BucketStopped, TileRendered
from workers.server.inside import Inside
from workers.server.renderer import FILM_PLANES, Renderer, select_planes

CHANNELS = (Channel.NORMAL, Channel.BEAUTY)


class Pool:
    def __init__(self, **words):
        self.context = zmq.Context()
        self.inside = Inside(self.context)
        self.shelf = Shelf()
        self.ticket = self.shelf.expect(1)
        self.shelf.put(1, self.ticket, FakeScene(words))
        self.renderer = Renderer(FakeEngine(), self.shelf, self.inside, 2)
        assert {self.next().thread, self.next().thread} == {0, 1}

    def next(self):
        assert self.inside.socket.poll(20_000)
        return self.inside.receive()

    def order(self, thread, work, epoch=1):
        self.renderer.render(RenderBucket(thread, epoch, work, CHANNELS))


@pytest.fixture
def make_pool(monkeypatch):
    """A thread that was not joined would keep sockets of a context that nobody ends, until it stops some other test."""
    monkeypatch.setattr("workers.server.renderer.JOIN_S", 30.0)
    pools = []

    def make(**words):
        pools.append(Pool(**words))
        return pools[-1]

    yield make
    for pool in pools:
        assert pool.renderer.close()
        pool.inside.close()
        pool.context.term()


def test_the_film_of_kernels_has_the_channels_where_tiles_expect_them():
    begins = {channel: planes.start for channel, planes in FILM_PLANES.items()}
    assert begins == {
        Channel.BEAUTY: records.FILM_BEAUTY,
        Channel.ALPHA: records.FILM_ALPHA,
        Channel.DEPTH: records.FILM_DEPTH,
        Channel.NORMAL: records.FILM_NORMAL,
        Channel.ALBEDO: records.FILM_ALBEDO,
        Channel.OBJECT_ID: records.FILM_OBJECT_ID,
    }
    assert max(planes.stop for planes in FILM_PLANES.values()) == records.FILM_CHANNELS


def test_only_the_wanted_channels_are_in_a_tile(make_pool):
    pool = make_pool()
    work = bucket_work(3, x=32)
    pool.order(0, work)
    tile = pool.next()
    assert isinstance(tile, TileRendered)
    assert (tile.thread, tile.epoch, tile.bucket) == (0, 1, work)
    pixels = np.frombuffer(b"".join(bytes(frame) for frame in tile.payload), np.float32).reshape(1, 16, 16, 6)
    assert np.array_equal(pixels, select_planes(expected_film(work), CHANNELS))


def test_a_stopped_thread_says_so_and_renders_the_next_bucket(make_pool):
    pool = make_pool(bucket_s=3600)
    pool.order(1, bucket_work(0))
    pool.renderer.stop(1)
    assert pool.next() == BucketStopped(1, 1, bucket_work(0))
    pool.shelf.put(1, pool.ticket, FakeScene({}))
    pool.renderer.stop(1)  # too late: it hits nothing
    pool.order(1, bucket_work(1))
    assert isinstance(pool.next(), TileRendered)


def test_an_engine_that_raises_fails_the_bucket_and_not_the_thread(make_pool):
    pool = make_pool(broken_buckets=[16])
    pool.order(0, bucket_work(0, x=16))
    assert pool.next() == BucketFailed(0, 1, bucket_work(0, x=16), "ValueError: bucket at 16 is broken")
    pool.order(0, bucket_work(1, x=32))
    assert isinstance(pool.next(), TileRendered)


def test_a_bucket_of_a_dropped_frame_is_given_up(make_pool):
    pool = make_pool()
    pool.order(0, bucket_work(0), epoch=2)
    assert pool.next() == BucketStopped(0, 2, bucket_work(0))
