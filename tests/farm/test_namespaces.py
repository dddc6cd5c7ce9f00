"""A farm of three machines with keys, each a network namespace: real processes, real interfaces, real cables."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dr.settings import DEFAULT_PORT
from tests.support.farm import DEADLINE_S, ROOT, children, facts_of, kill, wait_for_line, write_scene
from tests.support.namespaces import Machine, star

LISTEN_PORT = 30000
NOTICED_S = 4.0  # a cut cable
SLACK_S = 4.0  # of machines that do other things, too
COMPILE_S = 240  # real kernels, where nothing has been compiled yet
SIZE = ("--size", "96x64", "--samples", "4", "--bucket-size", "16")
BUCKETS = 24
REAL = "dr.cli"


class Farm(NamedTuple):
    """The client sits in the middle; the two others reach it, not each other."""

    client: Machine
    near: Machine
    far: Machine


@pytest.fixture
def strangers(tmp_path: Path) -> Iterator[Farm]:
    """Without keys."""
    with star(tmp_path, "client", "near", "far") as machines:
        yield Farm(*machines)


@pytest.fixture
def farm(strangers: Farm, tmp_path: Path) -> Farm:
    """With keys, made and carried as docs/threat-model.md says."""
    key = tmp_path / "farm.key"
    for machine, words in (
        (strangers.client, ("init",)),
        (strangers.client, ("export-farm", key)),
        (strangers.near, ("import-farm", key)),
        (strangers.far, ("import-farm", key)),
    ):
        done = machine.run("keys", *words)
        assert done.returncode == 0, done.stderr
    return strangers


@contextmanager
def running(
    machine: Machine, *words: object, ready: str, module: str = "tests.support.fake_dr"
) -> Iterator[subprocess.Popen[str]]:
    """A server or a spawner, from the line that says it is ready to a clean end."""
    process = machine.start(*words, module=module)
    try:
        wait_for_line(process, ready)
        yield process
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, stderr
    finally:
        process.kill()
        process.communicate()


def serving(machine: Machine, *words: object, module: str = "tests.support.fake_dr") -> Any:
    return running(machine, "serve", "--threads", 1, *words, ready="listening on", module=module)


def local_bits(client: Machine) -> bytes:
    """The picture as the client's own servers render it, without any bucket's delay."""
    folder = client.folder / "alone"
    folder.mkdir()
    scene, out = write_scene(folder), folder / "a.exr"
    done = client.run("render", scene, "-o", out, *SIZE, "--local-servers", 1, "--threads", 1)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


def buckets_of(facts: dict[str, Any]) -> dict[str, int]:
    return {server["name"]: server["buckets"] for server in facts["servers"]}


def listen(machine: Machine) -> tuple[str, str]:
    """For the client: where this machine will dial."""
    return "--listen", f"{machine.hub}:{LISTEN_PORT}"


def dial(machine: Machine) -> tuple[str, str]:
    """For a server on this machine: how to reach the client."""
    return "--dial", f"{machine.hub}:{LISTEN_PORT}"


# Both ways to a server


def test_one_server_listens_and_one_dials_out_and_the_bits_are_those_of_a_local_render(farm: Farm) -> None:
    client, near, far = farm
    scene, out = write_scene(client.folder, bucket_s=0.1), client.folder / "a.exr"
    with serving(near, "--name", "near"), serving(far, "--name", "far", "--bind", "127.0.0.1", *dial(far)):
        assert near.listens_on(DEFAULT_PORT) <= {"*", "[::]", "0.0.0.0"}
        assert far.listens_on(DEFAULT_PORT) <= {"127.0.0.1", "[::ffff:127.0.0.1]"}
        where = ("--server", near.address, *listen(far), "--no-local", "--json")
        facts = facts_of(client.run("render", scene, "-o", out, *SIZE, *where))
    assert set(buckets_of(facts)) == {"near", "far"}
    assert sum(buckets_of(facts).values()) == facts["buckets"] >= BUCKETS
    assert facts["lost"] == []
    assert out.read_bytes() == local_bits(client)


@pytest.mark.slow
def test_real_kernels_give_the_bits_of_a_local_render_on_servers_of_both_kinds(farm: Farm) -> None:
    client, near, far = farm
    picture = (ROOT / "examples" / "demo.scene.toml", "--size", "128x96", "--samples", "256", "--bucket-size", "16")
    apart, alone = client.folder / "apart.exr", client.folder / "alone.exr"
    with serving(near, "--name", "near", module=REAL), serving(far, "--name", "far", *dial(far), module=REAL):
        where = ("--server", near.address, *listen(far), "--no-local", "--json")
        done = client.run("render", *picture, "-o", apart, *where, module=REAL, within_s=COMPILE_S)
    facts = facts_of(done)
    done = client.run("render", *picture, "-o", alone, "--local-servers", 1, "--threads", 1, module=REAL)
    assert done.returncode == 0, done.stderr
    assert set(buckets_of(facts)) == {"near", "far"}
    assert apart.read_bytes() == alone.read_bytes()


def test_a_server_that_nobody_can_reach_renders_for_the_client_that_it_dials(farm: Farm) -> None:
    client, _, far = farm
    scene, out = write_scene(client.folder), client.folder / "a.exr"
    with serving(far, "--name", "far", "--bind", "127.0.0.1", *dial(far)):
        refused = client.run("status", f"{far.address}:{DEFAULT_PORT}")
        assert refused.returncode == 1
        assert "nobody listens there" in refused.stdout
        facts = facts_of(client.run("render", scene, "-o", out, *SIZE, *listen(far), "--no-local", "--json"))
    assert buckets_of(facts) == {"far": BUCKETS}
    assert out.read_bytes() == local_bits(client)


def test_all_servers_of_a_spawner_render_for_the_client_that_it_dials(farm: Farm) -> None:
    client, _, far = farm
    scene, out = write_scene(client.folder, bucket_s=0.1), client.folder / "a.exr"
    with running(far, "spawner", "--per-node", 2, "--bind", "127.0.0.1", *dial(far), ready="ready"):
        facts = facts_of(client.run("render", scene, "-o", out, *SIZE, *listen(far), "--no-local", "--json"))
    assert len(buckets_of(facts)) == 2
    assert out.read_bytes() == local_bits(client)


def test_servers_are_reached_over_ipv6(farm: Farm) -> None:
    client, near, far = farm
    scene, out = write_scene(client.folder, bucket_s=0.1), client.folder / "a.exr"
    place = f"[{far.hub6}]:{LISTEN_PORT}"
    with serving(near, "--name", "near"), serving(far, "--name", "far", "--dial", place):
        where = ("--server", f"[{near.address6}]:{DEFAULT_PORT}", "--listen", place, "--no-local", "--json")
        facts = facts_of(client.run("render", scene, "-o", out, *SIZE, *where))
    assert set(buckets_of(facts)) == {"near", "far"}
    assert out.read_bytes() == local_bits(client)


# Without keys


@pytest.mark.parametrize(
    "words",
    [
        ("serve", "--bind", "0.0.0.0"),
        ("serve", "--dial", f"10.77.1.1:{LISTEN_PORT}"),
        ("spawner", "--bind", "0.0.0.0"),
        ("render", "SCENE", "--server", "10.77.1.1", "--no-local"),
        ("render", "SCENE", "--listen", f"10.77.1.2:{LISTEN_PORT}", "--no-local"),
        ("status", "10.77.1.1"),
    ],
    ids=" ".join,
)
def test_without_a_key_nothing_leaves_a_machine_and_one_line_tells_what_makes_one(
    strangers: Farm, words: tuple[str, ...]
) -> None:
    near = strangers.near
    scene = write_scene(near.folder)
    done = near.run(*(scene if word == "SCENE" else word for word in words))
    assert done.returncode == 3, done.stderr
    assert "dr keys init" in done.stderr.splitlines()[-1]


def test_without_a_key_a_server_listens_on_loopback_alone(strangers: Farm) -> None:
    with serving(strangers.near):
        assert strangers.near.listens_on(DEFAULT_PORT) <= {"127.0.0.1", "[::ffff:127.0.0.1]"}


def test_a_machine_of_another_farm_gets_no_server(farm: Farm) -> None:
    client, near, far = farm
    assert far.run("keys", "init", "--renew", "farm").returncode == 0
    scene = write_scene(client.folder, bucket_s=0.02)
    with serving(far, "--name", "far"), serving(near, "--name", "near"):
        where = ("--server", far.address, "--server", near.address, "--no-local", "--json")
        facts = facts_of(client.run("render", scene, "-o", client.folder / "a.exr", *SIZE, *where))
    assert buckets_of(facts) == {"near": BUCKETS}


# Cables


@pytest.mark.slow
@pytest.mark.parametrize("dials", [False, True], ids=["far listens", "far dials out"])
def test_a_cut_cable_is_noticed_and_when_it_is_mended_the_server_renders_on(farm: Farm, dials: bool) -> None:
    client, near, far = farm
    scene, out = write_scene(client.folder, bucket_s=0.5), client.folder / "a.exr"
    far_words = dial(far) if dials else ()
    far_place = listen(far) if dials else ("--server", far.address)
    with serving(near, "--name", "near"), serving(far, "--name", "far", *far_words):
        where = ("--server", near.address, *far_place, "--no-local", "-v", "--json")
        render = client.start("render", scene, "-o", out, *SIZE, *where)
        wait_for_line(render, "from far")
        far.cut_cable()
        cut = time.monotonic()
        wait_for_line(render, "lost far")
        noticed_s = time.monotonic() - cut
        far.mend_cable()
        wait_for_line(render, "joined far")
        facts = finish(render)
    assert noticed_s < NOTICED_S + SLACK_S
    assert set(buckets_of(facts)) == {"near", "far"}
    assert [server["name"] for server in facts["lost"]] == ["far"]
    assert facts["buckets"] >= BUCKETS
    assert out.read_bytes() == local_bits(client)


def test_buckets_of_a_server_behind_a_cut_cable_go_to_the_others(farm: Farm) -> None:
    client, near, far = farm
    scene, out = write_scene(client.folder, bucket_s=0.1), client.folder / "a.exr"
    with serving(near, "--name", "near"), serving(far, "--name", "far"):
        where = ("--server", near.address, "--server", far.address, "--no-local", "-v", "--json")
        render = client.start("render", scene, "-o", out, *SIZE, *where)
        wait_for_line(render, "from far")
        far.cut_cable()
        facts = finish(render)
        far.mend_cable()
    assert facts["buckets"] == sum(buckets_of(facts).values()) >= BUCKETS
    assert out.read_bytes() == local_bits(client)


def finish(render: subprocess.Popen[str]) -> dict[str, Any]:
    """The facts of a render that ends well."""
    stdout, stderr = render.communicate(timeout=DEADLINE_S)
    assert render.returncode == 0, stderr
    facts: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return facts


# Who watches


def test_status_follows_a_spawner_on_another_machine_by_its_announcements(farm: Farm) -> None:
    client, near, _ = farm
    watch = client.start("status", near.address, "--watch", "--json", "--seconds", DEADLINE_S)
    try:
        assert watch.stdout is not None
        news: Iterator[list[dict[str, Any]]] = map(json.loads, watch.stdout)
        with running(near, "spawner", "--per-node", 2, ready="ready") as spawner:
            assert any([row["state"] for row in rows] == ["ready", "ready"] for rows in news)
            kill(children(spawner)[0])
            # that a server is gone is told by announcements alone
            assert any("gone" in (row["state"] for row in rows) for rows in news)
    finally:
        watch.kill()
        watch.communicate()


def test_a_machine_that_a_farm_does_not_admit_is_told_so_and_comes_in_once_it_is_authorized(
    farm: Farm, tmp_path: Path
) -> None:
    client, _, far = farm
    public = tmp_path / "farm-public.key"
    assert client.run("keys", "export-farm", "--public", public).returncode == 0
    far.forget_keys()
    assert far.run("keys", "import-farm", public).returncode == 0
    with serving(client):
        refused = far.run("status", f"{far.hub}:{DEFAULT_PORT}")
        assert refused.returncode == 3
        line = next(line for line in refused.stdout.splitlines() if "dr keys authorize" in line)
        key = line.split("'")[1]
        assert client.run("keys", "authorize", "far", key).returncode == 0
        deadline = time.monotonic() + DEADLINE_S
        while far.run("status", f"{far.hub}:{DEFAULT_PORT}").returncode != 0:
            assert time.monotonic() < deadline, "authorized, and still not admitted"
