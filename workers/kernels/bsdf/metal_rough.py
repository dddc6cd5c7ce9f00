"""The glTF metallic-roughness model: how its lobes share the light. Knows no texture, no light and no world space.

A mix by `metallic` of a metal (GGX with Fresnel from the base colour) and a dielectric (GGX over diffuse). Both GGX
parts have one shape, so they are one lobe. Energy: light that microfacets would scatter more than once is given back to
the lobe (Turquin 2019), and the diffuse lobe gets what the dielectric's mirror part leaves (albedo scaling): nothing is
gained, and a white surface loses next to nothing. The scaling looks at `wo` only, so the model is not reciprocal.

To add a lobe: one file with `sample`, `evaluate` and `pdf`, its share in `prepare`, a line in `sample` and `evaluate`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from workers.kernels.bsdf import diffuse, ggx
from workers.kernels.bsdf.albedo import ggx_albedo
from workers.kernels.bsdf.ggx import MIN_ALPHA, MIN_ROUGHNESS, GgxLobe
from workers.kernels.jit import f32, inner_kernel, kernel
from workers.kernels.mathf import ONE_MINUS_EPSILON, sqr
from workers.kernels.vec3 import largest, luminance, vec3

GRAZING = f32(1e-6)  # directions with a smaller cosine carry no light


class BsdfParams(NamedTuple):
    """A material's parameters at one point, textures applied."""

    base_color: Any  # Vec3, 0..1
    metallic: Any  # 0..1
    roughness: Any  # 0..1, perceptual: its square is GGX's alpha
    specular: Any  # 0..1: weight of the dielectric's mirror reflection; 0 with metallic 0 is exactly Lambert
    ior: Any  # of the dielectric


class BsdfState(NamedTuple):
    """All that one hit, seen from one `wo`, has to know to be sampled and evaluated many times."""

    diffuse: Any  # Vec3: albedo of the diffuse lobe
    f0: Any  # Vec3: weight of the GGX lobe at normal incidence, compensation included
    f90: Any  # Vec3: the same at grazing incidence
    specular: GgxLobe
    specular_probability: Any  # of sampling the GGX lobe; 0 and 1 mean that the other lobe is all there is


@inner_kernel
def prepare(params, wo):
    """The state of a surface with BsdfParams `params` seen from `wo` (unit, local, wo.z > 0)."""
    black = vec3(0.0, 0.0, 0.0)
    roughness = max(params.roughness, MIN_ROUGHNESS)
    dielectric = 1.0 - params.metallic
    if params.metallic <= 0.0 and params.specular <= 0.0:
        unused = GgxLobe(f32(1.0), f32(1.0), f32(1.0), f32(0.0))
        return BsdfState(params.base_color, black, black, unused, f32(0.0))

    lobe = ggx.prepare(max(sqr(roughness), MIN_ALPHA), wo)
    white, grazing = ggx_albedo(min(wo.z, 1.0), roughness)
    normal = white - grazing
    lost = 1.0 / white - 1.0
    one = vec3(1.0, 1.0, 1.0)

    # the dielectric's mirror part, and what it leaves to the diffuse lobe
    reflectance = params.specular * sqr((params.ior - 1.0) / (params.ior + 1.0))
    gain = 1.0 + reflectance * lost
    left = max(1.0 - gain * (reflectance * normal + params.specular * grazing), 0.0)
    diffuse_albedo = params.base_color * (dielectric * left)

    # the metal, and both GGX parts as one
    metal_gain = (one + params.base_color * lost) * params.metallic
    f0 = params.base_color * metal_gain + one * (dielectric * gain * reflectance)
    f90 = metal_gain + one * (dielectric * gain * params.specular)

    specular_share = luminance(f0 * normal + f90 * grazing)
    share = specular_share + luminance(diffuse_albedo)
    probability = specular_share / share if share > 0.0 else f32(0.0)
    return BsdfState(diffuse_albedo, f0, f90, lobe, probability)


@inner_kernel
def evaluate(state, wo, wi):
    """(f * cos as a Vec3, pdf of `sample` per solid angle) for `wi` (unit, local); black and 0 below the horizon."""
    value = vec3(0.0, 0.0, 0.0)
    density = f32(0.0)
    if min(wo.z, wi.z) < GRAZING:
        return value, density
    choice = state.specular_probability
    if choice < 1.0:
        value = state.diffuse * diffuse.evaluate(wi)
        density = (1.0 - choice) * diffuse.pdf(wi)
    if choice > 0.0:
        shape, shape_pdf, cosine = ggx.evaluate(state.specular, wo, wi)
        value = value + schlick(state.f0, state.f90, cosine) * shape
        density = density + choice * shape_pdf
    return value, density


@kernel
def schlick(f0, f90, cosine):
    """Schlick's Fresnel reflectance, from `f0` at normal incidence to `f90` at grazing incidence (Schlick 1994)."""
    opposite = max(1.0 - cosine, 0.0)
    return f0 + (f90 - f0) * (sqr(sqr(opposite)) * opposite)


@inner_kernel
def sample(state, wo, u1, u2):
    """(wi, weight, pdf): a direction, f * cos / pdf as a Vec3, and the density per solid angle. pdf 0: no direction.

    `u1` chooses the lobe, and what is left of it goes on into the direction.
    """
    choice = state.specular_probability
    if choice <= 0.0:
        wi = diffuse.sample(u1, u2)
        seen = min(wo.z, wi.z) >= GRAZING and largest(state.diffuse) > 0.0
        return wi, state.diffuse, diffuse.pdf(wi) if seen else f32(0.0)
    if u1 < choice:
        wi = ggx.sample(state.specular, wo, min(u1 / choice, ONE_MINUS_EPSILON), u2)
    else:
        wi = diffuse.sample(min((u1 - choice) / (1.0 - choice), ONE_MINUS_EPSILON), u2)
    value, density = evaluate(state, wo, wi)
    if not (density > 0.0 and largest(value) > 0.0):
        return wi, vec3(0.0, 0.0, 0.0), f32(0.0)
    return wi, value * (1.0 / density), density


@kernel
def pdf(state, wo, wi):
    """Density per solid angle of `sample` at `wi`."""
    if min(wo.z, wi.z) < GRAZING:
        return f32(0.0)
    choice = state.specular_probability
    density = (1.0 - choice) * diffuse.pdf(wi)
    if choice > 0.0:
        density = density + choice * ggx.pdf(state.specular, wo, wi)
    return density
