"""The radiance that a triangle's material emits at a point. The one place that reads emission."""

from workers.kernels.jit import kernel
from workers.kernels.shapes.surface import hit_uv
from workers.kernels.textures.lookup import texture_color
from workers.kernels.vec3 import load_vec3


@kernel
def emitted_radiance(scene, triangle, material, b1, b2):
    radiance = load_vec3(material.emission)
    slot = material.emission_texture
    if slot.image >= 0:
        u0, v0, u1, v1 = hit_uv(scene, triangle, b1, b2)
        color = texture_color(scene, slot, u0, v0, u1, v1)
        radiance = radiance * color
    return radiance
