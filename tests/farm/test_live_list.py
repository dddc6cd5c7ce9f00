"""What a list of servers does to a render that runs: `dr servers`, edits by hand, seats. Real processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.farm import DEADLINE_S, facts_of, run_dr, serving, start_dr, wait_for_line, write_scene

SIZE = ("--size", "96x64", "--samples", "4", "--bucket-size", "16")


def write_list(folder: Path, *places: str) -> Path:
    """A settings file; a place that begins with # is disabled."""
    rows = []
    for place in places:
        host, _, port = place.lstrip("#").rpartition(":")
        rows.append(f'{{ host = "{host}", port = {port}, enabled = {"false" if place.startswith("#") else "true"} }}')
    file = folder / "dr.toml"
    file.write_text(f"use_local_host = false\nservers = [{', '.join(rows)}]\n")
    return file


def facts_of_text(stdout: str) -> dict[str, Any]:
    """The object that `--json` printed last."""
    facts: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return facts


def test_a_server_that_is_added_by_command_joins_the_running_render(tmp_path: Path) -> None:
    scene = write_scene(tmp_path, bucket_s=0.2)
    with serving(tmp_path, "--threads", 1) as one, serving(tmp_path, "--threads", 1) as two:
        file = write_list(tmp_path, one)
        words = ("-o", tmp_path / "a.exr", *SIZE, "--settings", file, "-v", "--json")
        process = start_dr(tmp_path, "render", scene, *words)
        wait_for_line(process, "tile 0 from")
        added = run_dr(tmp_path, "servers", "add", two, "--settings", file)
        assert added.returncode == 0, added.stderr
        wait_for_line(process, f"{two} added")
        stdout, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    servers = {server["endpoint"]: server["buckets"] for server in facts_of_text(stdout)["servers"]}
    assert set(servers) == {f"tcp://{one}", f"tcp://{two}"}
    assert sum(servers.values()) == facts_of_text(stdout)["buckets"]


def test_a_server_that_is_disabled_by_hand_leaves_and_no_pixel_is_lost(tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path, bucket_s=0.2), tmp_path / "a.exr"
    with serving(tmp_path, "--threads", 1) as one, serving(tmp_path, "--threads", 1) as two:
        file = write_list(tmp_path, one, two)
        process = start_dr(tmp_path, "render", scene, "-o", out, *SIZE, "--settings", file, "-v", "--json")
        wait_for_line(process, "tile 2 from")
        write_list(tmp_path, one, f"#{two}")
        wait_for_line(process, f"{two} disabled")
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
        alone = run_dr(tmp_path, "render", scene, "-o", tmp_path / "b.exr", *SIZE, "--server", one, "--no-local", "-q")
    assert (process.returncode, alone.returncode) == (0, 0), stderr
    assert out.read_bytes() == (tmp_path / "b.exr").read_bytes()
    assert "disabled in dr.toml" in str(facts_of_text(stdout)["lost"])


def test_a_broken_settings_file_is_told_and_the_render_goes_on(tmp_path: Path) -> None:
    scene = write_scene(tmp_path, bucket_s=0.2)
    with serving(tmp_path, "--threads", 1) as one:
        file = write_list(tmp_path, one)
        process = start_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE, "--settings", file, "-v")
        wait_for_line(process, "tile 0 from")
        file.write_text("servers = [{ host =")
        wait_for_line(process, "this render keeps the servers that it has")
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0


def test_at_most_so_many_of_the_list_take_part(tmp_path: Path) -> None:
    scene = write_scene(tmp_path, bucket_s=0.05)
    with (
        serving(tmp_path, "--threads", 1) as one,
        serving(tmp_path, "--threads", 1) as two,
        serving(tmp_path, "--threads", 1) as three,
    ):
        file = write_list(tmp_path, one, two, three)
        file.write_text("max_servers = 2\n" + file.read_text())
        done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE, "--settings", file, "--json")
    assert done.returncode == 0, done.stderr
    assert len(facts_of(done)["servers"]) == 2


def test_names_that_do_not_resolve_hold_nobody_up(tmp_path: Path) -> None:
    scene = write_scene(tmp_path)
    with serving(tmp_path, "--threads", 1, "--insecure") as one:
        words = ("--server", one, "--server", "nowhere.invalid", "--no-local", "--insecure", "--json")
        done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *SIZE, *words)
    assert done.returncode == 0, done.stderr
    assert "cannot resolve 'nowhere.invalid'" in done.stderr


def test_the_list_is_saved_in_the_scene_when_the_settings_ask_for_it(tmp_path: Path) -> None:
    scene = tmp_path / "quad.scene.toml"
    scene.write_text("# mine\n")
    with serving(tmp_path, "--threads", 1) as one:
        file = tmp_path / "dr.toml"
        file.write_text("save_servers_in_scene = true\n")
        words = ("--server", one, "--no-local", "--settings", file, *SIZE)
        done = run_dr(tmp_path, "render", scene, "-o", tmp_path / "a.exr", *words)
        assert done.returncode == 0, done.stderr
        assert scene.read_text().startswith("# mine\n")
        again = run_dr(tmp_path, "render", scene, "-o", tmp_path / "b.exr", "--no-local", *SIZE, "--json")
    assert [server["endpoint"] for server in facts_of(again)["servers"]] == [f"tcp://{one}"]
