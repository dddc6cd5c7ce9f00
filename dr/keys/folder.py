"""Where this user's keys lie, and how they are loaded. Knows names and places of files; changes none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import platformdirs
from msgspec import Struct

from dr.errors import BadInput
from dr.keys.file import check_private, read_file
from dr.keys.format import FarmKey, parse_client, parse_farm
from dr.keys.key import KeyPair
from dr.keys.ring import KeyRing

VARIABLE = "DR_FARM_KEY_FILE"  # names the farm key file of a service or a container


class KeyPlaces(Struct, frozen=True):
    """The two files. A farm file that the environment names must be there; the others may be missing."""

    client: Path
    farm: Path
    farm_is_named: bool = False


def default_folder() -> Path:
    return platformdirs.user_config_path("dr", appauthor=False) / "keys"


def key_places(environ: Mapping[str, str], folder: Path) -> KeyPlaces:
    """An empty variable counts as not set."""
    named = environ.get(VARIABLE)
    farm = Path(named).expanduser() if named else folder / "farm.key"
    return KeyPlaces(folder / "client.key", farm, bool(named))


def load_keys(environ: Mapping[str, str], folder: Path) -> KeyRing:
    """All keys of this user; an empty ring when there is none.

    Raises BadInput for a broken file and Refused for one that others can read or change.
    """
    places = key_places(environ, folder)
    client, farm = read_client(places.client), read_farm(places.farm)
    if farm is None:
        if places.farm_is_named:
            raise BadInput(
                f"{VARIABLE}: expected a farm key file, found none at {places.farm}; `dr keys init` makes it"
            )
        return KeyRing(client=client)
    clients = {public: name for name, public in farm.clients.items()}
    return KeyRing(client=client, farm_public=farm.public, farm_secret=farm.secret, clients=clients)


def read_client(path: Path) -> KeyPair | None:
    """None where there is no file. Raises BadInput and Refused like `load_keys`."""
    found = read_file(path)
    if found is None:
        return None
    check_private(path, found, is_secret=True)
    return parse_client(found.data, str(path))


def read_farm(path: Path) -> FarmKey | None:
    """None where there is no file. Raises BadInput and Refused like `load_keys`."""
    found = read_file(path)
    if found is None:
        return None
    farm = parse_farm(found.data, str(path))
    check_private(path, found, is_secret=farm.secret is not None)
    return farm
