"""Lights as kernels want them: records, each with its chance of being chosen, and alias tables. Knows no format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dr.scene import trig
from dr.scene.model import (
    DirectionalLight,
    EnvironmentLight,
    Light,
    PointLight,
    QuadLight,
    SpotLight,
)
from workers.kernels import records
from workers.kernels.lights.kinds import LightKind
from workers.kernels.sampling.alias import build_alias

LUMINANCE = (0.2126, 0.7152, 0.0722)
PI = 3.141592653589793
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class EnvironmentMap:
    """`texels` f4[h * w, 4]: linear RGB, w the pdf over the unit square; `alias` ALIAS[h * w]; mean luminance."""

    width: int
    height: int
    texels: Array
    alias: Array
    mean_luminance: float  # over the sphere


def luminance(rgb: Array) -> Array:
    """Rec. 709 luminance, float64, of [..., 3]."""
    wide = np.asarray(rgb, np.float64)
    result: Array = wide[..., 0] * LUMINANCE[0] + wide[..., 1] * LUMINANCE[1] + wide[..., 2] * LUMINANCE[2]
    return result


def ordered_sum(values: Array) -> float:
    """Sum in index order: numpy's own sum may add in another order on another machine."""
    return float(np.cumsum(values, dtype=np.float64)[-1]) if values.size else 0.0


def normalised(vector: Any) -> Array:
    wide = np.asarray(vector, np.float64)
    squared = wide[0] * wide[0] + wide[1] * wide[1] + wide[2] * wide[2]
    return wide / np.sqrt(squared) if squared > 0 else np.array([0.0, -1.0, 0.0])


def environment_map(pixels: Array) -> EnvironmentMap:
    """Sampling tables of a latitude-longitude image f4[h, w, 4]: each texel by its luminance times its solid angle."""
    height, width = pixels.shape[:2]
    sines = np.array([trig.sin((row + 0.5) / height * PI) for row in range(height)])
    light = luminance(pixels[..., :3])
    weights = (light * sines[:, None]).reshape(-1)
    total = ordered_sum(weights)
    if total <= 0:
        weights = np.repeat(sines, width)
        total = ordered_sum(weights)
    texels = np.ones((height * width, 4), np.float32)
    texels[:, :3] = pixels[..., :3].reshape(-1, 3)
    texels[:, 3] = weights / total * (height * width)
    mean = ordered_sum((light * sines[:, None]).reshape(-1)) / (ordered_sum(sines) * width)
    return EnvironmentMap(width, height, texels, build_alias(weights), mean)


def light_record(light: Light, environment: EnvironmentMap | None, scene_radius: float) -> tuple[Array, float]:
    """The LIGHT record of a light of the model, and its power in watts (luminance)."""
    row = np.zeros(1, records.LIGHT)
    radius = max(scene_radius, 1e-6)
    radius2 = radius * radius  # `**` is libm's
    row["triangle"] = -1
    match light:
        case PointLight():
            row["kind"], row["position"], row["emission"] = LightKind.POINT, light.position, light.intensity
            return row, 4 * PI * float(luminance(np.array(light.intensity)))
        case SpotLight():
            row["kind"], row["position"], row["emission"] = LightKind.SPOT, light.position, light.intensity
            row["normal"] = normalised(light.direction)
            row["cos_inner"], row["cos_outer"] = trig.cos(light.inner_angle), trig.cos(light.outer_angle)
            share = 1.0 - 0.5 * (trig.cos(light.inner_angle) + trig.cos(light.outer_angle))
            return row, 2 * PI * share * float(luminance(np.array(light.intensity)))
        case DirectionalLight():
            row["kind"], row["emission"] = LightKind.DIRECTIONAL, light.irradiance
            row["normal"] = normalised(light.direction)
            return row, PI * radius2 * float(luminance(np.array(light.irradiance)))
        case QuadLight():
            return quad_record(light)
        case EnvironmentLight():
            row["kind"], row["emission"] = LightKind.ENVIRONMENT, light.radiance
            mean = environment.mean_luminance if environment else 1.0
            return row, 4 * PI * PI * radius2 * mean * float(luminance(np.array(light.radiance)))


def quad_record(light: QuadLight) -> tuple[Array, float]:
    row = np.zeros(1, records.LIGHT)
    row["triangle"] = -1
    row["kind"], row["position"], row["emission"] = LightKind.QUAD, light.corner, light.radiance
    row["edge_u"], row["edge_v"] = light.edge_u, light.edge_v
    u, v = np.array(light.edge_u, np.float64), np.array(light.edge_v, np.float64)
    normal = np.array([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]])
    area = float(np.sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]))
    row["normal"], row["area"] = normalised(normal), area
    row["two_sided"], row["hidden"] = light.two_sided, not light.visible
    power = PI * area * float(luminance(np.array(light.radiance))) * (2 if light.two_sided else 1)
    return row, power


def triangle_records(triangles: Array, rows: Array, radiance: Array, two_sided: Array) -> tuple[Array, Array]:
    """LIGHT records of emissive world triangles `rows`, with mean radiance [n, 3]; and their powers [n]."""
    chosen = triangles[rows]
    result = np.zeros(len(rows), records.LIGHT)
    u = chosen["p1"].astype(np.float64) - chosen["p0"]
    v = chosen["p2"].astype(np.float64) - chosen["p0"]
    normal = np.stack(
        [
            u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1],
            u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2],
            u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0],
        ],
        axis=1,
    )
    length = np.sqrt(normal[:, 0] * normal[:, 0] + normal[:, 1] * normal[:, 1] + normal[:, 2] * normal[:, 2])
    result["kind"], result["triangle"] = LightKind.TRIANGLE, rows
    result["position"], result["edge_u"], result["edge_v"] = chosen["p0"], u, v
    result["normal"] = normal / np.maximum(length, 1e-300)[:, None]
    result["area"], result["emission"], result["two_sided"] = length * 0.5, radiance, two_sided
    powers = PI * 0.5 * length * luminance(radiance) * np.where(two_sided, 2.0, 1.0)
    return result, np.where(np.isfinite(powers), powers, 0.0)


def choose_by_power(lights: Array, powers: Array) -> Array:
    """Fills `probability` of each LIGHT record; returns the alias table over them."""
    total = ordered_sum(powers)
    weights = powers if total > 0 else np.ones(len(lights))
    lights["probability"] = weights / ordered_sum(weights)
    alias: Array = build_alias(np.ascontiguousarray(weights, np.float64))
    return alias
