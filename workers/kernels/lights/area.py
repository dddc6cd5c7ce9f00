"""Lights with a surface: emissive triangles and quads, sampled uniformly by area. Knows nothing of how they are chosen.

Every family member returns the same tuple: (wi, distance, radiance, pdf); pdf is per solid angle, 0 means no light.
"""

import math

from workers.kernels.jit import f32, inner_kernel
from workers.kernels.lights.emission import emitted_radiance
from workers.kernels.records import materials, triangles
from workers.kernels.sampling.warp import uniform_triangle
from workers.kernels.vec3 import dot, load_vec3, vec3

GRAZING = f32(1e-6)  # a light seen at a smaller cosine gives nothing


@inner_kernel
def area_pdf(light, wi, distance):
    """Density per solid angle with which `sample_triangle` and `sample_quad` make a direction of given `distance`."""
    cosine = -dot(wi, load_vec3(light.normal))
    if light.two_sided != 0:
        cosine = abs(cosine)
    if cosine <= GRAZING:
        return f32(0.0)
    return distance * distance / (cosine * light.area)


@inner_kernel
def towards(light, p, q):
    """Direction, distance and solid-angle pdf from `p` to the point `q` on an area light."""
    to_light = q - p
    distance2 = dot(to_light, to_light)
    if distance2 <= f32(0.0):
        return vec3(0.0, 0.0, 1.0), f32(0.0), f32(0.0)
    distance = math.sqrt(distance2)
    wi = to_light * (f32(1.0) / distance)
    return wi, distance, area_pdf(light, wi, distance)


@inner_kernel
def sample_triangle(scene, light, p, u1, u2):
    b1, b2 = uniform_triangle(u1, u2)
    q = load_vec3(light.position) + load_vec3(light.edge_u) * b1 + load_vec3(light.edge_v) * b2
    wi, distance, pdf = towards(light, p, q)
    if pdf <= f32(0.0):
        return wi, distance, vec3(0.0, 0.0, 0.0), f32(0.0)
    triangle = triangles(scene.triangles)[light.triangle]
    material = materials(scene.materials)[triangle.material]
    return wi, distance, emitted_radiance(scene, triangle, material, b1, b2), pdf


@inner_kernel
def sample_quad(light, p, u1, u2):
    q = load_vec3(light.position) + load_vec3(light.edge_u) * u1 + load_vec3(light.edge_v) * u2
    wi, distance, pdf = towards(light, p, q)
    return wi, distance, load_vec3(light.emission), pdf
