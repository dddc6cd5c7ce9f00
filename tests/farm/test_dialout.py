"""Servers that dial out and clients that listen: real processes over loopback, with keys and without."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dr
from dr.keys.changes import authorize, export_farm, import_farm, init_keys, revoke
from dr.keys.folder import KeyPlaces, key_places, read_client
from tests.support.farm import (
    DEADLINE_S,
    environment,
    facts_of,
    run_dr,
    serving,
    start_dr,
    wait_for_line,
    write_scene,
)
from tests.support.keys import pair_of
from tests.support.spawner import free_ports
from tests.support.sysfs import write_host
from workers.numa.ranges import format_ranges
from workers.numa.topology import usable_cpus

SIZE = ("--size", "96x64", "--samples", "4", "--bucket-size", "16")
WAITING = "waiting for servers to dial in at"
NO_CLIENT = "no client that is admitted here listens there; dialling on"


@pytest.fixture
def place() -> str:
    """Where a client will listen."""
    return f"127.0.0.1:{free_ports(1)[0]}"


@contextmanager
def running(folder: Path, *words: object) -> Iterator[subprocess.Popen[str]]:
    """`dr WORDS` until the end of the block."""
    process = start_dr(folder, *words)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()


@contextmanager
def dialling(folder: Path, *places: str, words: tuple[object, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A server that dials out and listens to nobody that we know."""
    targets = [f"--dial={place}" for place in places]
    with running(folder, "serve", f"-port={free_ports(1)[0]}", "--threads", 1, *targets, *words) as server:
        wait_for_line(server, "listening on")
        yield server


def render_words(folder: Path, place: str, *words: object, **behaviour: object) -> list[object]:
    return ["render", write_scene(folder, **behaviour), "-o", folder / "a.exr", *SIZE, "--listen", place, *words]


def local_picture(folder: Path) -> bytes:
    """The bits that every render of the scene must have."""
    home = folder / "local"
    home.mkdir()
    assert run_dr(home, "render", write_scene(home), "-o", home / "a.exr", *SIZE).returncode == 0
    return (home / "a.exr").read_bytes()


def finish(client: subprocess.Popen[str]) -> str:
    """The rest of its stderr; it must be content."""
    _, stderr = client.communicate(timeout=DEADLINE_S)
    assert client.returncode == 0, stderr
    return stderr


# Without keys


def test_a_server_that_is_dialled_and_one_that_dials_render_the_bits_of_a_local_render(
    tmp_path: Path, place: str
) -> None:
    with dialling(tmp_path, place, words=("--name", "far")), serving(tmp_path, "--threads", 1) as near:
        words = render_words(tmp_path, place, "--server", near, "--no-local", "--json", bucket_s=0.1)
        done = run_dr(tmp_path, *words)
    facts = facts_of(done)
    assert (len(facts["servers"]), facts["lost"]) == (2, [])
    assert "far" in {server["name"] for server in facts["servers"]}
    assert (tmp_path / "a.exr").read_bytes() == local_picture(tmp_path)
    assert f"--listen {place}: open: any user of this machine can pose as a server; `dr keys init`" in done.stderr


def test_a_server_waits_between_renders_and_serves_one_after_the_other(tmp_path: Path, place: str) -> None:
    with dialling(tmp_path, place) as server:
        wait_for_line(server, "nobody answers there; dialling on")
        for _ in range(3):
            assert run_dr(tmp_path, *render_words(tmp_path, place, "--no-local")).returncode == 0
            wait_for_line(server, f"{place} answers")
            wait_for_line(server, "the client says bye")


def test_a_render_waits_for_its_first_server(tmp_path: Path, place: str) -> None:
    with running(tmp_path, *render_words(tmp_path, place, "--no-local")) as client:
        wait_for_line(client, f"{WAITING} {place}")
        with dialling(tmp_path, place):
            finish(client)


def test_a_client_that_is_killed_is_noticed_and_the_next_one_at_its_port_gets_the_server(
    tmp_path: Path, place: str
) -> None:
    words = render_words(tmp_path, place, "--no-local", "-v", bucket_s=0.2)
    with dialling(tmp_path, place) as server:
        with running(tmp_path, *words) as client:
            wait_for_line(client, "tile 0 from")
            client.kill()
            wait_for_line(server, "the client is gone")
        with running(tmp_path, *render_words(tmp_path, place, "--no-local")) as client:
            finish(client)


def test_two_clients_are_served_in_turn(tmp_path: Path) -> None:
    places = [f"127.0.0.1:{port}" for port in free_ports(2)]
    homes = [tmp_path / name for name in ("one", "two")]
    for home in homes:
        home.mkdir()
    with (
        dialling(tmp_path, *places),
        running(homes[0], *render_words(homes[0], places[0], "--no-local", "-v", bucket_s=0.1)) as first,
    ):
        wait_for_line(first, "tile 0 from")
        with running(homes[1], *render_words(homes[1], places[1], "--no-local")) as second:
            assert "process" in wait_for_line(second, "busy with")
            finish(first)
            finish(second)


def test_a_server_that_is_killed_is_noticed_and_the_picture_is_complete(tmp_path: Path, place: str) -> None:
    with (
        dialling(tmp_path, place, words=("--name", "one")) as one,
        dialling(tmp_path, place, words=("--name", "two")),
        running(tmp_path, *render_words(tmp_path, place, "--no-local", "-v", bucket_s=0.2)) as client,
    ):
        for _ in range(2):
            wait_for_line(client, "renders with 1 thread")
        wait_for_line(client, "from one")
        one.kill()
        assert "the connection was closed" in wait_for_line(client, "lost one")
        finish(client)
    assert (tmp_path / "a.exr").read_bytes() == local_picture(tmp_path)


def test_a_server_that_freezes_is_noticed_and_comes_again_when_it_wakes(tmp_path: Path, place: str) -> None:
    with (
        dialling(tmp_path, place, words=("--name", "one")) as one,
        dialling(tmp_path, place, words=("--name", "two")),
        running(tmp_path, *render_words(tmp_path, place, "--no-local", "-v", bucket_s=0.6)) as client,
    ):
        wait_for_line(client, "from one")
        one.send_signal(signal.SIGSTOP)
        wait_for_line(client, "lost one")
        one.send_signal(signal.SIGCONT)
        wait_for_line(client, "joined one")
        finish(client)
    assert (tmp_path / "a.exr").read_bytes() == local_picture(tmp_path)


def test_a_server_that_is_dialled_and_dials_in_takes_part_once(tmp_path: Path, place: str) -> None:
    (port,) = free_ports(1)
    with running(tmp_path, "serve", f"-port={port}", "--threads", 1, "--name", "one", "--dial", place) as server:
        wait_for_line(server, "listening on")
        where = ("--server", f"127.0.0.1:{port}", "--no-local", "--json")
        facts = facts_of(run_dr(tmp_path, *render_words(tmp_path, place, *where, bucket_s=0.05)))
    assert [report["buckets"] for report in facts["servers"] if report["buckets"]] == [facts["buckets"]]


def test_all_servers_of_a_spawner_dial_out(tmp_path: Path, place: str) -> None:
    write_host(tmp_path / "sys", {0: format_ranges(usable_cpus())})
    ports = ",".join(map(str, free_ports(2)))
    words = ("--per-node", 2, f"-port={ports}", "--sysfs", tmp_path / "sys", f"--dial={place}")
    with running(tmp_path, "spawner", *words) as spawner:
        for _ in range(2):
            wait_for_line(spawner, "ready")
        done = run_dr(tmp_path, *render_words(tmp_path, place, "--no-local", "--json", bucket_s=0.05))
    assert len(facts_of(done)["servers"]) == 2


def test_this_machine_renders_beside_them_unless_it_is_told_not_to(tmp_path: Path, place: str) -> None:
    done = run_dr(tmp_path, *render_words(tmp_path, place, "--local-servers", 1, "--json"))
    assert [server["endpoint"][:3] for server in facts_of(done)["servers"]] == ["ipc"]


def test_a_render_without_servers_waits_until_it_is_cancelled(tmp_path: Path, place: str) -> None:
    settings = tmp_path / "dr.toml"
    settings.write_text("use_local_host = false\n")
    with running(tmp_path, *render_words(tmp_path, place, "--settings", settings)) as client:
        wait_for_line(client, WAITING)
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=DEADLINE_S)
        assert client.returncode == 1


def test_a_server_leaves_while_it_dials_and_while_it_renders(tmp_path: Path, place: str) -> None:
    with dialling(tmp_path, place) as server:
        server.terminate()
        server.communicate(timeout=DEADLINE_S)
        assert server.returncode == 0
    with running(tmp_path, *render_words(tmp_path, place, "--no-local", "-v", bucket_s=0.2)) as client:
        with dialling(tmp_path, place) as server:
            wait_for_line(client, "tile 0 from")
            server.terminate()
            server.communicate(timeout=DEADLINE_S)
            assert server.returncode == 0
        with dialling(tmp_path, place):
            finish(client)


def test_the_api_listens_too(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", environment(tmp_path)["XDG_CONFIG_HOME"])
    with dialling(tmp_path, place):
        image = dr.render(write_scene(tmp_path), size=(96, 64), samples=4, listen=place, local=False)
    assert (image.complete, len(image.statistics.servers)) == (True, 1)


# Words


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("serve", "--dial", "192.0.2.1:1"), 3, "dr: --dial 192.0.2.1: a server that other machines reach needs"),
        (("spawner", "--dial", "192.0.2.1:1"), 3, "dr: --dial 192.0.2.1: a server that other machines reach needs"),
        (("serve", "--dial", "somewhere"), 2, "dr: --dial 'somewhere': expected HOST:PORT"),
        (("spawner", "--dial", "a:1-2"), 2, "dr: --dial 'a:1-2': expected HOST:PORT"),
        (("spawner", "install", "--print", "--user", "--dial", "b"), 2, "dr: --dial 'b': expected HOST:PORT"),
        (("render", "SCENE", "--listen", "*:1"), 3, "dr: --listen *:1: a server on another machine needs a farm key"),
        (("render", "SCENE", "--check", "--listen", "*:1"), 3, "dr: --listen *:1: a server on another machine needs"),
        (("render", "SCENE", "--listen", "here"), 2, "dr: --listen here: expected one address and port to listen on"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    scene = write_scene(tmp_path)
    done = run_dr(tmp_path, *(scene if word == "SCENE" else word for word in words))
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)
    assert status != 3 or "`dr keys init`" in line


def test_a_check_names_the_place_where_servers_would_dial_in(tmp_path: Path, place: str) -> None:
    done = run_dr(tmp_path, "render", write_scene(tmp_path), "--check", "--json", "--no-local", "--listen", place)
    assert facts_of(done)["servers"] == [{"name": "who dials in", "endpoint": place, "threads": None}]


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        done = run_dr(tmp_path, *render_words(tmp_path, place, "-q"))
    assert done.returncode == 2
    assert done.stderr == (
        f"dr: --listen {place}: cannot listen there: the port is taken by another program; choose another place\n"
    )


def test_a_service_keeps_dialling(tmp_path: Path) -> None:
    done = run_dr(tmp_path, "spawner", "install", "--print", "--user", "--dial", "127.0.0.1:1", "--dial", "[::1]:2")
    assert "--dial=127.0.0.1:1 --dial=[::1]:2" in done.stdout.replace('"', "")


def test_a_name_that_does_not_resolve_is_told_once_and_tried_on(tmp_path: Path, place: str) -> None:
    init_keys(machine(tmp_path), "owner")
    with dialling(tmp_path, "no-such-host.invalid:1", place) as server:
        assert "cannot resolve it" in wait_for_line(server, "no-such-host.invalid:1: ")
        for _ in range(2):  # each takes some redials
            assert run_dr(tmp_path, *render_words(tmp_path, place, "--no-local")).returncode == 0
        server.terminate()
        _, stderr = server.communicate(timeout=DEADLINE_S)
    assert "no-such-host.invalid" not in stderr


# Keys


def machine(home: Path) -> KeyPlaces:
    home.mkdir(exist_ok=True)
    return key_places({}, home / "xdg_config_home" / "dr" / "keys")


def bring(farm: KeyPlaces, home: Path, public: bool) -> KeyPlaces:
    carried = home.parent / f"{home.name}.key"
    export_farm(farm, carried, public, force=False)
    import_farm(machine(home), carried, force=False)
    return machine(home)


def public_key(places: KeyPlaces) -> str:
    client = read_client(places.client)
    assert client
    return client.public


@pytest.fixture
def farm(tmp_path: Path) -> KeyPlaces:
    """The keys of a farm, on the machine where its server runs."""
    places = machine(tmp_path / "server")
    init_keys(places, "owner")
    return places


def test_a_listed_client_is_found_among_many_and_goes_by_the_name_of_its_key(
    farm: KeyPlaces, tmp_path: Path, place: str
) -> None:
    home = tmp_path / "anna"
    key = public_key(bring(farm, home, public=True))
    for number in range(10):
        authorize(farm, f"a{number}", pair_of(f"other {number}").public)
    authorize(farm, "zoe", key)
    with dialling(tmp_path / "server", place) as server:
        assert run_dr(home, *render_words(home, place, "--no-local")).returncode == 0
        assert "zoe (" in wait_for_line(server, "lease given to")


def test_the_owner_of_the_farm_renders_with_the_farm_key_alone(farm: KeyPlaces, tmp_path: Path, place: str) -> None:
    home = tmp_path / "owner"
    bring(farm, home, public=False)
    with dialling(tmp_path / "server", place):
        done = run_dr(home, *render_words(home, place, "--no-local"))
    assert done.returncode == 0
    assert "open:" not in done.stderr


def test_a_client_that_is_authorized_while_it_waits_gets_the_server(
    farm: KeyPlaces, tmp_path: Path, place: str
) -> None:
    home = tmp_path / "anna"
    key = public_key(bring(farm, home, public=True))
    with (
        dialling(tmp_path / "server", place) as server,
        running(home, *render_words(home, place, "--no-local")) as client,
    ):
        wait_for_line(server, NO_CLIENT)
        authorize(farm, "anna", key)
        finish(client)


def test_a_client_of_another_farm_does_not_admit_the_server(farm: KeyPlaces, tmp_path: Path, place: str) -> None:
    """The server knows the client's key, but the client trusts another farm."""
    home = tmp_path / "anna"
    elsewhere = machine(tmp_path / "elsewhere")
    init_keys(elsewhere, "mallory")
    authorize(farm, "anna", public_key(bring(elsewhere, home, public=True)))
    with (
        dialling(tmp_path / "server", place) as server,
        running(home, *render_words(home, place, "--no-local")) as client,
    ):
        wait_for_line(server, "the client there does not admit this server's farm key; dialling on")
        client.send_signal(signal.SIGINT)
        _, stderr = client.communicate(timeout=DEADLINE_S)
    assert client.returncode == 1
    assert "lost" not in stderr


@pytest.mark.parametrize("who", ["server", "client"])
def test_keys_on_one_side_alone_bring_nobody_together(who: str, tmp_path: Path, place: str) -> None:
    init_keys(machine(tmp_path / who), "owner")
    for name in ("server", "client"):
        (tmp_path / name).mkdir(exist_ok=True)
    home = tmp_path / "client"
    with (
        running(home, *render_words(home, place, "--no-local")) as client,
        dialling(tmp_path / "server", place) as server,
    ):
        wait_for_line(server, NO_CLIENT)
        assert client.poll() is None


def test_a_client_whose_key_is_revoked_loses_the_server_and_the_next_one_gets_it(
    farm: KeyPlaces, tmp_path: Path
) -> None:
    places = [f"127.0.0.1:{port}" for port in free_ports(2)]
    homes = [tmp_path / name for name in ("anna", "bert")]
    for home in homes:
        authorize(farm, home.name, public_key(bring(farm, home, public=True)))
    with (
        dialling(tmp_path / "server", *places) as server,
        running(homes[0], *render_words(homes[0], places[0], "--no-local", "-v", bucket_s=0.3)) as anna,
    ):
        wait_for_line(anna, "tile 0 from")
        revoke(farm, "anna")
        assert "your key was revoked; ask for `dr keys authorize NAME" in wait_for_line(anna, "your key was revoked")
        wait_for_line(server, "the key of the client there was revoked")
        with running(homes[1], *render_words(homes[1], places[1], "--no-local")) as bert:
            finish(bert)
        assert anna.poll() is None  # it waits for other servers


def test_insecure_dials_and_listens_without_keys_where_there_are_some(
    farm: KeyPlaces, tmp_path: Path, place: str
) -> None:
    home = tmp_path / "anna"
    bring(farm, home, public=False)
    with dialling(tmp_path / "server", place, words=("--insecure",)):
        done = run_dr(home, *render_words(home, place, "--no-local", "--insecure"))
    assert done.returncode == 0
    assert "WARNING: --insecure" in done.stderr


def test_nothing_of_a_secret_key_is_ever_said(farm: KeyPlaces, tmp_path: Path, place: str) -> None:
    home = tmp_path / "anna"
    authorize(farm, "anna", public_key(bring(farm, home, public=True)))
    secrets = [
        line.split('"')[1]
        for path in (farm.farm, farm.client, machine(home).client)
        for line in path.read_text().splitlines()
        if line.startswith("secret_key")
    ]
    with dialling(tmp_path / "server", place, words=("-v",)) as server:
        done = run_dr(home, *render_words(home, place, "--no-local", "-v"))
        server.terminate()
        _, stderr = server.communicate(timeout=DEADLINE_S)
    assert len(secrets) == 3
    assert not [secret for secret in secrets if secret in stderr + done.stdout + done.stderr]
