import numba
import numpy as np
import pytest
from scipy import stats

from tests.support.statistics import chi_square_uniform, sidak
from workers.kernels.sampling import sobol

MASK = 0xFFFFFFFF


# --- slow, obvious twins on Python integers


def twin_hash(x):
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97)):
        x = (x ^ (x >> shift)) * factor & MASK
    return x ^ (x >> 15)


def twin_reverse(x):
    return int(f"{x:032b}"[::-1], 2)


def twin_nested_hash(x, seed):
    x ^= x * 0x3D20ADEA & MASK
    x = (x + seed) & MASK
    x = x * ((seed >> 16) | 1) & MASK
    x ^= x * 0x05526C56 & MASK
    return x ^ (x * 0x53A22864 & MASK)


def twin_owen(x, seed):
    """Owen's scrambling as the tree it is: a coin hashed from the digits before a digit flips it."""
    result = 0
    for digit in range(31, -1, -1):
        before = x >> (digit + 1) << (digit + 1)
        coin = twin_reverse(twin_nested_hash(twin_reverse(before), seed)) >> digit & 1
        result |= (x >> digit & 1 ^ coin) << digit
    return result


def direction_numbers(dimension):
    """Sobol's direction numbers: the first dimension is van der Corput's, the second has the polynomial x + 1."""
    if dimension == 0:
        return [1 << (31 - bit) for bit in range(32)]
    numbers = [1 << 31]
    for _ in range(31):
        numbers.append(numbers[-1] ^ (numbers[-1] >> 1))
    return numbers


def twin_sobol(index, dimension):
    result = 0
    for bit, number in enumerate(direction_numbers(dimension)):
        if index >> bit & 1:
            result ^= number
    return result


def twin_sample_2d(pixel, index, dimension):
    key = twin_hash(pixel ^ (dimension * 0x9E3779B9 & MASK))
    shuffled = twin_owen(index, key)
    axes = ((0, 0x68BC21EB), (1, 0x02E5BE93))
    return tuple((twin_owen(twin_sobol(shuffled, axis), twin_hash(key ^ salt)) >> 8) / 2**24 for axis, salt in axes)


# --- many samples at once


@numba.njit
def samples_2d(pixel, first, count, dimension):
    out = np.empty((count, 2), np.float32)
    for i in range(count):
        out[i, 0], out[i, 1] = sobol.sample_2d(np.uint32(pixel), np.uint32(first + i), np.uint32(dimension))
    return out


@numba.njit
def samples_1d(pixel, first, count, dimension):
    out = np.empty(count, np.float32)
    for i in range(count):
        out[i] = sobol.sample_1d(np.uint32(pixel), np.uint32(first + i), np.uint32(dimension))
    return out


@numba.njit
def first_samples(width, height, seed, index, dimension):
    out = np.empty((width * height, 2), np.float32)
    for y in range(height):
        for x in range(width):
            pixel = sobol.pixel_hash(np.uint32(x), np.uint32(y), np.uint32(seed))
            u1, u2 = sobol.sample_2d(pixel, np.uint32(index), np.uint32(dimension))
            out[y * width + x, 0], out[y * width + x, 1] = u1, u2
    return out


def test_samples_are_those_of_the_slow_twin():
    rng = np.random.default_rng(3)
    cases = [*rng.integers(0, 2**32, (200, 3)).tolist(), [0, 0, 0], [1, 1, 1], [MASK, MASK, MASK]]
    for pixel, index, dimension in cases:
        wanted = twin_sample_2d(pixel, index, dimension)
        assert tuple(samples_2d(pixel, index, 1, dimension)[0].tolist()) == wanted
        assert samples_1d(pixel, index, 1, dimension)[0] == wanted[0]


def test_hashes_are_those_of_the_slow_twin():
    for x in [*np.random.default_rng(4).integers(0, 2**32, 100).tolist(), 0, 1, MASK]:
        assert sobol.hash32(np.uint32(x)) == twin_hash(x)
    assert sobol.pixel_hash(np.uint32(5), np.uint32(7), np.uint32(9)) == twin_hash(5 ^ twin_hash(7 ^ twin_hash(9)))


def test_reference_samples_never_change():
    pixel = sobol.pixel_hash(np.uint32(11), np.uint32(13), np.uint32(17))
    assert int(pixel) == 0x0A30EA44
    assert (samples_2d(pixel, 0, 4, 0) * 2**24).astype(int).tolist() == [
        [9965462, 7271883],
        [2018359, 13920890],
        [13740143, 9524685],
        [5453023, 3512587],
    ]
    assert (samples_2d(pixel, 1000000, 2, 12345) * 2**24).astype(int).tolist() == [
        [13840997, 4045717],
        [3205533, 10960824],
    ]


@pytest.mark.parametrize("block", [0, 1, 5])
@pytest.mark.parametrize("dimension", [0, 1, 77])
def test_every_elementary_interval_of_a_block_holds_one_sample(block, dimension):
    for k in range(11):
        n = 1 << k
        points = samples_2d(0xC0FFEE, block * n, n, dimension).astype(float)
        for split in range(k + 1):
            columns, rows = 1 << split, 1 << (k - split)
            cells = (points[:, 0] * columns).astype(int) * rows + (points[:, 1] * rows).astype(int)
            assert np.unique(cells).size == n


def test_one_dimensional_samples_are_stratified():
    for k in range(13):
        n = 1 << k
        assert np.unique((samples_1d(99, 0, n, 3).astype(float) * n).astype(int)).size == n


def test_samples_lie_in_the_half_open_unit_interval():
    points = samples_2d(123, 0, 1 << 18, 5)
    assert points.min() >= 0.0
    assert points.max() < 1.0
    assert sobol.to_unit(np.uint32(MASK)) == np.float32(1.0 - 2.0**-24)


def test_dimensions_of_one_pixel_are_independent_of_each_other():
    n = 1 << 12
    columns = np.concatenate([samples_2d(7, 0, n, dimension) for dimension in range(24)], axis=1).astype(float)
    correlation = np.corrcoef(columns.T)[np.triu_indices(48, 1)]
    limit = stats.norm.isf(sidak(correlation.size) / 2) / np.sqrt(n)
    assert np.abs(correlation).max() <= limit


def test_two_dimensions_together_fill_the_square_like_chance_does():
    # over many pixels, since the samples of one pixel are stratified
    pairs = [(0, 1), (1, 2), (2, 40), (0, 1 << 20)]
    for a, b in pairs:
        joint = np.stack([first_samples(256, 256, 1, 0, a)[:, 0], first_samples(256, 256, 1, 0, b)[:, 0]], axis=1)
        assert chi_square_uniform(joint, 32) >= sidak(len(pairs))


def test_pixels_frames_and_sample_indices_are_independent_of_each_other():
    base = first_samples(256, 256, 1, 0, 0).astype(float)
    field = base[:, 0].reshape(256, 256)
    neighbours = [
        (field[:, 1:], field[:, :-1]),
        (field[1:], field[:-1]),
        (field, first_samples(256, 256, 2, 0, 0)[:, 0].reshape(256, 256)),
        (field, base[:, 1].reshape(256, 256)),
    ]
    limit = stats.norm.isf(sidak(len(neighbours)) / 2)
    for a, b in neighbours:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) * np.sqrt(a.size) <= limit
    assert chi_square_uniform(base, 32) >= sidak(1)


def test_more_samples_integrate_faster_than_random_ones():
    # a smooth integrand: the error of a scrambled net falls nearly as n^-1.5, that of random points as n^-0.5
    def root_mean_square_error(n):
        estimates = []
        for pixel in range(64):
            u = samples_2d(twin_hash(pixel), 0, n, 2).astype(float)
            estimates.append((np.exp(-u[:, 0]) * np.sin(3.0 * u[:, 1])).mean())
        exact = (1.0 - np.exp(-1.0)) * (1.0 - np.cos(3.0)) / 3.0
        return np.sqrt(np.mean((np.array(estimates) - exact) ** 2))

    assert root_mean_square_error(1024) < root_mean_square_error(64) / 16
