"""The journal: what was appended comes back bit by bit, whatever happened to the file."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dr.broker.buckets import Order, cut_frame
from dr.broker.rest import cut_rest
from dr.errors import BadInput, Impossible
from dr.image import journal_writer
from dr.image.framebuffer import Framebuffer
from dr.image.journal import Binding, Journal, journal_path
from dr.image.journal_format import encode_start, encode_tile
from dr.protocol.messages import BucketWork, Channel
from dr.protocol.tiles import pack, tile_shape
from dr.scene.model import F32, Region, RenderSettings

CHANNELS = (Channel.BEAUTY, Channel.ALPHA)
PICTURE = RenderSettings(width=6, height=4, samples=20)
BINDING = Binding(manifest=b"m" * 32, settings=PICTURE, channels=CHANNELS, kernels="c0de")
WORKS = cut_frame(PICTURE, 2, Order.ROWS)
ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 30.0

# Begins a journal and appends tiles to it; says so when the last one is in the file, and waits to be killed.
APPENDER = """
import os, sys
from pathlib import Path
from tests.unit.image.test_journal import BINDING, WORKS, fill
from dr.image.journal import Journal
journal = Journal.begin(Path(sys.argv[1]), BINDING)
size = fill(journal, WORKS[:4])
while os.path.getsize(sys.argv[1]) < size:
    os.sched_yield()
print("written", flush=True)
sys.stdin.read()
"""


def pixels(work: BucketWork, channels: Sequence[Channel] = CHANNELS) -> F32:
    """Different ones for each bucket."""
    dice = np.random.default_rng([work.x, work.y])
    return dice.normal(size=tile_shape(work, channels)).astype(np.float32)


def fill(journal: Journal, works: Sequence[BucketWork]) -> int:
    """Appends their tiles; returns the size of the file once they are all in it, if it was a new one."""
    for work in works:
        journal.append(work, pack(pixels(work)))
    start = len(encode_start(bytes(16), BINDING))
    return start + sum(len(encode_tile(bytes(16), 0, work, pack(pixels(work)))) for work in works)


def written(path: Path, works: Sequence[BucketWork], binding: Binding = BINDING) -> bytes:
    """The bytes of a journal with these tiles."""
    with Journal.begin(path, binding) as journal:
        for work in works:
            journal.append(work, pack(pixels(work, binding.channels)))
    return path.read_bytes()


def held(path: Path, binding: Binding = BINDING) -> list[BucketWork]:
    """What a resume finds; its pixels are checked."""
    with Journal.resume(path, binding) as journal:
        return [checked(work, layers, binding.channels) for work, layers in journal.tiles()]


def checked(work: BucketWork, layers: F32, channels: Sequence[Channel]) -> BucketWork:
    assert layers.tobytes() == pixels(work, channels).tobytes()
    return work


def record_ends(works: Sequence[BucketWork]) -> list[int]:
    """Where the start and each tile end in the file."""
    ends = [len(encode_start(bytes(16), BINDING))]
    for work in works:
        ends.append(ends[-1] + len(encode_tile(bytes(16), ends[-1], work, pack(pixels(work)))))
    return ends


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return journal_path(tmp_path / "chair.exr")


def test_a_journal_lies_beside_its_picture_and_is_easy_to_see() -> None:
    assert journal_path(Path("out/chair.exr")) == Path("out/chair.exr.journal")


def test_what_was_appended_comes_back(path: Path) -> None:
    written(path, WORKS)
    assert held(path) == list(WORKS)


def test_a_new_journal_holds_nothing(path: Path) -> None:
    with Journal.begin(path, BINDING) as journal:
        assert list(journal.tiles()) == []
    assert held(path) == []


def test_several_payload_frames_are_one_tile(path: Path) -> None:
    work = WORKS[0]
    (data,) = pack(pixels(work))
    with Journal.begin(path, BINDING) as journal:
        journal.append(work, (data[:5], bytes(data[5:7]), data[7:]))
    assert held(path) == [work]


def test_a_resumed_render_has_the_bits_of_one_that_was_never_stopped(path: Path) -> None:
    picture = RenderSettings(width=70, height=50, samples=33, region=Region(11, 7, 50, 40))
    binding = msgspec.structs.replace(BINDING, settings=picture, channels=tuple(Channel))
    sums = np.random.default_rng(1).normal(size=(1, 50, 70, 12)).astype(np.float32)

    def tile(work: BucketWork) -> F32:
        return sums[:, work.y : work.y + work.height, work.x : work.x + work.width]

    whole, resumed = Framebuffer(picture, tuple(Channel)), Framebuffer(picture, tuple(Channel))
    for work in cut_frame(picture, 64, Order.ROWS):
        whole.merge(work, tile(work))
    with Journal.begin(path, binding) as journal:
        for work in cut_frame(picture, 8, Order.RANDOM)[:17]:
            journal.append(work, pack(tile(work)))
    done: list[BucketWork] = []
    with Journal.resume(path, binding) as journal:
        for work, layers in journal.tiles():
            resumed.merge(work, layers)
            done.append(work)
        for work in cut_rest(cut_frame(picture, 13, Order.SPIRAL), done):
            resumed.merge(work, tile(work))
            journal.append(work, pack(tile(work)))
    again = Framebuffer(picture, tuple(Channel))
    with Journal.resume(path, binding) as journal:
        for work, layers in journal.tiles():
            again.merge(work, layers)
    assert len(done) == 17
    assert resumed.complete
    assert again.complete
    assert resumed.sums.tobytes() == whole.sums.tobytes() == again.sums.tobytes()


def test_a_file_torn_at_any_byte_keeps_the_tiles_before_it_and_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # a thousand of them, and nobody cuts the power
    whole, ends = written(path, WORKS[:3]), record_ends(WORKS[:3])
    assert ends[-1] == len(whole)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        if size < ends[0]:
            with pytest.raises(BadInput, match=r"expected a journal of dr|expected the journal of a picture"):
                Journal.resume(path, BINDING)
            continue
        kept = sum(end <= size for end in ends[1:])
        with Journal.resume(path, BINDING) as journal:
            assert [work for work, _ in journal.tiles()] == list(WORKS[:kept])
            assert bool(journal.dropped) == (size not in ends)
            fill(journal, WORKS[4:5])
        assert held(path) == [*WORKS[:kept], WORKS[4]], size


def test_a_tail_that_the_disk_lost_is_dropped_though_the_file_has_its_length(path: Path) -> None:
    whole, ends = written(path, WORKS[:4]), record_ends(WORKS[:4])
    path.write_bytes(whole[: ends[2]] + bytes(len(whole) - ends[2]))
    with Journal.resume(path, BINDING) as journal:
        assert [work for work, _ in journal.tiles()] == list(WORKS[:2])
    lost = len(whole) - ends[2]
    assert journal.dropped == (
        f"{path}: its last tiles, about 2, ({lost} bytes) did not reach the disk whole and will be rendered again"
    )
    assert path.stat().st_size == ends[2]


@given(data=st.data())
@hypothesis_settings(deadline=None, max_examples=150)
def test_damage_anywhere_leaves_a_prefix_of_the_tiles_or_a_clear_refusal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / "chair.exr.journal"
    whole = bytearray(written(path, WORKS[:3]))
    ends = record_ends(WORKS[:3])
    place = data.draw(st.integers(0, len(whole) - 1))
    for index, flips in enumerate(data.draw(st.lists(st.integers(1, 255), min_size=1, max_size=9))):
        whole[(place + index) % len(whole)] ^= flips
    path.write_bytes(whole)
    first = min(place, 0 if place + index >= len(whole) else place)
    if first < ends[0]:
        with pytest.raises(BadInput, match=r"chair\.exr\.journal: expected .*; render without --resume"):
            Journal.resume(path, BINDING)
    else:
        assert held(path) == list(WORKS[: sum(end <= first for end in ends[1:])])


def test_bytes_of_another_journal_at_the_same_place_are_not_taken_for_ours(path: Path, tmp_path: Path) -> None:
    older = written(tmp_path / "older.journal", WORKS)
    path.write_bytes(written(path, WORKS[:2]) + older[record_ends(WORKS)[2] :])
    assert held(path) == list(WORKS[:2])


def test_a_record_at_another_place_is_not_taken(path: Path) -> None:
    whole, ends = written(path, WORKS[:3]), record_ends(WORKS[:3])
    path.write_bytes(whole[: ends[1]] + whole[ends[2] :])
    assert held(path) == list(WORKS[:1])


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "scene": ({"manifest": b"n" * 32}, "the scene, or a file that it needs, was another"),
    "samples": ({"settings": msgspec.structs.replace(PICTURE, samples=32)}, "samples was 20, now 32"),
    "two settings": (
        {"settings": msgspec.structs.replace(PICTURE, seed=3, region=Region(1, 2, 3, 1))},
        "seed was 0, now 3; region was none, now 1,2,3,1",
    ),
    "a text": ({"settings": msgspec.structs.replace(PICTURE, camera="top\x1b")}, r"camera was none, now 'top\x1b'"),
    "channels": ({"channels": (Channel.BEAUTY,)}, "channels were beauty, alpha, now beauty"),
    "code": ({"kernels": "dead"}, "the code that decides pixels was another version"),
}


@pytest.mark.parametrize(("changes", "text"), OTHERS.values(), ids=OTHERS)
def test_the_journal_of_another_picture_is_refused_by_what_differs(
    path: Path, changes: dict[str, Any], text: str
) -> None:
    before = written(path, WORKS)
    with pytest.raises(BadInput) as refusal:
        Journal.resume(path, msgspec.structs.replace(BINDING, **changes))
    expected = "expected the journal of this very picture, found that of another"
    assert str(refusal.value) == f"{path}: {expected}: {text}; render without --resume to begin anew"
    assert path.read_bytes() == before


def test_nothing_to_resume_and_files_that_are_no_journal_are_told(path: Path) -> None:
    with pytest.raises(BadInput, match="there is no journal to resume: render without --resume"):
        Journal.resume(path, BINDING)
    path.write_text("a letter to my aunt")
    with pytest.raises(BadInput, match="expected a journal of dr, found another file"):
        Journal.resume(path, BINDING)
    later = bytearray(written(path, []))
    later[12] = 9
    path.write_bytes(later)
    with pytest.raises(BadInput, match="expected a journal of version 1, found version 9"):
        Journal.resume(path, BINDING)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadInput, match="expected a journal, found a pipe or device"):
        Journal.resume(path, BINDING)


def test_a_journal_that_cannot_be_begun_says_why(path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent/chair\.exr\.journal: cannot open the journal: No such file"):
        Journal.begin(path.parent / "absent" / path.name, BINDING)
    path.mkdir()
    with pytest.raises(BadInput, match="cannot open the journal: Is a directory"):
        Journal.begin(path, BINDING)


def test_beginning_anew_keeps_the_last_journal_that_had_tiles(path: Path) -> None:
    aside = path.with_name("chair.exr.journal.old")
    for works in (WORKS[:1], WORKS[:2]):
        before = written(path, works)
        with Journal.begin(path, BINDING) as journal:
            assert "kept as chair.exr.journal.old" in journal.replaced
        assert aside.read_bytes() == before
    with Journal.begin(path, BINDING) as journal:
        assert journal.replaced == ""
    assert aside.read_bytes() == before
    aside.replace(path)
    assert held(path) == list(WORKS[:2])


def test_a_foreign_file_of_that_name_is_kept_too(path: Path) -> None:
    path.write_text("a letter to my aunt")
    Journal.begin(path, BINDING).close()
    assert path.with_name("chair.exr.journal.old").read_text() == "a letter to my aunt"


@pytest.mark.parametrize("second", [Journal.begin, Journal.resume])
def test_two_renders_never_write_one_journal(path: Path, second: Callable[[Path, Binding], Journal]) -> None:
    with Journal.begin(path, BINDING) as journal:
        with pytest.raises(BadInput, match="another render writes this journal"):
            second(path, BINDING)
        fill(journal, WORKS[:1])
    assert held(path) == list(WORKS[:1])


def test_a_journal_is_deleted_when_the_picture_is_safe(path: Path) -> None:
    journal = Journal.begin(path, BINDING)
    fill(journal, WORKS)
    journal.remove()
    assert list(path.parent.iterdir()) == []
    assert journal.trouble == ""
    journal.append(WORKS[0], pack(pixels(WORKS[0])))
    journal.close()
    assert list(path.parent.iterdir()) == []


def test_a_journal_that_was_closed_can_still_be_deleted(path: Path) -> None:
    journal = Journal.begin(path, BINDING)
    fill(journal, WORKS)
    journal.close()
    journal.remove()
    assert not path.exists()


def test_a_file_that_took_the_name_meanwhile_is_not_deleted(path: Path) -> None:
    journal = Journal.begin(path, BINDING)
    path.rename(path.with_name("moved"))
    path.write_text("another one")
    journal.remove()
    assert path.read_text() == "another one"


def test_a_resumed_journal_is_read_before_it_is_written(path: Path) -> None:
    written(path, WORKS[:1])
    with Journal.resume(path, BINDING) as journal, pytest.raises(Impossible, match="before those that are there"):
        journal.append(WORKS[1], pack(pixels(WORKS[1])))
    assert held(path) == list(WORKS[:1])


def test_a_tile_without_all_its_samples_is_impossible(path: Path) -> None:
    work = BucketWork(0, 0, 0, 2, 2, 0, 16)
    with Journal.begin(path, BINDING) as journal, pytest.raises(Impossible, match="all 20 samples"):
        journal.append(work, pack(pixels(work)))


def test_what_overlaps_an_earlier_tile_is_skipped(path: Path) -> None:
    works = [BucketWork(number, x, 0, 2, 2, 0, 20) for number, x in enumerate((0, 1, 2))]
    written(path, works)
    assert held(path) == [works[0], works[2]]


@pytest.mark.parametrize(
    "work",
    [
        BucketWork(0, 5, 0, 2, 2, 0, 20),
        BucketWork(0, 0, 3, 2, 2, 0, 20),
        BucketWork(0, 0, 0, 2, 2, 0, 16),
        BucketWork(0, 0, 0, 2, 2, 0, 40),
        BucketWork(0, 0, 0, 2, 1, 0, 20),
    ],
    ids=["beyond the right", "beyond the bottom", "too few samples", "too many samples", "too many pixels"],
)
def test_a_tile_that_no_server_can_have_rendered_ends_the_journal(path: Path, work: BucketWork) -> None:
    data, ends = written(path, WORKS[:1]), record_ends(WORKS[:1])
    payload = pack(pixels(BucketWork(0, 0, 0, 2, 2, 0, 20)))
    path.write_bytes(data + encode_tile(data[16:32], ends[-1], work, payload))
    assert held(path) == list(WORKS[:1])


@pytest.mark.parametrize("sizes", [(0xFFFFFFFF, 0), (0, 0xFFFFFFFF), (4, 0x7FFFFFFF), (0, 0)])
def test_sizes_that_cannot_be_take_no_memory(path: Path, sizes: tuple[int, int]) -> None:
    data = written(path, WORKS[:1])
    path.write_bytes(data + sizes[0].to_bytes(4, "little") + sizes[1].to_bytes(4, "little") + bytes(4))
    os.truncate(path, 1 << 40)  # a hole: it says that there is room for them
    assert held(path) == list(WORKS[:1])


# --- the disk


class Disk(io.FileIO):
    """A file on a disk that fails when the test wants it."""

    room_bytes = 1 << 40
    gate = threading.Event()
    gate.set()

    def write(self, data: Any, /) -> int:
        self.gate.wait(DEADLINE_S)
        fits = min(len(data), self.room_bytes - self.tell())
        if fits <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(memoryview(data)[:fits])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Disk]]:
    class Own(Disk):
        gate = threading.Event()

    Own.gate.set()
    monkeypatch.setattr("dr.image.journal_file.FileIO", Own)
    yield Own
    Own.gate.set()


def test_a_full_disk_costs_the_later_tiles_and_nothing_else(path: Path, disk: type[Disk]) -> None:
    ends = record_ends(WORKS)
    disk.room_bytes = ends[2] + 5
    with Journal.begin(path, BINDING) as journal:
        fill(journal, WORKS)
    assert journal.trouble == (
        f"{path}: cannot write the journal: No space left on device; the render goes on, "
        "but later tiles are not kept for --resume"
    )
    assert path.stat().st_size == ends[2]
    disk.room_bytes = 1 << 40
    with Journal.resume(path, BINDING) as journal:
        assert [work for work, _ in journal.tiles()] == list(WORKS[:2])
        assert (journal.dropped, journal.trouble) == ("", "")
        fill(journal, WORKS[2:])
    assert held(path) == list(WORKS)


def test_a_disk_that_is_full_from_the_start_is_bad_input_and_leaves_no_file(path: Path, disk: type[Disk]) -> None:
    disk.room_bytes = 10
    with pytest.raises(BadInput, match="cannot write the journal: No space left on device"):
        Journal.begin(path, BINDING)
    assert not path.exists()


def test_a_disk_that_cannot_sync_is_told_and_stops_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    journal = Journal.begin(path, BINDING)
    monkeypatch.setattr("dr.image.journal_writer.os.fsync", fail)
    fill(journal, WORKS)
    journal.close()
    assert "cannot write the journal: Input/output error" in journal.trouble


def test_a_disk_that_cannot_be_read_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, ends = written(path, WORKS), record_ends(WORKS)

    class Broken(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= ends[3]:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size) or b""

    monkeypatch.setattr("dr.image.journal_file.FileIO", Broken)
    with Journal.resume(path, BINDING) as journal:
        assert [work for work, _ in journal.tiles()] == list(WORKS[:3])
        fill(journal, WORKS[:1])
    assert "cannot read the journal: Input/output error" in journal.trouble
    assert path.read_bytes() == before


def test_a_disk_that_is_too_slow_delays_nobody_and_costs_tiles_not_memory(
    path: Path, disk: type[Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = pack(pixels(WORKS[0]))
    monkeypatch.setattr(journal_writer, "QUEUE_BYTES", 3 * len(payload[0]))
    journal = Journal.begin(path, BINDING)
    disk.gate.clear()
    fill(journal, WORKS)  # the gate is shut: whoever waited for the disk would not come back
    assert journal.trouble == f"{path}: the disk is slower than the render: --resume would render some tiles again"
    disk.gate.set()
    journal.close()
    assert held(path) == list(WORKS[:3])


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Counts the fsyncs from here on."""
    count, original = threading.Semaphore(0), os.fsync

    def fsync(descriptor: int) -> None:
        original(descriptor)
        count.release()

    monkeypatch.setattr("os.fsync", fsync)
    return count


def test_what_is_written_is_synced_without_being_asked_once_a_group(
    path: Path, synced: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert journal_writer.GROUP_S <= 1
    monkeypatch.setattr(journal_writer, "GROUP_S", 0.05)
    with Journal.begin(path, BINDING) as journal:
        while synced.acquire(blocking=False):
            pass
        fill(journal, WORKS[:1])
        assert synced.acquire(timeout=DEADLINE_S)
        assert not synced.acquire(timeout=0.3)  # nothing was written since


def test_tiles_of_one_group_share_one_sync(
    path: Path, synced: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "GROUP_S", 1e6)
    journal = Journal.begin(path, BINDING)
    while synced.acquire(blocking=False):
        pass
    fill(journal, WORKS)
    journal.close()
    assert synced.acquire(blocking=False)
    assert not synced.acquire(blocking=False)


@contextmanager
def killed(*words: object) -> Iterator[subprocess.Popen[str]]:
    """A Python child that is killed at the end, whatever happens."""
    child = subprocess.Popen(
        [sys.executable, "-c", *map(str, words)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=DEADLINE_S)


def test_a_killed_render_keeps_what_it_has_written_and_gives_its_lock_back(path: Path) -> None:
    with killed(APPENDER, path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        with pytest.raises(BadInput, match="another render writes this journal"):
            Journal.resume(path, BINDING)
    assert child.returncode == -signal.SIGKILL
    assert held(path) == list(WORKS[:4])
