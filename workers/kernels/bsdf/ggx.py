"""The GGX reflection lobe: Trowbridge-Reitz microfacets with height-correlated Smith shadowing. Knows no colour.

Single scattering only; `albedo.py` says what that loses. Directions are in the local frame, z along the normal, and
point away from the surface, both on its side (z > 0). alpha is the square of the roughness that artists see.

Heitz 2014, Understanding the Masking-Shadowing Function; Dupuy and Benyoub 2023, Sampling Visible GGX Normals with
Spherical Caps; Eto and Tokuyoshi 2023, Bounded VNDF Sampling for Smith-GGX Reflections.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from workers.kernels.jit import f32, kernel
from workers.kernels.mathf import INV_PI, sin_cos_turns, sqr
from workers.kernels.vec3 import dot, normalize, reflect, vec3

MIN_ROUGHNESS = f32(0.0316227766)  # smoother than this is a mirror to float32
MIN_ALPHA = f32(1e-3)


class GgxLobe(NamedTuple):
    """The lobe as seen from one `wo`: what all directions `wi` share."""

    alpha: Any
    alpha2: Any  # alpha squared
    smith: Any  # sqrt(alpha^2 + (1 - alpha^2) cos^2) of wo
    bound: Any  # share of the lower cap of visible normals that can reflect above the horizon (k in Eto 2023)


@kernel
def prepare(alpha, wo):
    alpha2 = alpha * alpha
    sine2 = wo.x * wo.x + wo.y * wo.y
    reach2 = sqr(1.0 + math.sqrt(sine2))
    bound = (1.0 - alpha2) * reach2 / (reach2 + alpha2 * wo.z * wo.z)
    return GgxLobe(alpha, alpha2, math.sqrt(alpha2 * sine2 + wo.z * wo.z), bound)


@kernel
def _distribution(lobe, half, squared):
    """D(h) for h = half / sqrt(squared), written so that nothing cancels for small alpha."""
    flat = half.x * half.x + half.y * half.y
    return lobe.alpha2 * INV_PI * sqr(squared / (lobe.alpha2 * half.z * half.z + flat))


@kernel
def sample(lobe, wo, u1, u2):
    """A direction with density `pdf`; it may lie below the horizon (z <= 0), where the lobe is black."""
    standard = normalize(vec3(wo.x * lobe.alpha, wo.y * lobe.alpha, wo.z))
    lowest = lobe.bound * standard.z
    z = (1.0 - u2) * (1.0 + lowest) - lowest
    sine, cosine = sin_cos_turns(u1)
    radius = math.sqrt(max(0.0, 1.0 - z * z))
    cap = standard + vec3(radius * cosine, radius * sine, z)
    half = vec3(cap.x * lobe.alpha, cap.y * lobe.alpha, cap.z)
    squared = dot(half, half)
    if not squared > 0.0:
        return vec3(0.0, 0.0, 0.0)
    return reflect(wo, half * (1.0 / math.sqrt(squared)))


@kernel
def evaluate(lobe, wo, wi):
    """(value, pdf, cosine): f * cos without Fresnel, the density of `sample`, the cosine of `wi` and the microfacet.

    f = D G2 / (4 cos_o cos_i), with G2 / (4 cos_o cos_i) = 1 / (2 (cos_i smith_o + cos_o smith_i)).
    """
    half = wo + wi
    squared = dot(half, half)
    density = 0.5 * _distribution(lobe, half, squared)
    smith_wi = math.sqrt(lobe.alpha2 + (1.0 - lobe.alpha2) * wi.z * wi.z)
    value = density * wi.z / (wi.z * lobe.smith + wo.z * smith_wi)
    return value, density / (lobe.bound * wo.z + lobe.smith), 0.5 * math.sqrt(squared)


@kernel
def pdf(lobe, wo, wi):
    """Density per solid angle of `sample` at `wi`, wi.z > 0."""
    half = wo + wi
    return 0.5 * _distribution(lobe, half, dot(half, half)) / (lobe.bound * wo.z + lobe.smith)
