"""Small scenes for tests: files that live in memory, and a glTF triangle to change."""

from __future__ import annotations

import base64
import copy
import struct
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from dr.errors import BadInput
from dr.scene.assets import Role
from dr.scene.formats import load_scene
from dr.scene.model import Scene

POSITIONS = (0, 0, 0, 1, 0, 0, 0, 1, 0)


class MemoryFiles:
    """Files by name, and what was asked of them."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.contents = contents
        self.asked: dict[str, Role] = {}

    def refer(self, name: str, role: Role, place: str) -> None:
        if name not in self.contents:
            raise BadInput(f"{place}: file not found: {name}")
        self.asked.setdefault(name, role)

    def read(self, name: str, role: Role, place: str) -> bytes:
        self.refer(name, role, place)
        return self.contents[name]


@pytest.fixture
def files() -> Callable[[Mapping[str, bytes]], MemoryFiles]:
    return MemoryFiles


@pytest.fixture
def load() -> Callable[..., Scene]:
    """load(contents, overrides=None, **files): a scene out of a document (dict: .gltf, str: .scene.toml) or bytes."""

    def run(contents: Any, overrides: Mapping[str, object] | None = None, **extra: Any) -> Scene:
        kinds = {dict: "main.gltf", str: "main.scene.toml"}
        main = kinds.get(type(contents)) or ("main.ply" if contents[:3] == b"ply" else "main.glb")
        others = {name.replace("__", "."): as_bytes(value) for name, value in extra.items()}
        return load_scene(MemoryFiles({main: as_bytes(contents), **others}), main, overrides)

    return run


@pytest.fixture
def gltf() -> Callable[..., dict[str, Any]]:
    """gltf(**changes): a document of one triangle; a change replaces or adds a top-level entry."""

    def build(**changes: Any) -> dict[str, Any]:
        document: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
            "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
            "bufferViews": [{"buffer": 0, "byteLength": 36}],
            "buffers": [data_buffer(struct.pack("<9f", *POSITIONS))],
        }
        return {**copy.deepcopy(document), **changes}

    return build


@pytest.fixture
def with_attribute(gltf: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """with_attribute(name, data, **accessor): the triangle with one more attribute, or `indices`."""

    def build(name: str, data: bytes, **accessor: Any) -> dict[str, Any]:
        document = gltf()
        document["buffers"].append(data_buffer(data))
        view = {"buffer": 1, "byteLength": len(data)}
        if "byteStride" in accessor:
            view["byteStride"] = accessor.pop("byteStride")
        document["bufferViews"].append(view)
        document["accessors"].append({"bufferView": 1, "count": 3, **accessor})
        primitive = document["meshes"][0]["primitives"][0]
        if name == "indices":
            primitive["indices"] = 1
        else:
            primitive["attributes"][name] = 1
        return document

    return build


@pytest.fixture
def glb() -> Callable[[Mapping[str, Any], bytes], bytes]:
    """glb(document, chunk): the bytes of a .glb."""

    def build(document: Mapping[str, Any], chunk: bytes) -> bytes:
        text = msgspec.json.encode(document)
        text += b" " * (-len(text) % 4)
        chunk += bytes(-len(chunk) % 4)
        length = 12 + 8 + len(text) + 8 + len(chunk)
        header = struct.pack("<4sII", b"glTF", 2, length)
        return (
            header + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(chunk), b"BIN\0") + chunk
        )

    return build


def data_buffer(data: bytes) -> dict[str, Any]:
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    return {"byteLength": len(data), "uri": uri}


def as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)
