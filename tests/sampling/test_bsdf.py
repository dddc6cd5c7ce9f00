import numpy as np
import pytest

from tests.support.statistics import chi_square, sidak
from tests.support.surfaces import LobeGrid, Surface, evaluate, sample

SAMPLES = 1 << 17
GOLD = (1.0, 0.71, 0.29)
COSINES = (0.08, 0.5, 0.95)

# the diffuse lobe alone, the GGX lobe alone, and mixes of both
SURFACES = (
    [Surface(mu, metallic=0.0, specular=0.0, color=GOLD) for mu in COSINES]
    + [Surface(mu, roughness, metallic=1.0, color=GOLD) for mu in COSINES for roughness in (0.0, 0.1, 0.35, 0.7, 1.0)]
    + [Surface(mu, roughness, metallic=0.0, color=GOLD) for mu in COSINES for roughness in (0.1, 0.6)]
    + [Surface(mu, 0.4, metallic=0.5, specular=0.5, color=GOLD) for mu in COSINES]
)


def described(surface):
    return f"mu{surface.mu}-rough{surface.roughness}-metal{surface.metallic}-specular{surface.specular}"


def width_of_peak(surface):
    """Radians; a mix also needs cells that resolve the wide lobe around the narrow one."""
    if surface.metallic == 0.0 and surface.specular == 0.0:
        return 1.0
    narrowest = 2e-3 if surface.metallic == 1.0 else 0.1
    return max(2.0 * surface.roughness**2, narrowest)


@pytest.mark.parametrize("surface", SURFACES, ids=described)
def test_sampled_directions_follow_the_density(surface):
    grid = LobeGrid(surface, width_of_peak(surface))
    wi, _, pdf = sample(surface, SAMPLES, seed=10)
    lost = pdf <= 0.0
    expected = grid.integrate()
    # the density integrates to 1 but for samples lost below the horizon, which make a cell of their own
    assert expected.sum() <= 1.0 + 1e-3
    counts = np.append(grid.count(wi[~lost]), lost.sum())
    masses = np.append(expected, max(1.0 - expected.sum(), 0.0))
    assert chi_square(counts, masses / masses.sum() * SAMPLES) >= sidak(len(SURFACES))


@pytest.mark.parametrize("surface", SURFACES, ids=described)
def test_a_samples_weight_is_its_value_over_its_density(surface):
    wi, weight, pdf = sample(surface, 1 << 12, seed=11)
    kept = pdf > 0.0
    value, density, density_alone = evaluate(surface, wi[kept])
    assert np.array_equal(density, pdf[kept])
    assert np.allclose(density_alone, density, rtol=1e-5)
    assert np.allclose(weight[kept] * pdf[kept, None], value, rtol=1e-6)
    assert (weight[~kept] == 0.0).all()


@pytest.mark.parametrize("surface", SURFACES, ids=described)
def test_no_sample_weighs_much_more_than_the_surface_can_reflect(surface):
    # lobes are chosen by their albedos and sampled by their shapes: what is left is Fresnel's and Smith's variation
    _, weight, pdf = sample(surface, 1 << 14, seed=12)
    assert np.isfinite(weight).all()
    assert np.isfinite(pdf).all()
    assert weight.min() >= 0.0
    assert weight.max() <= 6.0


def test_few_samples_are_lost_below_the_horizon():
    # unbounded sampling of visible normals would lose 30 % of these
    _, _, pdf = sample(Surface(0.5, 1.0, metallic=1.0), SAMPLES, seed=13)
    assert (pdf <= 0.0).mean() < 0.01
    _, _, pdf = sample(Surface(0.5, 0.7, metallic=1.0), SAMPLES, seed=13)
    assert (pdf <= 0.0).mean() < 0.08


def test_extreme_numbers_keep_every_result_finite():
    edges = [0.0, 2.0**-24, 0.5, 1.0 - 2.0**-24]
    rng = np.random.default_rng(14)
    directions = rng.normal(size=(2000, 3))
    directions /= np.sqrt((directions**2).sum(1))[:, None]
    for mu in (1e-7, 1e-5, 1e-3, 1.0):
        for roughness in (0.0, 0.03, 1.0):
            for metallic in edges:
                surface = Surface(mu, roughness, metallic, ior=1.0 if metallic == 0.5 else 1.5)
                wi, weight, pdf = sample(surface, 2000, seed=15)
                value, density, _ = evaluate(surface, np.concatenate([directions, wi]))
                for numbers in (weight, pdf, value, density):
                    assert np.isfinite(numbers).all()
                    assert numbers.min() >= 0.0
