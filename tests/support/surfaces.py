"""Drives BSDFs from numpy: many samples and evaluations of one surface, and its density over cells of directions."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from workers.kernels.bsdf.dispatch import BsdfParams, evaluate_bsdf, pdf_bsdf, prepare_bsdf, sample_bsdf
from workers.kernels.vec3 import vec3

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Surface(NamedTuple):
    """A surface as seen from the cosine `mu`, in the plane y = 0."""

    mu: float
    roughness: float = 0.5
    metallic: float = 0.0
    specular: float = 1.0
    ior: float = 1.5
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def wo(self) -> Floats:
        return np.array([np.sqrt(1.0 - self.mu**2), 0.0, self.mu], np.float32)

    @property
    def packed(self) -> Floats:
        return np.array([*self.color, self.metallic, self.roughness, self.specular, self.ior], np.float32)


@numba.njit(nogil=True)
def _state(p, wo):
    return prepare_bsdf(BsdfParams(vec3(p[0], p[1], p[2]), p[3], p[4], p[5], p[6]), wo)


@numba.njit(nogil=True)
def _sample(p, direction, u):
    n = u.shape[0]
    out = np.empty((n, 7), np.float32)
    wo = vec3(direction[0], direction[1], direction[2])
    state = _state(p, wo)
    for i in range(n):
        wi, weight, pdf = sample_bsdf(state, wo, u[i, 0], u[i, 1])
        out[i, 0], out[i, 1], out[i, 2] = wi.x, wi.y, wi.z
        out[i, 3], out[i, 4], out[i, 5] = weight.x, weight.y, weight.z
        out[i, 6] = pdf
    return out


@numba.njit(nogil=True)
def _evaluate(p, direction, wis):
    n = wis.shape[0]
    out = np.empty((n, 5), np.float32)
    wo = vec3(direction[0], direction[1], direction[2])
    state = _state(p, wo)
    for i in range(n):
        wi = vec3(wis[i, 0], wis[i, 1], wis[i, 2])
        value, pdf = evaluate_bsdf(state, wo, wi)
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = value.x, value.y, value.z, pdf
        out[i, 4] = pdf_bsdf(state, wo, wi)
    return out


def sample(surface: Surface, count: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """(wi [n, 3], weight [n, 3], pdf [n]) of independent samples; pdf 0 marks those that are lost."""
    u = np.random.default_rng(seed).random((count, 3), np.float32)
    out = _sample(surface.packed, surface.wo, u)
    return out[:, :3], out[:, 3:6], out[:, 6]


def evaluate(surface: Surface, wi: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """(f * cos [n, 3], pdf as evaluate gives it [n], pdf as pdf gives it [n])."""
    out = _evaluate(surface.packed, surface.wo, np.ascontiguousarray(wi, np.float32))
    return out[:, :3], out[:, 3], out[:, 4]


class LobeGrid(NamedTuple):
    """Cells of directions about the mirror direction: narrow rings where a lobe of `width` radians has its peak."""

    surface: Surface
    width: float
    rings: int = 24
    sectors: int = 16

    @property
    def _frame(self) -> Doubles:
        """Rows: two directions across the mirror direction, and itself."""
        x, _, z = self.surface.wo.astype(float)
        return np.array([[z, 0.0, x], [0.0, 1.0, 0.0], [-x, 0.0, z]])

    def _angle(self, t: Doubles) -> Doubles:
        """From the ring coordinate in 0..1 to the angle from the mirror direction."""
        return self.width * np.pi * t / (self.width + np.pi * (1.0 - t))

    def count(self, wi: Floats) -> Doubles:
        """How many of the directions lie in each cell."""
        local = wi.astype(float) @ self._frame.T
        angle = np.arctan2(np.hypot(local[:, 0], local[:, 1]), local[:, 2])
        azimuth = np.arctan2(local[:, 1], local[:, 0])
        edges = self._angle(np.linspace(0.0, 1.0, self.rings + 1))
        sectors = np.linspace(-np.pi, np.pi, self.sectors + 1)
        return np.asarray(np.histogram2d(angle, azimuth, [edges, sectors])[0])

    def integrate(self, points: int = 24) -> Doubles:
        """The density integrated over each cell by midpoints, points x points in each."""
        t = (np.arange(self.rings * points) + 0.5) / (self.rings * points)
        angle = self._angle(t)[:, None]
        slope = self.width * np.pi * (self.width + np.pi) / (self.width + np.pi * (1.0 - t[:, None])) ** 2
        azimuth = (np.arange(self.sectors * points) + 0.5) / (self.sectors * points) * 2.0 * np.pi - np.pi
        local = np.stack(
            [np.sin(angle) * np.cos(azimuth), np.sin(angle) * np.sin(azimuth), np.cos(angle) + 0.0 * azimuth], axis=-1
        )
        wi = local.reshape(-1, 3) @ self._frame
        pdf = evaluate(self.surface, wi)[1].astype(float).reshape(t.size, azimuth.size)
        mass = pdf * np.sin(angle) * slope / t.size * (2.0 * np.pi / azimuth.size)
        return np.asarray(mass.reshape(self.rings, points, self.sectors, points).sum(axis=(1, 3)))
