"""The pixel filter as a density to sample from: filter importance sampling. Knows the window and its inverse, no film.

A sample's offset from the pixel's centre is drawn from the filter itself, so every sample weighs 1 and none crosses
into another bucket (Ernst, Stamminger, Greiner 2006, Filter Importance Sampling).
"""

from __future__ import annotations

import numpy as np

from workers.kernels.jit import f32, i32, kernel, kernel64

FILTER_CELLS = 256
_PI = 3.141592653589793


@kernel
def filter_sample(table, radius, u):
    """An offset in [-radius, radius] (the unit of `radius`) for u in [0, 1); `table` is f4[FILTER_CELLS + 1]."""
    scaled = u * f32(FILTER_CELLS)
    cell = i32(scaled)
    low = table[cell]
    return radius * (low + (table[cell + 1] - low) * (scaled - f32(cell)))


@kernel64
def _sin_pi(t):
    """sin(pi t) for 0 <= t <= 3 in float64: Taylor's series about the nearest zero."""
    zero = float(int(t + 0.5))
    x = (t - zero) * _PI
    term = x
    total = x
    for k in range(2, 26, 2):
        term *= -x * x / (k * (k + 1.0))
        total += term
    return -total if int(zero) % 2 == 1 else total


@kernel64
def blackman_harris_half_integral(x):
    """Share of the 4-term Blackman-Harris window (Harris 1978, 92 dB) over [-1, 1] that lies between 0 and x <= 1."""
    waves = 0.48829 * _sin_pi(x) + 0.14128 / 2.0 * _sin_pi(2.0 * x) + 0.01168 / 3.0 * _sin_pi(3.0 * x)
    return (0.35875 * x + waves / _PI) / (2.0 * 0.35875)


@kernel64
def blackman_harris_table():
    """f4[FILTER_CELLS + 1]: the window's inverse distribution, from -1 to 1, antisymmetric to the bit."""
    table = np.zeros(FILTER_CELLS + 1, np.float32)
    middle = FILTER_CELLS // 2
    for i in range(1, middle + 1):
        target = i / FILTER_CELLS
        low = 0.0
        high = 1.0
        for _ in range(60):
            x = 0.5 * (low + high)
            if blackman_harris_half_integral(x) < target:
                low = x
            else:
                high = x
        table[middle + i] = high
        table[middle - i] = -high
    return table
