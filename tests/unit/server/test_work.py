"""What happens under a lease: fetching, preparing, rendering, cancelling."""

import pytest

from dr.protocol.messages import Cancel, Channel, Chunk, ErrorMessage, Failed, Get, Progress, Ready, Tile
from dr.protocol.version import CHUNK_BYTES
from dr.scene.model import RenderSettings
from tests.support.serving import (
    CHANNELS,
    CLIENT,
    SCENE_BYTES,
    bucket_work,
    deeds,
    digest_of,
    fresh_state,
    lines,
    make_ready,
    manifest_of,
    said,
    send_buckets,
    setup_of,
    take_lease,
)
from workers.server.commands import DropFrame, OpenManifest, PrepareScene, RenderBucket, SealAsset, Send, StopThread
from workers.server.events import (
    AssetRefused,
    AssetSealed,
    BucketFailed,
    BucketStopped,
    KernelsProgressed,
    KernelsRefused,
    KernelsWarmed,
    ManifestOpened,
    MessageArrived,
    PreparationFailed,
    PreparationProgressed,
    ScenePrepared,
    TileRendered,
)
from workers.server.work import Limits


def test_a_bucket_that_a_thread_gave_up_unasked_is_reported():
    state = fresh_state(threads=1)
    lease = take_lease(state)
    make_ready(state, lease)
    send_buckets(state, lease, bucket_work(5))
    commands = state.handle(BucketStopped(0, 1, bucket_work(5)), 1.0)
    assert [failed.bucket for failed in said(commands, Failed)] == [5]


def orders(commands):
    return [command for command in commands if isinstance(command, RenderBucket)]


def chunk(lease, data, offset=0, missing=""):
    payload = () if missing else (data[offset : offset + CHUNK_BYTES],)
    message = Chunk(lease=lease, epoch=1, digest=digest_of(data), offset=offset, missing=missing)
    return MessageArrived(CLIENT, message, payload)


def state_that_knows(manifest, limits=None):
    """A state whose frame 1 has its manifest and asks for the assets; gives it with its lease and its last commands."""
    state = fresh_state(limits=limits)
    lease = take_lease(state)
    data = manifest.encode()
    state.handle(MessageArrived(CLIENT, setup_of(lease, manifest)), 0.0)
    assert state.handle(chunk(lease, data), 0.0)[-1] == SealAsset(1, digest_of(data))
    assert state.handle(AssetSealed(1, digest_of(data)), 0.0) == [OpenManifest(1, digest_of(data))]
    return state, lease, state.handle(ManifestOpened(1, manifest), 0.0)


def ready_state(threads=2):
    state = fresh_state(threads)
    lease = take_lease(state)
    make_ready(state, lease)
    return state, lease


def test_a_setup_asks_for_the_manifest_first():
    state = fresh_state()
    lease = take_lease(state)
    manifest = manifest_of({"scene.json": SCENE_BYTES})
    commands = state.handle(MessageArrived(CLIENT, setup_of(lease, manifest)), 0.0)
    data = manifest.encode()
    assert said(commands, Get) == [Get(lease=lease, epoch=1, digest=digest_of(data), offset=0, n=len(data))]


def test_four_chunks_are_under_way_and_each_answer_asks_for_one_more():
    data = bytes(CHUNK_BYTES * 5 + 7)
    state, lease, commands = state_that_knows(manifest_of({"scene.json": data}))
    assert [get.offset for get in said(commands, Get)] == [i * CHUNK_BYTES for i in range(4)]
    answers = [said(state.handle(chunk(lease, data, i * CHUNK_BYTES), 0.0), Get) for i in range(6)]
    assert [[(get.offset // CHUNK_BYTES, get.n) for get in gets] for gets in answers] == [
        [(4, CHUNK_BYTES)],
        [(5, 7)],
        [],
        [],
        [],
        [],
    ]


def test_the_scene_is_prepared_when_every_asset_is_sealed():
    files = {"scene.json": SCENE_BYTES, "a.png": b"pixels", "empty.bin": b"", "copy.png": b"pixels"}
    manifest = manifest_of(files)
    state, lease, commands = state_that_knows(manifest)
    assert SealAsset(1, digest_of(b"")) in commands
    assert len(said(commands, Get)) == 2
    state.handle(AssetSealed(1, digest_of(b"")), 0.0)
    for data in (b"pixels", SCENE_BYTES):
        state.handle(chunk(lease, data), 0.0)
        commands = state.handle(AssetSealed(1, digest_of(data)), 0.0)
    assert deeds(commands) == [
        PrepareScene(1, digest_of(manifest.encode()), manifest, setup_of(lease, manifest).settings)
    ]


def test_ready_needs_the_scene_and_warm_kernels_in_either_order():
    for events in ([ScenePrepared(1), KernelsWarmed()], [KernelsWarmed(), ScenePrepared(1)]):
        state, lease, _ = state_that_knows(manifest_of({"scene.json": SCENE_BYTES}))
        state.handle(chunk(lease, SCENE_BYTES), 0.0)
        state.handle(AssetSealed(1, digest_of(SCENE_BYTES)), 0.0)
        assert said(state.handle(events[0], 0.0), Ready) == []
        assert said(state.handle(events[1], 0.0), Ready) == [Ready(lease=lease, epoch=1)]


def test_a_chunk_that_was_not_asked_for_costs_the_lease():
    state, lease, _ = state_that_knows(manifest_of({"scene.json": SCENE_BYTES}))
    commands = state.handle(chunk(lease, b"other"), 0.0)
    assert said(commands, ErrorMessage)[0].code == "protocol"
    assert state.holder is None


def test_a_chunk_of_the_wrong_size_costs_the_lease():
    state, lease, _ = state_that_knows(manifest_of({"scene.json": SCENE_BYTES}))
    message = Chunk(lease=lease, epoch=1, digest=digest_of(SCENE_BYTES), offset=0)
    state.handle(MessageArrived(CLIENT, message, (b"x" * 9,)), 0.0)
    assert state.holder is None


def test_a_file_that_the_client_cannot_read_is_fatal_and_named():
    state, lease, _ = state_that_knows(manifest_of({"scene.json": SCENE_BYTES}))
    (failed,) = said(state.handle(chunk(lease, SCENE_BYTES, missing="gone"), 0.0), Failed)
    assert failed == Failed(lease=lease, epoch=1, error="scene.json: gone", fatal=True)


def test_a_wrong_digest_fails_the_frame_here_only():
    state, lease, _ = state_that_knows(manifest_of({"scene.json": SCENE_BYTES}))
    commands = state.handle(AssetRefused(1, "expected SHA-256 aa, found bb"), 0.0)
    assert said(commands, Failed) == [Failed(lease=lease, epoch=1, error="expected SHA-256 aa, found bb")]
    assert DropFrame(1) in commands
    assert state.holder is not None


def test_a_scene_beyond_the_limit_is_refused():
    _, _, commands = state_that_knows(manifest_of({"scene.json": b"12345"}), Limits(scene_bytes=4))
    assert said(commands, Failed)[0].error == "expected a scene of at most 4 bytes, found 5"


def test_progress_and_failure_of_preparation_reach_the_client():
    state, lease, _ = state_that_knows(manifest_of({"scene.json": SCENE_BYTES}))
    assert said(state.handle(PreparationProgressed(1, "building"), 0.0), Progress)[0].text == "building"
    assert said(state.handle(KernelsProgressed("3 of 4"), 0.0), Progress)[0].text == "3 of 4"
    commands = state.handle(PreparationFailed(1, "bad.gltf: no", fatal=True), 0.0)
    assert said(commands, Failed) == [Failed(lease=lease, epoch=1, error="bad.gltf: no", fatal=True)]
    assert state.handle(PreparationProgressed(1, "late"), 0.0) == []


def test_a_machine_that_cannot_run_the_kernels_says_so_for_each_frame():
    state, lease, _ = state_that_knows(manifest_of({"scene.json": SCENE_BYTES}))
    failed = said(state.handle(KernelsRefused("no fma"), 0.0), Failed)
    assert failed == [Failed(lease=lease, epoch=1, error="no fma")]


def test_each_thread_takes_one_bucket_and_a_tile_fetches_the_next():
    state, lease = ready_state(threads=2)
    works = [bucket_work(i, x=16 * i) for i in range(3)]
    first = orders(send_buckets(state, lease, *works))
    assert [(order.bucket, order.channels) for order in first] == [(work, tuple(CHANNELS)) for work in works[:2]]
    commands = state.handle(TileRendered(first[0].thread, 1, works[0], 0.5, (b"pixels",)), 0.0)
    tile = Tile(lease=lease, epoch=1, bucket=works[0], channels=CHANNELS, seconds=0.5)
    assert deeds(commands) == [
        Send(CLIENT, tile, (b"pixels",)),
        RenderBucket(first[0].thread, 1, works[2], tuple(CHANNELS)),
    ]


def test_the_log_has_a_line_for_each_thing_that_befalls_a_bucket():
    state, lease = ready_state(threads=2)
    began = lines(send_buckets(state, lease, bucket_work(0), bucket_work(1, x=16)))
    done = lines(state.handle(TileRendered(1, 1, bucket_work(0), 0.5, (b"pixels",)), 0.0))
    failed = lines(state.handle(BucketFailed(0, 1, bucket_work(1), "ValueError: bad\nvalue"), 0.0))
    first, second = "bucket 0 (16x16 at 0,0, samples 0-32) of ada", "bucket 1 (16x16 at 16,0, samples 0-32) of ada"
    assert began == [f"{first}: started on thread 1", f"{second}: started on thread 0"]
    assert (done, failed) == ([f"{first}: done in 0.500 s"], [f"{second}: failed: ValueError: bad value"])


def test_a_bucket_before_ready_costs_the_lease():
    state, lease, _ = state_that_knows(manifest_of({"scene.json": SCENE_BYTES}))
    send_buckets(state, lease, bucket_work(1))
    assert state.holder is None


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (bucket_work(1, x=50), "rectangle inside 64x48"),
        (bucket_work(1, y=33), "rectangle inside 64x48"),
        (bucket_work(1, end=33), "samples up to 32"),
    ],
)
def test_a_bucket_that_does_not_belong_to_the_frame_fails_alone(work, words):
    state, lease = ready_state()
    (failed,) = said(send_buckets(state, lease, work), Failed)
    assert failed.bucket == 1
    assert words in failed.error
    assert state.holder is not None


def test_a_tile_that_would_not_fit_one_message_is_refused():
    state = fresh_state()
    lease = take_lease(state)
    manifest = manifest_of({"scene.json": SCENE_BYTES})
    settings = RenderSettings(width=1024, height=1024, samples=1 << 20)
    setup = setup_of(lease, manifest, settings=settings, channels=list(Channel))
    state.handle(MessageArrived(CLIENT, setup), 0.0)
    frame = state.work.frames[1]
    assert frame.fault(bucket_work(1, size=1024)) == ""
    assert "smaller bucket" in frame.fault(bucket_work(1, size=1024, begin=16, end=64))


def test_cancel_drops_what_waits_and_stops_what_runs():
    state, lease = ready_state(threads=1)
    works = [bucket_work(i) for i in range(3)]
    (order,) = orders(send_buckets(state, lease, *works))
    cancel = MessageArrived(CLIENT, Cancel(lease=lease, epoch=1, buckets=[0, 1, 77]))
    assert deeds(state.handle(cancel, 0.0)) == [StopThread(order.thread)]
    commands = state.handle(BucketStopped(order.thread, 1, works[0]), 0.0)
    assert [o.bucket.id for o in orders(commands)] == [2]
    assert len(deeds(commands)) == 1


def test_a_cancelled_bucket_that_was_done_already_is_not_sent():
    state, lease = ready_state(threads=1)
    (order,) = orders(send_buckets(state, lease, bucket_work(0)))
    state.handle(MessageArrived(CLIENT, Cancel(lease=lease, epoch=1, buckets=[0])), 0.0)
    commands = state.handle(TileRendered(order.thread, 1, order.bucket, 0.1), 0.0)
    assert deeds(commands) == []
    assert lines(commands) == ["bucket 0 (16x16 at 0,0, samples 0-32) of ada: stopped"]


def test_a_kernel_that_raises_fails_its_bucket_only():
    state, lease = ready_state(threads=1)
    (order, *_) = orders(send_buckets(state, lease, bucket_work(0), bucket_work(1)))
    commands = state.handle(BucketFailed(order.thread, 1, order.bucket, "ValueError: no"), 0.0)
    assert said(commands, Failed) == [Failed(lease=lease, epoch=1, bucket=0, error="ValueError: no")]
    assert [o.bucket.id for o in orders(commands)] == [1]


def test_a_bucket_that_takes_too_long_is_given_up():
    state = fresh_state(threads=1, limits=Limits(bucket_s=2.0))
    lease = take_lease(state)
    make_ready(state, lease)
    send_buckets(state, lease, bucket_work(0))
    commands = state.tick(2.0)
    assert StopThread(0) in commands
    assert said(commands, Failed)[0].error == "took longer than 2 s"


def test_two_frames_live_and_a_third_ends_the_oldest():
    state, lease = ready_state(threads=1)
    make_ready(state, lease, epoch=2)
    send_buckets(state, lease, bucket_work(0), bucket_work(1))
    send_buckets(state, lease, bucket_work(0), epoch=2)
    setup = setup_of(lease, manifest_of({"scene.json": b"3"}), epoch=3)
    commands = state.handle(MessageArrived(CLIENT, setup), 0.0)
    assert DropFrame(1) in commands
    assert StopThread(0) in commands
    assert list(state.work.frames) == [2, 3]
    assert [frame.epoch for frame, _ in state.work.queue] == [2]
    state.check()


def test_buckets_of_a_frame_long_gone_are_dropped_in_silence():
    state, lease = ready_state()
    assert send_buckets(state, lease, bucket_work(0), epoch=99) == []
    assert state.holder is not None


def test_a_thread_that_ends_a_bucket_of_an_ended_lease_serves_the_next_holder():
    state, lease = ready_state(threads=1)
    (order,) = orders(send_buckets(state, lease, bucket_work(0)))
    commands = state.tick(3.0)
    assert StopThread(order.thread) in commands
    new = take_lease(state, b"new", 4.0)
    make_ready(state, new, now=4.0, peer=b"new")
    assert orders(send_buckets(state, new, bucket_work(5), now=4.0, peer=b"new")) == []
    commands = state.handle(TileRendered(order.thread, 1, order.bucket, 9.0, (b"old",)), 4.1)
    assert [type(command) for command in deeds(commands)] == [RenderBucket]
    assert orders(commands)[0].bucket.id == 5
