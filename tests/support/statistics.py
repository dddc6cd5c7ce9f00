"""Statistical verdicts that tests share: chi-square with pooling, Sidak's correction, means with their errors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

ALPHA = 0.01  # chance that a whole family of tests rejects what is right
MIN_EXPECTED = 5.0
Floats = npt.NDArray[np.float64]


def sidak(tests: int, alpha: float = ALPHA) -> float:
    """Significance of each of `tests` independent tests such that the chance of any false rejection is `alpha`."""
    return float(1.0 - (1.0 - alpha) ** (1.0 / tests))


def chi_square(counts: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """p-value of Pearson's test that `counts` come from `expected` (both sum to the number of samples).

    Cells that expect fewer than MIN_EXPECTED are pooled; a pool that is small itself takes the next smallest cells in.
    """
    observed = np.asarray(counts, float).ravel()
    wanted = np.asarray(expected, float).ravel()
    order = np.argsort(wanted, kind="stable")
    observed, wanted = observed[order], wanted[order]
    pooled = int(np.searchsorted(wanted, MIN_EXPECTED))
    while 0 < pooled < wanted.size and wanted[:pooled].sum() < MIN_EXPECTED:
        pooled += 1
    if pooled > 0:
        observed = np.append(observed[pooled:], observed[:pooled].sum())
        wanted = np.append(wanted[pooled:], wanted[:pooled].sum())
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    return float(stats.chi2.sf(statistic, max(wanted.size - 1, 1)))


def chi_square_uniform(points: npt.ArrayLike, cells: int) -> float:
    """p-value of the test that `points`, [n, dimensions] in the unit cube, are uniform over `cells` per dimension."""
    array = np.asarray(points, float)
    counts, _ = np.histogramdd(array, bins=cells, range=[(0.0, 1.0)] * array.shape[1])
    return chi_square(counts, np.full(counts.size, array.shape[0] / counts.size))


def mean_and_error(values: npt.ArrayLike) -> tuple[float, float]:
    """Mean and its standard error."""
    array = np.asarray(values, float)
    return float(array.mean()), float(array.std() / np.sqrt(array.size))
