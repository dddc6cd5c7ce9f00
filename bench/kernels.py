"""Measures ray traversal and tree building against Embree on the same rays in one run. Knows no farm.

    python -m bench.kernels [--repeats 5] [--scene hall --scene sponza]

Results are ratios of CPU seconds, Embree's by ours: above 1 the kernels are faster. Scene `sponza` needs DR_DATA.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

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


def scene_of(tree: bvh.Tree) -> Any:
    scene = np.zeros(1, SCENE)
    scene["nodes"], scene["packs"] = tree.nodes.ctypes.data, tree.packs.ctypes.data
    scene["root"] = 0 if len(tree.nodes) else bvh.NO_ROOT
    return scene[0]


def unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def camera_rays(eye: Array, target: Array, up: Array, width: int = 768, height: int = 512, fov: float = 70.0) -> Rays:
    forward = unit(target - eye)
    right = unit(np.cross(forward, up))
    half = np.tan(np.radians(fov / 2))
    x, y = np.meshgrid(
        (np.arange(width) + 0.5) / width * 2 - 1, (1 - (np.arange(height) + 0.5) / height * 2) * height / width
    )
    d = unit(forward + half * (x[..., None] * right + y[..., None] * np.cross(right, forward)))
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
    normal = np.cross(p1 - p0, p2 - p0)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    normal *= -np.sign((normal * d[hit]).sum(1, keepdims=True))
    points = o[hit] + d[hit] * t[hit, None] + 1e-3 * normal
    bounce = unit(normal + unit(random.normal(size=normal.shape)))
    to_lamp = random.uniform(*lamp, size=points.shape) - points
    distance = np.linalg.norm(to_lamp, axis=1)
    return {
        "primary": primary,
        "diffuse": (points.astype("f4"), bounce.astype("f4"), np.full(len(points), np.inf, "f4")),
        "shadow": (points.astype("f4"), unit(to_lamp).astype("f4"), (0.999 * distance).astype("f4")),
    }


def race(ours: Callable[[], Any], theirs: Callable[[], Any] | None, repeats: int) -> tuple[float, float]:
    """Least CPU seconds of each, measured in turns; nan where there is no other."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for function, times in zip((ours, theirs), seconds, strict=True):
            start = time.process_time()
            if function is not None:
                function()
            times.append(time.process_time() - start)
    return min(seconds[0]), min(seconds[1]) if theirs else float("nan")


def measure(name: str, positions: Array, primary: Rays, lamp: tuple[Array, Array], library: Any, repeats: int) -> None:
    ids = np.arange(len(positions), dtype=np.int32)
    tree = bvh.build(positions, ids, NO_INSTANCES)
    peer = embree.Scene(library, positions) if library else None
    seconds, peer_seconds = race(lambda: bvh.build(positions, ids, NO_INSTANCES), peer and peer.commit, 1)
    seconds = min(seconds, race(lambda: bvh.build(positions, ids, NO_INSTANCES), None, repeats)[0])
    rate = len(positions) / seconds / 1e6
    print(f"\n{name}: {len(positions)} triangles, {tree.nbytes / len(positions):.1f} B per triangle")
    print(f"  {'':8} {'query':8} {'rate':>14} {'Embree by ours':>15} {'disagree':>9}")
    print(f"  {'build':8} {'':8} {rate:9.2f} Mtri/s {peer_seconds / seconds:15.2f}")
    scene = scene_of(tree)
    for kind, rays in ray_sets(scene, positions, primary, lamp).items():
        count = len(rays[0])
        ids_ours, ids_theirs = np.full((2, count), -1, np.int32)
        t_ours, t_theirs = np.zeros((2, count), np.float32)
        hits_ours, hits_theirs = np.zeros((2, count), np.bool_)
        queries = {
            "closest": (
                lambda: trace_closest(scene, *rays, ids_ours, t_ours),  # noqa: B023
                peer and (lambda: peer.closest(rays, ids_theirs, t_theirs)),  # noqa: B023
                lambda: (ids_ours >= 0) != (ids_theirs >= 0),  # noqa: B023
            ),
            "any": (
                lambda: trace_any(scene, *rays, hits_ours),  # noqa: B023
                peer and (lambda: peer.any(rays, hits_theirs)),  # noqa: B023
                lambda: hits_ours != hits_theirs,  # noqa: B023
            ),
        }
        for query, (ours, theirs, disagree) in queries.items():
            ours()
            mine, other = race(ours, theirs, repeats)
            share = f"{disagree().mean():9.1e}" if peer else ""
            print(f"  {kind:8} {query:8} {count / mine / 1e6:9.2f} Mray/s {other / mine:15.2f} {share}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scene", action="append", choices=("hall", "sponza"))
    options = parser.parse_args()
    try:
        library = embree.load()
    except embree.MissingError as missing:
        library = None
        print(missing)
    print(f"machine: {machine()}; one thread, CPU seconds, least of {options.repeats}")
    chosen = options.scene or ["hall", "sponza"]
    if "hall" in chosen:
        primary = camera_rays(np.array([-17.3, 1.0, 4.5]), np.array([10.0, -1.5, 4.0]), np.array([0.0, 0.0, 1.0]))
        lamp = (np.array([-15.0, -9.0, 15.5]), np.array([15.0, 9.0, 15.5]))
        measure("hall", hall(), primary, lamp, library, options.repeats)
    sponza = Path(os.environ.get("DR_DATA", "../shared/data")) / "scenes/sponza/sponza.glb"
    if "sponza" in chosen and sponza.is_file():
        eye, ahead = np.array([14.4499, 6.89415, -1.18547]), np.array([13.4563, 6.78438, -1.15861])
        primary = camera_rays(eye, ahead, np.array([0.0, 1.0, 0.0]), fov=90.0)
        lamp = (np.array([-10.0, 40.0, -4.0]), np.array([10.0, 40.0, 4.0]))
        measure("sponza", glb_triangles(sponza), primary, lamp, library, options.repeats)
    elif "sponza" in chosen:
        print(f"\nsponza: no file {sponza}; set DR_DATA to the folder that holds scenes/")


def machine() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} CPUs"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"


if __name__ == "__main__":
    main()
