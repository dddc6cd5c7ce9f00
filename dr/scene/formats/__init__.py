"""One file per scene format, and the door to them all: `load_scene`."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from dr.errors import BadInput, printable
from dr.scene.assets import Files, Role
from dr.scene.complete import complete
from dr.scene.formats.assembly import Assembly
from dr.scene.formats.budget import Budget
from dr.scene.formats.gltf import load_gltf
from dr.scene.formats.ply import load_ply
from dr.scene.formats.scene_toml import load_scene_toml, read_scene_toml
from dr.scene.formats.scene_toml_materials import NEUTRAL
from dr.scene.formats.scene_toml_schema import SceneTable
from dr.scene.matrix import identity
from dr.scene.model import Mesh, RenderSettings, Scene

_MAX_DEPTH = 16
_TOML = ".scene.toml"

Overrides = Mapping[str, object] | RenderSettings


def load_scene(files: Files, main: str, overrides: Overrides | None = None) -> Scene:
    """The scene that the file `main` describes, complete: with a camera and, unless refused, with light.

    `overrides` are fields of RenderSettings that win over the file's own; a whole RenderSettings replaces them all.
    What moves stands as it does at the frame's time. The same files and overrides give the same scene, to the bit, on
    every machine. BadInput, one line that names file and place, is all that a malformed file can cause.
    """
    try:
        with np.errstate(all="ignore"):  # infinities are looked for where they would do harm
            tables = _Tables(files)
            settings = _merged(tables.settings(main), overrides)
            scene = _at(tables, main, settings, settings.time_s)
            framed = None
            if scene.animated and not scene.cameras:  # the camera that is added must not follow what moves
                framed = _at(tables, main, settings, 0.0)
        scene = complete(scene, main, framed)
    except BadInput as error:
        raise BadInput(printable(str(error))) from error
    except (MemoryError, RecursionError) as error:
        raise BadInput(f"{main}: too large or too deeply nested to load") from error
    return msgspec.structs.replace(scene, notices=tuple(map(printable, scene.notices)))


def _at(tables: _Tables, main: str, settings: RenderSettings, time_s: float) -> Scene:
    """The scene as it stands at a moment."""
    part = _Loader(tables, time_s).load(main, main)
    scene = _as_scene(part, main) if isinstance(part, Mesh) else part
    return msgspec.structs.replace(scene, settings=settings)


class _Tables:
    """Reads each .scene.toml once, whatever it is needed for."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._tables: dict[str, SceneTable] = {}

    def table(self, name: str) -> SceneTable:
        if name not in self._tables:
            self._tables[name] = read_scene_toml(self.files, name)
        return self._tables[name]

    def settings(self, main: str) -> RenderSettings:
        """What the main file says about the render: other formats say nothing."""
        if not main.lower().endswith(_TOML):
            return RenderSettings()
        self.files.refer(main, Role.SCENE, main)
        return self.table(main).render


class _Loader:
    """Loads each file once, whoever includes it, as it stands at `time_s`."""

    def __init__(self, tables: _Tables, time_s: float) -> None:
        self.tables = tables
        self.files = tables.files
        self.time_s = time_s
        self.budget = Budget()
        self._parts: dict[str, Scene | Mesh] = {}
        self._open: list[str] = []  # the chain of files that wait for the one being loaded

    def load(self, name: str, place: str) -> Scene | Mesh:
        if name in self._open:
            raise BadInput(f"{place}: {name} includes itself: {' -> '.join([*self._open, name])[:400]}")
        if len(self._open) >= _MAX_DEPTH:
            raise BadInput(f"{place}: expected at most {_MAX_DEPTH} files that include one another, found more")
        if name not in self._parts:
            self._open.append(name)
            self._parts[name] = self._load(name, Role.MESH if len(self._open) > 1 else Role.SCENE, place)
            self._open.pop()
        return self._parts[name]

    def _load(self, name: str, role: Role, place: str) -> Scene | Mesh:
        load = next((load for suffix, load in _FORMATS.items() if name.lower().endswith(suffix)), None)
        if load is None:
            known = ", ".join(SUFFIXES)
            raise BadInput(f"{place}: expected a file that ends in {known}; found {posixpath.basename(name)[:80]!r}")
        self.files.refer(name, role, place)  # who asks is the place to name when it is missing
        return load(self, name, role)


def _load_toml(loader: _Loader, name: str, role: Role) -> Scene:
    return load_scene_toml(loader.files, name, loader.tables.table(name), loader.time_s, loader.load)


def _load_gltf(loader: _Loader, name: str, role: Role) -> Scene:
    return load_gltf(loader.files, name, role, loader.budget, loader.time_s)


def _load_ply(loader: _Loader, name: str, role: Role) -> Mesh:
    return load_ply(loader.files, name, role)


_FORMATS: Mapping[str, Callable[[_Loader, str, Role], Scene | Mesh]] = {
    _TOML: _load_toml,
    ".gltf": _load_gltf,
    ".glb": _load_gltf,
    ".ply": _load_ply,
}
SUFFIXES = tuple(_FORMATS)


def _as_scene(mesh: Mesh, name: str) -> Scene:
    assembly = Assembly()
    assembly.add_object(mesh, name, assembly.add_material(NEUTRAL), identity(), mesh.name)
    return Scene(
        name=name,
        meshes=tuple(assembly.meshes),
        instances=tuple(assembly.instances),
        materials=tuple(assembly.materials),
    )


def _merged(settings: RenderSettings, overrides: Overrides | None) -> RenderSettings:
    if isinstance(overrides, RenderSettings):
        return overrides
    fields = {**msgspec.structs.asdict(settings), **(overrides or {})}
    unknown = sorted(set(fields) - set(RenderSettings.__struct_fields__))
    if unknown:
        raise BadInput(f"render settings: {unknown[0]!r} is not one of them")
    try:
        return msgspec.convert(fields, RenderSettings)
    except msgspec.ValidationError as error:
        raise BadInput(f"render settings: {error}") from error
