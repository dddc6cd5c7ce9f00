"""The sRGB transfer function, in tables and in exact steps. Knows no image and no other colour space.

Encoded values run from 0 to 1, linear ones too (IEC 61966-2-1). Every step is an IEEE operation that rounds correctly
(+ - * /), so the tables have the same bits on every machine; a library's `pow` would not promise that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_NEWTON_STEPS = 8  # from 1 down to the fifth root of 0.09 in double precision; two to spare


def _fifth_root(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Newton's iteration for r^5 = x, x in 0.05..1."""
    root = np.ones_like(x)
    for _ in range(_NEWTON_STEPS):
        fourth = (root * root) * (root * root)
        root = root - (fourth * root - x) / (5.0 * fourth)
    return root


def srgb_to_linear(encoded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Linear light of encoded values in 0..1; x^2.4 is computed as x^2 times the fifth root of x, squared."""
    base = (encoded + 0.055) / 1.055
    root = _fifth_root(np.maximum(base, 0.05))
    return np.where(encoded <= 0.04045, encoded / 12.92, base * base * (root * root))


def srgb_table(levels: int) -> npt.NDArray[np.float32]:
    """Linear light of each of `levels` evenly spaced codes: f4[levels], first 0, last 1."""
    return srgb_to_linear(np.arange(levels) / (levels - 1.0)).astype(np.float32)
