"""`dr render` with servers of its own: real processes and sockets, pixels from a formula."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from dr.image.exr import read_exr
from tests.support.farm import (
    DEADLINE_S,
    ROOT,
    assert_all_gone,
    children,
    environment,
    facts_of,
    kill,
    run_dr,
    start_dr,
    wait_for_line,
    write_scene,
)

SIZE = ("--size", "96x64", "--samples", "4", "--bucket-size", "16")
BUCKETS = 24


def servers_of(process: Any) -> list[psutil.Process]:
    return [child for child in children(process) if "--endpoint" in child.cmdline()]


def test_a_render_is_complete_and_leaves_nothing_behind(tmp_path: Path) -> None:
    out, log = tmp_path / "a.exr", tmp_path / "buckets.jsonl"
    scene = write_scene(tmp_path)
    words = ("render", scene, "-o", out, *SIZE, "--local-servers", 2, "--threads", 2, "--json", "--bucket-log", log)
    done = run_dr(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    facts = facts_of(done)
    assert set(facts) == {"seconds", "samples_per_second", "buckets", "servers", "lost", "outputs"}
    assert (facts["buckets"], facts["lost"], facts["outputs"]) == (BUCKETS, [], [str(out)])
    assert sum(server["buckets"] for server in facts["servers"]) == BUCKETS
    assert all(set(server) == {"name", "endpoint", "buckets", "seconds"} for server in facts["servers"])
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted((record["x"], record["y"]) for record in records) == [
        (x, y) for x in range(0, 96, 16) for y in range(0, 64, 16)
    ]
    assert all(
        set(record) == {"x", "y", "width", "height", "server", "seconds", "attempts", "frame"} for record in records
    )
    assert_all_gone([], tmp_path)


def test_the_picture_is_what_the_servers_rendered(tmp_path: Path) -> None:
    out = tmp_path / "a.exr"
    assert run_dr(tmp_path, "render", write_scene(tmp_path), "-o", out, *SIZE, "-q").returncode == 0
    y, x = np.mgrid[:64, :96]
    beauty = read_exr(out).channels["beauty"]
    assert np.array_equal(beauty[..., 0], (x * 3 + y * 5).astype(np.float32))


def test_a_quiet_render_says_nothing(tmp_path: Path) -> None:
    done = run_dr(tmp_path, "render", write_scene(tmp_path), "-o", tmp_path / "a.exr", *SIZE, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_render_without_standard_streams_writes_its_picture(tmp_path: Path) -> None:
    out = tmp_path / "a.exr"
    words = (sys.executable, "-m", "tests.support.fake_dr", "render", write_scene(tmp_path), "-o", out, *SIZE)
    shell = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *map(str, words))
    done = subprocess.run(shell, env=environment(tmp_path), cwd=ROOT, timeout=DEADLINE_S)
    assert (done.returncode, out.exists()) == (0, True)


def test_the_summary_is_one_line(tmp_path: Path) -> None:
    done = run_dr(tmp_path, "render", write_scene(tmp_path), "-o", tmp_path / "a.exr", *SIZE)
    assert len(done.stdout.splitlines()) == 1
    for words in ("a.exr: ", " samples/s on 1 server, ", "wait ", "render "):
        assert words in done.stdout


def test_ctrl_c_cancels_and_leaves_a_partial_picture_only(tmp_path: Path) -> None:
    out = tmp_path / "a.exr"
    process = start_dr(tmp_path, "render", write_scene(tmp_path, bucket_s=0.05), "-o", out, *SIZE, "-v", "--json")
    wait_for_line(process, "tile 2 from")
    servers = children(process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "dr: incomplete: cancelled" in stderr
    assert json.loads(stdout.splitlines()[-1])["outputs"] == [str(tmp_path / "a.partial.exr")]
    assert not out.exists()
    alpha = read_exr(tmp_path / "a.partial.exr").channels["alpha"]
    assert (alpha == 0).any()
    assert_all_gone(servers, tmp_path)


def test_an_old_picture_survives_a_render_that_was_cancelled(tmp_path: Path) -> None:
    out = tmp_path / "a.exr"
    out.write_bytes(b"old")
    process = start_dr(tmp_path, "render", write_scene(tmp_path, bucket_s=0.05), "-o", out, *SIZE, "-v")
    wait_for_line(process, "tile 0 from")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out.read_bytes()) == (1, b"old")


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    scene = write_scene(tmp_path, prepare="hang")
    process = start_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", "-v")
    wait_for_line(process, "reading the scene")
    servers = children(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert_all_gone(servers, tmp_path)


def test_the_client_killed_leaves_no_server_and_no_socket(tmp_path: Path) -> None:
    scene = write_scene(tmp_path, bucket_s=0.05)
    process = start_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE, "-v", "--local-servers", 2)
    wait_for_line(process, "tile 0 from")
    servers = children(process)
    assert servers
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    assert_all_gone(servers, tmp_path)


def test_a_killed_server_costs_no_bucket(tmp_path: Path) -> None:
    out, scene = tmp_path / "a.exr", write_scene(tmp_path, bucket_s=0.03)
    process = start_dr(tmp_path, "render", scene, "-o", out, *SIZE, "-v", "--json", "--local-servers", 3)
    wait_for_line(process, "tile 2 from")
    kill(servers_of(process)[0])
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr
    facts = json.loads(stdout.splitlines()[-1])
    assert [loss["reason"] for loss in facts["lost"]] == ["killed by SIGKILL"]
    y, x = np.mgrid[:64, :96]
    assert np.array_equal(read_exr(out).channels["beauty"][..., 0], (x * 3 + y * 5).astype(np.float32))


def test_without_a_server_left_the_render_ends_and_says_why(tmp_path: Path) -> None:
    scene = write_scene(tmp_path, bucket_s=0.05)
    process = start_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE, "-v", "--local-servers", 2)
    wait_for_line(process, "tile 0 from")
    for server in servers_of(process):
        kill(server)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "killed by SIGKILL" in next(line for line in stderr.splitlines() if line.startswith("dr: incomplete:"))
    assert not (tmp_path / "a.exr").exists()


def test_a_bucket_that_fails_everywhere_is_given_up_and_named(tmp_path: Path) -> None:
    scene = write_scene(tmp_path, broken_buckets=[32])
    done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE, "--json")
    assert done.returncode == 1
    assert "bucket at 32,0 was given up: " in done.stderr
    assert "bucket at 32 is broken" in done.stderr
    assert facts_of(done)["buckets"] == BUCKETS - 4
    assert not (tmp_path / "a.exr").exists()


def test_a_scene_that_servers_find_bad_is_bad_input(tmp_path: Path) -> None:
    scene = write_scene(tmp_path, bad="scene.gltf: textures[0]: not an image")
    done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE, "-q")
    assert (done.returncode, done.stderr) == (2, "dr: scene.gltf: textures[0]: not an image\n")
