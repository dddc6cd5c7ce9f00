"""glTF animations: nodes, cameras and weights at a frame's time, and what a malformed animation is told."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from dr.errors import BadInput
from dr.scene.assets import Role
from dr.scene.formats import load_scene

FLOAT, BYTE, UNSIGNED_SHORT = 5126, 5120, 5123
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
ONE_SECOND = (0.0, 1.0)
HALF = math.sqrt(0.5)


class Animated:
    """The triangle, with accessors and animations to add. `document` is what `load` takes."""

    def __init__(self, document):
        self.document = document
        self.document.setdefault("animations", [])

    def accessor(self, numbers, kind, component=FLOAT, **fields):
        code = {FLOAT: "f", BYTE: "b", UNSIGNED_SHORT: "H"}[component]
        data = struct.pack(f"<{len(numbers)}{code}", *numbers)
        data += bytes(-len(data) % 4)
        self.document["buffers"].append(
            {"byteLength": len(data), "uri": "data:," + "".join(f"%{byte:02x}" for byte in data)}
        )
        self.document["bufferViews"].append({"buffer": len(self.document["buffers"]) - 1, "byteLength": len(data)})
        view, count = len(self.document["bufferViews"]) - 1, len(numbers) // WIDTHS[kind]
        self.document["accessors"].append(
            {"bufferView": view, "componentType": component, "count": count, "type": kind, **fields}
        )
        return len(self.document["accessors"]) - 1

    def move(self, path, times, values, kind=None, node=0, **sampler):
        """An animation with one channel."""
        kind = kind or {"rotation": "VEC4", "weights": "SCALAR"}.get(path, "VEC3")
        output = values if isinstance(values, int) else self.accessor(values, kind)
        self.document["animations"].append(
            {
                "channels": [{"sampler": 0, "target": {"path": path, **({} if node is None else {"node": node})}}],
                "samplers": [{"input": self.accessor(times, "SCALAR"), "output": output, **sampler}],
            }
        )
        return self


@pytest.fixture
def animated(gltf):
    return lambda **changes: Animated(gltf(**changes))


@pytest.fixture
def at(load):
    """at(model, time_s): the scene as it stands then."""
    return lambda model, time_s, **files: load(model.document, {"frame": round(time_s * 1000), "fps": 1000.0}, **files)


def place(scene, number=0):
    return scene.instances[number].transform[:3, 3].tolist()


@pytest.mark.parametrize(("time_s", "x"), [(0.0, 2.0), (0.5, 2.0), (0.75, 3.0), (1.0, 4.0), (9.0, 4.0)])
def test_a_node_stands_where_its_keys_have_it(animated, at, time_s, x):
    model = animated().move("translation", (0.5, 1.0), (2, 0, 0, 4, 0, 0))
    scene = at(model, time_s)
    assert place(scene) == pytest.approx([x, 0, 0], abs=1e-15)
    assert (scene.animated, scene.last_s) == (True, 1.0)


@pytest.mark.parametrize(("time_s", "x"), [(0.0, 2.0), (0.999, 2.0), (1.0, 4.0), (2.0, 4.0)])
def test_a_step_waits_for_its_key(animated, at, time_s, x):
    model = animated().move("translation", ONE_SECOND, (2, 0, 0, 4, 0, 0), interpolation="STEP")
    assert place(at(model, time_s)) == [x, 0, 0]


def test_a_rotation_goes_the_shorter_way_at_even_speed(animated, at):
    """From 0 to 90 degrees about z; the second key is stored as its own negative."""
    model = animated().move("rotation", ONE_SECOND, (0, 0, 0, 1, 0, 0, -HALF, -HALF))
    transform = at(model, 1 / 3 * 0.999).instances[0].transform
    angle = math.atan2(transform[1, 0], transform[0, 0])
    assert math.degrees(angle) == pytest.approx(90 * 0.333, abs=1e-5)  # keys are float32


def test_scale_rotation_and_translation_move_together(animated, at):
    model = animated()
    model.move("scale", ONE_SECOND, (1, 1, 1, 3, 1, 1))
    model.move("translation", ONE_SECOND, (0, 0, 0, 0, 8, 0))
    model.move("rotation", ONE_SECOND, (0, 0, 0, 1, 0, 1, 0, 0))
    scene = at(model, 0.5)
    expected = [[0, 0, 1, 0], [0, 1, 0, 4], [-2, 0, 0, 0], [0, 0, 0, 1]]  # 90 degrees about y after scale x 2
    assert np.abs(scene.instances[0].transform - expected).max() < 1e-15
    assert not [line for line in scene.notices if "anim" in line]


def test_a_cubic_spline_uses_its_tangents(animated, at):
    """Per key: tangent before, value, tangent after; over two seconds, so that tangents count twice."""
    keys = (9, 9, 9, 0, 0, 0, 1, 0, 0, 3, 0, 0, 4, 0, 0, 9, 9, 9)
    model = animated().move("translation", (0.0, 2.0), keys, interpolation="CUBICSPLINE")
    # t = 1/2: v/2 + w/2 + 2 (b/8 - a/8)
    assert place(at(model, 1.0)) == pytest.approx([2 + 2 * (1 - 3) / 8, 0, 0], abs=1e-15)
    assert place(at(model, 0.0)) == [0, 0, 0]
    assert place(at(model, 2.0)) == [4, 0, 0]


def test_a_parent_carries_cameras_and_lights_along(animated, at):
    model = animated(
        cameras=[{"type": "perspective", "perspective": {"yfov": 0.8}}],
        extensionsUsed=["KHR_lights_punctual"],
        extensions={"KHR_lights_punctual": {"lights": [{"type": "point"}]}},
        nodes=[
            {"children": [1, 2]},
            {"camera": 0, "translation": [0, 0, 5]},
            {"extensions": {"KHR_lights_punctual": {"light": 0}}, "translation": [0, 1, 0]},
        ],
    )
    scene = at(model.move("translation", ONE_SECOND, (0, 0, 0, 6, 0, 0)), 0.5)
    assert scene.cameras[0].transform[:3, 3].tolist() == [3, 0, 5]
    assert scene.lights[0].position == (3, 1, 0)


MORPH = {"primitives": [{"attributes": {"POSITION": 0}, "targets": [{"POSITION": 0}, {"POSITION": 0}]}]}


def test_weights_morph_the_mesh(animated, at):
    """Both targets add the triangle to itself."""
    model = animated(meshes=[MORPH]).move("weights", ONE_SECOND, (0, 0, 2, 1))
    assert at(model, 0.0).meshes[0].positions.max() == 1
    assert at(model, 0.5).meshes[0].positions.max() == 1 + 1 + 0.5


def test_weights_of_a_cubic_spline_lie_in_threes(animated, at):
    """Per key two tangents before, two weights, two tangents after."""
    keys = (7, 7, 0, 0, 0, 0, 0, 0, 2, 1, 7, 7)
    model = animated(meshes=[MORPH]).move("weights", ONE_SECOND, keys, interpolation="CUBICSPLINE")
    assert at(model, 0.5).meshes[0].positions.max() == 1 + 1 + 0.5


def test_rotations_and_weights_may_be_normalized_integers(animated, at):
    model = animated(meshes=[MORPH])
    rotation = model.accessor((0, 0, 0, 127, 0, 0, 127, 0), "VEC4", BYTE, normalized=True)
    weights = model.accessor((0, 0, 65535, 65535), "SCALAR", UNSIGNED_SHORT, normalized=True)
    model.move("rotation", ONE_SECOND, rotation).move("weights", ONE_SECOND, weights)
    scene = at(model, 1.0)
    assert scene.instances[0].transform[:2, :2].tolist() == [[-1, 0], [0, -1]]
    assert scene.meshes[0].positions.max() == 3


def test_of_two_animations_of_one_node_the_first_wins_and_one_line_says_so(animated, at):
    model = animated()
    for x in (2, 4, 6):
        model.move("translation", ONE_SECOND, (x, 0, 0, x, 0, 0))
    model.move("scale", (0.0, 3.0), (5, 5, 5, 5, 5, 5))
    scene = at(model, 0.5)
    assert scene.instances[0].transform.diagonal().tolist() == [5, 5, 5, 1]
    assert place(scene) == [2, 0, 0]
    assert scene.last_s == 3.0
    lines = [line for line in scene.notices if "animations" in line]
    assert lines == ["main.gltf: several animations move the same nodes; the first one in the file wins"]


def test_a_channel_without_a_node_is_ignored(animated, at):
    scene = at(animated().move("translation", ONE_SECOND, (1, 1, 1, 2, 2, 2), node=None), 0.5)
    assert place(scene) == [0, 0, 0]
    assert (scene.animated, scene.last_s) == (False, 0.0)


@pytest.mark.parametrize("used", [[], ["KHR_animation_pointer"]])
def test_a_pointer_is_told_once(animated, at, used):
    model = animated(extensionsUsed=used)
    model.move("pointer", ONE_SECOND, (1, 1, 1, 2, 2, 2), node=None)
    model.move("pointer", ONE_SECOND, (1, 1, 1, 2, 2, 2), node=None)
    lines = [line for line in at(model, 0.5).notices if "pointer" in line]
    assert lines == ["main.gltf: extension KHR_animation_pointer is not supported and was ignored"]


def test_a_skin_stays_as_it_is_stored_and_says_so(animated, at):
    model = animated(nodes=[{"mesh": 0, "skin": 0, "children": [1]}, {}], skins=[{"joints": [1]}])
    scene = at(model.move("translation", ONE_SECOND, (0, 0, 0, 6, 0, 0), node=1), 0.5)
    assert place(scene) == [0, 0, 0]
    assert any("skinned meshes are shown as stored" in line for line in scene.notices)


def test_a_file_without_animations_does_not_move(load, gltf):
    scene = load(gltf(), {"frame": 7})
    assert (scene.animated, scene.last_s, scene.settings.time_s) == (False, 0.0, 7 / 24)


def test_frames_are_taken_at_the_rate_of_the_settings(animated, load):
    model = animated().move("translation", (0.0, 10.0), (0, 0, 0, 10, 0, 0))
    assert place(load(model.document, {"frame": 12})) == [0.5, 0, 0]
    assert place(load(model.document, {"frame": 12, "fps": 6.0})) == [2, 0, 0]


def test_the_added_camera_does_not_follow_what_moves(animated, at):
    model = animated().move("translation", ONE_SECOND, (0, 0, 0, 50, 0, 0))
    cameras = [at(model, time_s).cameras[0].transform.tolist() for time_s in (0.0, 0.5, 1.0)]
    assert cameras[0] == cameras[1] == cameras[2]


def test_every_frame_needs_the_same_files(animated, files, glb):
    """A morph target in a buffer of its own is read only where its weight is not zero."""
    model = animated(meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "targets": [{"POSITION": 1}]}]}])
    document = model.document
    document["buffers"].append({"byteLength": 36, "uri": "more.bin"})
    document["bufferViews"].append({"buffer": 1, "byteLength": 36})
    document["accessors"].append({"bufferView": 1, "componentType": FLOAT, "count": 3, "type": "VEC3"})
    model.move("weights", ONE_SECOND, (0, 1))
    asked = []
    for frame in (0, 12):
        found = files({"main.glb": glb(document, b""), "more.bin": struct.pack("<9f", *range(9))})
        load_scene(found, "main.glb", {"frame": frame})
        asked.append(found.asked)
    assert asked == [{"main.glb": Role.SCENE, "more.bin": Role.BUFFER}] * 2


def test_an_included_file_plays_at_the_time_of_the_whole(animated, load, glb):
    model = animated().move("translation", (0.0, 4.0), (0, 0, 0, 4, 0, 0))
    text = "[render]\nframe = 30\nfps = 10\n[[objects]]\nfile = 'part.glb'\nscale = 2\n"
    inner = "[render]\nframe = 5\n[[objects]]\nfile = 'part.glb'\n"
    outer = "[render]\nframe = 30\nfps = 10\n[[objects]]\nfile = 'inner.scene.toml'\nscale = 2\n"
    others = {"part__glb": glb(model.document, b""), "inner__scene__toml": inner}
    for contents in (text, outer):
        scene = load(contents, None, **others)
        assert place(scene) == [6, 0, 0]
        assert (scene.animated, scene.last_s) == (True, 4.0)
        assert place(load(contents, {"frame": 10}, **others)) == [2, 0, 0]


TWO_POINTS = (0, 0, 0, 1, 1, 1)


@pytest.mark.parametrize(
    ("path", "times", "values", "options", "message"),
    [
        ("translation", (1.0, 1.0), TWO_POINTS, {}, r"accessors\[\d\]: expected times that .* 1 before 1 at key 0"),
        ("translation", (0.0, 2.0, 1.0), (*TWO_POINTS, 2, 2, 2), {}, r"expected times .* 2 before 1 at key 1"),
        ("translation", (0.0, math.nan), TWO_POINTS, {}, r"accessors\[\d\]: expected finite numbers"),
        ("scale", ONE_SECOND, (0, 0, 0, 1, math.inf, 1), {}, r"accessors\[\d\]: expected finite numbers"),
        ("translation", ONE_SECOND, (0, 0, 0), {}, r"animations\[0\]\.samplers\[0\]\.output: expected 6 .*found 3"),
        (
            "translation",
            ONE_SECOND,
            TWO_POINTS,
            {"interpolation": "CUBICSPLINE"},
            r"samplers\[0\]\.output: expected 18 numbers for 2 CUBICSPLINE keys of 3 numbers, found 6",
        ),
        ("rotation", ONE_SECOND, TWO_POINTS, {"kind": "VEC3"}, r"output: expected an accessor of type VEC4"),
        ("translation", ONE_SECOND, (0,) * 8, {"kind": "VEC4"}, r"output: expected an accessor of type VEC3"),
        ("rotation", ONE_SECOND, (0,) * 8, {}, r"output: expected unit quaternions, found zero around 0\.5 s"),
        ("translation", ONE_SECOND, TWO_POINTS, {"node": 7}, r"channels\[0\]\.target\.node: expected an index"),
        ("translation", ONE_SECOND, 99, {}, r"samplers\[0\]\.output: expected an index into accessors"),
        ("weights", ONE_SECOND, (0, 1), {}, r"channels\[0\]\.target\.node: expected a mesh with morph targets"),
        ("colour", ONE_SECOND, TWO_POINTS, {}, r"animations\[0\]\.channels\[0\]\.target\.path: Invalid enum value"),
        ("scale", ONE_SECOND, TWO_POINTS, {"interpolation": "BEZIER"}, r"samplers\[0\]\.interpolation: Invalid"),
    ],
)
def test_a_malformed_animation_is_named(animated, at, path, times, values, options, message):
    model = animated().move(path, times, values, **options)
    with pytest.raises(BadInput, match=rf"^main\.gltf: .*{message}"):
        at(model, 0.5)


def test_a_node_with_a_matrix_cannot_be_animated(animated, at):
    model = animated(nodes=[{"mesh": 0, "matrix": [float(i % 5 == 0) for i in range(16)]}])
    with pytest.raises(BadInput, match=r"channels\[0\]\.target\.node: expected a node without a matrix, found node 0"):
        at(model.move("scale", ONE_SECOND, TWO_POINTS), 0.0)


def test_weights_need_a_mesh(animated, at):
    model = animated(nodes=[{"mesh": 0, "children": [1]}, {}])
    with pytest.raises(BadInput, match=r"target\.node: expected a node with a mesh"):
        at(model.move("weights", ONE_SECOND, (0, 1), node=1), 0.0)


@pytest.mark.parametrize("use", ["input", "output"])
def test_times_and_places_are_floats(animated, at, use):
    model = animated().move("translation", ONE_SECOND, TWO_POINTS)
    kind, count = ("SCALAR", 2) if use == "input" else ("VEC3", 6)
    model.document["animations"][0]["samplers"][0][use] = model.accessor(range(count), kind, UNSIGNED_SHORT)
    with pytest.raises(BadInput, match=r"accessors\[\d\]\.componentType: expected 5126 \(float\) for .*, found 5123"):
        at(model, 0.0)


def test_integers_of_a_rotation_are_normalized(animated, at):
    model = animated()
    rotation = model.accessor((0, 0, 0, 127, 0, 0, 127, 0), "VEC4", BYTE)
    with pytest.raises(BadInput, match=r"accessors\[\d\]: expected floats or normalized integers"):
        at(model.move("rotation", ONE_SECOND, rotation), 0.0)


def test_a_channel_names_a_sampler_that_is_there(animated, at):
    model = animated().move("scale", ONE_SECOND, TWO_POINTS)
    model.document["animations"][0]["channels"][0]["sampler"] = 1
    with pytest.raises(BadInput, match=r"animations\[0\]\.channels\[0\]\.sampler: expected an index into samplers"):
        at(model, 0.0)
