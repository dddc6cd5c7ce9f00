"""A material at a hit: its textures read, its normal map applied. Turns records into the parameters that lobes take."""

import math

from workers.kernels.bsdf.dispatch import BsdfParams
from workers.kernels.jit import f32, kernel
from workers.kernels.mathf import clamp01
from workers.kernels.records import TEXTURED, materials, triangles
from workers.kernels.shapes.surface import hit_color, hit_material, hit_uv, shading_tangent
from workers.kernels.textures.lookup import texture_alpha, texture_color
from workers.kernels.vec3 import cross, dot, load_vec3, normalize, vec3

OPAQUE = 0  # dr.scene.model.AlphaMode
MASK = 1
SMALLEST_COSINE = f32(1e-3)
LOWEST_REFLECTION = f32(0.05)  # cosine to the surface: on the horizon itself half of a rough metal's lobe is lost


@kernel
def hit_alpha(scene, triangle_index, instance, b1, b2):
    """Opacity of a hit in 0..1 by the material's alpha mode."""
    triangle = triangles(scene.triangles)[triangle_index]
    material = materials(scene.materials)[hit_material(scene, triangle, instance)]
    if material.alpha_mode == OPAQUE:
        return f32(1.0)
    _, alpha = hit_color(scene, triangle, b1, b2)
    alpha = alpha * material.alpha
    slot = material.base_color_texture
    if slot.image >= 0:
        u0, v0, u1, v1 = hit_uv(scene, triangle, b1, b2)
        alpha = alpha * texture_alpha(scene, slot, u0, v0, u1, v1)
    if material.alpha_mode == MASK:
        return f32(1.0) if alpha >= material.alpha_cutoff else f32(0.0)
    return clamp01(alpha)


@kernel
def mapped_normal(scene, triangle, instance, material, b1, b2, uv, normal):
    """The normal map's normal in the world, in MikkTSpace's frame; `normal` is the unit interpolated normal."""
    tangent, handedness = shading_tangent(scene, triangle, instance, b1, b2)
    tangent = tangent - normal * dot(normal, tangent)
    squared = dot(tangent, tangent)
    if not squared > f32(1e-20):
        return normal
    tangent = tangent * (f32(1.0) / math.sqrt(squared))
    bitangent = cross(normal, tangent) * handedness
    u0, v0, u1, v1 = uv
    texel = texture_color(scene, material.normal_texture, u0, v0, u1, v1)
    x = (texel.x * 2.0 - 1.0) * material.normal_scale
    y = (texel.y * 2.0 - 1.0) * material.normal_scale
    z = texel.z * 2.0 - 1.0
    mapped = tangent * x + bitangent * y + normal * z
    squared = dot(mapped, mapped)
    if not squared > f32(1e-20):
        return normal
    return mapped * (f32(1.0) / math.sqrt(squared))


@kernel
def evaluate_material(scene, triangle, instance, material, b1, b2, normal):
    """Parameters of the lobes, and the shading normal with the normal map applied."""
    color, _ = hit_color(scene, triangle, b1, b2)
    color = color * load_vec3(material.base_color)
    metallic = f32(material.metallic)
    roughness = f32(material.roughness)
    if material.flags & TEXTURED != 0:
        uv = hit_uv(scene, triangle, b1, b2)
        u0, v0, u1, v1 = uv
        if material.base_color_texture.image >= 0:
            texel = texture_color(scene, material.base_color_texture, u0, v0, u1, v1)
            color = color * texel
        if material.metallic_roughness_texture.image >= 0:
            texel = texture_color(scene, material.metallic_roughness_texture, u0, v0, u1, v1)
            roughness = roughness * texel.y
            metallic = metallic * texel.z
        if material.normal_texture.image >= 0:
            normal = mapped_normal(scene, triangle, instance, material, b1, b2, uv, normal)
    color = vec3(clamp01(color.x), clamp01(color.y), clamp01(color.z))
    params = BsdfParams(color, clamp01(metallic), clamp01(roughness), f32(material.specular), f32(material.ior))
    return params, normal


@kernel
def visible_normal(normal, wo):
    """The shading normal, tilted towards `wo` where interpolation or a map has turned it away from the viewer."""
    cosine = dot(normal, wo)
    if cosine >= SMALLEST_COSINE:
        return normal
    return normalize(normal + wo * (SMALLEST_COSINE - cosine))


@kernel
def reflecting_normal(normal, geometric, wo, metallic):
    """The shading normal, tilted until a mirror there reflects `wo` off the surface; in part for part metal.

    Otherwise a metal is black where interpolation or a map turns its reflection below the horizon. The mirror direction
    is lifted and the normal put half way to it (Keller et al. 2017, Iray, local shading normal adaption). A non-metal
    keeps its normal: the little that it loses is hidden by its diffuse part, which would show the tilt.
    """
    mirrored = normal * (2.0 * dot(normal, wo)) - wo
    lowest = min(LOWEST_REFLECTION, 0.9 * dot(wo, geometric))  # a flat mirror, seen at a grazing angle, is left alone
    below = lowest - dot(mirrored, geometric)
    if below <= 0.0:
        return normal
    tilted = normalize(wo + normalize(mirrored + geometric * below))
    return normalize(normal + (tilted - normal) * metallic)
