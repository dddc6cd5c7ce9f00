"""Loads a scene in a process of its own and tells what is in it. Knows no render, no server and no pixel.

A hostile or huge file may cost that process its time, its memory or its life, but never the client's. The child is
`python -m dr.scene.survey SCENE [OVERRIDES]`: it prints one JSON object, a `Survey` or `{"error": "..."}` with exit
status 2.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from dr.errors import BadInput, Impossible
from dr.scene.assets import Asset, Folder, Manifest, Role
from dr.scene.model import RenderSettings, Scene, ServerAddress, ViewSettings

_BYTES_PER_TRIANGLE = 160  # prepared: 64 in the list, 40 in packs, about 16 of nodes, its share of vertices
_BYTES_PER_INSTANCE = 192


class SurveyAsset(Struct, frozen=True, kw_only=True):
    """One file that the scene needs. Names are relative to the folder of the scene file."""

    name: str
    role: Role
    size: int
    sha256: str  # 64 hexadecimal digits


class Counts(Struct, frozen=True, kw_only=True):
    meshes: int
    triangles: int  # each instance counts its mesh's
    unique_triangles: int  # each mesh counts once
    instances: int
    materials: int
    images: int
    lights: int


class Survey(Struct, frozen=True, kw_only=True):
    """What a client must know of a scene to render it. `cameras` are names, "" for those without one."""

    name: str
    main: str
    settings: RenderSettings
    view: ViewSettings
    servers: tuple[ServerAddress, ...]
    notices: tuple[str, ...]
    cameras: tuple[str, ...]
    counts: Counts
    memory_bytes: int  # what a server needs for geometry and undecoded files, roughly; decoded textures come on top
    assets: tuple[SurveyAsset, ...]
    animated: bool = False  # whether another frame may look different
    last_s: float = 0.0  # time of the last key of its animations; 0 when it has none

    @property
    def manifest(self) -> Manifest:
        assets = tuple(Asset(each.name, each.role, each.size, bytes.fromhex(each.sha256)) for each in self.assets)
        return Manifest(main=self.main, assets=assets, animated=self.animated)


class Failure(Struct, frozen=True):
    """What the child prints instead of a Survey."""

    error: str


def run_survey(path: Path, overrides: Mapping[str, object] | None = None, timeout_s: float = 3600.0) -> Survey:
    """Surveys the scene at `path` in a child process. BadInput is the scene's fault, Impossible is ours.

    `overrides` are fields of RenderSettings that win over the scene's own.
    """
    command = [sys.executable, "-P", "-m", "dr.scene.survey", str(path), msgspec.json.encode(overrides or {}).decode()]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=child_environment(), timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"{path}: not loaded after {timeout_s:g} s; the file is too large or damaged") from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise BadInput(f"{path}: the process that loaded it was ended by {name}; the file is too large or damaged")
    try:
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=Survey)
        failure = msgspec.json.decode(done.stdout, type=Failure)
    except msgspec.DecodeError as error:
        story = done.stderr.decode(errors="replace").strip()[-2000:]
        raise Impossible(f"{path}: the scene survey failed with status {done.returncode}: {story}") from error
    raise BadInput(failure.error)


def survey(path: Path, overrides: Mapping[str, object] | None = None) -> Survey:
    """Surveys the scene in this process."""
    from dr.scene.formats import load_scene  # the parent needs no numpy for this

    files = Folder(path)
    scene = load_scene(files, files.main, overrides)
    manifest = files.manifest()
    counts = _counts(scene)
    return Survey(
        name=scene.name,
        main=manifest.main,
        settings=scene.settings,
        view=scene.view,
        servers=scene.servers,
        notices=scene.notices,
        cameras=tuple(camera.name for camera in scene.cameras),
        counts=counts,
        memory_bytes=_memory_bytes(scene, counts, manifest),
        assets=tuple(
            SurveyAsset(name=asset.name, role=asset.role, size=asset.size, sha256=asset.digest.hex())
            for asset in manifest.assets
        ),
        animated=scene.animated,
        last_s=scene.last_s,
    )


def main(arguments: list[str]) -> int:
    """The child process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word; the client says what happened
    answer: Survey | Failure
    try:
        overrides: dict[str, Any] = msgspec.json.decode(arguments[1] if len(arguments) > 1 else "{}", type=dict)
        answer = survey(Path(arguments[0]), overrides)
    except BadInput as error:
        answer = Failure(str(error))
    except MemoryError:
        answer = Failure(f"{arguments[0]}: not enough memory to load it")
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    return 2 if isinstance(answer, Failure) else 0


def _counts(scene: Scene) -> Counts:
    sizes = [len(mesh.triangles) for mesh in scene.meshes]
    return Counts(
        meshes=len(scene.meshes),
        triangles=sum(sizes[instance.mesh] for instance in scene.instances),
        unique_triangles=sum(sizes),
        instances=len(scene.instances),
        materials=len(scene.materials),
        images=len(scene.images),
        lights=len(scene.lights),
    )


def _memory_bytes(scene: Scene, counts: Counts, manifest: Manifest) -> int:
    vertices = sum(len(mesh.positions) for mesh in scene.meshes)
    return (
        64 * vertices
        + _BYTES_PER_TRIANGLE * counts.unique_triangles
        + _BYTES_PER_INSTANCE * counts.instances
        + sum(asset.size for asset in manifest.assets)
    )


def child_environment() -> dict[str, str]:
    """For a child process: it finds the very packages that we are, installed or not, and starts no BLAS threads."""
    folders = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders)), "OPENBLAS_NUM_THREADS": "1"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
