"""Lights without a surface: point, spot and directional. No ray can hit them: their pdf is 1, outside MIS."""

import math

from workers.kernels.jit import f32, kernel
from workers.kernels.mathf import clamp01
from workers.kernels.vec3 import dot, load_vec3, vec3

INFINITE = f32(1e30)


@kernel
def sample_point(light, p):
    to_light = load_vec3(light.position) - p
    distance2 = dot(to_light, to_light)
    if distance2 <= f32(0.0):
        return vec3(0.0, 0.0, 1.0), f32(0.0), vec3(0.0, 0.0, 0.0), f32(0.0)
    distance = math.sqrt(distance2)
    return to_light * (f32(1.0) / distance), distance, load_vec3(light.emission) * (f32(1.0) / distance2), f32(1.0)


@kernel
def sample_spot(light, p):
    """Angular falloff of KHR_lights_punctual: ((cos - cos outer) / (cos inner - cos outer)) clamped, squared."""
    wi, distance, radiance, pdf = sample_point(light, p)
    cosine = -dot(wi, load_vec3(light.normal))
    width = max(light.cos_inner - light.cos_outer, f32(1e-4))
    falloff = clamp01((cosine - light.cos_outer) / width)
    if falloff <= f32(0.0):
        return wi, distance, radiance, f32(0.0)
    return wi, distance, radiance * (falloff * falloff), pdf


@kernel
def sample_directional(light):
    return -load_vec3(light.normal), INFINITE, load_vec3(light.emission), f32(1.0)
