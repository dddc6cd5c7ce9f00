"""The project's own scene description."""

from __future__ import annotations

import math

import pytest

from dr.errors import BadInput
from dr.scene.model import (
    Camera,
    DirectionalLight,
    EnvironmentLight,
    PointLight,
    QuadLight,
    RenderSettings,
    ServerAddress,
    TexelFilter,
    Texture,
    ViewSettings,
    Wrap,
)

ROUNDING = 1e-15
PLY = (
    "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
)
QUAD = "[[objects]]\nquad = { corner = [0, 0, 0], edge_u = [1, 0, 0], edge_v = [0, 1, 0] }\n"


def test_an_empty_file_is_a_scene_with_nothing_to_see(load):
    scene = load("")
    assert scene.instances == ()
    assert any("nothing to see" in line for line in scene.notices)
    assert len(scene.cameras) == 1


def test_a_quad_faces_where_its_edges_turn_and_shows_its_image_upright(load):
    (mesh,) = load(QUAD).meshes
    assert mesh.positions.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.uv0.tolist() == [[0, 1], [1, 1], [1, 0], [0, 0]]


def test_every_face_of_a_box_looks_outwards(load):
    (mesh,) = load("[[objects]]\nbox = { min = [-1, -2, -3], max = [1, 2, 3] }").meshes
    corners = mesh.positions[mesh.triangles].astype(float)  # [triangle, corner, axis]
    a, b = (corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = [
        [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]]
        for p, q in zip(a, b, strict=True)
    ]
    outward = [
        sum(n * c for n, c in zip(normal, corner, strict=True))
        for normal, corner in zip(normals, corners.mean(1), strict=True)
    ]
    assert len(outward) == 12
    assert all(dot > 0 for dot in outward)
    area = sum(math.sqrt(sum(n * n for n in normal)) / 2 for normal in normals)
    assert area == pytest.approx(2 * (2 * 4 + 4 * 6 + 2 * 6))


def test_scale_comes_before_rotation_and_rotation_before_translation(load):
    (instance,) = load(QUAD + "scale = [2, 3, 4]\nrotate = [0, 90, 0]\ntranslate = [10, 0, 0]").instances
    expected = [[0, 0, 4, 10], [0, 3, 0, 0], [-2, 0, 0, 0], [0, 0, 0, 1]]
    for row, wanted in zip(instance.transform.tolist(), expected, strict=True):
        assert row == pytest.approx(wanted, abs=4 * ROUNDING)


def test_angles_turn_about_x_then_y_then_z(load):
    (euler,) = load(QUAD + "rotate = [90, 0, 90]").instances
    expected = [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]  # z turned over the x-turned
    for row, wanted in zip(euler.transform.tolist(), expected, strict=True):
        assert row == pytest.approx(wanted, abs=ROUNDING)
    (axis,) = load(QUAD + "rotate = { axis = [1, 1, 1], angle = 120 }").instances
    assert axis.transform[:3, :3].round(12).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_a_ply_gets_the_material_named_for_it(load):
    text = '[[materials]]\nname = "red"\nbase_color = [1, 0, 0]\nspecular = 0\n'
    text += '[[objects]]\nfile = "a.ply"\nmaterial = "red"\n[[objects]]\nfile = "a.ply"\n'
    scene = load(text, a__ply=PLY)
    assert len(scene.meshes) == 1
    red, neutral = (scene.materials[instance.material] for instance in scene.instances)
    assert (red.name, red.base_color, red.specular, red.metallic) == ("red", (1, 0, 0), 0, 0)
    assert (neutral.base_color, neutral.metallic, neutral.roughness) == ((0.8, 0.8, 0.8), 0, 0.5)
    assert [instance.object_id for instance in scene.instances] == [1, 2]


def test_an_included_gltf_is_kept_once_and_placed_twice(load, gltf):
    text = '[[objects]]\nfile = "a.gltf"\ntranslate = [1, 0, 0]\n[[objects]]\nfile = "a.gltf"\nscale = -1\n'
    scene = load(text, a__gltf=gltf(nodes=[{"mesh": 0, "translation": [0, 5, 0], "name": "leaf"}]))
    assert len(scene.meshes) == len(scene.materials) == 1
    assert [instance.transform[:3, 3].tolist() for instance in scene.instances] == [[1, 5, 0], [0, -5, 0]]
    assert [instance.object_id for instance in scene.instances] == [1, 2]
    assert [instance.name for instance in scene.instances] == ["leaf", "leaf"]


def test_a_referenced_scene_brings_its_objects_lights_and_cameras_but_not_its_settings(load):
    inner = QUAD + (
        '[render]\nwidth = 5\n[[lights]]\nkind = "point"\nposition = [0, 0, 1]\nintensity = [1, 1, 1]\n'
        '[[lights]]\nkind = "quad"\ncorner = [0, 0, 0]\nedge_u = [1, 0, 0]\nedge_v = [0, 1, 0]\nradiance = [2, 2, 2]\n'
        '[[lights]]\nkind = "environment"\nstrength = 0.5\n'
        '[[cameras]]\nname = "inner"\nposition = [0, 0, 4]\ntarget = [0, 0, 0]\n'
    )
    scene = load('[[objects]]\nfile = "b.scene.toml"\nscale = [1, 1, -2]\n', b__scene__toml=inner)
    point, quad, environment = scene.lights
    assert point == PointLight(position=(0, 0, -2), intensity=(1, 1, 1))
    # mirrored in z: the edges change places so that their product still points along the mirrored front
    assert quad == QuadLight(corner=(0, 0, 0), edge_u=(0, 1, 0), edge_v=(1, 0, 0), radiance=(2, 2, 2))
    assert environment == EnvironmentLight(radiance=(0.5, 0.5, 0.5))
    assert scene.settings == RenderSettings()
    (camera,) = scene.cameras
    assert camera.transform[:3, 2:].tolist() == [[0, 0], [0, 0], [-1, -8]]


def test_the_outer_environment_wins(load):
    inner = '[[lights]]\nkind = "environment"\nstrength = 3\n'
    outer = '[[lights]]\nkind = "environment"\n[[objects]]\nfile = "b.scene.toml"\n'
    scene = load(outer, b__scene__toml=inner)
    assert scene.lights == (EnvironmentLight(),)
    assert any("its environment was ignored" in line for line in scene.notices)


def test_an_override_changes_what_it_names_in_all_materials_that_match(load, gltf):
    document = gltf(
        meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "material": row} for row in (0, 1)]}],
        materials=[{"name": "wood_oak", "emissiveTexture": {"index": 0}}, {"name": "steel"}],
        textures=[{"source": 0}],
        images=[{"uri": "glow.png"}],
    )
    text = '[[objects]]\nfile = "a.gltf"\n[[overrides]]\nmatch = "wood*"\nspecular = 0\nmetallic = 0.25\n'
    text += 'alpha_mode = "blend"\nemission_texture = ""\n[[overrides]]\nmatch = "stone"\nalpha = 0.5\n'
    scene = load(text, a__gltf=document, glow__png=b"")
    oak, steel = scene.materials
    assert (oak.specular, oak.metallic, oak.alpha_mode, oak.emission_texture) == (0, 0.25, 2, None)
    assert (steel.specular, steel.metallic) == (1, 1)
    assert "main.scene.toml: overrides[1]: no material has a name like 'stone'" in scene.notices


def test_a_texture_says_its_wrap_and_filter(load):
    text = QUAD + 'material = "m"\n[[materials]]\nname = "m"\nnormal_texture = "a.png"\n'
    text += 'base_color_texture = { file = "a.png", wrap = ["clamp", "mirror"], filter = "nearest", uv_set = 1 }\n'
    scene = load(text, {"default_light": False}, a__png=b"")
    (material,) = scene.materials
    assert material.base_color == (1, 1, 1)
    assert material.normal_texture == Texture(image=0)
    assert material.base_color_texture == Texture(
        image=0, uv_set=1, wrap_u=Wrap.CLAMP, wrap_v=Wrap.MIRROR, filter=TexelFilter.NEAREST
    )
    assert [image.asset for image in scene.images] == ["a.png"]


def test_lights_are_translated_one_to_one(load):
    text = '[[lights]]\nkind = "directional"\ndirection = [0, -2, 0]\nirradiance = [1, 2, 3]\n'
    text += (
        '[[lights]]\nkind = "spot"\nposition = [0, 4, 0]\ntarget = [0, 0, 0]\nintensity = [1, 1, 1]\nouter_angle = 30\n'
    )
    text += '[[lights]]\nkind = "environment"\nimage = "sky.hdr"\nrotation = 90\nstrength = 2\nradiance = [1, 0.5, 0]\n'
    sun, spot, sky = load(text, sky__hdr=b"").lights
    assert sun == DirectionalLight(direction=(0, -1, 0), irradiance=(1, 2, 3))
    assert spot.direction == (0, -1, 0)
    assert (spot.inner_angle, spot.outer_angle) == (0, pytest.approx(math.pi / 6))
    assert (sky.radiance, sky.image, sky.rotation) == ((2, 1, 0), 0, math.pi / 2)


def only_camera(load, text) -> Camera:
    (camera,) = load("[[cameras]]\n" + text).cameras
    return camera


def test_a_focal_length_is_the_field_of_view_of_a_36_mm_sensor(load):
    camera = only_camera(load, "position = [0, 0, 3]\ntarget = [0, 0, 0]\nfocal_length = 50\nf_stop = 2\n")
    assert camera.fov == pytest.approx(2 * math.atan(18 / 50), rel=4 * ROUNDING)
    assert camera.fov_axis == "x"
    assert camera.aperture_radius == 0.0125
    assert camera.focus_distance == 3.0


def test_a_camera_matrix_is_camera_to_world(load):
    rows = "[[-1, 0, 0, 0], [0, 1, 0, 1], [0, 0, -1, 6.8], [0, 0, 0, 1]]"
    camera = only_camera(
        load, f'matrix = {rows}\nfov = 19.5\nfov_axis = "x"\naperture_radius = 0.1\nfocus_distance = 2'
    )
    assert camera.transform.tolist() == [[-1, 0, 0, 0], [0, 1, 0, 1], [0, 0, -1, 6.8], [0, 0, 0, 1]]
    assert camera.fov == pytest.approx(math.radians(19.5), rel=ROUNDING)
    assert (camera.fov_axis, camera.aperture_radius, camera.focus_distance) == ("x", 0.1, 2.0)


def test_settings_view_and_servers_are_the_files_and_overrides_win(load):
    text = 'servers = [{ host = "a", port = 1 }, { host = "b", enabled = false }]\n'
    text += "[render]\nwidth = 10\nheight = 20\nsamples = 3\n[view]\nexposure = 1.5\n"
    scene = load(text, {"width": 30})
    assert scene.settings == RenderSettings(width=30, height=20, samples=3)
    assert scene.view == ViewSettings(exposure=1.5)
    assert scene.servers == (ServerAddress(host="a", port=1), ServerAddress(host="b", enabled=False))
    assert load(text, RenderSettings(width=7)).settings == RenderSettings(width=7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = [", "not valid TOML"),
        ("a = 1", "a: unknown key; known are cameras, lights"),
        ("[render]\nsampels = 3", "render.sampels: unknown key; did you mean 'samples'?"),
        ("[render]\nwidth = 0", "render.width: Expected `int` >= 1"),
        ("[render]\nwidth = 'x'", "render.width: Expected `int`, got `str`"),
        ("[[cameras]]\npostion = [0, 0, 0]", "cameras[0].postion: unknown key; did you mean 'position'?"),
        ("[[cameras]]\nposition = [0, 0, 0]", "cameras[0]: expected position and target, or matrix"),
        ("[[cameras]]\nposition = [0, 0, 0]\ntarget = [0, 1, 0]", "cameras[0]: expected a target away"),
        ("[[cameras]]\nposition = [0, 0, 1]\ntarget = [0, 0, 0]\nf_stop = 2", "cameras[0].f_stop: expected a focal"),
        ("[[lights]]\nkind = 'pint'", "lights[0]"),
        ("[[lights]]\nkind = 'point'\npower = 3", "lights[0].power: unknown key"),
        ("[[lights]]\nkind = 'point'\nposition = [inf, 0, 0]", "lights[0].position[0]: expected a finite number"),
        ("[[lights]]\nkind = 'environment'\n" * 2, "lights[1]: expected one environment"),
        ("[[lights]]\nkind = 'directional'\ndirection = [0, 0, 0]\nirradiance = [1, 1, 1]", "expected a direction"),
        ("[[objects]]\nname = 'x'", "objects[0]: expected exactly one of file, quad and box"),
        (QUAD + "file = 'a.ply'", "objects[0]: expected exactly one"),
        (QUAD + "material = 'rad'\n[[materials]]\nname = 'red'", "objects[0].material: no material is named 'rad'"),
        (QUAD + "scale = 1\nmatrix = [[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]", "found both"),
        (QUAD + "matrix = [[1,0,0,0],[0,1,0,0],[0,0,1,0],[1,0,0,1]]", "objects[0].matrix: expected [0, 0, 0, 1]"),
        ("[[objects]]\nbox = { min = [0, 0, 0], max = [1, 0, 1] }", "objects[0].box: expected min below max"),
        ("[[objects]]\nfile = 'gone.ply'", "main.scene.toml: objects[0].file: file not found: gone.ply"),
        ("[[objects]]\nfile = '/etc/passwd'", "objects[0].file: expected a relative file name"),
        ("[[objects]]\nfile = 'a.blend'", "objects[0].file: expected a file that ends in .scene.toml, .gltf"),
        ("[[objects]]\nfile = 'main.scene.toml'", "main.scene.toml includes itself"),
        ("[[materials]]\nname = 'a'\n[[materials]]\nname = 'a'", "materials[1].name: expected each name once"),
        ("[[materials]]\nname = 'a'\nbase_color = [2, 0, 0]", "materials[0].base_color[0]: Expected `float` <= 1.0"),
        (QUAD + "material = 'a'\n[[materials]]\nname = 'a'\nnormal_texture = 'no.png'", "file not found: no.png"),
        ("a" + ".a" * 50000 + " = 1", "expected lines of at most"),
        ("a = " + "[" * 4000 + "]" * 4000, "main.scene.toml: "),
    ],
)
def test_a_mistake_is_named_with_its_key(load, text, message):
    with pytest.raises(BadInput) as caught:
        load(text)
    assert str(caught.value).startswith("main.scene.toml: ")
    assert message in str(caught.value)


def test_scenes_that_include_one_another_in_a_circle_are_refused(load):
    text = "[[objects]]\nfile = '{}.scene.toml'"
    with pytest.raises(BadInput, match=r"main\.scene\.toml -> b\.scene\.toml -> main"):
        load(text.format("b"), b__scene__toml=text.format("main"))


def test_scenes_that_multiply_without_end_are_refused(load):
    tower = {f"l{level}__scene__toml": f"[[objects]]\nfile = 'l{level + 1}.scene.toml'\n" * 40 for level in range(4)}
    with pytest.raises(BadInput, match="expected at most 1048576 instances"):
        load("[[objects]]\nfile = 'l0.scene.toml'", l4__scene__toml=QUAD, **tower)


def test_a_chain_of_includes_ends_somewhere(load):
    tower = {f"l{level}__scene__toml": f"[[objects]]\nfile = 'l{level + 1}.scene.toml'\n" for level in range(40)}
    with pytest.raises(BadInput, match="expected at most 16 files that include one another"):
        load("[[objects]]\nfile = 'l0.scene.toml'", **tower)
