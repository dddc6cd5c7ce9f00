"""The normal of a metal is tilted until its reflection leaves the surface, and no further."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from dr.scene.model import EnvironmentLight, Material, RenderSettings
from tests.support.rendering import render
from tests.support.scenes import looking, quad, scene
from workers.kernels.bsdf.material import LOWEST_REFLECTION, reflecting_normal
from workers.kernels.jit import f32, kernel
from workers.kernels.vec3 import load_vec3, vec3

UP = np.array([0.0, 0.0, 1.0])


@kernel
def tilt_over_up(normal, wo, metallic, out):
    up = vec3(0.0, 0.0, 1.0)
    result = reflecting_normal(load_vec3(normal), up, load_vec3(wo), metallic)
    out[0], out[1], out[2] = result.x, result.y, result.z


def tilted(normal, wo, metallic=1.0):
    """`reflecting_normal` over a surface that faces UP."""
    out = np.zeros(3, np.float32)
    tilt_over_up(np.array(normal, np.float32), np.array(wo, np.float32), f32(metallic), out)
    return out.astype(np.float64)


def upper_directions(seed, count):
    directions = np.random.default_rng(seed).normal(size=(count, 3))
    directions[:, 2] = abs(directions[:, 2]) + 1e-3
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def mirrored(normal, wo):
    return 2 * (normal @ wo) * normal - wo


def test_the_reflection_leaves_the_surface_at_the_lowest_angle_or_as_it_was():
    changed = 0
    for normal, wo in zip(upper_directions(1, 500), upper_directions(2, 500), strict=True):
        if normal @ wo < 1e-3:
            continue
        result = tilted(normal, wo)
        lowest = min(float(LOWEST_REFLECTION), 0.9 * wo[2])
        before, after = mirrored(normal, wo)[2], mirrored(result, wo)[2]
        assert np.linalg.norm(result) == pytest.approx(1, abs=1e-6)
        assert result @ wo > 0
        if before >= lowest:
            np.testing.assert_allclose(result, normal, atol=1e-6)
        else:
            changed += 1
            assert after >= 0.99 * lowest  # lifted to it, then made a unit vector
    assert changed > 50


def test_a_flat_mirror_is_left_alone_at_every_angle():
    for cosine in (1.0, 0.5, 0.1, 0.01, 0.001):
        wo = (np.sqrt(1 - cosine**2), 0.0, cosine)
        np.testing.assert_allclose(tilted(UP, wo), UP, atol=1e-7)


def test_a_non_metal_keeps_its_normal_and_a_part_metal_is_tilted_in_part():
    normal, wo = np.array([0.8, 0.0, 0.6]), UP
    np.testing.assert_allclose(tilted(normal, wo, metallic=0.0), normal, atol=1e-7)
    half, whole = tilted(normal, wo, metallic=0.5), tilted(normal, wo)
    assert normal[2] < half[2] < whole[2]


def test_a_metal_whose_reflection_points_into_it_is_not_black():
    """Vertex normals 60 degrees off: a white metal in white light is still nearly white."""
    lean = np.broadcast_to(np.array([np.sqrt(0.75), 0.0, 0.5], np.float32), (4, 3)).copy()
    leaning = msgspec.structs.replace(quad((-1, -1, 0), (2, 0, 0), (0, 2, 0)), normals=lean)
    subject = scene([(leaning, Material(roughness=0.0))], looking((0, 0, 3), (0, 0, 0)), (EnvironmentLight(),))
    picture = render(subject, RenderSettings(width=4, height=4, samples=64, max_depth=2))["beauty"]
    assert 0.95 < picture.mean() <= 1.0 + 1e-4
