"""glTF nodes, cameras, lights, materials, images, containers, extensions."""

from __future__ import annotations

import base64
import math
import struct

import msgspec
import pytest

from dr.errors import BadInput
from dr.scene.assets import Role
from dr.scene.formats import load_scene
from dr.scene.model import AlphaMode, DirectionalLight, PointLight, SpotLight, TexelFilter, Texture, Wrap

ROUNDING = 1e-15


def test_a_child_is_placed_by_all_its_parents(load, gltf):
    nodes = [
        {"children": [1], "translation": [1, 2, 3]},
        {"mesh": 0, "scale": [2, -2, 2], "name": "leaf", "rotation": [0, 1, 0, 0]},
    ]
    (instance,) = load(gltf(nodes=nodes)).instances
    assert instance.name == "leaf"
    assert instance.object_id == 1
    assert instance.transform.tolist() == [[-2, 0, 0, 1], [0, -2, 0, 2], [0, 0, -2, 3], [0, 0, 0, 1]]


def test_a_matrix_is_read_column_by_column(load, gltf):
    nodes = [{"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 4, 5, 6, 1]}]
    (instance,) = load(gltf(nodes=nodes)).instances
    assert instance.transform[:3, 3].tolist() == [4, 5, 6]


def test_object_ids_count_nodes_with_meshes_in_their_order(load, gltf):
    nodes = [{"children": [2, 1]}, {"mesh": 0, "name": "b"}, {"mesh": 0, "name": "a"}, {"mesh": 0, "name": "c"}]
    scene = load(gltf(nodes=nodes, scenes=[{"nodes": [0, 3]}]))
    assert [(instance.name, instance.object_id) for instance in scene.instances] == [("a", 1), ("b", 2), ("c", 3)]
    assert len(scene.meshes) == 1


@pytest.mark.parametrize(
    ("nodes", "roots", "message"),
    [
        ([{"children": [1]}, {"children": [0]}], [0], r"scenes\[0\].nodes: expected root nodes, found node 0"),
        ([{"children": [2]}, {"children": [2]}, {}], [0, 1], r"nodes\[1\].children: expected one parent per node"),
        ([{"children": [5]}], [0], r"nodes\[0\].children: expected an index into nodes"),
        ([{"children": [0]}], [0], "expected root nodes"),
        ([{"mesh": 0}], [0, 0], "expected each root node once"),
        ([{"mesh": 0}], [1], r"scenes\[0\].nodes: expected an index into nodes"),
        ([{"mesh": 0, "rotation": [0, 0, 0, 0]}], [0], r"nodes\[0\].rotation: expected a unit quaternion"),
        ([{"mesh": 0, "matrix": [1, 2]}], [0], r"nodes\[0\].matrix: Expected `array` of length >= 16"),
        ([{"mesh": 0, "scale": [1e30, 1, 1]}], [0], "expected it within"),
    ],
)
def test_a_hierarchy_that_is_no_tree_is_refused(load, gltf, nodes, roots, message):
    with pytest.raises(BadInput, match=message):
        load(gltf(nodes=nodes, scenes=[{"nodes": roots}]))


def test_a_chain_of_many_thousand_nodes_is_no_problem(load, gltf):
    nodes = [{"children": [index + 1]} for index in range(5000)]
    (instance,) = load(gltf(nodes=[*nodes, {"mesh": 0}])).instances
    assert instance.object_id == 1


def test_cameras_keep_their_field_of_view_and_lose_scale(load, gltf):
    cameras = [
        {"type": "perspective", "perspective": {"yfov": 0.7, "znear": 0.1}, "name": "eye"},
        {"type": "orthographic", "orthographic": {"xmag": 1, "ymag": 3, "znear": 0, "zfar": 1}},
    ]
    nodes = [{"mesh": 0}, {"camera": 0, "scale": [2, 2, 2], "translation": [0, 0, 5]}, {"camera": 1, "name": "map"}]
    eye, plan = load(gltf(nodes=nodes, cameras=cameras, scenes=[{"nodes": [0, 1, 2]}])).cameras
    assert (eye.name, eye.fov, eye.fov_axis, eye.orthographic_height) == ("eye", 0.7, "y", None)
    assert eye.transform.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 5], [0, 0, 0, 1]]
    assert (plan.name, plan.orthographic_height) == ("map", 6)


def test_punctual_lights_stand_where_their_nodes_stand(load, gltf):
    lights = [
        {"type": "point", "color": [1, 0.5, 0], "intensity": 10},
        {"type": "spot", "spot": {"innerConeAngle": 0.1, "outerConeAngle": 0.2}},
        {"type": "directional", "intensity": 3},
    ]
    half = math.sqrt(0.5)
    nodes = [
        {"mesh": 0},
        {"extensions": {"KHR_lights_punctual": {"light": 0}}, "translation": [1, 2, 3]},
        {"extensions": {"KHR_lights_punctual": {"light": 1}}, "rotation": [-half, 0, 0, half]},
        {"extensions": {"KHR_lights_punctual": {"light": 2}}, "scale": [5, 5, 5]},
    ]
    scene = load(
        gltf(
            nodes=nodes,
            scenes=[{"nodes": [0, 1, 2, 3]}],
            extensions={"KHR_lights_punctual": {"lights": lights}},
            extensionsUsed=["KHR_lights_punctual"],
        )
    )
    point, spot, sun = scene.lights
    assert point == PointLight(position=(1.0, 2.0, 3.0), intensity=(10.0, 5.0, 0.0))
    assert isinstance(spot, SpotLight)
    assert spot.direction == pytest.approx((0, -1, 0), abs=ROUNDING)
    assert (spot.inner_angle, spot.outer_angle) == (0.1, 0.2)
    assert sun == DirectionalLight(direction=(0.0, 0.0, -1.0), irradiance=(3.0, 3.0, 3.0))


def material_document(gltf, material, **changes):
    primitives = [{"attributes": {"POSITION": 0}, "material": 0}]
    return gltf(meshes=[{"primitives": primitives}], materials=[material], **changes)


def test_a_material_is_translated_field_by_field(load, gltf):
    material = {
        "name": "paint",
        "pbrMetallicRoughness": {"baseColorFactor": [0.1, 0.2, 0.3, 0.4], "metallicFactor": 0.5, "roughnessFactor": 0},
        "emissiveFactor": [1, 0.5, 0],
        "alphaMode": "MASK",
        "alphaCutoff": 0.3,
        "doubleSided": True,
        "extensions": {"KHR_materials_emissive_strength": {"emissiveStrength": 8}, "KHR_materials_ior": {"ior": 1.3}},
    }
    (found,) = load(material_document(gltf, material)).materials
    assert (found.name, found.base_color, found.alpha) == ("paint", (0.1, 0.2, 0.3), 0.4)
    assert (found.metallic, found.roughness, found.ior) == (0.5, 0.0, 1.3)
    assert found.emission == (8.0, 4.0, 0.0)
    assert (found.alpha_mode, found.alpha_cutoff, found.double_sided) == (AlphaMode.MASK, 0.3, True)


def test_a_primitive_without_a_material_gets_the_specifications_default(load, gltf):
    (found,) = load(gltf()).materials
    assert (found.base_color, found.metallic, found.roughness) == ((1, 1, 1), 1, 1)


def test_all_five_textures_keep_sampler_and_coordinates(files, gltf):
    material = {
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0},
            "metallicRoughnessTexture": {"index": 1, "texCoord": 1},
        },
        "normalTexture": {"index": 1, "scale": 0.5},
        "occlusionTexture": {"index": 1},
        "emissiveTexture": {"index": 0},
    }
    document = material_document(
        gltf,
        material,
        textures=[{"source": 1, "sampler": 0}, {"source": 0}],
        samplers=[{"magFilter": 9728, "minFilter": 9987, "wrapS": 33071, "wrapT": 33648}],
        images=[{"uri": "tex%20tures/a.png"}, {"uri": "data:image/png;base64," + base64.b64encode(b"PNG").decode()}],
    )
    from_text = files({"sub/main.gltf": msgspec.json.encode(document), "sub/tex tures/a.png": b""})
    scene = load_scene(from_text, "sub/main.gltf", {"default_light": False})
    (found,) = scene.materials
    clamped = Texture(image=0, wrap_u=Wrap.CLAMP, wrap_v=Wrap.MIRROR, filter=TexelFilter.NEAREST)
    assert found.base_color_texture == clamped == found.emission_texture
    assert found.metallic_roughness_texture == Texture(image=1, uv_set=1)
    assert found.normal_texture == found.occlusion_texture == Texture(image=1)
    assert found.normal_scale == 0.5
    assert [image.data for image in scene.images] == [b"PNG", None]
    assert scene.images[1].asset == "sub/tex tures/a.png"
    assert from_text.asked == {"sub/main.gltf": Role.SCENE, "sub/tex tures/a.png": Role.TEXTURE}


def test_an_unused_image_is_not_asked_for(load, gltf):
    assert load(gltf(images=[{"uri": "gone.png"}]), {"default_light": False}).images == ()


def test_a_missing_texture_is_named_with_its_place(load, gltf):
    material = {"emissiveTexture": {"index": 0}}
    with pytest.raises(BadInput, match=r"main.gltf: images\[0\]: file not found: gone.png"):
        load(material_document(gltf, material, textures=[{"source": 0}], images=[{"uri": "gone.png"}]))


def test_a_glb_keeps_its_first_buffer_in_its_second_chunk(load, gltf, glb):
    document = gltf(buffers=[{"byteLength": 36}])
    data = glb(document, struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0))
    assert load(data).meshes[0].positions.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("cut", [3, 11, 19, 25, 200, -1])
def test_a_glb_that_is_cut_short_is_refused(load, gltf, glb, cut):
    data = glb(gltf(buffers=[{"byteLength": 36}]), bytes(36))
    with pytest.raises(BadInput, match=r"main\.glb: "):
        load(data[:cut])


def test_an_unsupported_extension_is_reported_once_or_refused(load, gltf):
    used = load(gltf(extensionsUsed=["KHR_xmp", "KHR_xmp", "KHR_lights_punctual"]))
    assert [line for line in used.notices if "extension" in line] == [
        "main.gltf: extension KHR_xmp is not supported and was ignored"
    ]
    with pytest.raises(BadInput, match="extensionsRequired: KHR_draco_mesh_compression is not supported"):
        load(gltf(extensionsRequired=["KHR_draco_mesh_compression"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "main.gltf: "),
        (b"{", "main.gltf: "),
        (b"[]", "main.gltf: Expected `object`, got `array`"),
        (b"{}", "missing required field `asset`"),
        (b'{"asset": {"version": "1.0"}}', "expected glTF 2.0, found '1.0'"),
        (b'{"asset": {"version": "2.0", "minVersion": "2.1"}}', "expected glTF 2.0, found '2.1'"),
        (b'{"asset": {"version": "2.0"}, "nodes": [{"mesh": "x"}]}', "nodes[0].mesh: Expected `int"),
        (b'{"asset": {"version": "2.0"}, "x": ' + b"[" * 100000, "nested too deeply"),
        (b'{"asset": {"version": "2.0"}, "nodes": [{"name": "\xff"}]}', "main.gltf: "),
    ],
)
def test_text_that_is_no_gltf_is_one_clear_error(files, text, message):
    with pytest.raises(BadInput) as caught:
        load_scene(files({"main.gltf": text}), "main.gltf")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
