"""Chooses one of n by weight in constant time: alias tables (Walker 1977, Vose 1991). Knows nothing of lights."""

from __future__ import annotations

import numpy as np

from workers.kernels.jit import f32, i32, i64, inner_kernel, kernel64
from workers.kernels.mathf import ONE_MINUS_EPSILON
from workers.kernels.records import ALIAS


@inner_kernel
def _take(cells, cell, rest):
    """The cell or its alias, and what is left of the uniform number `rest`, stretched to [0, 1) again."""
    threshold = cells[cell].threshold
    if threshold >= 1.0:  # equal weights, often: no division, the same bits
        return i32(cell), min(rest, ONE_MINUS_EPSILON)
    if rest < threshold:
        return i32(cell), min(rest / threshold, ONE_MINUS_EPSILON)
    return cells[cell].alias, min((rest - threshold) / (1.0 - threshold), ONE_MINUS_EPSILON)


@inner_kernel
def choose(cells, n, u):
    """(index, u') for u in [0, 1): an index below `n` by weight, and a number that is uniform again.

    `cells` is ALIAS[n] from `build_alias`. A float32 below 1 has 24 bits, of which the choice uses up log2(n): beyond
    n = 2^16 use `choose_2d`.
    """
    scaled = u * f32(n)
    cell = min(i32(scaled), i32(n - i32(1)))
    return _take(cells, cell, scaled - f32(cell))


@kernel64
def choose_2d(cells, n, u1, u2):
    """(index, v1, v2): `choose` for tables of up to 2^24 cells, and a point of the unit square to go on with.

    The two numbers are one of 48 bits here: the upper bits choose, the next 12 are v1 and the rest v2. Only the choice
    is stratified.
    """
    scaled = (float(u1) + float(u2) * 2.0**-24) * n
    cell = min(i64(scaled), i64(n) - 1)
    rest = scaled - cell
    threshold = float(cells[cell].threshold)
    index = i32(cell)
    if rest < threshold:
        rest = rest / threshold
    else:
        rest = (rest - threshold) / (1.0 - threshold)
        index = cells[cell].alias
    column = min(i64(rest * 4096.0), i64(4095))
    return index, f32((column + 0.5) / 4096.0), min(f32(rest * 4096.0 - column), ONE_MINUS_EPSILON)


@kernel64
def _normalized(weights):
    """Weights scaled to a mean of 1."""
    n = weights.size
    scaled = np.zeros(n, np.float64)
    total = 0.0
    for i in range(n):
        if weights[i] > 0.0 and weights[i] < np.inf:
            scaled[i] = weights[i]
            total += weights[i]
    for i in range(n):
        scaled[i] = scaled[i] * (n / total) if total > 0.0 else 1.0
    return scaled


@kernel64
def build_alias(weights):
    """ALIAS[n] of weights f8[n] in any unit; what is not a positive finite number counts as 0, all zeros as all equal.

    Deterministic: cells are paired in index order.
    """
    n = weights.size
    share = _normalized(weights)
    cells = np.empty(n, ALIAS)
    light = np.empty(n, np.int64)  # a stack from the left: cells with less than their share
    heavy = np.empty(n, np.int64)
    n_light = 0
    n_heavy = 0
    for i in range(n - 1, -1, -1):
        cells[i].threshold = 1.0
        cells[i].alias = i
        if share[i] < 1.0:
            light[n_light] = i
            n_light += 1
        else:
            heavy[n_heavy] = i
            n_heavy += 1
    # a heavy cell fills up light ones until it is light itself
    while n_light > 0 and n_heavy > 0:
        n_light -= 1
        below = light[n_light]
        above = heavy[n_heavy - 1]
        cells[below].threshold = share[below]
        cells[below].alias = above
        share[above] -= 1.0 - share[below]
        if share[above] < 1.0:
            n_heavy -= 1
            light[n_light] = above
            n_light += 1
    return cells
