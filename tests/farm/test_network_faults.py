"""What happens to a render when the network fails: three machines with keys, a switch, cables that are cut and healed.

That servers which dial out survive a cut, too, and that others finish the frame meanwhile: test_namespaces.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import keyed_farm
from tests.support.fault_farm import (
    HANG_NOTICED_S,
    SLACK_S,
    Client,
    FaultFarm,
    Server,
    buckets_of,
    losses_of,
    picture_without_faults,
    tell_measured,
)
from tests.support.namespaces import Machine, Switch, carry_words, lose_words, switched

HEALED_S = 2.0  # a redial, and what TCP takes to try again

pytestmark = pytest.mark.slow


class Net(NamedTuple):
    switch: Switch
    client: Machine
    near: Machine
    far: Machine


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return picture_without_faults(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    """The client has a key of its own, which the farm key of the servers admits."""
    keys = keyed_farm.Farm(tmp_path)
    keys.visit("client")
    for name in ("near", "far"):
        keys.join(name)
    with switched(tmp_path, "client", "near", "far") as (switch, machines):
        yield Net(switch, *machines)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[FaultFarm]:
    with FaultFarm(tmp_path) as farm:
        yield farm


def render(farm: FaultFarm, net: Net) -> tuple[Server, Client]:
    """The server far away, and a client that it renders for, with another server near."""
    near, far = (farm.serve(name, host=host) for name, host in (("near", net.near), ("far", net.far)))
    client = farm.render(near.place, far.place, host=net.client, bucket_s=0.05)
    client.join_s(far, 0.0)
    return far, client


def check_noticed(what: str, seconds: float, must_s: float) -> None:
    tell_measured(what, seconds, must_s)
    assert seconds < must_s + SLACK_S


def check_end(client: Client, reference: bytes) -> None:
    """Nothing is missing or doubled, and the server far away is named as lost once."""
    facts = client.facts()
    assert list(losses_of(facts)) == ["far"]
    assert sum(buckets_of(facts).values()) == facts["buckets"]
    assert client.picture.read_bytes() == reference


def test_a_server_behind_a_cut_cable_is_given_up_and_joins_again_when_it_is_healed(
    farm: FaultFarm, net: Net, reference: bytes
) -> None:
    far, client = render(farm, net)
    cut_s = time.monotonic()
    net.switch.unplug(net.far)
    seconds, _ = client.lose_s(far, cut_s)
    check_noticed("a cut cable is noticed by the client", seconds, HANG_NOTICED_S)
    free_s = far.voice.wait("lease ended").at_s - cut_s
    check_noticed("a cut cable is noticed by the server", free_s, HANG_NOTICED_S)
    healed_s = time.monotonic()
    net.switch.plug(net.far)
    check_noticed("a server behind a healed cable renders again", client.join_s(far, healed_s), HEALED_S)
    check_end(client, reference)


@pytest.mark.parametrize("deaf", ["client", "server"])
def test_a_connection_that_carries_words_one_way_alone_is_given_up(
    farm: FaultFarm, net: Net, reference: bytes, deaf: str
) -> None:
    far, client = render(farm, net)
    speaker, hearer = (net.far, net.client) if deaf == "client" else (net.client, net.far)
    cut_s = time.monotonic()
    lose_words(speaker, hearer)
    seconds, _ = client.lose_s(far, cut_s)
    check_noticed(f"a connection with a deaf {deaf} is noticed", seconds, HANG_NOTICED_S)
    healed_s = time.monotonic()
    carry_words(speaker, hearer)
    check_noticed(f"a {deaf} that hears again has its server", client.join_s(far, healed_s), HEALED_S)
    check_end(client, reference)


def test_a_host_that_starts_anew_behind_a_cut_cable_is_joined_although_nobody_closed_its_connection(
    farm: FaultFarm, net: Net, reference: bytes
) -> None:
    far, client = render(farm, net)
    net.switch.unplug(net.far)
    far.kill()
    far = farm.serve_again(far)
    assert far.place  # it listens
    healed_s = time.monotonic()
    net.switch.plug(net.far)
    seconds, _ = client.lose_s(far, healed_s)
    check_noticed("a half-open connection is noticed", seconds, HANG_NOTICED_S)
    client.join_s(far, healed_s)
    check_end(client, reference)
