"""White furnaces: under light from everywhere a white surface reflects all of it, and never more."""

import numpy as np
import pytest

from tests.support.ggx_albedo import directional_albedo
from tests.support.statistics import mean_and_error
from tests.support.surfaces import Surface, evaluate, sample

SAMPLES = 1 << 18
COSINES = (0.02, 0.1, 0.3, 0.6, 0.9, 1.0)
ROUGHNESSES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)


def albedo(surface):
    """Directional albedo and its standard error."""
    return mean_and_error(sample(surface, SAMPLES, seed=20)[1][:, 0])


@pytest.mark.parametrize("roughness", ROUGHNESSES)
def test_a_white_metal_reflects_all_light_and_never_more(roughness):
    for mu in COSINES:
        reflected, error = albedo(Surface(mu, roughness, metallic=1.0))
        assert 0.99 - 4.0 * error <= reflected <= 1.0 + 4.0 * error + 1e-6


@pytest.mark.parametrize("roughness", ROUGHNESSES)
@pytest.mark.parametrize("ior", [1.2, 1.5, 2.5])
def test_a_white_dielectric_reflects_all_light_and_never_more(roughness, ior):
    for mu in COSINES:
        reflected, error = albedo(Surface(mu, roughness, metallic=0.0, ior=ior))
        assert 0.985 - 4.0 * error <= reflected <= 1.0 + 4.0 * error + 1e-6


@pytest.mark.parametrize("roughness", ROUGHNESSES)
def test_a_mix_of_both_reflects_all_light_and_never_more(roughness):
    for mu in COSINES:
        reflected, error = albedo(Surface(mu, roughness, metallic=0.4, specular=0.7))
        assert 0.985 - 4.0 * error <= reflected <= 1.0 + 4.0 * error + 1e-6


def test_without_compensation_a_rough_metal_would_lose_half_of_it():
    assert directional_albedo(0.8, 1.0, 96)[0] < 0.5


def test_a_diffuse_surface_is_exactly_lamberts():
    color = (0.7, 0.5, 0.25)
    surface = Surface(0.4, metallic=0.0, specular=0.0, color=color)
    wi = sample(surface, 1000, seed=21)[0]
    value, pdf, _ = evaluate(surface, wi)
    lambert = np.float32(0.318309873) * wi[:, 2]
    assert np.array_equal(pdf, lambert)
    assert np.array_equal(value, np.array(color, np.float32) * lambert[:, None])


def test_a_black_surface_reflects_nothing_and_is_not_sampled():
    _, weight, pdf = sample(Surface(0.5, metallic=0.0, specular=0.0, color=(0.0, 0.0, 0.0)), 100, seed=22)
    assert not weight.any()
    assert not pdf.any()


def test_a_darker_metal_reflects_less_in_each_channel():
    weight = sample(Surface(0.7, 0.6, metallic=1.0, color=(1.0, 0.7, 0.2)), SAMPLES, seed=23)[1].mean(axis=0)
    assert weight[0] > weight[1] > weight[2]
    # a half-white metal scattering twice loses colour twice: below its own f0 it never falls much
    assert weight[2] == pytest.approx(0.2, abs=0.05)
