"""Writes workers/kernels/bsdf/albedo_table.py: the GGX lobe's directional albedo by quadrature in float64.

Run as `python -m tests.support.ggx_albedo > workers/kernels/bsdf/albedo_table.py`.
"""

from __future__ import annotations

import functools
import textwrap

import numpy as np
import numpy.typing as npt

RESOLUTION = 32
UNITS = 10000
MIN_ALPHA = 1e-3
Floats = npt.NDArray[np.float64]


@functools.cache
def _gauss_legendre(points: int) -> tuple[Floats, Floats]:
    return np.polynomial.legendre.leggauss(points)


def directional_albedo(cosine: float, alpha: float, points: int = 384) -> tuple[float, float]:
    """(A + B, B) of the GGX lobe seen from `cosine`: its reflectance for Fresnel 1 and for Fresnel (1 - cos)^5.

    The mean of G2 / G1 over visible normals: Gauss-Legendre over the height of the spherical cap they come from (Dupuy
    and Benyoub 2023), midpoints over half of the azimuth. Good to 2e-5 with 384 x 384 points.
    """
    sine = np.sqrt(max(0.0, 1.0 - cosine * cosine))
    smith_o = np.sqrt((alpha * sine) ** 2 + cosine * cosine)
    x0, z0 = alpha * sine / smith_o, cosine / smith_o
    nodes, weights = _gauss_legendre(points)
    z = (-z0 + (1.0 + z0) * (nodes + 1.0) / 2.0)[:, None]
    phi = (np.arange(points) + 0.5) / points * np.pi
    radius = np.sqrt(1.0 - z * z)
    half = np.stack([(x0 + radius * np.cos(phi)) * alpha, radius * np.sin(phi) * alpha, (z0 + z) + 0.0 * phi])
    half /= np.sqrt((half * half).sum(0))
    half_cosine = sine * half[0] + cosine * half[2]
    wi_z = 2.0 * half_cosine * half[2] - cosine
    above = np.maximum(wi_z, 1e-300)
    smith_i = np.sqrt(alpha * alpha + (1.0 - alpha * alpha) * above * above)
    ratio = np.where(wi_z > 0.0, above * (cosine + smith_o) / (above * smith_o + cosine * smith_i), 0.0)
    mean = weights / 2.0 @ ratio
    fresnel = weights / 2.0 @ (ratio * (1.0 - half_cosine) ** 5)
    return float(mean.mean()), float(fresnel.mean())


def table_alphas() -> Floats:
    """alpha of each row: even steps of roughness."""
    low = np.sqrt(MIN_ALPHA)
    return np.asarray((low + (1.0 - low) * np.linspace(0.0, 1.0, RESOLUTION)) ** 2)


def white_albedo_table() -> Floats:
    """A + B, f8[roughness, steepness]; even steps of sqrt(cos (1 + alpha) / (cos + alpha))."""
    steepness = np.linspace(0.0, 1.0, RESOLUTION) ** 2
    table = np.ones((RESOLUTION, RESOLUTION))  # the limit at cosine 0 is 1
    for i, alpha in enumerate(table_alphas()):
        for j in range(1, RESOLUTION):
            cosine = min(1.0, steepness[j] * alpha / (1.0 + alpha - steepness[j]))
            table[i, j] = directional_albedo(cosine, alpha)[0]
    return table


def root_cosine_table() -> Floats:
    """sqrt(c) of B = (A + B) (1 - c)^5, f8[roughness, cosine]; in even steps of sqrt(cos) it is nearly linear."""
    table = np.zeros((RESOLUTION, RESOLUTION))
    for i, alpha in enumerate(table_alphas()):
        for j in range(RESOLUTION):
            white, fresnel = directional_albedo(max((j / (RESOLUTION - 1)) ** 2, 1e-6), alpha)
            table[i, j] = np.sqrt(1.0 - max(fresnel / white, 0.0) ** 0.2)
    return table


def _rows(table: Floats) -> str:
    rows = (", ".join(str(round(value * UNITS)) for value in row) for row in table)
    return "\n".join(textwrap.fill(f"({row}),", 116, initial_indent=" " * 4, subsequent_indent=" " * 5) for row in rows)


def module_text() -> str:
    return f'''"""Directional albedo of the GGX lobe as numbers. Knows only its own grid.

Written by tests/support/ggx_albedo.py, which says what the numbers are.
Rows: even steps of roughness from the smoothest (alpha = {MIN_ALPHA}) to 1. Values in units of 1/{UNITS}.
"""

from __future__ import annotations

import numpy as np

RESOLUTION = {RESOLUTION}

# f4[roughness, steepness]: share of light reflected by microfacets that are perfect mirrors, without scattering twice.
# Columns: even steps of sqrt(cos (1 + alpha) / (cos + alpha)) from 0 to 1, cos of the viewing direction.
# fmt: off
_WHITE_ALBEDO = (
{_rows(white_albedo_table())}
)

# f4[roughness, cosine]: sqrt(c) such that Schlick's (1 - cos)^5 over the lobe averages (1 - c)^5.
# Columns: even steps of sqrt(cos) from 0 to 1.
_ROOT_COSINE = (
{_rows(root_cosine_table())}
)
# fmt: on

WHITE_ALBEDO = np.array(_WHITE_ALBEDO, np.float32) / np.float32({UNITS})
ROOT_COSINE = np.array(_ROOT_COSINE, np.float32) / np.float32({UNITS})
'''


if __name__ == "__main__":
    print(module_text(), end="")
