"""Keyframe curves: what a number, a vector or a rotation is at a moment. Knows no node, no file and no frame rate.

Times are seconds. Before its first key and after its last one a curve stands still. All arithmetic is + - * / and
square roots of float64 in a written order, so that every machine places everything the same to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from dr.scene import trig

Values: TypeAlias = tuple[float, ...]
Quaternion: TypeAlias = tuple[float, float, float, float]  # x, y, z, w
Floats: TypeAlias = npt.NDArray[np.floating[Any]]


class Interpolation(StrEnum):
    STEP = "step"  # a key holds until the next one
    LINEAR = "linear"
    SMOOTH = "smooth"  # without corners, and never beyond the two keys around
    SPLINE = "spline"  # cubic, with the tangents that are stored beside each key (glTF's CUBICSPLINE)


class Curve(Struct, frozen=True, kw_only=True, eq=False):
    """At least one key. The times are strictly increasing."""

    times: Floats  # [key]
    values: Floats  # [key, width]; SPLINE: [key, 3, width], the tangent before the key, its value, the tangent after it
    interpolation: Interpolation = Interpolation.LINEAR


def value_at(curve: Curve, time_s: float) -> Values:
    """Each component by itself."""
    span = _span(curve.times, time_s)
    if curve.interpolation is Interpolation.SPLINE:
        return _spline(curve, span)
    before, after = _row(curve.values, span.before), _row(curve.values, span.after)
    if curve.interpolation is Interpolation.STEP:
        return before
    if curve.interpolation is Interpolation.SMOOTH:
        blended = _hermite(before, _slopes(curve, span.before), after, _slopes(curve, span.after), span)
    else:
        blended = tuple(a * (1.0 - span.part) + b * span.part for a, b in zip(before, after, strict=True))
    # Rounding must not leave the keys' range: what stands still stays the same to the bit, what is positive stays so
    return tuple(min(max(value, min(a, b)), max(a, b)) for value, a, b in zip(blended, before, after, strict=True))


def rotation_at(curve: Curve, time_s: float) -> Quaternion:
    """A unit quaternion, over the shorter of the two ways. ValueError where the keys leave no direction.

    `curve` has four components, and is not SMOOTH.
    """
    if curve.interpolation in (Interpolation.STEP, Interpolation.SPLINE):
        return _unit(value_at(curve, time_s))
    span = _span(curve.times, time_s)
    return slerp(_unit(_row(curve.values, span.before)), _unit(_row(curve.values, span.after)), span.part)


def slerp(a: Quaternion, b: Quaternion, part: float) -> Quaternion:
    """From unit quaternion `a` at part 0 to `b` at part 1 with even speed (Shoemake 1985)."""
    if _dot(a, b) < 0.0:
        b = _each(-x for x in b)  # the same rotation, on the nearer side
    difference, total = _each(y - x for x, y in zip(a, b, strict=True)), _each(x + y for x, y in zip(a, b, strict=True))
    # Kahan: exact for small angles too, where the arc cosine of the dot product is not
    angle = 2.0 * trig.atan(math.sqrt(_dot(difference, difference)) / math.sqrt(_dot(total, total)))
    sine = trig.sin(angle)
    if sine == 0.0:
        return a
    first, second = trig.sin(angle * (1.0 - part)) / sine, trig.sin(angle * part) / sine
    return _unit([x * first + y * second for x, y in zip(a, b, strict=True)])


class _Span(NamedTuple):
    """Two neighbouring keys; one and the same outside of all keys."""

    before: int
    after: int
    part: float  # of the way between them, 0 to 1
    seconds: float


def _span(times: Floats, time_s: float) -> _Span:
    # In the precision of the keys: a frame's time meets the key that an exporter rounded to float32
    following = int(np.searchsorted(times, times.dtype.type(time_s), side="right"))
    before, after = max(following - 1, 0), min(following, len(times) - 1)
    if before == after:
        return _Span(before, after, 0.0, 0.0)
    begin, end = float(times[before]), float(times[after])
    part = (time_s - begin) / (end - begin)
    return _Span(before, after, min(max(part, 0.0), 1.0), end - begin)


def _spline(curve: Curve, span: _Span) -> Values:
    first, second = curve.values[span.before], curve.values[span.after]
    return _hermite(_row(first, 1), _row(first, 2), _row(second, 1), _row(second, 0), span)


def _hermite(a: Values, slope_a: Values, b: Values, slope_b: Values, span: _Span) -> Values:
    """The cubic through a and b with those slopes (per second); glTF 2.0, appendix C.5."""
    t = span.part
    square, cube = t * t, t * t * t
    weights = (
        2.0 * cube - 3.0 * square + 1.0,
        span.seconds * (cube - 2.0 * square + t),
        3.0 * square - 2.0 * cube,
        span.seconds * (cube - square),
    )
    return tuple(
        weights[0] * p + weights[1] * m + weights[2] * q + weights[3] * n
        for p, m, q, n in zip(a, slope_a, b, slope_b, strict=True)
    )


def _slopes(curve: Curve, key: int) -> Values:
    """Per second at a key: level at both ends, else Steffen's (1990, eq. 11), with which a curve never overshoots."""
    if key in (0, len(curve.times) - 1):
        return (0.0,) * len(curve.values[key])
    before, here, after = (float(curve.times[key + step]) for step in (-1, 0, 1))
    rows = [_row(curve.values, key + step) for step in (-1, 0, 1)]
    return tuple(_slope(b - a, here - before, c - b, after - here) for a, b, c in zip(*rows, strict=True))


def _slope(rise_before: float, run_before: float, rise_after: float, run_after: float) -> float:
    first, second = rise_before / run_before, rise_after / run_after
    if first * second <= 0.0:
        return 0.0
    parabola = (first * run_after + second * run_before) / (run_before + run_after)
    size = min(2.0 * abs(first), 2.0 * abs(second), abs(parabola))
    return math.copysign(size, first)


def _row(values: Floats, row: int) -> Values:
    return tuple(float(value) for value in values[row])


def _dot(a: Quaternion, b: Quaternion) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]


def _each(components: Any) -> Quaternion:
    x, y, z, w = components
    return x, y, z, w


def _unit(quaternion: Sequence[float]) -> Quaternion:
    x, y, z, w = quaternion
    length = math.sqrt(x * x + y * y + z * z + w * w)
    if not 0.0 < length < math.inf:
        raise ValueError("a quaternion without a direction")
    return x / length, y / length, z / length, w / length
