import numba
import numpy as np

from tests.support.statistics import chi_square, sidak
from workers.kernels.sampling.filter import FILTER_CELLS, blackman_harris_table, filter_sample

SAMPLES = 1 << 18


def window(x):
    """Harris 1978, table 1, minimum 4-sample, over [-1, 1]."""
    return sum(a * np.cos(k * np.pi * x) for k, a in enumerate((0.35875, 0.48829, 0.14128, 0.01168)))


def distribution(x):
    terms = (0.48829, 0.14128, 0.01168)
    waves = sum(a * np.sin(k * np.pi * x) / (k * np.pi) for k, a in enumerate(terms, 1))
    return 0.5 + 0.5 * (0.35875 * x + waves) / 0.35875


@numba.njit
def offsets(table, radius, u):
    out = np.empty(u.size)
    for i in range(u.size):
        out[i] = filter_sample(table, radius, u[i])
    return out


def test_the_table_inverts_the_windows_distribution():
    table = blackman_harris_table().astype(float)
    shares = np.arange(FILTER_CELLS + 1) / FILTER_CELLS
    # a float32 node is off by half an ulp, and the distribution by its slope times that
    density = window(table) / (2.0 * 0.35875)
    assert (np.abs(distribution(table) - shares) <= density * 2.0**-25 + 1e-14).all()


def test_the_table_is_antisymmetric_and_rises():
    table = blackman_harris_table()
    assert table.dtype == np.float32
    assert np.array_equal(table, -table[::-1])
    assert (np.diff(table) > 0.0).all()
    assert (table[0], table[-1]) == (-1.0, 1.0)


def test_offsets_follow_the_window_in_pixels_of_the_radius():
    u = np.random.default_rng(9).random(SAMPLES, np.float32)
    radius = 1.5
    edges = radius * blackman_harris_table()[::4].astype(float)
    counts, _ = np.histogram(offsets(blackman_harris_table(), np.float32(radius), u), edges)
    assert chi_square(counts, np.diff(distribution(edges / radius)) * SAMPLES) >= sidak(1)


def test_interpolation_keeps_the_windows_width():
    # straight lines between nodes spread the outermost 1/256 on each side out evenly: 0.8 % wider, never narrower
    u = ((np.arange(SAMPLES) + 0.5) / SAMPLES).astype(np.float32)
    x = np.linspace(-1.0, 1.0, 4097)
    true_deviation = np.sqrt((window(x) * x * x).sum() / window(x).sum())
    ratio = offsets(blackman_harris_table(), np.float32(1.0), u).std() / true_deviation
    assert 1.0 <= ratio <= 1.01


def test_offsets_never_leave_the_radius():
    u = np.array([0.0, 0.5, 1.0 - 2.0**-24], np.float32)
    values = offsets(blackman_harris_table(), np.float32(2.0), u)
    assert values[0] == -2.0
    assert values[1] == 0.0
    assert 1.99 < values[2] <= 2.0
