"""`dr render` and `dr status` with right, wrong, missing and broken keys: real processes, CURVE on loopback."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

import dr
from dr.client.roster import Place
from dr.client.status import watch_farm
from dr.client.targets import Target
from dr.keys.changes import revoke
from dr.keys.folder import KeyPlaces, load_keys, read_client
from dr.keys.security import Security
from dr.protocol.envelope import join_announcement
from dr.protocol.messages import Announcement, Availability, ErrorMessage, Hello
from dr.protocol.version import PROTOCOL_VERSION
from dr.settings import Settings
from tests.support.farm import DEADLINE_S, environment, facts_of, run_dr, serving, start_dr, wait_for_line, write_scene
from tests.support.gate import Announcer, Gate
from tests.support.keyed_farm import Farm
from tests.support.spawner import free_ports

SIZE = ("--size", "96x64", "--samples", "4", "--bucket-size", "16")
WRONG_FARM = "no render server of this farm answers there: another farm key, or a server without keys; trying again"
KEYS_NEEDED = "or one that needs keys: `dr keys import-farm FILE` brings them; trying again"
WARNING = "dr: WARNING: --insecure: no keys are used"


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


@pytest.fixture
def nobody(tmp_path: Path) -> Path:
    """A machine without keys."""
    (tmp_path / "nobody").mkdir()
    return tmp_path / "nobody"


def guarded(farm: Farm, *words: object, name: str = "farm") -> AbstractContextManager[str]:
    """HOST:PORT of a server on a machine that holds the farm key."""
    return serving(farm.folder / name, "--bind", "127.0.0.1", *words)


def render(home: Path, *words: object, **behaviour: object) -> subprocess.CompletedProcess[str]:
    return run_dr(home, *render_words(home, *words, **behaviour))


def render_words(home: Path, *words: object, **behaviour: object) -> list[object]:
    return ["render", write_scene(home, **behaviour), "-o", home / "a.exr", *SIZE, *words]


def port_of(place: str) -> int:
    return int(place.partition(":")[2])


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr."""
    (line,) = done.stderr.splitlines()
    return line


# Right keys


@pytest.mark.parametrize("kind", ["join", "visit"])
def test_a_render_through_keys_has_the_bits_of_a_local_one(farm: Farm, nobody: Path, kind: str) -> None:
    home: Path = getattr(farm, kind)("anna")
    with guarded(farm) as gate:
        done = render(home, "--server", gate, "--no-local", "--json")
    assert [server["endpoint"] for server in facts_of(done)["servers"]] == [f"tcp://{gate}"]
    assert render(nobody).returncode == 0
    assert (home / "a.exr").read_bytes() == (nobody / "a.exr").read_bytes()


def test_local_servers_and_servers_with_keys_render_one_picture(farm: Farm, nobody: Path) -> None:
    home = farm.visit("anna")
    with guarded(farm, "--threads", 1) as one, guarded(farm, "--threads", 1) as two:
        where = ("--server", one, "--server", two, "--local-servers", 1, "--threads", 1)
        done = render(home, *where, "--json", bucket_s=0.1)
    endpoints = sorted(server["endpoint"] for server in facts_of(done)["servers"])
    assert [endpoint[:3] for endpoint in endpoints] == ["ipc", "tcp", "tcp"]
    assert render(nobody).returncode == 0
    assert (home / "a.exr").read_bytes() == (nobody / "a.exr").read_bytes()


# Wrong ones


def test_a_key_that_is_not_admitted_ends_the_render_with_the_command_that_admits_it(farm: Farm) -> None:
    home = farm.visit("anna", admitted=False)
    with guarded(farm) as gate:
        done = render(home, "--server", gate, "--no-local", "-q")
    assert done.returncode == 3
    assert said(done) == (
        f"dr: no server can render this frame: tcp://{gate}: your key is not admitted there; "
        f"ask for `dr keys authorize NAME '{farm.key_of('anna')}'`"
    )


def test_a_render_goes_on_without_the_server_that_refuses_its_key(farm: Farm) -> None:
    home = farm.visit("anna", admitted=False)
    with guarded(farm) as gate:
        done = render(home, "--server", gate, "--local", "--local-servers", 1, "--json", bucket_s=0.1)
    facts = facts_of(done)
    assert done.returncode == 0
    assert [server["endpoint"][:3] for server in facts["servers"]] == ["ipc"]
    assert [loss["name"] for loss in facts["lost"]] == [f"tcp://{gate}"]
    assert "your key is not admitted there" in facts["lost"][0]["reason"]


@contextmanager
def trying(home: Path, place: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A render that has nobody but this server, and is cancelled in the end."""
    client = start_dr(home, *render_words(home, "--server", place, "--no-local", *words))
    try:
        yield client
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=DEADLINE_S)
        assert client.returncode == 1
    finally:
        client.kill()
        client.wait()


def test_a_server_of_another_farm_is_tried_again_and_told_once(farm: Farm, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    home = Farm(tmp_path / "other").join("anna")
    with guarded(farm) as gate, trying(home, gate) as client:
        assert wait_for_line(client, WRONG_FARM).startswith(f"dr: tcp://{gate}: ")


def test_a_server_without_keys_gets_nothing_from_a_client_that_has_some(farm: Farm) -> None:
    home = farm.join("anna")
    with Gate(None, lambda message: []) as gate:
        with trying(home, gate.place) as client:
            wait_for_line(client, WRONG_FARM)
        assert gate.heard == []


def test_a_server_that_needs_keys_is_tried_again_and_the_hint_says_how_to_get_them(farm: Farm, nobody: Path) -> None:
    with guarded(farm) as gate, trying(nobody, gate) as client:
        wait_for_line(client, KEYS_NEEDED)


def test_a_server_of_another_farm_that_comes_right_is_found_by_the_next_dial(farm: Farm, tmp_path: Path) -> None:
    """`dr serve` was restarted with the right key."""
    (tmp_path / "other").mkdir()
    other, home = Farm(tmp_path / "other"), farm.join("anna")
    with guarded(other) as place:
        client = start_dr(home, *render_words(home, "--server", place, "--no-local"))
        wait_for_line(client, WRONG_FARM)
    with guarded(farm, "--port", port_of(place)):
        client.communicate(timeout=DEADLINE_S)
    assert client.returncode == 0


def test_a_key_that_is_revoked_while_it_renders_ends_the_render(farm: Farm) -> None:
    home = farm.visit("anna")
    with guarded(farm) as gate:
        words = render_words(home, "--server", gate, "--no-local", "-v", bucket_s=0.4)
        client = start_dr(home, *words)
        wait_for_line(client, "tile 0 from")
        revoke(farm.places, "anna")
        _, stderr = client.communicate(timeout=DEADLINE_S)
    assert client.returncode == 3
    assert ": your key was revoked; ask for `dr keys authorize NAME " in stderr.splitlines()[-1]


def test_a_key_that_is_revoked_on_one_server_costs_that_server_alone(farm: Farm, nobody: Path) -> None:
    home = farm.visit("anna")
    for name in ("box1", "box2"):
        farm.join(name)
    with guarded(farm, "--threads", 1, name="box1") as one, guarded(farm, "--threads", 1, name="box2") as two:
        where = ("--server", one, "--server", two, "--no-local")
        client = start_dr(home, *render_words(home, *where, "-v", "--json", bucket_s=0.3))
        wait_for_line(client, "tile 0 from")
        revoke(farm.machine("box1"), "anna")
        stdout, _ = client.communicate(timeout=DEADLINE_S)
    assert client.returncode == 0
    (loss,) = json.loads(stdout.splitlines()[-1])["lost"]
    assert loss["reason"].startswith("your key was revoked")
    assert render(nobody).returncode == 0
    assert (home / "a.exr").read_bytes() == (nobody / "a.exr").read_bytes()


# No keys, broken ones, and none on purpose


def test_another_machine_without_keys_is_refused_with_the_command_that_makes_some(nobody: Path) -> None:
    done = render(nobody, "--server", "192.0.2.7:20204", "--no-local")
    assert done.returncode == 3
    assert said(done).startswith("dr: server '192.0.2.7:20204': a server on another machine needs a farm key")
    assert "`dr keys init`" in said(done)


def spoil(places: KeyPlaces, how: str) -> None:
    if how == "broken":
        places.farm.write_text("nonsense")
        places.farm.chmod(0o600)
    else:
        places.farm.chmod(0o644)


@pytest.mark.parametrize(("how", "status"), [("broken", 2), ("readable", 3)])
def test_keys_that_cannot_be_used_do_not_touch_a_local_render_and_stop_any_other(
    farm: Farm, how: str, status: int
) -> None:
    home = farm.join("anna")
    places = farm.machine("anna")
    spoil(places, how)
    assert render(home).returncode == 0
    for place in ("127.0.0.1:20204", "192.0.2.7"):
        done = render(home, "--server", place)
        assert done.returncode == status
        assert said(done).startswith(f"dr: server '{place}': {places.farm}: ")


def test_insecure_uses_no_keys_where_there_are_some_and_says_so(farm: Farm) -> None:
    home = farm.join("anna")
    with serving(farm.folder) as server:
        for quiet in ((), ("-q",)):
            done = render(home, "--server", server, "--no-local", "--insecure", *quiet)
            assert done.returncode == 0
            assert done.stderr.startswith(WARNING)
            assert done.stderr.count("WARNING") == 1


def test_the_api_takes_keys_and_warns_in_its_notices(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = farm.visit("anna")
    monkeypatch.setenv("XDG_CONFIG_HOME", environment(home)["XDG_CONFIG_HOME"])
    scene = write_scene(tmp_path)
    with guarded(farm) as gate, serving(tmp_path) as plain:
        image = dr.render(scene, size=(96, 64), samples=4, servers=gate, local=False)
        assert (image.complete, len(image.statistics.servers)) == (True, 1)
        assert not [notice for notice in image.notices if "WARNING" in notice]
        image = dr.render(scene, size=(96, 64), samples=4, servers=plain, local=False, insecure=True)
    assert image.complete
    assert image.notices[0].startswith("WARNING: --insecure")


def test_names_that_do_not_resolve_are_told_and_the_render_goes_on(farm: Farm) -> None:
    home = farm.join("anna")
    with guarded(farm) as gate:
        done = render(home, "--server", gate, "--server", "no-such-host.invalid", "--no-local")
        assert done.returncode == 0
        assert "dr: cannot resolve 'no-such-host.invalid': " in done.stderr
        checked = render(home, "--server", gate, "--server", "no-such-host.invalid", "--check", "--json")
        where = {server["name"]: server["endpoint"] for server in facts_of(checked)["servers"]}
        assert where[f"tcp://{gate}"] == f"tcp://{gate}"
        assert where["no-such-host.invalid"].startswith("cannot be resolved: ")
    done = render(home, "--server", "no-such-host.invalid")
    assert done.returncode == 2
    assert said(done).startswith("dr: server: cannot resolve 'no-such-host.invalid': ")


def test_a_saved_name_that_does_not_resolve_leaves_this_machine_rendering(farm: Farm) -> None:
    home = farm.join("anna")
    settings = home / "dr.toml"
    settings.write_text('servers = [{ host = "no-such-host.invalid" }]\n')
    done = render(home, "--settings", settings)
    assert done.returncode == 0
    assert "cannot resolve 'no-such-host.invalid'" in done.stderr
    done = render(home, "--settings", settings, "--no-local")
    assert (done.returncode, "cannot resolve" in said(done)) == (2, True)


# dr status


def test_status_asks_with_keys_and_hears_announcements_with_keys(farm: Farm) -> None:
    home = farm.visit("anna")
    (port,) = free_ports(1)
    told = Announcement(version=PROTOCOL_VERSION, port=port, boot=b"bootboot", state=Availability.READY)
    frames = join_announcement("0123456789abcdef", told)
    with guarded(farm) as gate, Announcer(farm.ring(), frames) as announcer:
        settings = home / "dr.toml"
        settings.write_text(f"announce_port = {announcer.port}\nport = {port_of(gate)}\n")
        words = ("status", "localhost", "--json", "--seconds", 20, "--settings", settings)
        found = json.loads(run_dr(home, *words[:1], gate, *words[1:]).stdout)
    rows = {row["port"]: row["state"] for row in found}
    assert rows[port_of(gate)] == "ready"
    assert port in rows  # nobody answers there, but it was announced


def test_status_with_a_key_that_is_not_admitted_is_refused_with_status_3(farm: Farm) -> None:
    home = farm.visit("anna", admitted=False)
    with guarded(farm) as gate:
        done = run_dr(home, "status", gate)
    assert done.returncode == 3
    reason = f"your key is not admitted there; ask for `dr keys authorize NAME '{farm.key_of('anna')}'`"
    assert said(done) == f"dr: {gate}: {reason}"
    assert f"{gate}: {reason}" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 server: 1 refused"


def test_status_of_a_server_that_revokes_the_key_says_so(farm: Farm) -> None:
    home = farm.visit("anna")
    revoked = ErrorMessage(code="key", text="your key was revoked")
    with Gate(farm.ring(), lambda message: [revoked] if isinstance(message, Hello) else []) as gate:
        done = run_dr(home, "status", gate.place)
    assert (done.returncode, said(done)) == (3, f"dr: {gate.place}: your key was revoked")


def test_status_without_keys_is_loud(farm: Farm) -> None:
    home = farm.join("anna")
    with serving(farm.folder) as server:
        wary = run_dr(home, "status", server)
        assert (wary.returncode, said(wary)) == (1, f"dr: {server}: {WRONG_FARM.partition(';')[0]}")
        done = run_dr(home, "status", server, "--insecure")
    assert done.returncode == 0
    assert said(done).startswith(WARNING)


def test_status_names_the_host_that_does_not_resolve_and_shows_the_others(farm: Farm) -> None:
    home = farm.join("anna")
    with guarded(farm) as gate:
        done = run_dr(home, "status", gate, "no-such-host.invalid")
    assert done.returncode == 1
    assert said(done).startswith("dr: no-such-host.invalid: cannot resolve it: ")
    assert "1 ready" in done.stdout.splitlines()[-1]


def test_watching_goes_on_asking_in_vain_but_never_a_server_that_refuses_the_key(farm: Farm) -> None:
    farm.visit("anna", admitted=False)
    visitor = Security(ring=load_keys({}, farm.machine("anna").client.parent))
    (nobody,) = free_ports(1)
    with Gate(farm.ring(), lambda message: []) as gate, Announcer(farm.ring()) as announcer:
        asked = count_askings(gate)
        places = tuple(Place("127.0.0.1", port) for port in (gate.port, nobody))
        targets = (Target("a", places, bare=True, sure=places),)
        settings = Settings(announce_port=announcer.port)
        for rows in watch_farm(targets, settings, 2.5, visitor):
            last = {row.port: row.state for row in rows}
    assert last == {gate.port: "refused", nobody: "no answer"}
    assert len(asked) == 1


def count_askings(gate: Gate) -> list[str]:
    """The keys with which anybody will have come."""
    seen: list[str] = []
    assert gate.zap
    admit = gate.zap.admit

    def note(public: str) -> str | None:
        seen.append(public)
        return admit(public)

    gate.zap.admit = note
    return seen


def test_no_secret_is_ever_shown(farm: Farm) -> None:
    home = farm.join("anna")
    client = read_client(farm.machine("anna").client)
    secrets = [ring.secret.reveal() for ring in (client, farm.ring().farm) if ring]
    with guarded(farm) as gate:
        shown = render(home, "--server", gate, "--no-local", "-v")
        logs = [path.read_text() for path in home.rglob("*.log")]
    assert shown.returncode == 0
    assert logs
    for secret in secrets:
        assert not [text for text in (shown.stdout, shown.stderr, *logs) if secret in text]
