"""Renders that end early and go on: journals, partial pictures, time limits. Real processes, no kernels."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from dr.image.exr import read_exr
from tests.support.farm import (
    DEADLINE_S,
    assert_all_gone,
    children,
    facts_of,
    run_dr,
    start_dr,
    wait_for_line,
    write_scene,
)

SIZE = ("--size", "96x64", "--samples", "4", "--bucket-size", "16")


def reference(folder: Path) -> bytes:
    """The picture of a render that nothing disturbed."""
    done = run_dr(folder, "render", write_scene(folder), "-o", folder / "reference.exr", *SIZE, "-q")
    assert done.returncode == 0, done.stderr
    return (folder / "reference.exr").read_bytes()


def start_and_end(folder: Path, number: int, *words: object, tile: int = 5) -> str:
    """A slow render that is ended by a signal once that many tiles are there. What it said on stderr."""
    process = start_dr(
        folder, "render", write_scene(folder, bucket_s=0.05), "-o", folder / "a.exr", *SIZE, "-v", *words
    )
    wait_for_line(process, f"tile {tile} from")
    servers = children(process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert_all_gone(servers, folder)
    return stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_render_that_was_ended_goes_on_with_another_bucket_size(tmp_path: Path, number: signal.Signals) -> None:
    expected = reference(tmp_path)
    start_and_end(tmp_path, number)
    assert (tmp_path / "a.exr.journal").exists()
    assert not (tmp_path / "a.exr").exists()
    scene = write_scene(tmp_path, bucket_s=0.05)
    words = ("--size", "96x64", "--samples", "4", "--bucket-size", "24", "--local-servers", 2, "--json")
    done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert "need no rendering" in done.stderr
    assert (tmp_path / "a.exr").read_bytes() == expected
    assert not list(tmp_path.glob("*.journal*"))
    assert not list(tmp_path.glob("*.partial.exr"))


def test_a_resumed_render_renders_only_what_is_missing(tmp_path: Path) -> None:
    start_and_end(tmp_path, signal.SIGINT, tile=8)
    scene = write_scene(tmp_path, bucket_s=0.05)
    log = tmp_path / "buckets.jsonl"
    words = ("--resume", "-q", "--bucket-log", log)
    done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE, *words)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(record["width"] * record["height"] for record in records) <= 96 * 64 - 8 * 16 * 16


def test_ctrl_c_twice_in_a_row_is_resumed_twice(tmp_path: Path) -> None:
    expected = reference(tmp_path)
    start_and_end(tmp_path, signal.SIGINT, tile=3)
    start_and_end(tmp_path, signal.SIGINT, "--resume", tile=3)
    scene = write_scene(tmp_path, bucket_s=0.05)
    done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE, "--resume", "-q")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.exr").read_bytes() == expected


def test_another_picture_is_not_resumed(tmp_path: Path) -> None:
    start_and_end(tmp_path, signal.SIGINT)
    scene = write_scene(tmp_path, bucket_s=0.05)
    words = ("--size", "96x64", "--samples", "8", "--resume", "-q")
    done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "samples" in line
    assert (tmp_path / "a.exr.journal").exists()


def test_another_scene_is_not_resumed(tmp_path: Path) -> None:
    start_and_end(tmp_path, signal.SIGINT)
    scene = write_scene(tmp_path, bucket_s=0.05, other="scene")
    done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE, "--resume", "-q")
    assert done.returncode == 2
    assert "scene" in done.stderr


def test_a_render_that_begins_anew_keeps_the_old_journal(tmp_path: Path) -> None:
    start_and_end(tmp_path, signal.SIGINT)
    scene = write_scene(tmp_path, bucket_s=0.0)
    done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE)
    assert done.returncode == 0
    assert "is kept as a.exr.journal.old" in done.stderr
    assert sorted(path.name for path in tmp_path.glob("*.journal*")) == ["a.exr.journal.old"]


def test_a_resume_of_nothing_begins_at_the_beginning(tmp_path: Path) -> None:
    expected = reference(tmp_path)
    done = run_dr(tmp_path, "render", write_scene(tmp_path), "-o", tmp_path / "a.exr", *SIZE, "--resume")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.exr").read_bytes() == expected


def test_a_resume_of_a_complete_picture_renders_nothing(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path), tmp_path / "a.exr"
    run_dr(tmp_path, "render", scene, "-o", out, *SIZE, "-q")
    before = out.stat().st_mtime_ns
    done = run_dr(tmp_path, "render", scene, "-o", out, *SIZE, "--resume")
    assert (done.returncode, out.stat().st_mtime_ns) == (0, before)
    assert "there already" in done.stderr


def test_two_renders_cannot_write_the_same_picture(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path, bucket_s=2.0), tmp_path / "a.exr"
    first = start_dr(tmp_path, "render", scene, "-o", out, *SIZE, "-v")
    wait_for_line(first, "tile 0 from")
    second = run_dr(tmp_path, "render", scene, "-o", out, *SIZE, "-q")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=DEADLINE_S)
    assert (first.returncode, second.returncode) == (1, 2)
    assert "another render" in second.stderr


def test_the_time_limit_ends_a_render_that_can_be_resumed(tmp_path: Path) -> None:
    expected = reference(tmp_path)
    scene, out = write_scene(tmp_path, bucket_s=0.3), tmp_path / "a.exr"
    words = ("--threads", 1, "--local-servers", 1, "--json")
    done = run_dr(tmp_path, "render", scene, "-o", out, *SIZE, *words, "--time-limit", "4s")
    assert done.returncode == 1
    assert "incomplete: the time limit is over" in done.stderr
    assert 4.0 <= facts_of(done)["seconds"] < DEADLINE_S
    assert facts_of(done)["outputs"] in ([], [str(tmp_path / "a.partial.exr")])  # none: no bucket was done by then
    done = run_dr(tmp_path, "render", scene, "-o", out, *SIZE, "--resume", "-q")
    assert (done.returncode, out.read_bytes() == expected) == (0, True)


def test_autosave_writes_what_there_is_while_it_renders(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path, bucket_s=0.1), tmp_path / "a.exr"
    process = start_dr(tmp_path, "render", scene, "-o", out, *SIZE, "-v", "--threads", 1, "--autosave", "0.2")
    wait_for_line(process, "tile 12 from")
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    alpha = read_exr(tmp_path / "a.partial.exr").channels["alpha"]
    assert (alpha == 0).any()
    assert (alpha != 0).any()


def test_without_a_server_for_so_long_the_render_ends(tmp_path: Path) -> None:
    words = ("--server", "127.0.0.1:1", "--no-local", "--wait", "1")
    done = run_dr(tmp_path, "render", write_scene(tmp_path), "-o", tmp_path / "a.exr", *SIZE, *words, "--json")
    assert done.returncode == 1
    assert "no server within 1 s" in done.stderr
    assert json.loads(done.stdout)["outputs"] == []
    assert not list(tmp_path.glob("*.journal"))


def test_an_autosave_that_fails_costs_nothing_else(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path, bucket_s=0.05), tmp_path / "a.exr"
    (tmp_path / "a.partial.exr").mkdir()
    done = run_dr(tmp_path, "render", scene, "-o", out, *SIZE, "--threads", 1, "--autosave", "0.1")
    assert done.returncode == 0, done.stderr
    assert "--autosave: " in done.stderr
    assert out.exists()


def test_a_late_frame_of_another_picture_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path), tmp_path / "a.#.exr"
    (tmp_path / "a.9.exr.journal").write_bytes(b"something else")
    words = ("--frames", "1-9", "--resume", "-q")
    done = run_dr(tmp_path, "render", scene, "-o", out, *SIZE, *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "a.9.exr.journal" in done.stderr
    assert not (tmp_path / "a.1.exr").exists()
