"""Servers and spawners with keys as real processes: who gets in, who is thrown out, and what happens to the files."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dr.keys.changes import authorize, export_farm, renew_farm, revoke
from dr.keys.ring import KeyRing
from dr.keys.sockets import secure_client
from dr.protocol.messages import (
    Availability,
    Beat,
    Bucket,
    BucketWork,
    Bye,
    ErrorMessage,
    Grant,
    Hello,
    NoLease,
    Ping,
    Pong,
    Welcome,
)
from tests.support.keyed_client import FAILED, IN, REFUSED, KeyedClient, Keys, silent
from tests.support.keys import pair_of
from tests.support.namespaces import star
from tests.support.server_process import PATIENCE_S, ServerProcess
from tests.support.spawner import SpawnerProcess, Subscriber, free_ports
from workers.server.words import RESTART_STATUS

ANNA, BERT, MALLORY = map(pair_of, ("anna", "bert", "mallory"))
RELOAD_S = 2.0
SLACK_S = 2.0  # of machines that do other things, too
LOOPBACK = ("--bind", "127.0.0.1", "--port", "0", "--threads", "1")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """A machine with the whole farm key."""
    return Keys(tmp_path / "config").init()


def server_of(keys: Keys, folder: Path, *words: str, **environment: str) -> ServerProcess:
    return ServerProcess(folder / "server", *(words or LOOPBACK), **{**keys.environment, **environment})


def supervised(keys: Keys, folder: Path) -> ServerProcess:
    return server_of(keys, folder, *LOOPBACK, "--supervised", "--parent-pid", str(os.getpid()))


def log_of(server: ServerProcess) -> str:
    """What it has said on stderr, now that it ends."""
    server.process.terminate()
    return server.process.communicate(timeout=PATIENCE_S)[1].decode()


def wait_until(true: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline


def enters(endpoint: str, ring: KeyRing | None) -> str:
    """How a client fares at the door."""
    with KeyedClient(endpoint, ring) as client:
        client.say(Hello(version=1))
        return client.handshake()


# -- who gets in ----------------------------------------------------------------------------------------------------


def test_listed_clients_and_holders_of_the_farm_key_enter_and_are_called_by_their_keys(
    keys: Keys, tmp_path: Path
) -> None:
    anna = keys.guest(ANNA, "anna")
    whole = KeyRing(farm_public=keys.ring.farm_public, farm_secret=keys.ring.farm_secret)
    with supervised(keys, tmp_path) as server:
        endpoint = server.endpoint()
        assert server.report().holder == ""
        with KeyedClient(endpoint, anna) as client, KeyedClient(endpoint, whole) as other:
            lease = client.take_lease("bert")
            assert server.report().holder == "anna (bert)"
            other.say(Hello(version=1, want=True, name="ws7"))
            assert other.hear(Welcome).holder == "anna (bert)"
            assert other.ask_status()[1].holder == "anna (bert)"
            client.set_up(lease, {"scene.json": b"{}"})
            assert len(client.render(lease, BucketWork(0, 0, 0, 16, 16, 0, 32))) == 1
            client.leave(lease)
            other.hear(Grant)
            assert server.report().holder == "farm (ws7)"
        assert "INFO lease given to anna (bert)\n" in log_of(server)


def test_a_key_that_is_not_admitted_is_refused_for_good_and_logged(keys: Keys, tmp_path: Path) -> None:
    with server_of(keys, tmp_path) as server:
        assert enters(server.endpoint(), keys.guest(MALLORY)) == REFUSED
        assert f"WARNING refused the key {MALLORY.public} from 127.0.0.1" in log_of(server)


def test_whoever_speaks_without_keys_does_not_get_in_and_the_next_one_does(keys: Keys, tmp_path: Path) -> None:
    with server_of(keys, tmp_path) as server:
        endpoint = server.endpoint()
        host, port = endpoint.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port))) as strange:
            strange.sendall(b"\xff" * 1000)
        assert enters(endpoint, None) in FAILED
        assert enters(endpoint, keys.ring) == IN


def test_a_client_that_expects_another_farm_gets_nowhere(keys: Keys, tmp_path: Path) -> None:
    with server_of(keys, tmp_path) as server:
        deceived = KeyRing(client=keys.ring.client, farm_public=MALLORY.public)
        assert enters(server.endpoint(), deceived) in FAILED


def test_a_client_with_keys_does_not_speak_to_a_server_without(keys: Keys, tmp_path: Path) -> None:
    with server_of(Keys(tmp_path / "nothing"), tmp_path) as server:
        endpoint = server.endpoint()
        assert enters(endpoint, keys.ring) in FAILED
        assert enters(endpoint, None) == IN


# -- revoked and authorized -----------------------------------------------------------------------------------------


def test_a_client_that_is_revoked_while_it_renders_loses_everything_within_two_seconds(
    keys: Keys, tmp_path: Path
) -> None:
    anna, bert = keys.guest(ANNA, "anna"), keys.guest(BERT, "bert")
    with server_of(keys, tmp_path) as server:
        endpoint = server.endpoint()
        with KeyedClient(endpoint, anna) as client, KeyedClient(endpoint, bert) as other:
            lease = client.take_lease()
            client.set_up(lease, {"scene.json": json.dumps({"bucket_s": 3600}).encode()})
            client.say(Bucket(lease=lease, epoch=1, buckets=[BucketWork(0, 0, 0, 16, 16, 0, 32)]))
            while not client.hear(Beat).running:
                pass
            other.say(Hello(version=1, want=True))
            assert other.hear(Welcome).queue_pos == 1
            revoke(keys.places, "anna")
            begun = time.monotonic()
            refused = client.hear(ErrorMessage)
            assert (refused.code, refused.text) == (
                "key",
                f"your key was revoked; ask for `dr keys authorize NAME '{ANNA.public}'`",
            )
            granted = other.hear(Grant)
            assert time.monotonic() - begun <= RELOAD_S + SLACK_S
            for message in (Ping(n=1), Bye(lease=lease), Hello(version=1, want=True)):
                client.say(message)
            other.set_up(granted.lease, {"scene.json": b"{}"})
            assert len(other.render(granted.lease, BucketWork(0, 0, 0, 16, 16, 0, 32))) == 1
            assert silent(client, 0.2) is None
        assert enters(endpoint, anna) == REFUSED
        log = log_of(server)
        assert "lease ended after 0 buckets: its key was revoked" in log


def test_a_revoked_client_that_says_nothing_loses_its_lease_just_as_soon(keys: Keys, tmp_path: Path) -> None:
    anna, bert = keys.guest(ANNA, "anna"), keys.guest(BERT, "bert")
    with server_of(keys, tmp_path, DR_DEAD_S="60") as server:
        endpoint = server.endpoint()
        with KeyedClient(endpoint, anna) as client, KeyedClient(endpoint, bert) as other:
            client.take_lease()
            other.say(Hello(version=1, want=True))
            revoke(keys.places, "anna")
            begun = time.monotonic()
            other.hear(Grant)
            assert time.monotonic() - begun <= RELOAD_S + SLACK_S


def test_a_name_that_is_revoked_and_given_to_another_key_does_not_revive_the_old_connection(
    keys: Keys, tmp_path: Path
) -> None:
    anna = keys.guest(ANNA, "anna")
    with server_of(keys, tmp_path) as server, KeyedClient(server.endpoint(), anna) as client:
        client.take_lease()
        revoke(keys.places, "anna")
        authorize(keys.places, "anna", BERT.public)
        assert client.hear(ErrorMessage).code == "key"


def test_a_client_that_is_authorized_comes_in_without_a_restart(keys: Keys, tmp_path: Path) -> None:
    bert = keys.guest(BERT)
    with server_of(keys, tmp_path) as server:
        endpoint = server.endpoint()
        assert enters(endpoint, bert) == REFUSED
        authorize(keys.places, "bert", BERT.public)
        begun = time.monotonic()
        while enters(endpoint, bert) != IN:
            assert time.monotonic() - begun <= RELOAD_S + SLACK_S


# -- files ----------------------------------------------------------------------------------------------------------


def assert_refuses(server: ServerProcess, status: int, text: str) -> None:
    _, stderr = server.process.communicate(timeout=PATIENCE_S)
    assert server.process.returncode == status
    (line,) = stderr.decode().splitlines()
    assert text in line


def test_a_key_file_that_others_can_read_refuses_the_start(keys: Keys, tmp_path: Path) -> None:
    keys.places.farm.chmod(0o644)
    for number, words in enumerate((LOOPBACK, ("--port", "0"), ("--port", "0", "--supervised"))):
        with ServerProcess(tmp_path / str(number), *words, **keys.environment) as server:
            assert_refuses(server, 3, f"{keys.places.farm}: expected a file that only you can read or change")


def test_a_broken_key_file_refuses_the_start_even_on_loopback(keys: Keys, tmp_path: Path) -> None:
    keys.places.farm.write_text("nonsense")
    with server_of(keys, tmp_path) as server:
        assert_refuses(server, 2, str(keys.places.farm))


def test_a_key_file_that_is_named_and_missing_refuses_the_start(keys: Keys, tmp_path: Path) -> None:
    with server_of(keys, tmp_path, DR_FARM_KEY_FILE=str(tmp_path / "gone.key")) as server:
        assert_refuses(server, 2, f"DR_FARM_KEY_FILE: expected a farm key file, found none at {tmp_path / 'gone.key'}")


def test_the_variable_names_the_key_of_a_service(keys: Keys, tmp_path: Path) -> None:
    carried = tmp_path / "farm.key"
    export_farm(keys.places, carried, public=False, force=False)
    with server_of(Keys(tmp_path / "nothing"), tmp_path, DR_FARM_KEY_FILE=str(carried)) as server:
        endpoint = server.endpoint()
        assert enters(endpoint, keys.ring) == IN
        assert enters(endpoint, None) in FAILED


@pytest.mark.parametrize("words", [(), ("--insecure", *LOOPBACK)], ids=["unix socket", "insecure"])
def test_broken_keys_are_no_matter_of_a_server_that_uses_none(keys: Keys, tmp_path: Path, words: Any) -> None:
    keys.places.farm.write_text("nonsense")
    folder = tmp_path / "server"
    with ServerProcess(folder, *words, **keys.environment) as server:
        assert enters(server.endpoint(), None) == IN


def test_a_file_that_breaks_while_a_server_runs_leaves_the_keys_as_they_were(keys: Keys, tmp_path: Path) -> None:
    anna, bert = keys.guest(ANNA, "anna"), keys.guest(BERT)
    text = keys.places.farm.read_text()
    with server_of(keys, tmp_path) as server:
        endpoint = server.endpoint()
        with KeyedClient(endpoint, anna) as client:
            lease = client.take_lease()
            keys.places.farm.write_text("nonsense")
            keys.places.farm.chmod(0o600)
            read_stderr_until(server, "the keys stay as they were")
            client.say(Ping(n=1))
            assert client.hear(Pong, NoLease, ErrorMessage) == Pong(n=1)
            assert enters(endpoint, anna) == IN
            assert enters(endpoint, bert) == REFUSED
            keys.places.farm.write_text(text)
            authorize(keys.places, "bert", BERT.public)
            begun = time.monotonic()
            while enters(endpoint, bert) != IN:
                client.say(Ping(n=2))
                assert time.monotonic() - begun <= RELOAD_S + SLACK_S
            client.leave(lease)


def read_stderr_until(server: ServerProcess, words: str) -> str:
    """The line of its log that holds these words."""
    assert server.process.stderr
    for line in server.process.stderr:
        if words in line.decode():
            return line.decode()
    raise AssertionError(f"{words!r} was never said")


# -- another farm key -----------------------------------------------------------------------------------------------


def test_a_renewed_farm_key_restarts_a_supervised_server_when_it_is_free(keys: Keys, tmp_path: Path) -> None:
    anna = keys.guest(ANNA, "anna")
    with supervised(keys, tmp_path) as server, KeyedClient(server.endpoint(), anna) as client:
        lease = client.take_lease()
        renew_farm(keys.places)
        begun = time.monotonic()
        while time.monotonic() - begun <= RELOAD_S + 0.2:
            assert client.hear(Beat).lease == lease, "a listed client renders on"
        assert server.process.poll() is None
        client.leave(lease)
        assert server.process.wait(PATIENCE_S) == RESTART_STATUS


def test_a_renewed_farm_key_throws_out_who_came_with_the_old_one(keys: Keys, tmp_path: Path) -> None:
    whole = KeyRing(farm_public=keys.ring.farm_public, farm_secret=keys.ring.farm_secret)
    with server_of(keys, tmp_path) as server, KeyedClient(server.endpoint(), whole) as client:
        client.take_lease()
        renew_farm(keys.places)
        assert client.hear(ErrorMessage).code == "key"


def test_a_server_by_itself_says_once_that_a_renewed_farm_key_needs_a_restart(keys: Keys, tmp_path: Path) -> None:
    with server_of(keys, tmp_path) as server:
        endpoint = server.endpoint()
        renew_farm(keys.places)
        assert "WARNING" in read_stderr_until(server, "the farm key has changed: restart this server")
        authorize(keys.places, "bert", BERT.public)
        read_stderr_until(server, "keys loaded, clients that are admitted: 2")
        assert "restart" not in log_of(server)
        assert endpoint


def test_keys_that_are_made_later_close_a_supervised_server_that_was_open(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "config")
    with supervised(keys, tmp_path) as server:
        assert enters(server.endpoint(), None) == IN
        keys.init()
        assert server.process.wait(PATIENCE_S) == RESTART_STATUS


# -- where it listens, and how loud it is ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "guard", "line"),
    [
        ((), "keys", "INFO clients need a key"),
        (("--insecure",), "insecure", "WARNING INSECURE: no keys are used (--insecure)"),
    ],
)
def test_with_keys_the_status_and_the_log_tell_how_a_server_is_guarded(
    keys: Keys, tmp_path: Path, words: tuple[str, ...], guard: str, line: str
) -> None:
    with server_of(keys, tmp_path, *LOOPBACK, *words) as server:
        with KeyedClient(server.endpoint(), None if words else keys.ring) as client:
            assert client.ask_status()[1].guard == guard
        assert log_of(server).count(line) == 1


def test_without_keys_the_status_and_the_log_tell_who_can_connect(tmp_path: Path) -> None:
    with server_of(Keys(tmp_path / "nothing"), tmp_path, "--port", "0") as server:
        endpoint = server.endpoint()
        assert endpoint.startswith("tcp://127.0.0.1:")
        with KeyedClient(endpoint, None) as client:
            assert client.ask_status()[1].guard == "open"
        assert log_of(server).count("INFO open: any user of this machine can connect; `dr keys init` closes it") == 1


def test_a_unix_socket_has_no_guard_and_says_nothing_of_one(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "server") as server:
        with KeyedClient(server.endpoint(), None) as client:
            assert client.ask_status()[1].guard == ""
        assert "can connect" not in log_of(server)


def test_where_a_server_listens_by_itself_with_keys_without_and_insecure(tmp_path: Path) -> None:
    everywhere, loopback = {"*", "[::]", "0.0.0.0"}, {"127.0.0.1", "[::ffff:127.0.0.1]"}
    with star(tmp_path, "alone") as (machine,):
        (port,) = free_ports(1)
        for words, expected, line in (
            ((), loopback, "listening on tcp://127.0.0.1:"),
            (("--insecure",), loopback, "listening on tcp://127.0.0.1:"),
            (("--insecure", "--bind", "0.0.0.0"), everywhere | {"[::ffff:0.0.0.0]"}, "listening on tcp://0.0.0.0:"),
            (("KEYS",), everywhere, "listening on tcp://*:"),
        ):
            if words == ("KEYS",):
                assert machine.run("keys", "init").returncode == 0
                words = ()
            with machine.start("serve", "--port", port, *words) as process:
                assert process.stdout
                assert process.stdout.readline().startswith(line)
                assert machine.listens_on(port) <= expected
                assert machine.listens_on(port)
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=PATIENCE_S)


# -- the spawner ----------------------------------------------------------------------------------------------------


class KeyedSubscriber(Subscriber):
    """Hears announcements with keys."""

    def __init__(self, port: int, ring: KeyRing) -> None:
        self.ring = ring
        super().__init__(port)

    def prepare(self) -> None:
        secure_client(self.socket, self.ring)


def spawner_keys(folder: Path) -> Keys:
    """Where SpawnerProcess looks for them."""
    return Keys(folder / "xdg_config_home").init()


def test_announcements_and_servers_of_a_spawner_need_a_key(tmp_path: Path) -> None:
    keys = spawner_keys(tmp_path)
    with SpawnerProcess(tmp_path, free_ports(2), patience={"beacon_s": 0.2}) as spawner:
        announce = spawner.wanted_announce
        with (
            KeyedSubscriber(announce, keys.ring) as admitted,
            KeyedSubscriber(announce, keys.guest(MALLORY)) as stranger,
            Subscriber(announce) as plain,
        ):
            for port in spawner.ports:
                admitted.wait_state(port, Availability.READY)
            admitted.heard.clear()
            admitted.wait(8)  # beacons
            assert plain.take() == stranger.take() == []
        for port in spawner.ports:
            assert enters(f"tcp://127.0.0.1:{port}", keys.ring) == IN
            assert enters(f"tcp://127.0.0.1:{port}", None) in FAILED
        said = spawner.said()
        assert said.count("clients need a key") == 1
        spawner.signal(signal.SIGTERM)
        assert spawner.exit_status() == 0


def test_an_insecure_spawner_is_loud_and_its_servers_ask_for_nothing(tmp_path: Path) -> None:
    spawner_keys(tmp_path)
    with SpawnerProcess(tmp_path, free_ports(2), insecure=True) as spawner:
        spawner.wait_ready()
        for port in spawner.ports:
            with KeyedClient(f"tcp://127.0.0.1:{port}", None) as client:
                assert client.ask_status()[1].guard == "insecure"
        assert spawner.said().count("WARNING INSECURE: no keys are used (--insecure)") == 1


def test_a_revoked_client_hears_no_announcements_any_more(tmp_path: Path) -> None:
    keys = spawner_keys(tmp_path)
    anna = keys.guest(ANNA, "anna")
    with SpawnerProcess(tmp_path, free_ports(1), patience={"beacon_s": 0.1}) as spawner:
        announce = spawner.wanted_announce
        with KeyedSubscriber(announce, keys.ring) as admitted, KeyedSubscriber(announce, anna) as revoked:
            revoked.wait_state(spawner.ports[0], Availability.READY)
            revoke(keys.places, "anna")
            begun = time.monotonic()
            heard = -1
            while heard != len(revoked.take()):  # until ten beacons bring nothing
                assert time.monotonic() - begun <= RELOAD_S + SLACK_S + 2.0
                heard = len(revoked.take())
                admitted.heard.clear()
                admitted.wait(10)
        spawner.signal(signal.SIGTERM)
        assert spawner.exit_status() == 0


def test_a_renewed_farm_key_reaches_the_servers_and_the_announcements_of_a_running_spawner(tmp_path: Path) -> None:
    keys = spawner_keys(tmp_path)
    with SpawnerProcess(tmp_path, free_ports(2), patience={"beacon_s": 0.2}) as spawner:
        with KeyedSubscriber(spawner.wanted_announce, keys.ring) as subscriber:
            for port in spawner.ports:
                subscriber.wait_state(port, Availability.READY)
        renew_farm(keys.places)
        with KeyedSubscriber(spawner.wanted_announce, keys.ring) as subscriber:
            subscriber.wait_state(spawner.ports[0], Availability.READY)
        for port in spawner.ports:
            wait_until(lambda port=port: enters(f"tcp://127.0.0.1:{port}", keys.ring) == IN)
        spawner.signal(signal.SIGTERM)
        assert spawner.exit_status() == 0


def test_keys_that_are_made_later_close_a_running_spawner(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "xdg_config_home")
    with SpawnerProcess(tmp_path, free_ports(1)) as spawner:
        spawner.wait_ready()
        keys.init()
        endpoint = f"tcp://127.0.0.1:{spawner.ports[0]}"
        wait_until(lambda: enters(endpoint, keys.ring) == IN)
        with KeyedSubscriber(spawner.wanted_announce, keys.ring) as subscriber:
            subscriber.wait_state(spawner.ports[0], Availability.READY)
        said = spawner.said()
        assert said.index("open: any user of this machine") < said.index("clients need a key")
        spawner.signal(signal.SIGTERM)
        assert spawner.exit_status() == 0


def test_a_key_file_that_others_can_read_refuses_the_spawner(tmp_path: Path) -> None:
    keys = spawner_keys(tmp_path)
    keys.places.farm.chmod(0o644)
    with SpawnerProcess(tmp_path, free_ports(1), command=["/no/such/dr"]) as spawner:
        assert spawner.exit_status() == 2
        (line,) = spawner.said().splitlines()
        assert f"{keys.places.farm}: expected a file that only you can read or change" in line
