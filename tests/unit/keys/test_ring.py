"""What follows from the keys that one holds."""

from __future__ import annotations

import pytest

from dr.errors import Refused
from dr.keys.ring import KeyRing, dial_out_keys, require_client, require_farm
from tests.support.keys import pair_of

FARM, ANNA, BERT = map(pair_of, ("farm", "anna", "bert"))
NOTHING = KeyRing()
USER = KeyRing(client=ANNA)
GUEST = KeyRing(client=ANNA, farm_public=FARM.public)  # a client of a farm whose secret it does not hold
HOLDER = KeyRing(farm_public=FARM.public, farm_secret=FARM.secret, clients={BERT.public: "bert"})
UNLISTED = KeyRing(client=ANNA, farm_public=FARM.public, farm_secret=FARM.secret, clients={BERT.public: "bert"})
LISTED = KeyRing(client=BERT, farm_public=FARM.public, farm_secret=FARM.secret, clients={BERT.public: "bert"})


@pytest.mark.parametrize(
    ("ring", "identity"),
    [(NOTHING, None), (USER, ANNA), (GUEST, ANNA), (HOLDER, FARM), (UNLISTED, FARM), (LISTED, BERT)],
    ids=["nothing", "user", "guest", "holder", "unlisted", "listed"],
)
def test_a_client_shows_its_own_key_unless_only_the_farm_key_is_sure_to_be_admitted(ring, identity) -> None:
    assert ring.identity == identity


@pytest.mark.parametrize("ring", [HOLDER, UNLISTED, LISTED])
def test_a_server_admits_the_listed_clients_and_who_holds_the_farm_key(ring: KeyRing) -> None:
    assert [ring.admit_client(pair.public) for pair in (FARM, BERT, ANNA)] == [FARM.public, BERT.public, None]
    assert [ring.client_name(pair.public) for pair in (FARM, BERT, ANNA)] == ["farm", "bert", None]


@pytest.mark.parametrize("ring", [NOTHING, USER, GUEST])
def test_who_does_not_hold_the_farm_key_admits_no_client(ring: KeyRing) -> None:
    assert [ring.admit_client(pair.public) for pair in (FARM, BERT, ANNA)] == [None, None, None]


def test_a_listening_client_admits_holders_of_the_farm_key_alone() -> None:
    assert [GUEST.admit_server(pair.public) for pair in (FARM, BERT, ANNA)] == [FARM.public, None, None]
    assert NOTHING.admit_server(FARM.public) is None


def test_the_messages_of_a_revoked_key_are_told_from_those_of_the_next_key_of_that_name() -> None:
    user_id = LISTED.admit_client(BERT.public)
    assert user_id is not None
    later = KeyRing(farm_public=FARM.public, farm_secret=FARM.secret, clients={ANNA.public: "bert"})
    assert later.client_name(user_id) is None


@pytest.mark.parametrize(
    ("ring", "words"),
    [(NOTHING, "dr keys init"), (USER, "dr keys init"), (GUEST, "its public half; `dr keys export-farm FILE`")],
)
def test_who_cannot_be_a_server_is_told_what_to_do(ring: KeyRing, words: str) -> None:
    with pytest.raises(Refused, match=words):
        require_farm(ring)


def test_who_cannot_be_a_client_is_told_what_to_do() -> None:
    for ring in (NOTHING, USER, KeyRing(farm_public=FARM.public)):
        with pytest.raises(Refused, match="`dr keys init`"):
            require_client(ring)
    assert require_client(GUEST) == (ANNA, FARM.public)


def test_a_server_that_dials_out_expects_the_farm_key_or_a_listed_one() -> None:
    clients = {ANNA.public: "zoe", BERT.public: "bert"}
    ring = KeyRing(farm_public=FARM.public, farm_secret=FARM.secret, clients=clients)
    assert dial_out_keys(ring) == (FARM.public, BERT.public, ANNA.public)
    with pytest.raises(Refused):
        dial_out_keys(GUEST)
