"""Light from all around: constant, or a latitude-longitude map sampled by an alias table over its texels.

The map is piecewise constant over texels for sampling and for evaluation alike, so that the pdf is exact.
u = atan2(z, x) / 2 pi + 0.5, v = 0.5 - asin(y) / pi from the top, in the environment's own frame.
"""

import math

from workers.kernels.jit import f32, i32, kernel
from workers.kernels.mathf import acos, atan2, sin_cos, sin_cos_turns
from workers.kernels.records import alias_cells, floats4
from workers.kernels.sampling.alias import choose_2d
from workers.kernels.sampling.warp import uniform_sphere
from workers.kernels.vec3 import load_vec3, vec3

PI = f32(math.pi)
INV_PI = f32(1.0 / math.pi)
INV_TWO_PI = f32(0.5 / math.pi)
UNIFORM_PDF = f32(0.25 / math.pi)
INV_TWO_PI_SQUARED = f32(0.5 / (math.pi * math.pi))
INFINITE = f32(1e30)
SMALLEST_SINE = f32(1e-6)


@kernel
def rotate_y(d, cosine, sine):
    return vec3(cosine * d.x + sine * d.z, d.y, cosine * d.z - sine * d.x)


@kernel
def environment_texel(environment, d):
    """Row of `texels` that the world direction `d` sees, and the sine of its polar angle."""
    local = rotate_y(d, environment.cos_rotation, -environment.sin_rotation)
    u = atan2(local.z, local.x) * INV_TWO_PI + 0.5
    v = acos(min(max(local.y, f32(-1.0)), f32(1.0))) * INV_PI
    x = min(max(i32(u * f32(environment.width)), i32(0)), environment.width - i32(1))
    y = min(max(i32(v * f32(environment.height)), i32(0)), environment.height - i32(1))
    sine = math.sqrt(max(f32(0.0), f32(1.0) - local.y * local.y))
    return y * environment.width + x, max(sine, SMALLEST_SINE)


@kernel
def evaluate_environment(environment, d):
    """Radiance from the world direction `d`, and the solid-angle density with which it is sampled."""
    radiance = load_vec3(environment.radiance)
    if environment.width == 0:
        return radiance, UNIFORM_PDF
    texel, sine = environment_texel(environment, d)
    texels = floats4(environment.texels)
    color = vec3(texels[texel, 0], texels[texel, 1], texels[texel, 2])
    return radiance * color, texels[texel, 3] * INV_TWO_PI_SQUARED / sine


@kernel
def sample_environment(environment, u1, u2):
    """(wi, distance, radiance, pdf): a texel by its share of the light, then a point within the texel."""
    if environment.width == 0:
        return uniform_sphere(u1, u2), INFINITE, load_vec3(environment.radiance), UNIFORM_PDF
    n = environment.width * environment.height
    texel, across, down = choose_2d(alias_cells(environment.alias), n, u1, u2)
    y = texel // environment.width
    x = texel - y * environment.width
    sin_phi, cos_phi = sin_cos_turns((f32(x) + across) / f32(environment.width))
    sin_theta, cos_theta = sin_cos((f32(y) + down) / f32(environment.height) * PI)
    # u = 0 looks along -x (atan2 = -pi), hence the signs
    local = vec3(-sin_theta * cos_phi, cos_theta, -sin_theta * sin_phi)
    texels = floats4(environment.texels)
    color = vec3(texels[texel, 0], texels[texel, 1], texels[texel, 2])
    pdf = texels[texel, 3] * INV_TWO_PI_SQUARED / max(sin_theta, SMALLEST_SINE)
    wi = rotate_y(local, environment.cos_rotation, environment.sin_rotation)
    return wi, INFINITE, load_vec3(environment.radiance) * color, pdf
