"""Renders a neutral scene folder with Mitsuba; prints one JSON line.

Words: FOLDER WIDTH HEIGHT SAMPLES DEPTH RR_DEPTH SAMPLER OUT.npy.

Runs in Mitsuba's own environment. Times are of a warm render (kernels compiled by the same call before it). Its llvm
variants need LLVM 19 or newer: the library that DRJIT_LIBLLVM_PATH names, or the newest one of the system.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

OLDEST_LLVM = 19


def newest_llvm() -> str | None:
    """Path of the system's newest shared library of LLVM that is new enough."""
    found = {}
    for path in Path("/usr/lib").glob("*/libLLVM*"):
        number = re.search(r"libLLVM(?:-|[.]so[.])(\d+)", path.name)
        if number and int(number[1]) >= OLDEST_LLVM:
            found[int(number[1])] = str(path)
    return found[max(found)] if found else None


llvm = newest_llvm()
if llvm:
    os.environ.setdefault("DRJIT_LIBLLVM_PATH", llvm)

import mitsuba as mi  # noqa: E402

mi.set_variant(os.environ.get("MITSUBA_VARIANT", "llvm_ad_rgb"))

import drjit as dr  # noqa: E402
import numpy as np  # noqa: E402


def write_ply(path: Path, positions, triangles, uv) -> str:
    vertex = np.zeros(len(positions), [(name, "<f4") for name in ("x", "y", "z", "u", "v")])
    vertex["x"], vertex["y"], vertex["z"] = positions.T
    vertex["u"], vertex["v"] = uv[:, 0], 1 - uv[:, 1]
    face = np.zeros(len(triangles), [("n", "u1"), ("i", "<i4", 3)])
    face["n"], face["i"] = 3, triangles
    properties = "".join(f"property float {name}\n" for name in vertex.dtype.names)
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertex)}\n{properties}"
        f"element face {len(face)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    path.write_bytes(header.encode() + vertex.tobytes() + face.tobytes())
    return str(path)


def rgb(value):
    return {"type": "rgb", "value": list(value)}


def build(folder: Path, width: int, height: int, depth: int, rr_depth: int, sampler: str) -> dict:
    scene = json.loads((folder / "scene.json").read_text())
    camera = scene["camera"]
    result = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": depth, "rr_depth": rr_depth},
        "sensor": {
            "type": "perspective",
            "fov": camera["fov_x_deg"],
            "fov_axis": "x",
            "to_world": mi.ScalarTransform4f().look_at(origin=camera["eye"], target=camera["target"], up=[0, 1, 0]),
            "film": {
                "type": "hdrfilm", "width": width, "height": height, "pixel_format": "rgb",
                "component_format": "float32", "rfilter": {"type": "box"},
            },
            "sampler": {"type": sampler, "sample_count": 4},
        },
    }  # fmt: skip
    for number, mesh in enumerate(scene["meshes"]):
        stored = np.load(folder / mesh["file"])
        color = rgb(mesh["color"])
        if mesh["image"]:
            color = {"type": "bitmap", "filename": str(folder / mesh["image"])}
        shape = {
            "type": "ply",
            "filename": write_ply(
                folder / f"mitsuba{number}.ply", stored["positions"], stored["triangles"], stored["uv"]
            ),
            "face_normals": True,
            "bsdf": {"type": "twosided", "inner": {"type": "diffuse", "reflectance": color}},
        }
        if max(mesh["emission"]) > 0:
            shape["emitter"] = {"type": "area", "radiance": rgb(mesh["emission"])}
        result[f"mesh{number}"] = shape
    if scene["sky"]:
        result["sky"] = {"type": "constant", "radiance": rgb(scene["sky"])}
    if scene["sun"]:
        sun = scene["sun"]
        result["sun"] = {"type": "directional", "direction": sun["direction"], "irradiance": rgb(sun["irradiance"])}
    return result


def main() -> None:
    folder = Path(sys.argv[1])
    width, height, samples, depth, rr_depth = map(int, sys.argv[2:7])
    sampler, out = sys.argv[7:9]
    dr.set_thread_count(int(os.environ.get("THREADS", "1")))
    scene = mi.load_dict(build(folder, width, height, depth, rr_depth, sampler))
    np.array(mi.render(scene, spp=samples, seed=1))  # compiles
    wall, cpu = time.perf_counter(), time.process_time()
    image = np.array(mi.render(scene, spp=samples, seed=2))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    np.save(out, image[..., :3])
    print(json.dumps({"renderer": f"Mitsuba {mi.__version__} {mi.variant()}", "wall_s": wall, "cpu_s": cpu}))


main()
