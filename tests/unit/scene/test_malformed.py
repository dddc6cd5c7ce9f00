"""Damaged files: whatever the damage, a scene or one line of BadInput."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.errors import BadInput
from dr.scene.formats import load_scene

EXAMPLES = settings(max_examples=300, derandomize=True, deadline=None)
NUMBERS = st.sampled_from([0, -1, 1, 2, 3, 7, 255, 65535, 1 << 31, 1 << 40, 1 << 62, 1 << 70, 1e308, -1e308, 0.5])
VALUES = NUMBERS | st.sampled_from([None, True, "", "x", "../a.bin", "data:,", [], {}, [[]], [0, 0], {"index": 9}])


class Files:
    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents

    def refer(self, name: str, role: object, place: str) -> None:
        if name not in self.contents:
            raise BadInput(f"{place}: file not found: {name}")

    def read(self, name: str, role: object, place: str) -> bytes:
        self.refer(name, role, place)
        return self.contents[name]


def load_or_refuse(name: str, data: bytes, **others: bytes) -> None:
    message = ""
    try:
        load_scene(Files({name: data, **others}), name, {"frame": 12})  # between two keys of what moves
    except BadInput as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < 2000


BUFFER = struct.pack("<9f9f6f4H12B", *range(24), 0, 1, 2, 0, *range(12))
DOCUMENT: dict[str, Any] = {
    "asset": {"version": "2.0"},
    "extensionsUsed": ["KHR_lights_punctual"],
    "extensions": {"KHR_lights_punctual": {"lights": [{"type": "spot", "intensity": 3.0, "spot": {}}]}},
    "scene": 0,
    "scenes": [{"nodes": [0, 1]}],
    "nodes": [
        {"mesh": 0, "rotation": [0, 0, 0, 1], "scale": [1, -1, 1], "children": [2]},
        {"camera": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 5, 1]},
        {"extensions": {"KHR_lights_punctual": {"light": 0}}, "translation": [1, 2, 3]},
    ],
    "cameras": [{"type": "perspective", "perspective": {"yfov": 0.8}}],
    "animations": [
        {
            "channels": [
                {"sampler": 0, "target": {"node": 2, "path": "translation"}},
                {"sampler": 1, "target": {"node": 0, "path": "rotation"}},
                {"sampler": 2, "target": {"node": 0, "path": "weights"}},
            ],
            "samplers": [
                {"input": 5, "output": 1, "interpolation": "STEP"},
                {"input": 5, "output": 4},
                {"input": 6, "output": 5, "interpolation": "CUBICSPLINE"},
            ],
        }
    ],
    "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}, "emissiveFactor": [1, 1, 1]}],
    "textures": [{"source": 0, "sampler": 0}],
    "samplers": [{"wrapS": 33071}],
    "images": [{"bufferView": 4}],
    "meshes": [
        {
            "weights": [0.5],
            "primitives": [
                {
                    "attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2, "COLOR_0": 4},
                    "indices": 3,
                    "material": 0,
                    "mode": 4,
                    "targets": [{"POSITION": 1}],
                }
            ],
        }
    ],
    "accessors": [
        {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
        {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC3"},
        {"bufferView": 2, "componentType": 5126, "count": 3, "type": "VEC2"},
        {"bufferView": 3, "componentType": 5123, "count": 3, "type": "SCALAR"},
        {
            "bufferView": 4,
            "componentType": 5121,
            "normalized": True,
            "count": 3,
            "type": "VEC4",
            "sparse": {
                "count": 1,
                "indices": {"bufferView": 3, "componentType": 5123},
                "values": {"bufferView": 4},
            },
        },
        {"bufferView": 0, "componentType": 5126, "count": 3, "type": "SCALAR"},
        {"bufferView": 0, "componentType": 5126, "count": 1, "type": "SCALAR"},
    ],
    "bufferViews": [
        {"buffer": 0, "byteLength": 36},
        {"buffer": 0, "byteOffset": 36, "byteLength": 36, "byteStride": 12},
        {"buffer": 0, "byteOffset": 72, "byteLength": 24},
        {"buffer": 0, "byteOffset": 96, "byteLength": 8},
        {"buffer": 0, "byteOffset": 104, "byteLength": 12},
    ],
    "buffers": [{"byteLength": len(BUFFER)}],
}


def make_glb(document: Any) -> bytes:
    text = msgspec.json.encode(document)
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(BUFFER), b"BIN\0") + BUFFER
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


PLACES = places(DOCUMENT)[1:]
GLB = make_glb(DOCUMENT)
PLY = (
    b"ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    b"property uchar red\nproperty uchar green\nproperty uchar blue\n"
    b"element face 2\nproperty list uchar int vertex_indices\nproperty short q\nend_header\n"
    + b"".join(struct.pack("<3f3B", i, i * i, 1, 9, 99, 255) for i in range(3))
    + struct.pack("<B3ihB4ih", 3, 0, 1, 2, 7, 4, 0, 1, 2, 0, 7)
)
TOML = b"""
[render]
width = 20
[[materials]]
name = "m"
base_color = [0.1, 0.2, 0.3]
[[objects]]
quad = { corner = [0, 0, 0], edge_u = [1, 0, 0], edge_v = [0, 1, 0] }
material = "m"
rotate = { axis = [0, 1, 0], angle = 30 }
[[lights]]
kind = "spot"
position = [0, 1, 0]
target = [0, 0, 0]
intensity = [1, 1, 1]
[lights.animation]
times = [0, 2]
target = [[0, 0, 0], [1, 0, 0]]
[[cameras]]
position = [0, 0, 4]
target = [0, 0, 0]
focal_length = 35.0
f_stop = 2.0
[cameras.animation]
times = [0.0, 1.0, 3.0]
interpolation = "smooth"
orbit = [0, 90, 360]
f_stop = [2, 3, 4]
"""
FILES = {"main.glb": GLB, "main.ply": PLY, "main.scene.toml": TOML}


@pytest.mark.parametrize("name", FILES)
def test_the_undamaged_files_load(name):
    assert load_scene(Files({name: FILES[name]}), name).instances


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_loads_or_is_refused(name):
    for end in range(0, len(FILES[name]), 1 if name != "main.glb" else 7):
        load_or_refuse(name, FILES[name][:end])


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@EXAMPLES
def test_a_file_with_changed_bytes_loads_or_is_refused(name, data):
    damaged = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    load_or_refuse(name, bytes(damaged))


@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
@EXAMPLES
def test_a_gltf_with_wrong_values_anywhere_loads_or_is_refused(changes):
    document = msgspec.json.decode(msgspec.json.encode(DOCUMENT))
    for path, value in changes:
        target = document
        for step in path[:-1]:
            target = target[step] if isinstance(target, dict | list) and _has(target, step) else {}
        if isinstance(target, dict | list) and _has(target, path[-1]):
            target[path[-1]] = value
    load_or_refuse("main.glb", make_glb(document))


def _has(target: Any, step: Any) -> bool:
    return step in target if isinstance(target, dict) else isinstance(step, int) and step < len(target)


@given(count=st.sampled_from([0, 4, 1 << 31, 1 << 40, 10**11]), element=st.sampled_from([b"vertex 3", b"face 2"]))
@EXAMPLES
def test_a_ply_with_wrong_counts_loads_or_is_refused(count, element):
    load_or_refuse("main.ply", PLY.replace(element, element.split()[0] + b" %d" % count))
