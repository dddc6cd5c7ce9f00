"""Animated sample models: where their nodes stand, against an evaluation that shares no code with the loader's.

It reads the binary chunk by hand and interpolates with scipy and numpy.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline, interp1d
from scipy.spatial.transform import Rotation, Slerp

from dr.scene.assets import Folder, Role
from dr.scene.formats import load_scene
from dr.scene.formats.budget import Budget
from dr.scene.formats.gltf_animation import Motion
from dr.scene.formats.gltf_document import Document
from dr.scene.formats.gltf_nodes import walk

DATA = Path(os.environ.get("DR_DATA", Path(__file__).parents[3] / ".." / "shared" / "data")) / "gltf"
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA.is_dir(), reason="DR_DATA is not there")]

MODELS = {
    "Fox/glTF-Binary/Fox.glb": 3.4166667,
    "InterpolationTest/glTF-Binary/InterpolationTest.glb": 1.7083334,
    "RiggedSimple/glTF-Binary/RiggedSimple.glb": 2.0833330,
    "AnimatedMorphCube/glTF-Quantized/AnimatedMorphCube.gltf": 4.1999998,
}
FRAMES = (0, 1, 13, 29, 500)  # of 24 per second


class Naive:
    """A document by hand: whole JSON, whole buffer."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        if data[:4] == b"glTF":
            length = struct.unpack_from("<I", data, 12)[0]
            self.json = json.loads(data[20 : 20 + length])
            self.buffer = data[28 + length :]
        else:
            self.json = json.loads(data)
            self.buffer = (path.parent / self.json["buffers"][0]["uri"]).read_bytes()

    def array(self, index: int) -> Any:
        accessor = self.json["accessors"][index]
        view = self.json["bufferViews"][accessor["bufferView"]]
        dtype = {5126: "<f4", 5122: "<i2", 5121: "<u1", 5120: "<i1", 5123: "<u2"}[accessor["componentType"]]
        count = accessor["count"] * {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        begin = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        numbers = np.frombuffer(self.buffer, dtype, count, begin).astype(float)
        return numbers if dtype == "<f4" else np.maximum(numbers / np.iinfo(dtype).max, -1)

    def moved(self, time_s: float) -> dict[int, dict[str, Any]]:
        """Node -> property -> value; the first animation that moves it."""
        result: dict[int, dict[str, Any]] = {}
        for animation in self.json["animations"]:
            for channel in animation["channels"]:
                sampler, target = animation["samplers"][channel["sampler"]], channel["target"]
                value = self.value(sampler, target["path"], time_s)
                result.setdefault(target["node"], {}).setdefault(target["path"], value)
        return result

    def value(self, sampler: dict[str, Any], path: str, time_s: float) -> Any:
        times, kind = self.array(sampler["input"]), sampler.get("interpolation", "LINEAR")
        now = float(np.clip(time_s, times[0], times[-1]))
        values = self.array(sampler["output"]).reshape(len(times), -1)
        if kind == "CUBICSPLINE":
            before, values, after = np.moveaxis(values.reshape(len(times), 3, -1), 1, 0)
            following = int(np.clip(np.searchsorted(times, now, side="right"), 1, len(times) - 1))
            pair = slice(following - 1, following + 1)
            slopes = np.stack([after[following - 1], before[following]])
            return CubicHermiteSpline(times[pair], values[pair], slopes)(now)
        if kind == "LINEAR" and path == "rotation":
            return Slerp(times, Rotation.from_quat(values))(now).as_quat()
        # a frame's time and a key's differ by the rounding of the key to float32
        return interp1d(times, values, {"STEP": "previous", "LINEAR": "linear"}[kind], axis=0)(
            min(now + 1e-6, times[-1]) if kind == "STEP" else now
        )

    def worlds(self, time_s: float) -> dict[int, Any]:
        """Node -> transform to the world."""
        moved, worlds = self.moved(time_s), {}

        def visit(index: int, above: Any) -> None:
            node = {**self.json["nodes"][index], **moved.get(index, {})}
            local = np.eye(4)
            if "matrix" in node:
                local = np.reshape(node["matrix"], (4, 4)).T
            else:
                turn = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix()
                local[:3, :3] = turn @ np.diag(node.get("scale", [1, 1, 1]))
                local[:3, 3] = node.get("translation", [0, 0, 0])
            worlds[index] = above @ local
            for child in node.get("children", []):
                visit(child, worlds[index])

        for root in self.json["scenes"][self.json.get("scene", 0)]["nodes"]:
            visit(root, np.eye(4))
        return worlds


def posed(path: Path, time_s: float) -> Document:
    document = Document(Folder(path), path.name, Role.SCENE, Budget())
    document.root.nodes[:] = Motion(document, time_s).nodes()
    return document


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("model", MODELS)
def test_every_node_stands_where_a_naive_evaluation_has_it(model, frame):
    expected = Naive(DATA / model).worlds(frame / 24)
    found = dict(walk(posed(DATA / model, frame / 24)))
    assert found.keys() == expected.keys()
    size = max(float(np.abs(world).max()) for world in expected.values())
    for index, world in expected.items():
        # quaternions stored as float32 are unit to 1e-7: scipy and we normalise them at different places
        np.testing.assert_allclose(found[index], world, atol=1e-6 * size, err_msg=f"node {index}")


@pytest.mark.parametrize("frame", FRAMES)
def test_weights_are_those_of_a_naive_evaluation(frame):
    path = DATA / "AnimatedMorphCube/glTF-Quantized/AnimatedMorphCube.gltf"
    expected = Naive(path).moved(frame / 24)
    nodes = posed(path, frame / 24).root.nodes
    assert expected
    for index, fields in expected.items():
        np.testing.assert_allclose(nodes[index].weights, fields["weights"], atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_says_how_long_it_plays(model):
    scene = load_scene(Folder(DATA / model), Path(model).name)
    assert scene.animated
    assert scene.last_s == pytest.approx(MODELS[model], abs=1e-6)


def test_of_several_walks_a_fox_takes_the_first_and_says_so():
    path = DATA / "Fox/glTF-Binary/Fox.glb"
    notices = load_scene(Folder(path), path.name).notices
    assert "Fox.glb: several animations move the same nodes; the first one in the file wins" in notices
