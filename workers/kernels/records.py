"""What a prepared scene looks like to kernels: records of addresses and numbers, no objects.

`SCENE` is one record; its `u8` fields are addresses of arrays in the flat file, each described beside it. A kernel
reads an array through a typed view: `triangles(scene.triangles)[i].material`. workers.prepare.scene_file writes all of
this and keeps the memory alive.
"""

from __future__ import annotations

import numpy as np

from workers.kernels.jit import view_type

NODE_FLOATS = 64  # lo x, hi x, lo y, hi y, lo z, hi z of 8 children each; then 8 int32 children; then 8 unused
PACK_FLOATS = 80  # p0 xyz, p1 xyz, p2 xyz of 8 triangles each; then 8 int32 ids (ID_MASK and flags)
ID_MASK = (1 << 30) - 1
CULL_FLAG = 1 << 30  # the back of this triangle lets rays pass
ALPHA_FLAG = -(1 << 31)  # this triangle may be partly transparent: any_hit passes it, closest_hit reports it

# 64 bytes: all that a hit needs to begin with. Positions are in the world, or in object space for instanced meshes.
TRIANGLE = np.dtype(
    [
        ("p0", "f4", (3,)),
        ("p1", "f4", (3,)),
        ("p2", "f4", (3,)),
        ("vertices", "i4", (3,)),  # rows of SCENE.vertices
        ("material", "i4"),  # row of SCENE.materials
        ("light", "i4"),  # row of SCENE.lights, -1: emits nothing that is sampled
        ("object_id", "i4"),  # for instanced meshes the instance's object id wins
        ("flags", "i4"),  # SMOOTH | TANGENT | COLOR
    ]
)
SMOOTH = 1  # has vertex normals
TANGENT = 2  # has vertex tangents
COLOR = 4  # has vertex colours

# 64 bytes: vertex attributes
VERTEX = np.dtype(
    [
        ("normal", "f4", (3,)),  # unit
        ("tangent", "f4", (4,)),  # xyz unit, w handedness
        ("uv", "f4", (4,)),  # uv0 then uv1
        ("color", "f4", (4,)),  # linear
        ("pad", "f4"),
    ]
)

INSTANCE = np.dtype(
    [
        ("to_object", "f4", (12,)),  # rows of a 3x4 matrix
        ("to_world", "f4", (12,)),
        ("root", "i4"),  # row of SCENE.nodes where this mesh's tree begins
        ("object_id", "i4"),
        ("material", "i4"),
        ("mirrored", "i4"),  # to_world has a negative determinant
        ("pad", "i4", (4,)),
    ]
)

# How a material slot reads an image
TEXTURE = np.dtype(
    [
        ("image", "i4"),  # row of SCENE.images, -1: no texture in this slot
        ("uv_set", "i4"),
        ("wrap_u", "i4"),  # dr.scene.model.Wrap
        ("wrap_v", "i4"),
        ("filter", "i4"),  # dr.scene.model.TexelFilter
        ("pad", "i4", (3,)),
    ]
)

# Decoded pixels, row 0 at the top
IMAGE = np.dtype(
    [
        ("address", "u8"),  # u1[height * width, 4] or f4[height * width, 4]
        ("width", "i4"),
        ("height", "i4"),
        ("format", "i4"),  # RGBA8_SRGB, RGBA8_LINEAR or RGBA32F
        ("pad", "i4"),
    ]
)
RGBA8_SRGB = 0  # colour through the sRGB table, alpha linear
RGBA8_LINEAR = 1
RGBA32F = 2

MATERIAL = np.dtype(
    [
        ("base_color", "f4", (3,)),
        ("alpha", "f4"),
        ("metallic", "f4"),
        ("roughness", "f4"),
        ("specular", "f4"),
        ("ior", "f4"),
        ("emission", "f4", (3,)),
        ("normal_scale", "f4"),
        ("alpha_cutoff", "f4"),
        ("alpha_mode", "i4"),  # dr.scene.model.AlphaMode
        ("flags", "i4"),  # EMISSIVE | TEXTURED
        ("pad", "i4"),
        ("base_color_texture", TEXTURE),
        ("metallic_roughness_texture", TEXTURE),
        ("normal_texture", TEXTURE),
        ("emission_texture", TEXTURE),
    ]
)
EMISSIVE = 1
TEXTURED = 2  # any slot has an image

LIGHT = np.dtype(
    [
        ("kind", "i4"),  # workers.kernels.lights.kinds
        ("triangle", "i4"),  # emissive triangle: row of SCENE.triangles
        ("two_sided", "i4"),
        ("hidden", "i4"),  # no ray hits it: light sampling alone must find it
        ("position", "f4", (3,)),  # point, spot; quad: corner; triangle: p0
        ("area", "f4"),
        ("edge_u", "f4", (3,)),  # quad and triangle
        ("cos_inner", "f4"),
        ("edge_v", "f4", (3,)),
        ("cos_outer", "f4"),
        ("normal", "f4", (3,)),  # quad, triangle: unit front; spot, directional: the way the light travels
        ("probability", "f4"),  # of being chosen (emissive meshes are always flattened into the world)
        ("emission", "f4", (3,)),  # radiance, intensity or irradiance
        ("pad2", "f4"),
    ]
)

# One cell of an alias table (Walker 1977)
ALIAS = np.dtype([("threshold", "f4"), ("alias", "i4")])

CAMERA = np.dtype(
    [
        ("origin", "f4", (3,)),
        ("right", "f4", (3,)),
        ("up", "f4", (3,)),
        ("forward", "f4", (3,)),
        ("half_width", "f4"),  # of the image plane at distance 1 (perspective) or in metres (orthographic)
        ("half_height", "f4"),
        ("orthographic", "i4"),
        ("aperture_radius", "f4"),
        ("focus_distance", "f4"),
    ]
)

ENVIRONMENT = np.dtype(
    [
        ("light", "i4"),  # row of SCENE.lights, -1: there is none
        ("width", "i4"),  # of the map; 0: constant
        ("height", "i4"),
        ("pad", "i4"),
        ("texels", "u8"),  # f4[height * width, 4]: linear RGB, w: pdf over the unit square of (u, v)
        ("alias", "u8"),  # ALIAS[height * width]
        ("radiance", "f4", (3,)),
        ("cos_rotation", "f4"),
        ("sin_rotation", "f4"),
        ("pad2", "f4"),
    ]
)

SCENE = np.dtype(
    [
        ("nodes", "u8"),  # f4[node * NODE_FLOATS], 64-byte aligned
        ("packs", "u8"),  # f4[pack * PACK_FLOATS], 64-byte aligned
        ("triangles", "u8"),  # TRIANGLE[triangle]
        ("vertices", "u8"),  # VERTEX[vertex]
        ("instances", "u8"),  # INSTANCE[instance]
        ("materials", "u8"),  # MATERIAL[material]
        ("images", "u8"),  # IMAGE[image]
        ("lights", "u8"),  # LIGHT[light]
        ("light_alias", "u8"),  # ALIAS[light]
        ("n_lights", "i4"),
        ("n_instances", "i4"),
        ("root", "i4"),  # the world's root node; -1: nothing to hit
        ("has_alpha", "i4"),  # some triangle has ALPHA_FLAG
        ("environment", ENVIRONMENT),
        ("camera", CAMERA),
        ("width", "i4"),  # of the full frame, pixels
        ("height", "i4"),
        ("max_depth", "i4"),
        ("rr_depth", "i4"),
        ("seed", "u4"),  # of the frame: hash of seed and frame number
        ("pixel_filter", "i4"),  # 0 box, 1 Blackman-Harris
        ("filter_radius", "f4"),
        ("scene_radius", "f4"),  # of the bounding sphere, for self-intersection offsets and distant lights
        ("filter_table", "u8"),  # f4[FILTER_CELLS + 1]: inverse CDF of the pixel filter
    ],
    align=True,
)

floats = view_type("f4")  # [any]
ints = view_type("i4")  # [any]
floats4 = view_type("f4", 4)  # [any, 4]
triangles = view_type(TRIANGLE)
vertices = view_type(VERTEX)
instances = view_type(INSTANCE)
materials = view_type(MATERIAL)
images = view_type(IMAGE)
lights = view_type(LIGHT)
alias_cells = view_type(ALIAS)

# A film pixel: sums over samples, but depth and object id, which are sample 0's
FILM_CHANNELS = 12
FILM_BEAUTY, FILM_ALPHA, FILM_DEPTH, FILM_NORMAL, FILM_ALBEDO, FILM_OBJECT_ID = 0, 3, 4, 5, 8, 11
SAMPLE_CHUNK = 16  # samples are summed in chunks of this many, and chunks are added in index order
