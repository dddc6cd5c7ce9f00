import numba
import numpy as np
import pytest

from tests.support.statistics import chi_square_uniform, sidak
from workers.kernels.sampling import warp

SAMPLES = 1 << 18


@numba.njit
def disk(u):
    out = np.empty((u.shape[0], 2))
    for i in range(u.shape[0]):
        out[i, 0], out[i, 1] = warp.concentric_disk(u[i, 0], u[i, 1])
    return out


@numba.njit
def triangle(u):
    out = np.empty((u.shape[0], 2))
    for i in range(u.shape[0]):
        out[i, 0], out[i, 1] = warp.uniform_triangle(u[i, 0], u[i, 1])
    return out


@numba.njit
def hemisphere(u):
    out = np.empty((u.shape[0], 3))
    for i in range(u.shape[0]):
        w = warp.cosine_hemisphere(u[i, 0], u[i, 1])
        out[i, 0], out[i, 1], out[i, 2] = w.x, w.y, w.z
    return out


@numba.njit
def sphere(u):
    out = np.empty((u.shape[0], 3))
    for i in range(u.shape[0]):
        w = warp.uniform_sphere(u[i, 0], u[i, 1])
        out[i, 0], out[i, 1], out[i, 2] = w.x, w.y, w.z
    return out


def turns(x, y):
    return np.arctan2(y, x) / (2.0 * np.pi) + 0.5


def disk_square(p):
    return np.stack([(p**2).sum(1), turns(p[:, 0], p[:, 1])], axis=1)


def triangle_square(p):
    across = p.sum(1)
    return np.stack([across**2, p[:, 1] / across], axis=1)


def hemisphere_square(w):
    return np.stack([1.0 - w[:, 2] ** 2, turns(w[:, 0], w[:, 1])], axis=1)


def sphere_square(w):
    return np.stack([0.5 - 0.5 * w[:, 2], turns(w[:, 0], w[:, 1])], axis=1)


# each warp, and the inverse distribution that takes its points back to the uniform square
WARPS = [(disk, disk_square), (triangle, triangle_square), (hemisphere, hemisphere_square), (sphere, sphere_square)]


@pytest.mark.parametrize(("points", "to_square"), WARPS, ids=["disk", "triangle", "hemisphere", "sphere"])
def test_points_follow_the_stated_density(points, to_square):
    u = np.random.default_rng(5).random((SAMPLES, 2), np.float32)
    square = np.clip(to_square(points(u)), 0.0, np.nextafter(1.0, 0.0))
    assert chi_square_uniform(square, 32) >= sidak(len(WARPS))


def edges():
    """The corners of the unit square, its centre lines and the diagonals: where the maps have their seams."""
    u = np.array([0.0, 2.0**-24, 0.25, 0.5, 0.5 + 2.0**-24, 0.75, 1.0 - 2.0**-24], np.float32)
    return np.stack(np.meshgrid(u, u), axis=-1).reshape(-1, 2)


def test_directions_are_unit_vectors_even_at_the_seams():
    for points in (hemisphere, sphere):
        w = points(edges())
        assert np.abs((w**2).sum(1) - 1.0).max() <= 1e-6
    assert hemisphere(edges())[:, 2].min() >= 0.0


def test_points_stay_inside_their_shapes_even_at_the_seams():
    assert (disk(edges()) ** 2).sum(1).max() <= 1.0 + 1e-6
    b = triangle(edges())
    assert b.min() >= 0.0
    assert b.sum(1).max() <= 1.0


def test_the_centre_of_the_square_is_the_centre_of_the_disk():
    assert disk(np.array([[0.5, 0.5]], np.float32)).tolist() == [[0.0, 0.0]]


def test_the_hemisphere_density_integrates_to_one():
    # cos / pi over rings of solid angle 2 pi dz
    z = (np.arange(1000) + 0.5) / 1000
    density = [warp.cosine_hemisphere_pdf(np.float32(value)) for value in z]
    assert abs(np.sum(density) * 2.0 * np.pi / 1000 - 1.0) <= 1e-6
