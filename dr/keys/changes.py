"""What `dr keys` does to the files: makes, renews, lists, exports, imports. Knows the files; prints nothing.

Each change happens under a lock and replaces whole files, so that two of them at once leave what one after the other
would have left. A key that is replaced is kept beside the new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from dr.errors import BadInput, Refused, did_you_mean
from dr.keys.file import PRIVATE, PUBLIC, keep_aside, locked, write_file
from dr.keys.folder import KeyPlaces, read_client, read_farm
from dr.keys.format import FarmKey, check_name, format_client, format_farm
from dr.keys.key import KeyPair, make_pair, parse_public
from dr.keys.ring import FARM_NAME, HOW_TO_MAKE


class Made(Struct, frozen=True):
    """The files that a command wrote, and the name under which each replaced one was kept."""

    files: tuple[Path, ...] = ()
    aside: tuple[Path, ...] = ()


class Imported(Struct, frozen=True, kw_only=True):
    """What became of a farm file; `added` and `removed` are names of clients."""

    made: Made = Made()
    whole: bool = True  # the secret half is here, too
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def init_keys(places: KeyPlaces, user: str) -> Made:
    """Makes what is missing, and changes nothing that is there. A new farm key admits this user as `user`."""
    with _locked(places):
        made = []
        client = read_client(places.client)
        if client is None:
            client = make_pair()
            _write_client(places, client)
            made.append(places.client)
        if read_farm(places.farm) is None:
            pair = make_pair()
            farm = FarmKey(public=pair.public, secret=pair.secret, clients={check_name(user, "user"): client.public})
            _write_farm(places, farm)
            made.append(places.farm)
    return Made(tuple(made))


def renew_farm(places: KeyPlaces) -> Made:
    """A new pair that admits the same clients: after a loss, the old file is worth nothing once no machine has it."""
    with _locked(places):
        farm = _whole_farm(places)
        aside = keep_aside(places.farm)
        pair = make_pair()
        _write_farm(places, replace(farm, public=pair.public, secret=pair.secret))
    return _made((places.farm,), aside)


def renew_client(places: KeyPlaces) -> Made:
    """A new pair for this user, admitted under the old one's name if the farm key here lists that."""
    with _locked(places):
        old, farm = read_client(places.client), read_farm(places.farm)
        if old is None:
            raise BadInput(f"{places.client}: expected a client key to renew, found none; `dr keys init` makes one")
        pair, files = make_pair(), [places.client]
        aside = keep_aside(places.client)
        if farm and old.public in farm.clients.values():
            clients = {name: pair.public if key == old.public else key for name, key in farm.clients.items()}
            _write_farm(places, replace(farm, clients=clients))
            files.append(places.farm)
        _write_client(places, pair)
    return _made(tuple(files), aside)


def authorize(places: KeyPlaces, name: str, key: str) -> bool:
    """Admits a client; False when it was admitted already. BadInput for a bad name or key, or one that is in use."""
    check_name(name, "NAME")
    public = parse_public(key, "KEY")
    with _locked(places):
        farm = _whole_farm(places)
        if farm.clients.get(name) == public:
            return False
        names = {known: named for named, known in farm.clients.items()} | {farm.public: FARM_NAME}
        if public in names:
            raise BadInput(f"KEY: expected a new one, found that of {names[public]!r}; one key has one name")
        if name in farm.clients:
            raise BadInput(f"NAME: {name!r} has another key already; choose another name, or first: dr keys revoke")
        _write_farm(places, replace(farm, clients={**farm.clients, name: public}))
    return True


def revoke(places: KeyPlaces, name: str) -> str:
    """Admits a client no longer, and gives its public key. BadInput for an unknown name."""
    with _locked(places):
        farm = _whole_farm(places)
        if name == FARM_NAME:
            raise BadInput("NAME: the farm's own key is not revoked but renewed: dr keys init --renew farm")
        if name not in farm.clients:
            hint = did_you_mean(name, farm.clients) or "; `dr keys list` shows all"
            raise BadInput(f"NAME: expected an authorized client, found {name!r}{hint}")
        rest = {named: key for named, key in farm.clients.items() if named != name}
        _write_farm(places, replace(farm, clients=rest))
    return farm.clients[name]


def export_farm(places: KeyPlaces, target: Path, public: bool, force: bool) -> FarmKey:
    """Writes the farm key, or its public half alone, and gives what was written."""
    farm = read_farm(places.farm)
    if farm is None:
        raise Refused(f"expected a farm key at {places.farm}, found none; {HOW_TO_MAKE}")
    if not public and farm.secret is None:
        raise Refused(f"{places.farm}: holds the public half of a farm key alone; --public exports that")
    part = FarmKey(public=farm.public) if public else farm
    if force:
        _check_replaceable(places, target, farm)
    write_file(target, format_farm(part), PUBLIC if public else PRIVATE, replace=force)
    return part


def import_farm(places: KeyPlaces, source: Path, force: bool) -> Imported:
    """Joins the farm of `source`, or takes its newer list of clients.

    BadInput when another farm's key is here already; with `force` that one is kept aside.
    """
    new = read_farm(source)
    if new is None:
        raise BadInput(f"{source}: expected a farm key file, found none; `dr keys export-farm` makes it")
    with _locked(places):
        old = read_farm(places.farm)
        if old and old.public != new.public and not force:
            raise BadInput(
                f"{source}: holds another farm's key than {places.farm}; --force replaces that one and keeps it aside"
            )
        same = old if old and old.public == new.public else None
        aside = keep_aside(places.farm) if old and not same else None
        files = [] if same and (same == new or new.secret is None) else [places.farm]
        if files:
            _write_farm(places, new)
        if new.secret is None and read_client(places.client) is None:
            _write_client(places, make_pair())
            files.append(places.client)
    return _imported(_made(tuple(files), aside), same, new)


def _imported(made: Made, same: FarmKey | None, new: FarmKey) -> Imported:
    if same and same.secret and not new.secret:
        return Imported(made=made)  # the whole key was here already, and stays
    before = set(same.clients) if same else set()
    added, removed = sorted(set(new.clients) - before), sorted(before - set(new.clients))
    return Imported(made=made, whole=new.secret is not None, added=tuple(added), removed=tuple(removed))


def _whole_farm(places: KeyPlaces) -> FarmKey:
    farm = read_farm(places.farm)
    if farm is None or farm.secret is None:
        found = "its public half" if farm else "none"
        raise Refused(f"expected the farm key at {places.farm}, found {found}; {HOW_TO_MAKE}")
    return farm


def _check_replaceable(places: KeyPlaces, target: Path, farm: FarmKey) -> None:
    """Even --force must not overwrite this user's keys, nor what may be the only copy of another farm's key."""
    if target.resolve() in (places.client.resolve(), places.farm.resolve()):
        raise BadInput(f"{target}: is in use as a key; choose another name")
    try:
        there = read_farm(target)
    except BadInput:
        return  # no farm key
    if there and there.secret and there.public != farm.public:
        raise BadInput(f"{target}: holds the key of another farm; move it away first")


def _write_client(places: KeyPlaces, pair: KeyPair) -> None:
    write_file(places.client, format_client(pair), PRIVATE, replace=True)


def _write_farm(places: KeyPlaces, farm: FarmKey) -> None:
    write_file(places.farm, format_farm(farm), PRIVATE, replace=True)


def _made(files: tuple[Path, ...], aside: Path | None) -> Made:
    return Made(files, (aside,) if aside else ())


@contextmanager
def _locked(places: KeyPlaces) -> Iterator[None]:
    with ExitStack() as stack:
        for folder in sorted({places.client.parent, places.farm.parent}):
            stack.enter_context(locked(folder))
        yield
