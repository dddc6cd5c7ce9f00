import numba
import numpy as np
import pytest

from tests.support.statistics import chi_square, chi_square_uniform, sidak
from workers.kernels.sampling import alias

SAMPLES = 1 << 18
WEIGHTS = [
    np.array([3.0]),
    np.array([1.0, 0.0, 2.0, 5.0, 0.0, 1e-3, 7.5]),
    np.random.default_rng(6).exponential(size=1000) ** 3,
    np.where(np.arange(300) % 7 == 0, 1e6, 1e-6),
]


@numba.njit
def choose_many(cells, u):
    index = np.empty(u.size, np.int64)
    rest = np.empty(u.size)
    for i in range(u.size):
        index[i], rest[i] = alias.choose(cells, cells.size, u[i])
    return index, rest


@numba.njit
def choose_many_2d(cells, u):
    index = np.empty(u.shape[0], np.int64)
    rest = np.empty((u.shape[0], 2))
    for i in range(u.shape[0]):
        index[i], rest[i, 0], rest[i, 1] = alias.choose_2d(cells, cells.size, u[i, 0], u[i, 1])
    return index, rest


def share_of_each(cells):
    """The probability that a table gives each index."""
    threshold = cells["threshold"].astype(float)
    share = threshold.copy()
    np.add.at(share, cells["alias"], 1.0 - threshold)
    return share / cells.size


@pytest.mark.parametrize("weights", WEIGHTS, ids=len)
def test_a_table_holds_exactly_the_weights(weights):
    share = share_of_each(alias.build_alias(weights))
    # a threshold is rounded to float32 once for each cell that refers to an index
    assert np.abs(share - weights / weights.sum()).max() <= 2.0**-24
    assert (share[weights == 0.0] == 0.0).all()


def test_weights_that_are_no_numbers_are_never_chosen():
    share = share_of_each(alias.build_alias(np.array([1.0, np.nan, np.inf, -3.0, 1.0])))
    assert share.tolist() == [0.5, 0.0, 0.0, 0.0, 0.5]


def test_without_any_weight_all_are_equal():
    assert share_of_each(alias.build_alias(np.zeros(4))).tolist() == [0.25] * 4


def test_the_same_weights_give_the_same_table():
    assert alias.build_alias(WEIGHTS[2]).tobytes() == alias.build_alias(WEIGHTS[2].copy()).tobytes()


@pytest.mark.parametrize("weights", WEIGHTS, ids=len)
def test_choices_follow_the_weights(weights):
    u = np.random.default_rng(7).random((SAMPLES, 2), np.float32)
    cells = alias.build_alias(weights)
    expected = weights / weights.sum() * SAMPLES
    for index, _ in (choose_many(cells, u[:, 0].copy()), choose_many_2d(cells, u)):
        counts = np.bincount(index, minlength=weights.size)
        assert (counts[weights == 0.0] == 0).all()
        assert chi_square(counts, expected) >= sidak(2 * len(WEIGHTS))


def test_what_is_left_of_a_choice_is_uniform_for_each_index():
    u = np.random.default_rng(8).random((SAMPLES, 2), np.float32)
    cells = alias.build_alias(WEIGHTS[1])
    index, rest = choose_many(cells, u[:, 0].copy())
    index_2d, rest_2d = choose_many_2d(cells, u)
    chosen = np.unique(index[WEIGHTS[1][index] > 0.1])
    for i in chosen:
        assert chi_square_uniform(rest[index == i][:, None], 32) >= sidak(2 * chosen.size)
        assert chi_square_uniform(rest_2d[index_2d == i], 8) >= sidak(2 * chosen.size)


def test_what_is_left_stays_below_one():
    cells = alias.build_alias(WEIGHTS[1])
    u = np.float32(1.0) - np.arange(1, 4096, dtype=np.float32) * np.float32(2.0**-24)
    index, rest = choose_many(cells, u)
    assert rest.max() < 1.0
    assert index.max() < 7
    assert choose_many_2d(cells, np.stack([u, u], axis=1))[1].max() < 1.0


def test_a_table_of_millions_is_chosen_from_evenly_with_two_numbers():
    # each cell at least once, and none more often than twice: one float32 could not reach the odd ones
    n = 3 * (1 << 20)
    cells = np.zeros(n, alias.ALIAS)
    cells["threshold"] = 1.0
    cells["alias"] = np.arange(n)
    centres = (np.arange(n) + 0.5) / n
    upper = np.floor(centres * 2**24) / 2**24
    lower = np.floor((centres - upper) * 2**48) / 2**24
    index, rest = choose_many_2d(cells, np.stack([upper, lower], axis=1).astype(np.float32))
    assert np.array_equal(index, np.arange(n))
    assert np.abs(rest[:, 0] - 0.5).max() <= 2.0**-12
