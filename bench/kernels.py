"""Measures ray traversal and tree building against Embree on the same rays in one run. Knows no farm.

    python -m bench.kernels [--repeats 5] [--scene hall --scene sponza]

Results are ratios of CPU seconds, Embree's by ours: above 1 the kernels are faster. Scene `sponza` needs DR_DATA.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bench.machine import cpu_seconds, data_folder, describe
from bench.peers import embree
from bench.triangles import glb_triangles, hall
from workers.kernels.bvh.traverse import any_hit, closest_hit
from workers.kernels.jit import f32, kernel
from workers.kernels.records import SCENE
from workers.kernels.vec3 import load3
from workers.prepare import bvh

Array = np.ndarray[Any, Any]
Rays = tuple[Array, Array, Array]  # origins f4[n, 3], directions f4[n, 3], tmax f4[n]

NO_INSTANCES = np.zeros((0, 6), np.float32)
TILE = 16  # primary rays come in tiles, as a renderer shoots them


@kernel
def trace_closest(scene, origins, directions, tmax, triangles, distances):  # type: ignore[no-untyped-def]
    for i in range(len(tmax)):
        hit = closest_hit(scene, load3(origins, i), load3(directions, i), f32(0.0), tmax[i])
        triangles[i], distances[i] = hit[0], hit[2]


@kernel
def trace_any(scene, origins, directions, tmax, hits):  # type: ignore[no-untyped-def]
    for i in range(len(tmax)):
        hits[i] = any_hit(scene, load3(origins, i), load3(directions, i), f32(0.0), tmax[i])


class Subject(NamedTuple):
    """What is measured: triangles f4[t, 3, 3], rays from a camera, and the box (lo, hi) that shadow rays go to."""

    name: str
    positions: Array
    primary: Rays
    lamp: tuple[Array, Array]


def hall_subject() -> Subject:
    primary = camera_rays(np.array([-17.3, 1.0, 4.5]), np.array([10.0, -1.5, 4.0]), np.array([0.0, 0.0, 1.0]))
    return Subject("hall", hall(), primary, (np.array([-15.0, -9.0, 15.5]), np.array([15.0, 9.0, 15.5])))


def sponza_subject() -> Subject | None:
    path = data_folder() / "scenes/sponza/sponza.glb"
    if not path.is_file():
        print(f"sponza: expected {path}, found nothing; set DR_DATA to the folder that holds scenes/")
        return None
    eye, target = np.array([14.4499, 6.89415, -1.18547]), np.array([13.4563, 6.78438, -1.15861])
    primary = camera_rays(eye, target, np.array([0.0, 1.0, 0.0]), fov=90.0)
    return Subject("sponza", glb_triangles(path), primary, (np.array([-10.0, 40.0, -4.0]), np.array([10.0, 40.0, 4.0])))


def scene_of(tree: bvh.Tree) -> Any:
    scene = np.zeros(1, SCENE)
    scene["nodes"], scene["packs"] = tree.nodes.ctypes.data, tree.packs.ctypes.data
    scene["root"] = 0 if len(tree.nodes) else bvh.NO_ROOT
    return scene[0]


def unit(vectors: Any) -> Array:
    lengths: Array = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-30))


def camera_rays(eye: Array, target: Array, up: Array, width: int = 768, height: int = 512, fov: float = 70.0) -> Rays:
    forward = unit(target - eye)
    right = unit(np.cross(forward, up))
    half = np.tan(np.radians(fov / 2))
    across = (2 * np.arange(width) + 1) / width - 1
    down = (2 * np.arange(height) + 1 - height) / width
    x, y = np.meshgrid(half * across, -half * down)
    d = unit(forward + x[..., None] * right + y[..., None] * np.cross(right, forward))
    d = d.reshape(height // TILE, TILE, width // TILE, TILE, 3).swapaxes(1, 2).reshape(-1, 3)
    return np.tile(eye, (len(d), 1)).astype("f4"), d.astype("f4"), np.full(len(d), np.inf, "f4")


def ray_sets(scene: Any, positions: Array, primary: Rays, lamp: tuple[Array, Array]) -> dict[str, Rays]:
    """Primary rays, cosine-distributed rays from what they hit, shadow rays from there to points in the box `lamp`."""
    random = np.random.default_rng(3)
    o, d, tmax = primary
    triangles, t = np.empty(len(o), np.int32), np.empty(len(o), np.float32)
    trace_closest(scene, o, d, tmax, triangles, t)
    hit = triangles >= 0
    p0, p1, p2 = positions[triangles[hit]].astype(float).swapaxes(0, 1)
    normal = unit(np.cross(p1 - p0, p2 - p0))
    normal *= -np.sign((normal * d[hit]).sum(1, keepdims=True))
    points = o[hit] + d[hit] * t[hit, None] + 1e-3 * normal
    bounce = unit(normal + unit(random.standard_normal(normal.shape)))
    to_lamp = np.asarray(random.uniform(lamp[0], lamp[1], points.shape)) - points
    distance: Array = np.linalg.norm(to_lamp, axis=1)
    return {
        "primary": primary,
        "diffuse": (points.astype("f4"), bounce.astype("f4"), np.full(len(points), np.inf, "f4")),
        "shadow": (points.astype("f4"), unit(to_lamp).astype("f4"), (0.999 * distance).astype("f4")),
    }


def race(ours: Callable[[], Any], theirs: Callable[[], Any] | None, repeats: int) -> tuple[float, float]:
    """Least CPU seconds of each, measured in turns; nan where there is nobody to race."""
    seconds = [(cpu_seconds(ours), cpu_seconds(theirs) if theirs else float("nan")) for _ in range(repeats)]
    return min(mine for mine, _ in seconds), min(other for _, other in seconds)


def row(kind: str, query: str, rate: float, unit_name: str, ratio: float, disagree: str = "") -> None:
    print(f"  {kind:8} {query:8} {rate:9.2f} {unit_name:7} {ratio:15.2f} {disagree:>9}")


def measure_build(subject: Subject, library: Any, repeats: int) -> tuple[bvh.Tree, embree.Scene | None]:
    """Reports building and returns what was built; Embree's scene builds anew at each commit of a new one."""
    positions = subject.positions
    ids = np.arange(len(positions), dtype=np.int32)
    tree = bvh.build(positions, ids, NO_INSTANCES)
    peers = [embree.Scene(library, positions) for _ in range(repeats)] if library else []
    waiting = iter(peers)
    seconds, peer_seconds = race(
        lambda: bvh.build(positions, ids, NO_INSTANCES), (lambda: next(waiting).commit()) if peers else None, repeats
    )
    print(f"\n{subject.name}: {len(positions)} triangles, {tree.nbytes / len(positions):.1f} B per triangle")
    print(f"  {'':8} {'query':8} {'rate':>9} {'':7} {'Embree / ours':>15} {'disagree':>9}")
    row("build", "", len(positions) / seconds / 1e6, "Mtri/s", peer_seconds / seconds)
    return tree, peers[0] if peers else None


def queries(scene: Any, peer: embree.Scene | None, rays: Rays) -> Iterator[tuple[str, Any, Any, Array, Array]]:
    """Name, our call, Embree's call or None, and the arrays of hits that they fill."""
    count = len(rays[0])
    distances = np.empty(count, np.float32)
    for name, dtype in (("closest", np.int32), ("any", np.bool_)):
        ours, theirs = np.zeros(count, dtype), np.zeros(count, dtype)
        if name == "closest":
            mine = lambda found=ours: trace_closest(scene, *rays, found, distances)  # noqa: E731
            other = peer and (lambda found=theirs: peer.closest(rays, found, distances))
        else:
            mine = lambda found=ours: trace_any(scene, *rays, found)  # noqa: E731
            other = peer and (lambda found=theirs: peer.any(rays, found))
        yield name, mine, other, ours, theirs


def measure(subject: Subject, library: Any, repeats: int) -> None:
    tree, peer = measure_build(subject, library, repeats)
    scene = scene_of(tree)
    for kind, rays in ray_sets(scene, subject.positions, subject.primary, subject.lamp).items():
        for query, mine, other, ours, theirs in queries(scene, peer, rays):
            mine()  # compiles
            seconds, peer_seconds = race(mine, other, repeats)
            missed = 0 if query == "closest" else 1  # hits are ids from 0, or booleans
            disagree = f"{((ours >= missed) != (theirs >= missed)).mean():.1e}"
            row(kind, query, len(rays[0]) / seconds / 1e6, "Mray/s", peer_seconds / seconds, disagree if peer else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scene", action="append", choices=("hall", "sponza"), help="repeatable; default: both")
    options = parser.parse_args()
    library = None
    try:
        library = embree.load()
    except embree.MissingError as missing:
        print(missing)
    print(f"machine: {describe()}; one thread, CPU seconds, least of {options.repeats}")
    subjects = {"hall": hall_subject, "sponza": sponza_subject}
    for name in options.scene or subjects:
        subject = subjects[name]()
        if subject:
            measure(subject, library, options.repeats)


if __name__ == "__main__":
    main()
