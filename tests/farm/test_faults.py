"""What happens to a render when its servers fail: real processes, real signals, loopback. The picture never changes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.delay_proxy import far_away
from tests.support.farm import DEADLINE_S
from tests.support.fault_farm import (
    BLOCK_LOOP,
    BUCKETS,
    HANG_NOTICED_S,
    HELD,
    HOLD_INTERPRETER,
    KILL_NOTICED_S,
    LOUD,
    SIZE,
    SLACK_S,
    Client,
    FaultFarm,
    Server,
    buckets_of,
    holder_in,
    losses_of,
    picture_without_faults,
    tell_measured,
)
from tests.support.spawner import free_ports

TILE_BYTES = 16 * 16 * 10 * 4  # raw
CLOSED = "the connection was closed"
REDIAL_S = 1.0
HANDOVER_S = 0.05
REST_OF_SLEEP_S = 7.0  # so that it is 10 s in all
FAILURES = 3  # of a bucket, then it is given up; of a server, in a row, then it is set aside
LEAVES_S = 10.0  # a server that was told to stop
OTHER_KERNELS = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return picture_without_faults(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[FaultFarm]:
    with FaultFarm(tmp_path) as farm:
        yield farm


def serve_all(farm: FaultFarm, *names: str) -> list[Server]:
    return [farm.serve(name) for name in names]


def render_on(farm: FaultFarm, *servers: Server, words: tuple[object, ...] = LOUD, **scene: Any) -> Client:
    return farm.render(*(server.place for server in servers), words=words, **scene)


def check_noticed(what: str, seconds: float, must_s: float) -> None:
    tell_measured(what, seconds, must_s)
    assert seconds < must_s + SLACK_S


# Killed


def test_a_killed_server_is_noticed_at_once_and_its_buckets_are_rendered_by_others(
    farm: FaultFarm, reference: bytes
) -> None:
    servers = one, _, _ = serve_all(farm, "one", "two", "three")
    client = render_on(farm, *servers, bucket_s=0.05)
    client.join_s(one, 0.0)
    seconds, cause = client.lose_s(one, one.kill())
    facts = client.facts()
    check_noticed("a killed server is noticed", seconds, KILL_NOTICED_S)
    assert losses_of(facts) == {"one": cause} == {"one": CLOSED}
    assert sum(buckets_of(facts).values()) == facts["buckets"] >= BUCKETS
    assert client.picture.read_bytes() == reference


def test_a_user_who_reads_no_log_is_told_host_and_cause(farm: FaultFarm, reference: bytes) -> None:
    one, two = farm.serve("one", hangs=1), farm.serve("two")
    client = render_on(farm, one, two, words=SIZE, bucket_s=0.1)
    one.voice.wait("a kernel hangs")
    one.kill()
    client.facts()
    assert client.voice.heard(f"dr: one: {CLOSED}")
    assert "2 servers (1 lost)" in client.voice.text()
    assert client.picture.read_bytes() == reference


def test_one_server_that_is_left_of_three_finishes_the_frame(farm: FaultFarm, reference: bytes) -> None:
    servers = one, two, _ = serve_all(farm, "one", "two", "three")
    client = render_on(farm, *servers, bucket_s=0.1)
    for server in servers:
        client.join_s(server, 0.0)
    for server in (one, two):
        server.kill()
    facts = client.facts()
    assert losses_of(facts) == {"one": CLOSED, "two": CLOSED}
    assert buckets_of(facts)["three"] >= HELD
    assert client.picture.read_bytes() == reference


def test_with_no_server_left_the_client_says_so_and_goes_on_when_one_comes_to_the_same_port(
    farm: FaultFarm, reference: bytes
) -> None:
    servers = one, _ = serve_all(farm, "one", "two")
    client = render_on(farm, *servers, bucket_s=0.1)
    client.join_s(one, 0.0)
    for server in servers:
        server.kill()
    client.voice.wait("no server is left; waiting for one")
    before = len(client.voice.heard(" tile "))
    again = farm.serve_again(one)
    check_noticed("a server that comes is joined", client.join_s(again, again.listens_s), REDIAL_S)
    facts = client.facts()
    assert buckets_of(facts)["one"] >= BUCKETS - before
    assert client.picture.read_bytes() == reference


def test_a_server_that_is_restarted_at_its_port_joins_again_each_time(farm: FaultFarm, reference: bytes) -> None:
    one, two = serve_all(farm, "one", "two")
    client = render_on(farm, one, two, bucket_s=0.05)
    client.join_s(one, 0.0)
    for _ in range(2):
        killed_s = one.kill()
        one = farm.serve_again(one)
        client.lose_s(one, killed_s)
        check_noticed("a restarted server renders again", client.join_s(one, one.listens_s), REDIAL_S)
    facts = client.facts()
    assert [loss["name"] for loss in facts["lost"]] == ["one", "one"]
    assert client.picture.read_bytes() == reference


def test_a_connection_that_breaks_within_a_tile_costs_that_bucket_alone(farm: FaultFarm, reference: bytes) -> None:
    one = farm.serve("one")
    with far_away(one.place, 0.0, break_after_bytes=TILE_BYTES * 3 // 2) as place:
        client = farm.render(place)
        client.join_s(one, 0.0)
        client.lose_s(one, 0.0)
        client.join_s(one, 0.0)
        facts = client.facts()
    assert losses_of(facts) == {"one": CLOSED}
    assert buckets_of(facts) == {"one": facts["buckets"]}
    assert client.picture.read_bytes() == reference


def test_a_server_that_is_killed_before_it_is_ready_keeps_nobody_waiting(farm: FaultFarm, reference: bytes) -> None:
    one, two = farm.serve("one", prepare="hang"), farm.serve("two")
    client = render_on(farm, one, two)
    client.voice.wait("preparing one")
    one.kill()
    client.voice.wait(f"one: {CLOSED}; trying again")
    assert set(buckets_of(client.facts())) == {"two"}
    assert client.picture.read_bytes() == reference


# Frozen and hung


@pytest.mark.slow
def test_a_frozen_server_is_given_up_and_when_it_wakes_it_does_no_harm_and_joins_again(
    farm: FaultFarm, reference: bytes
) -> None:
    one, two = serve_all(farm, "one", "two")
    client = render_on(farm, one, two, bucket_s=0.05)
    client.join_s(one, 0.0)
    seconds, cause = client.lose_s(one, one.signal(signal.SIGSTOP))
    woken_s = one.signal(signal.SIGCONT)
    rejoined_s = client.join_s(one, woken_s)
    facts = client.facts()
    check_noticed("a frozen server is noticed", seconds, HANG_NOTICED_S)
    check_noticed("a server that wakes renders again", rejoined_s, 2 * REDIAL_S)
    assert losses_of(facts) == {"one": cause}
    assert sum(buckets_of(facts).values()) == facts["buckets"]
    assert client.picture.read_bytes() == reference


def test_a_server_whose_kernels_all_hang_is_left_out_by_the_next_client(
    farm: FaultFarm, reference: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DR_STUCK_S", "0.5")
    one, two = farm.serve("one", hangs=1), farm.serve("two")
    first = render_on(farm, one, two)
    one.voice.wait("a kernel hangs")
    first.release()
    first.facts()
    one.voice.wait("is stuck")
    second = render_on(farm, one, two)
    second.voice.wait("stuck: all render threads of one are stuck in their kernels; restart it")
    assert set(buckets_of(second.facts())) == {"two"}
    assert [client.picture.read_bytes() == reference for client in (first, second)] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("hang", [BLOCK_LOOP, HOLD_INTERPRETER], ids=["the loop is blocked", "the interpreter is held"])
def test_a_server_whose_python_hangs_is_noticed_by_pings_although_its_connection_lives(
    farm: FaultFarm, reference: bytes, hang: signal.Signals
) -> None:
    one, two = serve_all(farm, "one", "two")
    client = render_on(farm, one, two, bucket_s=0.05)
    client.join_s(one, 0.0)
    seconds, cause = client.lose_s(one, one.signal(hang))
    facts = client.facts()
    check_noticed(f"hung Python is noticed ({hang.name})", seconds, HANG_NOTICED_S)
    assert losses_of(facts) == {"one": cause} == {"one": "silent for 3 s"}
    assert client.picture.read_bytes() == reference


@pytest.mark.parametrize("threads", [1, 2])
def test_a_bucket_in_a_kernel_that_never_returns_is_raced_and_the_server_can_leave(
    farm: FaultFarm, reference: bytes, threads: int
) -> None:
    one, two = farm.serve("one", threads=threads, hangs=1), farm.serve("two")
    client = render_on(farm, one, two, bucket_s=0.05)
    one.voice.wait("a kernel hangs")
    facts = client.facts()
    assert buckets_of(facts).get("one", 0) >= threads - 1
    assert set(losses_of(facts)) <= {"one"}  # it may be set aside for it
    assert client.picture.read_bytes() == reference
    one.signal(signal.SIGTERM)
    assert one.end(LEAVES_S) == 0


def test_a_suspect_that_hangs_on_one_server_is_rendered_by_another(farm: FaultFarm, reference: bytes) -> None:
    corner = [[0, 0]]
    ports = free_ports(2)
    one = farm.serve("one", hangs_at=corner)
    places = [one.place, *(f"127.0.0.1:{port}" for port in ports)]
    client = farm.render(*places, words=(*LOUD, "--bucket-order", "rows"))
    one.voice.wait("a kernel hangs")
    one.kill()
    client.release()
    two = farm.serve("two", ports[0], hangs_at=corner)
    two.voice.wait("a kernel hangs")  # the bucket that killed the first one came to it last, alone
    three = farm.serve("three", ports[1])
    client.join_s(three, 0.0)
    client.voice.wait("from three")
    facts = client.facts()
    assert buckets_of(facts) == {"one": 0, "two": facts["buckets"] - 1, "three": 1}
    assert client.picture.read_bytes() == reference


# The client


@pytest.mark.slow
def test_a_client_that_slept_takes_its_servers_back(farm: FaultFarm, reference: bytes) -> None:
    one, two = serve_all(farm, "one", "two")
    client = render_on(farm, one, two, bucket_s=0.05)
    for server in (one, two):
        client.join_s(server, 0.0)
    slept_s = client.signal(signal.SIGSTOP)
    for server in (one, two):
        free = server.voice.wait("lease ended", "no word for 3 s")
        check_noticed("a server is free of a client that sleeps", free.at_s - slept_s, HANG_NOTICED_S)
    with pytest.raises(subprocess.TimeoutExpired):
        client.process.wait(REST_OF_SLEEP_S)
    woken_s = client.signal(signal.SIGCONT)
    for server in (one, two):
        check_noticed("a client that wakes has its server back", client.join_s(server, woken_s), 2 * REDIAL_S)
    facts = client.facts()
    assert set(losses_of(facts)) == {"one", "two"}
    assert client.picture.read_bytes() == reference


def test_a_busy_server_names_its_holder_and_is_joined_at_once_when_that_one_says_bye(
    farm: FaultFarm, reference: bytes
) -> None:
    one = farm.serve("one")
    first = render_on(farm, one, bucket_s=5.0)
    first.join_s(one, 0.0)
    second = render_on(farm, one)
    assert holder_in(second.voice.wait("busy with").text) == first.pid
    first.signal(signal.SIGINT)
    free_s = first.voice.wait("finished").at_s
    check_noticed("a server that is given back renders for the next client", second.join_s(one, free_s), HANDOVER_S)
    second.facts()
    assert first.end() == 1
    assert second.picture.read_bytes() == reference


def test_the_next_client_has_the_server_of_one_that_is_killed(farm: FaultFarm, reference: bytes) -> None:
    one = farm.serve("one")
    first = render_on(farm, one, bucket_s=5.0)
    first.join_s(one, 0.0)
    second = render_on(farm, one)
    assert holder_in(second.voice.wait("busy with").text) == first.pid
    check_noticed("a server of a killed client renders for the next", second.join_s(one, first.kill()), KILL_NOTICED_S)
    second.facts()
    assert second.picture.read_bytes() == reference


# Servers that cannot or will not


def test_a_server_with_another_version_is_refused_with_both_named_and_the_others_render(
    farm: FaultFarm, reference: bytes
) -> None:
    old, new = farm.serve("old", kernels=OTHER_KERNELS), farm.serve("new")
    client = render_on(farm, old, new, words=SIZE)
    client.voice.wait("dr: ", "has kernels 0123456789ab, this client ", "install one version everywhere")
    facts = client.facts()
    (lost,) = facts["lost"]
    assert "has kernels 0123456789ab, this client " in lost["reason"]
    assert set(buckets_of(facts)) == {"new"}
    assert client.picture.read_bytes() == reference


def test_with_no_server_but_those_of_another_version_the_render_is_refused(farm: FaultFarm) -> None:
    client = render_on(farm, farm.serve("old", kernels=OTHER_KERNELS), words=SIZE)
    assert client.end() == 3
    assert "has kernels 0123456789ab, this client " in client.voice.lines[-1].text


def test_a_server_that_is_told_to_stop_loses_nothing(farm: FaultFarm, reference: bytes) -> None:
    one, two = serve_all(farm, "one", "two")
    client = render_on(farm, one, two, bucket_s=0.2)
    client.release()
    client.voice.wait("from one")
    one.signal(signal.SIGTERM)
    assert one.end(LEAVES_S) == 0
    facts = client.facts()
    assert all(bucket["attempts"] == 1 for bucket in client.buckets() if bucket["server"] == "one")
    assert buckets_of(facts)["one"] >= 2  # the one that was heard of, and the one that ran
    assert client.picture.read_bytes() == reference


def test_a_farm_of_bad_servers_ends_and_says_why(farm: FaultFarm) -> None:
    servers = [farm.serve(name, raises="no memory for the film") for name in ("one", "two")]
    client = render_on(farm, *servers, words=SIZE)
    assert client.facts(status=1)["buckets"] == 0
    assert client.voice.heard("bucket at 0,0 was given up", "no memory for the film")


@pytest.mark.slow
def test_a_bucket_that_kills_every_server_is_left_out_and_the_others_are_rendered(farm: FaultFarm) -> None:
    ports = free_ports(1 + FAILURES)  # the first death, among others' buckets, may have had another reason
    client = farm.render(*(f"127.0.0.1:{port}" for port in ports), words=(*LOUD, "--bucket-order", "rows"))
    client.release()
    for port in ports:
        farm.serve(f"port {port}", port, kills_at=[[0, 0]]).process.wait(DEADLINE_S)
    facts = client.facts(status=1)
    assert len(facts["lost"]) == 1 + FAILURES
    assert client.voice.heard("bucket at 0,0 was given up", CLOSED)
    assert facts["buckets"] == len(client.buckets()) >= BUCKETS - 1
    assert not client.picture.exists()
    assert client.picture.with_suffix(".partial.exr").exists()


def test_a_server_that_fails_three_buckets_in_a_row_is_set_aside(farm: FaultFarm, reference: bytes) -> None:
    client = render_beside_a_bad_server(farm)
    reason = losses_of(client.facts())["bad"]
    assert reason.startswith(f"failed {FAILURES} buckets in a row that others rendered, at last: ")
    assert "no memory for the film" in reason
    said = client.voice.heard("bad: ")
    assert reason in said[-1]  # nothing was given to it, and nothing failed there, after that
    assert client.picture.read_bytes() == reference


def test_a_server_that_fails_at_once_is_not_given_the_whole_queue(farm: FaultFarm) -> None:
    client = render_beside_a_bad_server(farm)
    facts = client.facts()
    assert facts["buckets"] >= BUCKETS
    assert len(client.voice.heard("bad: bucket ")) <= 3 * FAILURES


def render_beside_a_bad_server(farm: FaultFarm) -> Client:
    bad = farm.serve("bad", raises="no memory for the film")
    client = render_on(farm, bad, *serve_all(farm, "one", "two"), bucket_s=0.1)
    client.voice.wait("bad: bucket ", "no memory for the film")
    return client
