"""glTF accessors, primitives, morph targets: what geometry comes out."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from dr.errors import BadInput

TRIANGLE = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_a_mesh_without_indices_or_normals_is_flat(load, gltf):
    (mesh,) = load(gltf()).meshes
    assert mesh.positions.tolist() == TRIANGLE
    assert mesh.triangles.tolist() == [[0, 1, 2]]
    assert mesh.normals is None
    assert mesh.positions.dtype == np.float32
    assert mesh.triangles.dtype == np.int32


@pytest.mark.parametrize(("component", "code"), [(5121, "B"), (5123, "H"), (5125, "I")])
def test_every_index_type_is_read(load, with_attribute, component, code):
    data = struct.pack(f"<3{code}", 2, 0, 1)
    (mesh,) = load(with_attribute("indices", data, componentType=component, type="SCALAR")).meshes
    assert mesh.triangles.tolist() == [[2, 0, 1]]


@pytest.mark.parametrize(
    ("component", "data", "expected"),
    [
        (5126, struct.pack("<6f", 0, 0.5, 1, 0, 2, -1), [[0, 0.5], [1, 0], [2, -1]]),
        (5121, bytes([0, 255, 51, 0, 255, 0]), [[0, 1], [np.float32(0.2), 0], [1, 0]]),
        (5123, struct.pack("<6H", 0, 65535, 0, 0, 13107, 0), [[0, 1], [0, 0], [np.float32(0.2), 0]]),
        (5120, struct.pack("<6b", -128, 127, -127, 0, 0, 0), [[-1, 1], [-1, 0], [0, 0]]),
    ],
)
def test_normalized_integers_become_fractions(load, with_attribute, component, data, expected):
    document = with_attribute("TEXCOORD_0", data, componentType=component, type="VEC2", normalized=component != 5126)
    (mesh,) = load(document).meshes
    assert mesh.uv0.tolist() == expected


def test_interleaved_data_is_read_through_its_stride(load, with_attribute):
    data = b"".join(struct.pack("<2f2f", u, u, 9, 9) for u in (0.0, 0.25, 0.5))
    document = with_attribute("TEXCOORD_1", data, componentType=5126, type="VEC2", byteStride=16)
    (mesh,) = load(document).meshes
    assert mesh.uv1.tolist() == [[0, 0], [0.25, 0.25], [0.5, 0.5]]
    assert mesh.uv0 is None


def test_rgb_colours_get_an_alpha_of_one(load, with_attribute):
    data = bytes([255, 0, 0, 0] * 3)
    document = with_attribute("COLOR_0", data, componentType=5121, type="VEC3", normalized=True, byteStride=4)
    (mesh,) = load(document).meshes
    assert mesh.colors.tolist() == [[1, 0, 0, 1]] * 3


def test_a_sparse_accessor_without_a_view_changes_zeros(load, with_attribute):
    data = struct.pack("<HH3f", 1, 0, 7, 8, 9)
    document = with_attribute("x", data, componentType=5126, type="VEC3")
    document["meshes"][0]["primitives"][0]["attributes"] = {"POSITION": 1}
    document["bufferViews"] += [{"buffer": 1, "byteLength": 2}, {"buffer": 1, "byteOffset": 4, "byteLength": 12}]
    document["accessors"][1] = {
        "componentType": 5126,
        "count": 3,
        "type": "VEC3",
        "sparse": {"count": 1, "indices": {"bufferView": 2, "componentType": 5123}, "values": {"bufferView": 3}},
    }
    (mesh,) = load(document).meshes
    assert mesh.positions.tolist() == [[0, 0, 0], [7, 8, 9], [0, 0, 0]]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (4, [[0, 1, 2]]),
        (5, [[0, 1, 2], [1, 3, 2], [2, 3, 4]]),
        (6, [[1, 2, 0], [2, 3, 0], [3, 4, 0]]),
    ],
)
def test_lists_strips_and_fans_become_triangles(load, with_attribute, mode, expected):
    document = with_attribute("x", struct.pack("<15f", *range(15)), componentType=5126, type="VEC3")
    document["accessors"][1]["count"] = 5
    document["meshes"][0]["primitives"] = [{"attributes": {"POSITION": 1}, "mode": mode}]
    (mesh,) = load(document).meshes
    assert mesh.triangles.tolist() == expected


def test_points_and_lines_are_ignored_with_one_notice(load, gltf):
    primitives = [{"attributes": {"POSITION": 0}, "mode": mode} for mode in (0, 1, 2, 3, 4)]
    scene = load(gltf(meshes=[{"primitives": primitives}]))
    assert len(scene.instances) == 1
    assert [line for line in scene.notices if "points and lines" in line] == [
        "main.gltf: points and lines are not supported and were ignored"
    ]


def test_morph_targets_apply_at_their_default_weights(load, with_attribute):
    document = with_attribute("x", struct.pack("<9f", *[4] * 9), componentType=5126, type="VEC3")
    document["meshes"] = [
        {"primitives": [{"attributes": {"POSITION": 0}, "targets": [{"POSITION": 1}]}], "weights": [0.5]}
    ]
    assert load(document).meshes[0].positions.tolist() == [[2, 2, 2], [3, 2, 2], [2, 3, 2]]
    document["nodes"][0]["weights"] = [0.0]
    assert load(document).meshes[0].positions.tolist() == TRIANGLE


def test_normals_become_unit_and_a_missing_one_is_computed(load, with_attribute):
    data = struct.pack("<9f", 0, 3, 4, 0, 0, 0, 0, 0, -2)
    (mesh,) = load(with_attribute("NORMAL", data, componentType=5126, type="VEC3")).meshes
    assert mesh.normals.tolist() == [[0, np.float32(0.6), np.float32(0.8)], [0, 0, 1], [0, 0, -1]]


def test_tangents_without_normals_are_dropped(load, with_attribute):
    data = struct.pack("<12f", *(1, 0, 0, 1) * 3)
    assert load(with_attribute("TANGENT", data, componentType=5126, type="VEC4")).meshes[0].tangents is None


def test_primitives_that_share_all_arrays_share_a_mesh(load, gltf):
    primitives = [{"attributes": {"POSITION": 0}, "material": material} for material in (0, 1)]
    scene = load(gltf(meshes=[{"primitives": primitives}], materials=[{"name": "a"}, {"name": "b"}]))
    assert len(scene.meshes) == 1
    assert [instance.mesh for instance in scene.instances] == [0, 0]
    assert [scene.materials[instance.material].name for instance in scene.instances] == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("accessors.0.count", 4, "accessors[0]: needs 48 bytes of bufferViews[0], which has 36"),
        ("accessors.0.byteOffset", 4, "accessors[0]: needs 40 bytes"),
        ("accessors.0.count", 1 << 40, "accessors[0]: needs 13194139533312 bytes"),
        ("accessors.0.componentType", 5124, "accessors[0].componentType: expected 5120 to 5126, found 5124"),
        ("accessors.0.type", "VEC4", "expected an accessor of type VEC3, found 'VEC4'"),
        ("accessors.0.bufferView", 1, "accessors[0].bufferView: expected an index into bufferViews"),
        ("bufferViews.0.byteStride", 8, "accessors[0]: expected a byteStride of at least 12, found 8"),
        ("bufferViews.0.byteLength", 40, "bufferViews[0]: expected at most 36 bytes"),
        ("bufferViews.0.buffer", 7, "bufferViews[0].buffer: expected an index into buffers"),
        ("buffers.0.byteLength", 37, "buffers[0]: expected 37 bytes, found 36"),
        ("buffers.0.uri", "data:;base64,@@", "buffers[0]: the data URI is not valid base64"),
        ("buffers.0.uri", "http://example.org/a.bin", "buffers[0]: expected a relative file name"),
        ("buffers.0.uri", "gone.bin", "buffers[0]: file not found: gone.bin"),
        ("meshes.0.primitives.0.attributes.POSITION", 9, "attributes.POSITION: expected an index into accessors"),
        ("meshes.0.primitives.0.mode", 7, "meshes[0].primitives[0].mode: Expected `int` <= 6"),
        ("nodes.0.mesh", 3, "nodes[0].mesh: expected an index into meshes"),
    ],
)
def test_what_points_outside_is_named_with_its_place(load, gltf, path, value, message):
    document = gltf()
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    target = document
    for step in parents:
        target = target[step]
    target[last] = value
    with pytest.raises(BadInput) as caught:
        load(document)
    assert str(caught.value).startswith("main.gltf: ")
    assert message in str(caught.value)


def test_an_index_beyond_the_vertices_is_refused(load, with_attribute):
    document = with_attribute("indices", bytes([0, 1, 3]), componentType=5121, type="SCALAR")
    with pytest.raises(BadInput, match=r"primitives\[0\]: expected vertex indices below 3, found 3"):
        load(document)


def test_attributes_of_differing_counts_are_refused(load, with_attribute):
    document = with_attribute("NORMAL", bytes(24), componentType=5126, type="VEC3")
    document["accessors"][1]["count"] = 2
    with pytest.raises(BadInput, match=r"attributes.NORMAL: expected 3 values, one per vertex; found 2"):
        load(document)


def test_a_position_that_is_no_number_is_refused(load, gltf, with_attribute):
    document = with_attribute("x", struct.pack("<9f", *[float("nan")] * 9), componentType=5126, type="VEC3")
    document["meshes"][0]["primitives"] = [{"attributes": {"POSITION": 1}}]
    with pytest.raises(BadInput, match="expected finite numbers in positions"):
        load(document)


def test_a_count_without_data_cannot_ask_for_all_memory(load, gltf):
    document = gltf(accessors=[{"componentType": 5126, "count": 1 << 40, "type": "VEC3"}])
    with pytest.raises(BadInput, match=r"accessors\[0\]: \d+ bytes of geometry from files that can hold"):
        load(document)


def test_one_buffer_decoded_a_thousand_times_exhausts_the_budget(load, gltf):
    count = 1 << 20
    accessors = [{"componentType": 5126, "count": count, "type": "VEC3"} for _ in range(1000)]
    primitives = [{"attributes": {"POSITION": index}} for index in range(1000)]
    with pytest.raises(BadInput, match="bytes of geometry"):
        load(gltf(accessors=accessors, meshes=[{"primitives": primitives}]))
