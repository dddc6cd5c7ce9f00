"""`dr render --frames`: several frames, one after the other. Real processes, an engine without kernels."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import dr
from dr.image.exr import read_exr
from tests.support.farm import DEADLINE_S, facts_of, run_dr, serving, start_dr, wait_for_line, write_scene

SIZE = ("--size", "48x32", "--samples", "4", "--bucket-size", "16")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.exr*"))


def test_each_frame_has_its_own_picture(tmp_path: Path) -> None:
    out = tmp_path / "a.###.exr"
    done = run_dr(tmp_path, "render", write_scene(tmp_path), "-o", out, *SIZE, "--frames", "1-5x2", "--json")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == ["a.001.exr", "a.003.exr", "a.005.exr"]
    assert facts_of(done)["outputs"] == [str(tmp_path / name) for name in names(tmp_path)]
    firsts = [read_exr(tmp_path / name).channels["beauty"][0, 0, 0] for name in names(tmp_path)]
    assert firsts == [1000.0, 3000.0, 5000.0]


def test_a_frame_of_a_sequence_is_the_frame_rendered_alone(tmp_path: Path) -> None:
    scene = write_scene(tmp_path)
    run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.#.exr", *SIZE, "--frames", "1-3", "-q")
    run_dr(tmp_path, "render", scene, "-o", tmp_path / "alone.#.exr", *SIZE, "--frames", "2", "-q")
    assert (tmp_path / "a.2.exr").read_bytes() == (tmp_path / "alone.2.exr").read_bytes()


def test_frames_that_are_there_are_skipped(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path), tmp_path / "a.#.exr"
    (tmp_path / "a.2.exr").write_bytes(b"old")
    done = run_dr(tmp_path, "render", scene, "-o", out, *SIZE, "--frames", "1-3", "--skip-existing")
    assert done.returncode == 0, done.stderr
    assert (names(tmp_path), (tmp_path / "a.2.exr").read_bytes()) == (["a.1.exr", "a.2.exr", "a.3.exr"], b"old")
    assert "frame 2 is there already" in done.stderr


def test_when_all_frames_are_there_nothing_is_rendered(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path), tmp_path / "a.#.exr"
    run_dr(tmp_path, "render", scene, "-o", out, *SIZE, "--frames", "1-3", "-q")
    done = run_dr(tmp_path, "render", scene, "-o", out, *SIZE, "--frames", "1-3", "--skip-existing")
    assert done.returncode == 0, done.stderr
    assert "frames 1-3 are there already" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_sequence_that_was_ended_goes_on_in_the_middle_of_a_frame(tmp_path: Path, number: signal.Signals) -> None:
    scene, out = write_scene(tmp_path, bucket_s=0.1), tmp_path / "a.#.exr"
    process = start_dr(tmp_path, "render", scene, "-o", out, *SIZE, "--frames", "1-4", "-v", "--threads", 1)
    wait_for_line(process, "frame 1 is finished")
    process.send_signal(number)
    process.communicate(timeout=DEADLINE_S)
    first = (tmp_path / "a.1.exr").stat().st_mtime_ns
    done = run_dr(tmp_path, "render", scene, "-o", out, *SIZE, "--frames", "1-4", "--resume")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == ["a.1.exr", "a.2.exr", "a.3.exr", "a.4.exr"]
    assert (tmp_path / "a.1.exr").stat().st_mtime_ns == first
    whole = run_dr(tmp_path, "render", scene, "-o", tmp_path / "b.#.exr", *SIZE, "--frames", "1-4", "-q")
    assert whole.returncode == 0
    for frame in range(1, 5):
        assert (tmp_path / f"a.{frame}.exr").read_bytes() == (tmp_path / f"b.{frame}.exr").read_bytes()


def test_a_remote_server_renders_a_sequence(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path), tmp_path / "a.#.exr"
    with serving(tmp_path, "--threads", 1) as one:
        words = ("--frames", "1-6", "--server", one, "--no-local", "--json")
        done = run_dr(tmp_path, "render", scene, "-o", out, *SIZE, *words)
    assert done.returncode == 0, done.stderr
    assert facts_of(done)["buckets"] == 36


def test_a_bad_range_of_frames_is_one_line(tmp_path: Path) -> None:
    done = run_dr(tmp_path, "render", write_scene(tmp_path), "-o", tmp_path / "a.exr", "--frames", "9-")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_the_api_renders_frames_and_returns_the_last(tmp_path: Path) -> None:
    scene = write_scene(tmp_path)
    with serving(tmp_path, "--threads", 1) as one:
        image = dr.render(
            scene, size=(48, 32), samples=4, servers=[one], local=False, frames=[1, 2], outputs=tmp_path / "a.#.exr"
        )
    assert image.outputs == (tmp_path / "a.1.exr", tmp_path / "a.2.exr")
    assert image.channels["beauty"][0, 0, 0] == 2000.0
