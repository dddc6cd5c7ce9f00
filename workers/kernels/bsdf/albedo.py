"""How much light the single-scattering GGX lobe reflects in all: its directional albedo, by table.

Knows nothing of materials. The lobe with Schlick's Fresnel reflects f0 * A + f90 * B, and A + B is what perfect mirrors
as microfacets reflect without scattering twice; what is missing to 1 is lost between microfacets (Turquin 2019,
Practical Multiple Scattering Compensation for Microfacet Models).
"""

from __future__ import annotations

import math

from workers.kernels.bsdf.albedo_table import RESOLUTION, ROOT_COSINE, WHITE_ALBEDO
from workers.kernels.bsdf.ggx import MIN_ROUGHNESS
from workers.kernels.jit import f32, i32, kernel
from workers.kernels.mathf import sqr

# Largest errors of interpolation. Both albedos are raised by them, so that no surface gets brighter than white.
WHITE_MARGIN = f32(1.3e-3)
GRAZING_FACTOR = f32(1.005)
_LAST = f32(RESOLUTION - 1)
_ROWS_PER_ROUGHNESS = f32((RESOLUTION - 1) / (1.0 - 0.0316227766))


@kernel
def _interpolate(table, row, column):
    """Bilinear in `table` at fractional indices of 0..RESOLUTION - 1."""
    i = min(max(i32(row), i32(0)), i32(RESOLUTION - 2))
    j = min(max(i32(column), i32(0)), i32(RESOLUTION - 2))
    across = column - f32(j)
    upper = table[i, j] + (table[i, j + 1] - table[i, j]) * across
    lower = table[i + 1, j] + (table[i + 1, j + 1] - table[i + 1, j]) * across
    return upper + (lower - upper) * (row - f32(i))


@kernel
def ggx_albedo(cosine, roughness):
    """(A + B, B) for the cosine of `wo` in (0, 1] and a roughness in [MIN_ROUGHNESS, 1]."""
    row = (roughness - MIN_ROUGHNESS) * _ROWS_PER_ROUGHNESS
    alpha = sqr(roughness)
    steepness = cosine * (1.0 + alpha) / (cosine + alpha)
    white = _interpolate(WHITE_ALBEDO, row, math.sqrt(steepness) * _LAST) + WHITE_MARGIN
    white = min(white, 1.0)
    opposite = 1.0 - sqr(_interpolate(ROOT_COSINE, row, math.sqrt(cosine) * _LAST))
    return white, min(GRAZING_FACTOR * sqr(sqr(opposite)) * opposite, 1.0) * white
