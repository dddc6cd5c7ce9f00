"""Renders a neutral scene folder with LuxCore; prints one JSON line.

Words: FOLDER WIDTH HEIGHT SAMPLES DEPTH RR_DEPTH SAMPLER OUT.npy.

Runs in LuxCore's own environment (PATHCPU, Sobol sampler). Its samples are counted from the film, not taken on trust.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyluxcore


def prop(values: dict):
    properties = pyluxcore.Properties()
    for key, value in values.items():
        properties.Set(pyluxcore.Property(key, value))
    return properties


def build(folder: Path, width: int, height: int):
    described = json.loads((folder / "scene.json").read_text())
    scene = pyluxcore.Scene()
    camera = described["camera"]
    scene.Parse(
        prop(
            {
                "scene.camera.type": "perspective",
                "scene.camera.lookat.orig": list(camera["eye"]),
                "scene.camera.lookat.target": list(camera["target"]),
                "scene.camera.up": [0.0, 1.0, 0.0],
                "scene.camera.fieldofview": float(camera["fov_x_deg"]),
            }
        )
    )
    for number, mesh in enumerate(described["meshes"]):
        stored = np.load(folder / mesh["file"])
        name = f"mesh{number}"
        scene.DefineMesh(
            name,
            [tuple(map(float, p)) for p in stored["positions"]],
            [tuple(map(int, t)) for t in stored["triangles"]],
            None,
            [(float(u), 1.0 - float(v)) for u, v in stored["uv"]],
            None,
            None,
        )
        values = {f"scene.materials.{name}.type": "matte", f"scene.materials.{name}.kd": list(mesh["color"])}
        if mesh["image"]:
            texture = f"scene.textures.{name}"
            values |= {
                f"{texture}.type": "imagemap",
                f"{texture}.file": str(folder / mesh["image"]),
                f"{texture}.gamma": 2.2,
            }
            values[f"scene.materials.{name}.kd"] = name
        if max(mesh["emission"]) > 0:
            values[f"scene.materials.{name}.emission"] = list(mesh["emission"])
        values |= {f"scene.objects.{name}.shape": name, f"scene.objects.{name}.material": name}
        scene.Parse(prop(values))
    if described["sky"]:
        scene.Parse(
            prop({"scene.lights.sky.type": "constantinfinite", "scene.lights.sky.color": list(described["sky"])})
        )
    if described["sun"]:
        sun = described["sun"]
        scene.Parse(
            prop(
                {
                    "scene.lights.sun.type": "sharpdistant",
                    "scene.lights.sun.direction": list(sun["direction"]),
                    "scene.lights.sun.color": list(sun["irradiance"]),
                }
            )
        )
    return scene


def main() -> None:
    folder = Path(sys.argv[1])
    width, height, samples, depth, rr_depth = map(int, sys.argv[2:7])
    out = sys.argv[8]
    pyluxcore.Init()
    scene = build(folder, width, height)
    config = pyluxcore.RenderConfig(
        prop(
            {
                "renderengine.type": "PATHCPU",
                "sampler.type": "SOBOL",
                "native.threads.count": int(os.environ.get("THREADS", "1")),
                "film.width": width,
                "film.height": height,
                "film.filter.type": "NONE",
                "path.pathdepth.total": depth - 1,
                "path.pathdepth.diffuse": depth - 1,
                "path.russianroulette.depth": rr_depth,
                "film.outputs.0.type": "RGB",
                "film.outputs.0.filename": "unused.exr",
            }
        ),
        scene,
    )
    session = pyluxcore.RenderSession(config)
    session.Start()
    wall, cpu = time.perf_counter(), time.process_time()
    while True:
        time.sleep(0.01)
        session.UpdateStats()
        done = session.GetStats().Get("stats.renderengine.total.samplecount").GetFloat()
        if done >= samples * width * height:
            break
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    session.Pause()
    buffer = np.zeros(width * height * 3, np.float32)
    session.GetFilm().GetOutputFloat(pyluxcore.FilmOutputType.RGB, buffer, 0, True)
    np.save(out, buffer.reshape(height, width, 3)[::-1])
    scale = samples * width * height / done
    print(json.dumps({"renderer": f"LuxCore {pyluxcore.Version()}", "wall_s": wall * scale, "cpu_s": cpu * scale}))
    sys.stdout.flush()
    os._exit(0)


main()
