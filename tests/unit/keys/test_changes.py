"""What each command leaves in the files."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dr.errors import BadInput, Refused
from dr.keys.changes import (
    Imported,
    Made,
    authorize,
    export_farm,
    import_farm,
    init_keys,
    renew_client,
    renew_farm,
    revoke,
)
from dr.keys.folder import KeyPlaces, key_places, load_keys, read_client, read_farm
from dr.keys.format import FarmKey
from dr.keys.key import KeyPair
from dr.keys.ring import KeyRing
from tests.support.keys import pair_of

BERT, CARL = pair_of("bert"), pair_of("carl")


def ring_of(places: KeyPlaces) -> KeyRing:
    return load_keys({"DR_FARM_KEY_FILE": str(places.farm)} if places.farm_is_named else {}, places.client.parent)


def farm_of(places: KeyPlaces) -> FarmKey:
    farm = read_farm(places.farm)
    assert farm is not None
    return farm


def client_of(places: KeyPlaces) -> KeyPair:
    client = read_client(places.client)
    assert client is not None
    return client


@pytest.fixture
def other(tmp_path: Path) -> KeyPlaces:
    """Another machine, without keys."""
    return key_places({}, tmp_path / "other")


def test_init_makes_both_keys_and_the_farm_admits_its_maker(places: KeyPlaces) -> None:
    assert init_keys(places, "anna") == Made((places.client, places.farm))
    ring = ring_of(places)
    assert ring.identity == ring.client == client_of(places)
    assert ring.farm is not None
    assert list(ring.clients.values()) == ["anna"]
    for path in (places.client, places.farm):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_init_changes_nothing_that_is_there(made: KeyPlaces) -> None:
    before = made.client.read_bytes(), made.farm.read_bytes()
    assert init_keys(made, "bert") == Made()
    assert (made.client.read_bytes(), made.farm.read_bytes()) == before


def test_init_makes_the_one_that_is_missing(made: KeyPlaces) -> None:
    farm = made.farm.read_bytes()
    made.client.unlink()
    assert init_keys(made, "anna") == Made((made.client,))
    assert made.farm.read_bytes() == farm
    assert ring_of(made).identity == ring_of(made).farm


def test_init_leaves_a_broken_farm_key_for_a_person_to_look_at(made: KeyPlaces) -> None:
    made.farm.write_bytes(b"")
    with pytest.raises(BadInput, match=str(made.farm)):
        init_keys(made, "anna")
    assert made.farm.read_bytes() == b""


def test_many_inits_at_once_make_one_key(places: KeyPlaces) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: init_keys(places, f"user {n}"), range(8)))
    assert sorted(len(result.files) for result in results) == [0] * 7 + [2]
    assert [name for name in os.listdir(places.farm.parent) if name.endswith(".tmp")] == []


def test_init_honours_the_variable_for_services(tmp_path: Path) -> None:
    places = key_places({"DR_FARM_KEY_FILE": str(tmp_path / "service" / "farm.key")}, tmp_path / "keys")
    assert init_keys(places, "anna") == Made((tmp_path / "keys" / "client.key", tmp_path / "service" / "farm.key"))
    assert ring_of(places).identity == ring_of(places).client


def test_a_copy_of_the_farm_file_joins_a_machine_without_any_other_step(made: KeyPlaces, other: KeyPlaces) -> None:
    other.farm.parent.mkdir()
    other.farm.write_bytes(made.farm.read_bytes())
    other.farm.chmod(0o600)
    here, there = ring_of(made), ring_of(other)
    assert there.farm == here.farm == there.identity
    assert here.identity is not None
    assert there.admit_client(here.identity.public)
    assert there.identity is not None
    assert here.admit_client(there.identity.public)


def test_an_exported_farm_key_joins_another_machine(made: KeyPlaces, other: KeyPlaces, tmp_path: Path) -> None:
    export_farm(made, tmp_path / "out", public=False, force=False)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600
    joined = import_farm(other, tmp_path / "out", force=False)
    assert joined == Imported(made=Made((other.farm,)), added=("anna",))
    assert farm_of(other) == farm_of(made)
    assert import_farm(other, tmp_path / "out", force=False) == Imported()


def test_the_public_half_makes_a_client_that_the_farm_admits_when_it_is_authorized(
    made: KeyPlaces, other: KeyPlaces, tmp_path: Path
) -> None:
    export_farm(made, tmp_path / "out", public=True, force=False)
    assert farm_of(made).secret is not None
    assert b"secret_key" not in (tmp_path / "out").read_bytes()
    joined = import_farm(other, tmp_path / "out", force=False)
    assert joined == Imported(made=Made((other.farm, other.client)), whole=False)
    guest = ring_of(other)
    assert (guest.farm, guest.farm_public) == (None, farm_of(made).public)
    assert guest.identity is not None
    assert ring_of(made).admit_client(guest.identity.public) is None
    assert authorize(made, "bert", guest.identity.public)
    assert ring_of(made).admit_client(guest.identity.public)
    assert init_keys(other, "bert") == Made()


def test_the_public_half_never_takes_the_place_of_the_whole_key(made: KeyPlaces, tmp_path: Path) -> None:
    export_farm(made, tmp_path / "out", public=True, force=False)
    before = made.farm.read_bytes()
    assert import_farm(made, tmp_path / "out", force=True) == Imported()
    assert made.farm.read_bytes() == before


def test_a_newer_list_of_clients_is_imported_and_told(made: KeyPlaces, other: KeyPlaces, tmp_path: Path) -> None:
    export_farm(made, tmp_path / "out", public=False, force=False)
    import_farm(other, tmp_path / "out", force=False)
    authorize(made, "bert", BERT.public)
    revoke(made, "anna")
    export_farm(made, tmp_path / "out", public=False, force=True)
    joined = import_farm(other, tmp_path / "out", force=False)
    assert joined == Imported(made=Made((other.farm,)), added=("bert",), removed=("anna",))
    assert farm_of(other) == farm_of(made)


def test_another_farm_is_joined_only_on_demand_and_the_old_key_is_kept(
    made: KeyPlaces, other: KeyPlaces, tmp_path: Path
) -> None:
    init_keys(other, "bert")
    export_farm(other, tmp_path / "out", public=False, force=False)
    old = made.farm.read_bytes()
    with pytest.raises(BadInput, match=r"holds another farm's key than .*--force"):
        import_farm(made, tmp_path / "out", force=False)
    assert made.farm.read_bytes() == old
    joined = import_farm(made, tmp_path / "out", force=True)
    assert [path.read_bytes() for path in joined.made.aside] == [old]
    assert farm_of(made) == farm_of(other)


def test_an_export_overwrites_nothing_unless_it_is_told_to_and_a_key_in_use_never(
    made: KeyPlaces, other: KeyPlaces, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.write_text("a letter")
    with pytest.raises(BadInput, match="exists already"):
        export_farm(made, target, public=False, force=False)
    export_farm(made, target, public=False, force=True)
    init_keys(other, "bert")
    for path in (made.farm, made.client, other.farm):
        before = path.read_bytes()
        with pytest.raises(BadInput, match=r"choose another name|move it away first"):
            export_farm(made, path, public=True, force=True)
        assert path.read_bytes() == before


def test_a_farm_key_that_others_could_read_on_its_way_is_not_imported(
    made: KeyPlaces, other: KeyPlaces, tmp_path: Path
) -> None:
    export_farm(made, tmp_path / "out", public=False, force=False)
    (tmp_path / "out").chmod(0o644)
    with pytest.raises(Refused, match=f"found mode 644; chmod 600 {tmp_path / 'out'}"):
        import_farm(other, tmp_path / "out", force=False)
    assert not other.farm.exists()


def test_clients_come_and_go(made: KeyPlaces) -> None:
    assert authorize(made, "bert", BERT.public)
    assert not authorize(made, "bert", BERT.public)
    assert authorize(made, "carl", CARL.public)
    assert revoke(made, "bert") == BERT.public
    clients = farm_of(made).clients
    assert clients == {"anna": client_of(made).public, "carl": CARL.public}
    assert stat.S_IMODE(made.farm.stat().st_mode) == 0o600


def test_clients_that_come_at_once_are_all_there(made: KeyPlaces) -> None:
    names = [f"client {n}" for n in range(16)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda name: authorize(made, name, pair_of(name).public), names))
    assert set(farm_of(made).clients) == {"anna", *names}


def test_a_name_and_a_key_belong_together(made: KeyPlaces) -> None:
    authorize(made, "bert", BERT.public)
    before = made.farm.read_bytes()
    for name, key, words in (
        ("bert", CARL.public, "'bert' has another key already"),
        ("carl", BERT.public, "found that of 'bert'"),
        ("carl", farm_of(made).public, "found that of 'farm'"),
        ("farm", CARL.public, "is not 'farm'"),
        ("-carl", CARL.public, "does not begin with '-'"),
        ("", CARL.public, "expected a name of 1 to 64"),
        ("x" * 65, CARL.public, "expected a name of 1 to 64"),
        ("a\x1b[31m", CARL.public, r"found 'a\?\[31m'"),
        ("carl", "short", "KEY: expected a public key of 40 letters"),
    ):
        with pytest.raises(BadInput, match=words):
            authorize(made, name, key)
    assert made.farm.read_bytes() == before


def test_an_unknown_name_is_told_from_its_likes(made: KeyPlaces) -> None:
    for name, words in (("ana", r"found 'ana' \(did you mean 'anna'\?\)"), ("zoe", "dr keys list")):
        with pytest.raises(BadInput, match=words):
            revoke(made, name)
    with pytest.raises(BadInput, match="dr keys init --renew farm"):
        revoke(made, "farm")


def test_only_the_holder_of_the_farm_key_admits(made: KeyPlaces, other: KeyPlaces, tmp_path: Path) -> None:
    export_farm(made, tmp_path / "out", public=True, force=False)
    for found in ("found none", "found its public half"):
        with pytest.raises(Refused, match=found):
            authorize(other, "bert", BERT.public)
        with pytest.raises(Refused, match=found):
            renew_farm(other)
        import_farm(other, tmp_path / "out", force=False)
    with pytest.raises(Refused, match="--public exports that"):
        export_farm(other, tmp_path / "again", public=False, force=False)


def test_a_renewed_farm_key_admits_the_same_clients_and_the_old_one_is_kept(made: KeyPlaces) -> None:
    old, before = farm_of(made), made.farm.read_bytes()
    result = renew_farm(made)
    assert result.files == (made.farm,)
    assert [path.read_bytes() for path in result.aside] == [before]
    assert farm_of(made).clients == old.clients
    assert farm_of(made).public != old.public
    assert ring_of(made).admit_client(old.public) is None


def test_a_renewed_client_key_is_admitted_in_the_place_of_the_old_one(made: KeyPlaces) -> None:
    old = client_of(made)
    result = renew_client(made)
    assert result == Made((made.client, made.farm), (made.client.with_name("client.key.old-1"),))
    assert farm_of(made).clients == {"anna": client_of(made).public}
    assert ring_of(made).admit_client(old.public) is None


def test_a_renewed_client_key_that_the_farm_does_not_list_leaves_the_farm_alone(made: KeyPlaces) -> None:
    revoke(made, "anna")
    before = made.farm.read_bytes()
    assert renew_client(made).files == (made.client,)
    assert made.farm.read_bytes() == before


def test_there_must_be_a_client_key_to_renew(places: KeyPlaces) -> None:
    with pytest.raises(BadInput, match="dr keys init"):
        renew_client(places)


def test_a_file_that_the_environment_names_must_be_there(tmp_path: Path) -> None:
    assert load_keys({}, tmp_path) == KeyRing() == load_keys({"DR_FARM_KEY_FILE": ""}, tmp_path)
    with pytest.raises(BadInput, match=r"DR_FARM_KEY_FILE: expected a farm key file, found none at .*none.key"):
        load_keys({"DR_FARM_KEY_FILE": str(tmp_path / "none.key")}, tmp_path)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
@pytest.mark.parametrize("which", ["client", "farm"])
def test_keys_that_others_can_touch_are_not_loaded(made: KeyPlaces, which: str, mode: int) -> None:
    path = getattr(made, which)
    path.chmod(mode)
    with pytest.raises(Refused, match=f"found mode {mode:o}; chmod 600 {path}"):
        ring_of(made)


def test_a_public_half_may_be_readable_by_all(made: KeyPlaces, tmp_path: Path) -> None:
    export_farm(made, tmp_path / "farm.key", public=True, force=False)
    assert stat.S_IMODE((tmp_path / "farm.key").stat().st_mode) == 0o644
    assert load_keys({"DR_FARM_KEY_FILE": str(tmp_path / "farm.key")}, tmp_path).farm_public == farm_of(made).public
