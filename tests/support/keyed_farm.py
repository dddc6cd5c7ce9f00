"""Machines of one farm, each a folder with the keys that it has, made the way a user makes them."""

from __future__ import annotations

from pathlib import Path

from dr.keys.changes import authorize, export_farm, import_farm, init_keys
from dr.keys.folder import KeyPlaces, key_places, load_keys, read_client
from dr.keys.ring import KeyRing


class Farm:
    """The keys of a farm, and machines that have them or not; each machine is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = self.machine("farm")
        init_keys(self.places, "owner")

    def machine(self, name: str) -> KeyPlaces:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        return key_places({}, home / "xdg_config_home" / "dr" / "keys")

    def join(self, name: str) -> Path:
        """A machine with the whole farm key."""
        return self._bring(name, public=False)

    def visit(self, name: str, admitted: bool = True) -> Path:
        """A machine with a client key alone."""
        home = self._bring(name, public=True)
        if admitted:
            authorize(self.places, name, self.key_of(name))
        return home

    def key_of(self, name: str) -> str:
        client = read_client(self.machine(name).client)
        assert client
        return client.public

    def ring(self) -> KeyRing:
        return load_keys({}, self.places.farm.parent)

    def _bring(self, name: str, public: bool) -> Path:
        carried = self.folder / f"{name}.key"
        export_farm(self.places, carried, public, force=False)
        import_farm(self.machine(name), carried, force=False)
        return self.folder / name
