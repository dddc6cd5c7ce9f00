"""Maps two uniform numbers in [0, 1) to points of simple shapes. Knows densities, but nothing of lights or surfaces.

All maps keep neighbours together, so that stratified numbers give stratified points.
"""

from __future__ import annotations

import math

from workers.kernels.jit import kernel
from workers.kernels.mathf import INV_PI, sin_cos_turns
from workers.kernels.vec3 import vec3


@kernel
def concentric_disk(u1, u2):
    """A point (x, y) of the unit disk, uniform in area, density 1/pi (Shirley and Chiu 1997)."""
    a = 2.0 * u1 - 1.0
    b = 2.0 * u2 - 1.0
    # selections instead of branches: a branch here is taken by chance and mispredicted half of the time
    wide = abs(a) > abs(b)
    radius = a if wide else b
    across = b if wide else a
    turns = 0.125 * (across / (radius if radius != 0.0 else 1.0))
    sine, cosine = sin_cos_turns(turns if wide else 0.25 - turns)
    return radius * cosine, radius * sine


@kernel
def cosine_hemisphere(u1, u2):
    """A unit vector about +z with density `cosine_hemisphere_pdf`: a point of the disk, lifted (Malley's method)."""
    x, y = concentric_disk(u1, u2)
    return vec3(x, y, math.sqrt(max(0.0, 1.0 - (x * x + y * y))))


@kernel
def cosine_hemisphere_pdf(cosine):
    """Density per solid angle of a direction whose z is `cosine` >= 0."""
    return cosine * INV_PI


@kernel
def uniform_sphere(u1, u2):
    """A unit vector of any direction, density 1 / (4 pi) per solid angle."""
    z = 1.0 - 2.0 * u1
    radius = 2.0 * math.sqrt(u1 * (1.0 - u1))
    sine, cosine = sin_cos_turns(u2)
    return vec3(radius * cosine, radius * sine, z)


@kernel
def uniform_triangle(u1, u2):
    """Barycentrics (b1, b2) of a point of a triangle, uniform in area (Heitz 2019, A Low-Distortion Map)."""
    if u2 > u1:
        b1 = 0.5 * u1
        return b1, u2 - b1
    b2 = 0.5 * u2
    return u1 - b2, b2
