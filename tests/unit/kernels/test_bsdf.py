import numba
import numpy as np
import pytest

from tests.support.ggx_albedo import directional_albedo, root_cosine_table, white_albedo_table
from tests.support.surfaces import Surface, evaluate
from workers.kernels.bsdf import albedo, albedo_table, diffuse, ggx
from workers.kernels.vec3 import vec3


@numba.njit
def ggx_lobe(alpha, wo, wi):
    """(f, pdf, pdf alone) of the lobe for each pair of directions."""
    out = np.empty((wo.shape[0], 3))
    for i in range(wo.shape[0]):
        a = vec3(wo[i, 0], wo[i, 1], wo[i, 2])
        b = vec3(wi[i, 0], wi[i, 1], wi[i, 2])
        lobe = ggx.prepare(alpha, a)
        value, pdf, _ = ggx.evaluate(lobe, a, b)
        out[i, 0], out[i, 1], out[i, 2] = value / b.z, pdf, ggx.pdf(lobe, a, b)
    return out


@numba.njit
def lambert(wi):
    out = np.empty(wi.shape[0])
    for i in range(wi.shape[0]):
        out[i] = diffuse.evaluate(vec3(wi[i, 0], wi[i, 1], wi[i, 2])) / wi[i, 2]
    return out


# --- slow, obvious twins in float64


def twin_ggx(alpha, wo, wi):
    """f of a white mirror's microfacets: Walter et al. 2007, with Heitz 2014's height-correlated shadowing."""
    half = wo + wi
    half = half / np.sqrt((half**2).sum(1))[:, None]
    cos2 = half[:, 2] ** 2
    distribution = alpha**2 / (np.pi * (cos2 * (alpha**2 - 1.0) + 1.0) ** 2)

    def smith_lambda(w):
        return (np.sqrt(1.0 + alpha**2 * (1.0 / w[:, 2] ** 2 - 1.0)) - 1.0) / 2.0

    shadowing = 1.0 / (1.0 + smith_lambda(wo) + smith_lambda(wi))
    return distribution * shadowing / (4.0 * wo[:, 2] * wi[:, 2])


def twin_surface(surface, wi):
    """f * cos of the whole model; albedos by quadrature instead of tables."""
    wo = np.broadcast_to(surface.wo.astype(float), wi.shape)
    alpha = max(surface.roughness**2, 1e-3)
    white, grazing = directional_albedo(surface.mu, alpha, 128)
    half = wo + wi
    half = half / np.sqrt((half**2).sum(1))[:, None]
    opposite = (1.0 - (half * wi).sum(1)[:, None]) ** 5
    color = np.array(surface.color)
    reflectance = surface.specular * ((surface.ior - 1.0) / (surface.ior + 1.0)) ** 2

    def mirror(f0, f90):
        return (f0 + (f90 - f0) * opposite) * (1.0 + f0 * (1.0 / white - 1.0))

    gain = 1.0 + reflectance * (1.0 / white - 1.0)
    reflected = gain * (reflectance * (white - grazing) + surface.specular * grazing)
    shape = twin_ggx(alpha, wo, wi)[:, None]
    dielectric = mirror(reflectance, surface.specular) * shape + color / np.pi * (1.0 - reflected)
    metal = mirror(color, np.ones(3)) * shape
    return (surface.metallic * metal + (1.0 - surface.metallic) * dielectric) * wi[:, 2:]


def directions(count, seed, lowest=0.1):
    w = np.random.default_rng(seed).normal(size=(count, 3))
    w[:, 2] = np.abs(w[:, 2]) + lowest
    return (w / np.sqrt((w**2).sum(1))[:, None]).astype(np.float32)


def near_mirror(wo, alpha, seed):
    """Directions a few lobe widths about the mirror directions of `wo`."""
    spread = np.random.default_rng(seed).normal(size=wo.shape) * 2.0 * alpha
    wi = wo * [-1.0, -1.0, 1.0] + spread
    wi[:, 2] = np.abs(wi[:, 2])
    return (wi / np.sqrt((wi**2).sum(1))[:, None]).astype(np.float32)


@pytest.mark.parametrize("alpha", [1e-3, 0.01, 0.1, 0.5, 1.0])
def test_the_ggx_lobe_is_that_of_its_twin(alpha):
    wo = directions(2000, seed=30)
    wi = near_mirror(wo, alpha, seed=31)
    got = ggx_lobe(np.float32(alpha), wo, wi)
    # directions are rounded to 2^-24; the lobe changes by a factor e within alpha
    tolerance = 1e-5 + 32.0 * 2.0**-24 / alpha
    exact = twin_ggx(float(np.float32(alpha)), wo.astype(float), wi.astype(float))
    assert np.allclose(got[:, 0], exact, rtol=tolerance)
    assert np.allclose(got[:, 1], got[:, 2], rtol=1e-5)


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0])
def test_the_ggx_lobe_is_reciprocal(alpha):
    wo = directions(2000, seed=32)
    wi = near_mirror(wo, alpha, seed=33)
    there, back = ggx_lobe(np.float32(alpha), wo, wi)[:, 0], ggx_lobe(np.float32(alpha), wi, wo)[:, 0]
    assert np.allclose(there, back, rtol=1e-5)


def test_the_diffuse_lobe_is_the_same_in_all_directions():
    assert np.allclose(lambert(directions(1000, seed=34)), 1.0 / np.pi, rtol=1e-6)


@pytest.mark.parametrize("mu", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("roughness", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("metallic", [0.0, 0.3, 1.0])
def test_the_whole_model_is_that_of_its_twin(mu, roughness, metallic):
    surface = Surface(mu, roughness, metallic, specular=0.8, ior=1.4, color=(0.9, 0.5, 0.1))
    wi = np.concatenate([directions(500, seed=35), near_mirror(np.tile(surface.wo, (500, 1)), roughness**2, seed=36)])
    got = evaluate(surface, wi)[0]
    # tables interpolate to 0.5 %, on the safe side
    assert np.allclose(got, twin_surface(surface, wi.astype(float)), rtol=1e-2, atol=1e-6)


def test_the_interpolated_albedo_errs_on_the_side_that_gains_no_energy():
    rng = np.random.default_rng(37)
    for mu, roughness in zip(rng.uniform(0.03, 1.0, 100), rng.uniform(ggx.MIN_ROUGHNESS, 1.0, 100), strict=True):
        white, grazing = albedo.ggx_albedo(np.float32(mu), np.float32(roughness))
        exact_white, exact_grazing = directional_albedo(mu, roughness**2, 96)
        assert exact_white - 2e-4 <= white <= exact_white + 4e-3
        assert exact_grazing - 2e-4 <= grazing <= exact_grazing + 8e-3


@pytest.mark.slow
def test_the_committed_table_is_what_its_generator_writes():
    unit = 1.0 / 10000
    assert np.abs(albedo_table.WHITE_ALBEDO - white_albedo_table()).max() <= unit
    assert np.abs(albedo_table.ROOT_COSINE - root_cosine_table()).max() <= unit


def test_nothing_is_reflected_from_below_the_horizon():
    surface = Surface(0.5, metallic=0.5)
    value, pdf, pdf_alone = evaluate(surface, directions(100, seed=38) * [1.0, 1.0, -1.0])
    assert not value.any()
    assert not pdf.any()
    assert not pdf_alone.any()
