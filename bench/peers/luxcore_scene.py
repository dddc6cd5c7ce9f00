"""Renders a neutral scene folder with LuxCore; prints one JSON line.

Words: FOLDER WIDTH HEIGHT SAMPLES DEPTH RR_DEPTH SAMPLER OUT.npy.

Runs in LuxCore's own environment (PATHCPU, Sobol sampler without its adaptive part). Time and samples are those between
two looks at the film, not of its start. It decodes textures by a power of 2.2 where others use the sRGB curve, so that
Sponza comes out about 2 % brighter; its roulette has a floor of its own.
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
                # Its film samples a row lower than its own window says
                "scene.camera.screenwindow": [-1.0, 1.0, -(height + 2) / width, (height - 2) / width],
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


def count(session) -> float:
    """Samples that have reached the film."""
    session.UpdateStats()
    return session.GetStats().Get("stats.renderengine.total.samplecount").GetFloat()


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
                "sampler.sobol.adaptive.strength": 0.0,
                "native.threads.count": int(os.environ.get("THREADS", "1")),
                "film.width": width,
                "film.height": height,
                "film.filter.type": "NONE",
                "path.pathdepth.total": depth,
                "path.pathdepth.diffuse": depth,
                "path.russianroulette.depth": rr_depth,
                "film.outputs.0.type": "RGB",
                "film.outputs.0.filename": "unused.exr",
            }
        ),
        scene,
    )
    session = pyluxcore.RenderSession(config)
    session.Start()
    begun, wall, cpu = count(session), time.perf_counter(), time.process_time()
    while count(session) < samples * width * height:
        time.sleep(0.01)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    scale = samples * width * height / (count(session) - begun)
    session.Pause()
    buffer = np.zeros(width * height * 3, np.float32)
    session.GetFilm().GetOutputFloat(pyluxcore.FilmOutputType.RGB, buffer, 0, True)
    np.save(out, buffer.reshape(height, width, 3)[::-1])
    print(json.dumps({"renderer": f"LuxCore {pyluxcore.Version()}", "wall_s": wall * scale, "cpu_s": cpu * scale}))
    sys.stdout.flush()
    os._exit(0)


main()
