"""`dr doctor` against real processes: healthy, busy, silent, lying and refusing servers, and many of them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from dr.client.doctor import ASK_S, LOOK_UP_S
from dr.client.doctor_machine import THIS_MACHINE
from tests.support.farm import DEADLINE_S, ROOT, environment, run_dr, serving, start_dr, wait_for_line
from tests.support.keyed_farm import Farm
from tests.support.server_process import RawClient
from tests.support.spawner import free_ports

PATIENT_S = 60.0  # for a bucket: a loaded machine is slow, not broken
LIAR = "tests.support.lying_server"
WARM = "from workers.prepare import warmup as w; w._marker(w.use_kernel_cache()).touch()"


def examine(folder: Path, *words: object, status: int, seconds: float = PATIENT_S) -> list[dict[str, Any]]:
    """The checks that `dr doctor --json WORDS` prints, but those of disks."""
    done = run_dr(folder, "doctor", "--json", "--seconds", seconds, *words)
    assert done.returncode == status, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["checks"]
    return [each for each in found if each["name"] not in ("disk", "cache")]


def of(found: list[dict[str, Any]], subject: str, name: str) -> dict[str, Any]:
    (check,) = [each for each in found if (each["subject"], each["name"]) == (subject, name)]
    return check


def pretend_compiled(folder: Path) -> None:
    """As if this user's kernels were compiled: nothing here needs them."""
    subprocess.run([sys.executable, "-c", WARM], env=environment(folder), cwd=ROOT, check=True)


def test_a_healthy_server_renders_the_bits_of_this_machine(tmp_path: Path) -> None:
    pretend_compiled(tmp_path)
    with serving(tmp_path) as place:
        found = examine(tmp_path, place, status=0)
    assert {each["verdict"] for each in found} == {"ok"}
    assert of(found, THIS_MACHINE, "test bucket")["found"].startswith("first one after ")
    assert of(found, place, "test bucket")["found"].endswith(" M samples/s")
    assert of(found, place, "pixels")["found"] == f"the same bits as {THIS_MACHINE}"


def test_a_server_with_other_pixels_is_named_with_how_many_and_how_far(tmp_path: Path) -> None:
    pretend_compiled(tmp_path)
    with serving(tmp_path) as honest, serving(tmp_path, module=LIAR) as liar:
        found = examine(tmp_path, honest, liar, status=1)
    assert of(found, honest, "pixels")["verdict"] == "ok"
    lie = of(found, liar, "pixels")
    assert lie["verdict"] == "FAIL"
    assert lie["found"].startswith(f"1 of 1024 pixels differ from {THIS_MACHINE}, by up to ")


def test_without_this_machine_servers_are_compared_among_each_other(tmp_path: Path) -> None:
    with serving(tmp_path) as one, serving(tmp_path, module=LIAR) as liar, serving(tmp_path) as two:
        found = examine(tmp_path, "--no-local", one, liar, two, status=1)
    pixels = {each["subject"]: each["verdict"] for each in found if each["name"] == "pixels"}
    assert pixels == {liar: "FAIL", two: "ok"}
    assert not [each for each in found if each["subject"] == THIS_MACHINE and each["name"] == "test bucket"]


def test_a_busy_server_is_not_tested_and_that_is_no_failure(tmp_path: Path) -> None:
    with serving(tmp_path) as place, RawClient(f"tcp://{place}") as client:
        lease = client.take_lease("ada@vault")
        client.set_up(lease, {"scene.json": b"{}"})
        with alive(client):
            found = examine(tmp_path, "--no-local", place, status=0)
    check = of(found, place, "test bucket")
    assert (check["verdict"], check["found"]) == ("warn", "busy with ada@vault, not tested")


@contextmanager
def alive(client: RawClient) -> Iterator[None]:
    """The client answers the beats of its server meanwhile."""
    import threading

    from dr.protocol.messages import Beat

    over = threading.Event()

    def answer() -> None:
        while not over.is_set():
            client.hear(Beat)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_a_bucket_that_takes_too_long_is_cancelled_and_the_server_is_free_again(tmp_path: Path) -> None:
    with serving(tmp_path, module="tests.support.slow_server") as place:
        found = examine(tmp_path, "--no-local", place, status=1, seconds=2)
        again = examine(tmp_path, "--quick", place, status=0)
    check = of(found, place, "test bucket")
    assert check["verdict"] == "FAIL"
    assert check["found"].startswith("not finished within 2 s; ")
    assert "ready" in of(again, place, "port")["found"]


def test_the_servers_of_a_spawner_of_this_machine_are_found_and_announced(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with start_dr(tmp_path, "spawner", f"-port={port}") as process:
        try:
            wait_for_line(process, ": ready")
            found = examine(tmp_path, "--quick", status=0)
        finally:
            process.terminate()
            process.communicate(timeout=DEADLINE_S)
    (check,) = [each for each in found if each["name"] == "announcements" and each["subject"].endswith(f":{port}")]
    assert (check["verdict"], check["found"].endswith(" names it")) == ("ok", True)


def test_an_announce_port_that_nobody_answers_is_a_warning(tmp_path: Path) -> None:
    (announce,) = free_ports(1)
    with serving(tmp_path, "--announce", announce) as place:
        found = examine(tmp_path, "--quick", place, status=0)
    check = of(found, place, "announcements")
    assert (check["verdict"], f"TCP {announce}" in check["hint"]) == ("warn", True)


def test_a_key_that_is_not_admitted_anywhere_is_status_3_with_the_command_that_helps(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    guest = farm.visit("guest", admitted=False)
    with serving(tmp_path / "farm", "--bind", "127.0.0.1") as place:
        found = examine(guest, "--quick", place, status=3)
        owner = examine(tmp_path / "farm", "--quick", place, status=0)
    check = of(found, place, "key")
    assert check["verdict"] == "FAIL"
    assert f"dr keys authorize NAME '{farm.key_of('guest')}'" in check["found"]
    assert of(owner, place, "key")["found"] == "accepted"


def test_a_server_of_another_farm_fails_for_its_key_and_not_for_its_port(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    ours, theirs = Farm(tmp_path / "ours"), Farm(tmp_path / "theirs")
    with serving(theirs.folder / "farm", "--bind", "127.0.0.1") as place:
        found = examine(ours.folder / "farm", "--quick", place, status=3)
    check = of(found, place, "key")
    assert (check["verdict"], "dr keys import-farm" in check["hint"]) == ("FAIL", True)


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is this machine")
def test_two_hundred_hosts_of_which_half_are_dead_are_examined_within_a_bounded_time(tmp_path: Path) -> None:
    """One server answers on a hundred addresses; names without an address, closed ports and a mute program do not."""
    with ExitStack() as stack:
        place = stack.enter_context(serving(tmp_path, "--bind", "0.0.0.0", "--insecure"))
        mute = stack.enter_context(socket.create_server(("0.0.0.0", 0), backlog=128)).getsockname()[1]
        port, (closed,) = place.rpartition(":")[2], free_ports(1)
        living = [f"127.0.1.{i}:{port}" for i in range(2, 102)]
        silent = [f"127.0.2.{i}:{mute}" for i in range(1, 51)]
        absent = [f"127.0.3.{i}:{closed}" for i in range(1, 26)]
        unknown = [f"no-such-host-{i}.invalid:{port}" for i in range(25)]
        begun = monotonic()
        found = examine(tmp_path, "--quick", "--insecure", *living, *silent, *absent, *unknown, status=1)
        took_s = monotonic() - begun
    failed = {each["subject"]: each["name"] for each in found if each["verdict"] == "FAIL"}
    assert failed == {
        **dict.fromkeys((*silent, *absent), "port"),
        **{host.partition(":")[0]: "name" for host in unknown},
    }
    assert {each["subject"] for each in found if (each["name"], each["verdict"]) == ("versions", "ok")} == {*living}
    assert took_s < LOOK_UP_S + ASK_S + DEADLINE_S
