"""What a client is called, and what the keeper knows of keys that come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr.keys.changes import authorize, init_keys, renew_farm, revoke
from dr.keys.folder import KeyPlaces, key_places
from dr.keys.watch import LOOK_S, KeyWatch
from dr.protocol.messages import Hello, Ping
from tests.support.keys import pair_of
from workers.server.keeper import MAX_NAME, Keeper, named_by_key


def named(name: str, key_name: str) -> str:
    found = named_by_key(Hello(version=1, name=name), key_name)
    assert isinstance(found, Hello)
    return found.name


def test_a_client_is_called_by_its_key_first() -> None:
    assert named("ws7", "anna") == "anna (ws7)"
    assert named("anna", "mallory") == "mallory (anna)"
    assert named("anna", "anna") == "anna"


def test_a_client_without_a_key_is_called_what_it_calls_itself() -> None:
    assert named("ws7", "") == "ws7"


def test_a_long_name_does_not_push_the_keys_out_and_stays_within_the_limit() -> None:
    assert named("x" * MAX_NAME, "anna").startswith("anna (x")
    assert len(named("x" * MAX_NAME, "anna")) == MAX_NAME


def test_other_messages_and_other_fields_stay_as_they_are() -> None:
    assert named_by_key(Ping(n=3), "anna") == Ping(n=3)
    found = named_by_key(Hello(version=7, want=True, kernels="k", name="b"), "anna")
    assert found == Hello(version=7, want=True, kernels="k", name="anna (b)")


@pytest.fixture
def places(tmp_path: Path) -> KeyPlaces:
    return key_places({}, tmp_path / "keys")


def keeper_of(places: KeyPlaces) -> Keeper:
    return Keeper(KeyWatch({}, places.farm.parent, now=0.0))


def test_a_keeper_without_files_has_no_keys_and_never_looks() -> None:
    keeper = Keeper(insecure=True)
    assert (keeper.farm, keeper.next_deadline(), keeper.look(1e9)) == (None, None, False)
    assert keeper.security.insecure
    assert keeper.sources() == []


def test_keys_that_come_change_and_go_are_seen_within_two_looks(places: KeyPlaces) -> None:
    places.farm.parent.mkdir()
    keeper = keeper_of(places)
    assert (keeper.farm, keeper.next_deadline()) == (None, LOOK_S)
    init_keys(places, "owner")
    assert not keeper.look(0.9 * LOOK_S)
    assert keeper.look(LOOK_S)
    assert keeper.farm == keeper.ring.farm_public is not None
    first = keeper.farm
    authorize(places, "anna", pair_of("anna").public)
    assert keeper.look(2 * LOOK_S)
    assert keeper.security.ring.client_name(pair_of("anna").public) == "anna"
    assert keeper.farm == first
    revoke(places, "anna")
    assert keeper.look(3 * LOOK_S)
    assert keeper.ring.client_name(pair_of("anna").public) is None
    renew_farm(places)
    assert keeper.look(4 * LOOK_S)
    assert keeper.farm != first
