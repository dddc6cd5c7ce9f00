"""Keyframe curves against their definitions, and what no curve may do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dr.scene.animation import Curve, Interpolation, rotation_at, slerp, value_at

NUMBERS = st.floats(-100, 100, width=32)
GAPS = st.floats(0.015625, 10, width=32)
MOMENTS = st.floats(-5, 60)
QUATERNIONS = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: math.hypot(*q) > 1e-3)


@st.composite
def curves(draw: st.DrawFn, interpolation: Interpolation | None = None, width: int = 2) -> Curve:
    gaps = draw(st.lists(GAPS, max_size=5))
    times = np.cumsum([draw(st.floats(0, 5, width=32)), *gaps])
    shape = (len(times), 3, width) if interpolation is Interpolation.SPLINE else (len(times), width)
    numbers = draw(st.lists(NUMBERS, min_size=math.prod(shape), max_size=math.prod(shape)))
    return Curve(
        times=times,
        values=np.array(numbers).reshape(shape),
        interpolation=interpolation or draw(st.sampled_from(["step", "linear", "smooth"]).map(Interpolation)),
    )


def unit(quaternion):
    length = math.hypot(*quaternion)
    return tuple(component / length for component in quaternion)


@given(curve=curves())
def test_a_curve_goes_through_its_keys(curve):
    for time_s, row in zip(curve.times.tolist(), curve.values.tolist(), strict=True):
        assert value_at(curve, time_s) == tuple(row)


@given(curve=curves(), beyond_s=st.floats(0, 1e9))
def test_a_curve_stands_still_outside_of_its_keys(curve, beyond_s):
    assert value_at(curve, float(curve.times[0]) - beyond_s) == tuple(curve.values[0].tolist())
    assert value_at(curve, float(curve.times[-1]) + beyond_s) == tuple(curve.values[-1].tolist())


@given(curve=curves(), time_s=MOMENTS)
def test_no_value_lies_beyond_the_two_keys_around_it(curve, time_s):
    after = int(np.clip(np.searchsorted(curve.times, time_s), 1, max(len(curve.times) - 1, 1)))
    around = curve.values[after - 1 : after + 1]
    for value, low, high in zip(value_at(curve, time_s), around.min(axis=0), around.max(axis=0), strict=True):
        assert low <= value <= high


@given(number=st.floats(-1e6, 1e6), time_s=st.floats(0, 1), kind=st.sampled_from(["linear", "smooth"]))
def test_what_does_not_move_stays_the_same_to_the_bit(number, time_s, kind):
    curve = Curve(times=np.array([0.0, 1.0]), values=np.array([[number], [number]]), interpolation=Interpolation(kind))
    assert value_at(curve, time_s) == (number,)


@given(curve=curves(Interpolation.LINEAR, width=1), time_s=MOMENTS)
def test_linear_is_what_numpy_interpolates(curve, time_s):
    expected = float(np.interp(time_s, curve.times, curve.values[:, 0]))
    assert value_at(curve, time_s)[0] == pytest.approx(expected, abs=1e-10)


@given(curve=curves(Interpolation.STEP, width=1), time_s=MOMENTS)
def test_a_step_holds_the_last_key(curve, time_s):
    key = max(int((curve.times <= time_s).sum()) - 1, 0)
    assert value_at(curve, time_s) == tuple(curve.values[key].tolist())


@given(curve=curves(Interpolation.SMOOTH, width=1))
def test_smooth_has_no_corner(curve):
    """The slopes on both sides of a key agree, and are none at the ends."""
    assume(len(curve.times) > 1)
    h = 1e-6
    steepest = float(np.abs(np.diff(curve.values[:, 0]) / np.diff(curve.times)).max())
    for time_s, row in zip(curve.times.tolist(), curve.values.tolist(), strict=True):
        before, after = (value_at(curve, time_s + sign * h)[0] for sign in (-1, 1))
        left, right = (row[0] - before) / h, (after - row[0]) / h
        # a cubic between slopes of at most 3 times the steepest bends by at most 18 times that, per shortest gap
        assert abs(left - right) <= 2 * h * 18 * steepest / 0.015625 + 1e-6
        if time_s in (curve.times[0], curve.times[-1]):
            assert abs(left + right) <= h * 18 * steepest / 0.015625 + 1e-6


def test_smooth_through_an_even_slope_is_that_line():
    curve = Curve(times=np.arange(5.0), values=np.arange(5.0)[:, None] * 2.0, interpolation=Interpolation.SMOOTH)
    assert value_at(curve, 1.25) == (2.5,)
    assert value_at(curve, 2.5) == (5.0,)


@given(curve=curves(Interpolation.SPLINE, width=2), time_s=MOMENTS)
def test_a_spline_is_the_cubic_of_the_specification(curve, time_s):
    times = curve.times.tolist()
    expected = curve.values[0 if time_s <= times[0] else -1, 1]
    for k in range(len(times) - 1):
        if times[k] <= time_s < times[k + 1]:
            length = times[k + 1] - times[k]
            t = (time_s - times[k]) / length
            v, b, a, w = curve.values[k, 1], curve.values[k, 2], curve.values[k + 1, 0], curve.values[k + 1, 1]
            expected = (
                (2 * t**3 - 3 * t**2 + 1) * v
                + length * (t**3 - 2 * t**2 + t) * b
                + (-2 * t**3 + 3 * t**2) * w
                + length * (t**3 - t**2) * a
            )
    assert value_at(curve, time_s) == pytest.approx(expected.tolist(), abs=1e-9)


@given(a=QUATERNIONS, b=QUATERNIONS, part=st.floats(0, 1))
def test_slerp_is_the_arc_of_the_specification(a, b, part):
    a, b = unit(a), unit(b)
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    assume(abs(dot) > 1e-9)  # at a right angle both ways are as short
    angle = math.acos(min(abs(dot), 1.0))
    result = slerp(a, b, part)
    assert math.hypot(*result) == pytest.approx(1.0, abs=1e-15)
    if angle < 1e-6:  # where the specification's own formula divides zero by zero
        assert result == pytest.approx(a, abs=2e-6)
        return
    sign = math.copysign(1.0, dot)
    expected = [
        (math.sin(angle * (1 - part)) * x + sign * math.sin(angle * part) * y) / math.sin(angle)
        for x, y in zip(a, b, strict=True)
    ]
    # the arc cosine near 1 loses half of its digits: its error is the rounding of the dot product over the angle
    assert result == pytest.approx(expected, abs=1e-15 + 1e-15 / angle)


@given(a=QUATERNIONS, b=QUATERNIONS, part=st.floats(0, 1))
def test_slerp_turns_evenly_and_the_shorter_way(a, b, part):
    a, b = unit(a), unit(b)

    def between(p, q):
        """Half the angle of the rotation from p to q, from a formula that is exact for small angles."""
        near = min((math.dist(p, q), math.dist(p, [-x for x in q])))
        return 2 * math.asin(min(near / 2, 1.0))

    whole = between(a, b)
    assert whole <= math.pi / 2 + 1e-12
    assert between(a, slerp(a, b, part)) == pytest.approx(part * whole, abs=1e-14)


@pytest.mark.parametrize("angle", [1e-150, 1e-12, 1e-8, 1e-4])
def test_slerp_is_exact_for_the_smallest_turns(angle):
    a, b = (0.0, 0.0, 0.0, 1.0), (angle, 0.0, 0.0, 1.0)
    assert slerp(a, b, 0.25)[0] == pytest.approx(angle / 4, rel=1e-8, abs=0)


def test_slerp_between_equal_rotations_is_that_rotation():
    a = unit((0.1, -0.2, 0.3, 0.9))
    assert slerp(a, a, 0.3) == a
    assert slerp(a, tuple(-x for x in a), 0.3) == a


def test_rotations_need_not_be_stored_as_unit_quaternions():
    curve = Curve(times=np.array([0.0, 1.0]), values=np.array([[0, 0, 0, 2.0], [0, 5.0, 0, 0]]))
    half = math.sqrt(0.5)
    assert rotation_at(curve, 0.5) == pytest.approx((0, half, 0, half), abs=1e-15)


@pytest.mark.parametrize("kind", [Interpolation.STEP, Interpolation.LINEAR])
def test_a_rotation_without_a_direction_is_an_error(kind):
    curve = Curve(times=np.array([0.0, 1.0]), values=np.zeros((2, 4)), interpolation=kind)
    with pytest.raises(ValueError, match="without a direction"):
        rotation_at(curve, 0.5)


@pytest.mark.parametrize("fps", [24.0, 25.0, 29.97, 30.0, 60.0, 23.976])
def test_a_frame_meets_the_key_that_was_rounded_to_float32(fps):
    """Exporters store n / fps as float32, which may be a little later than the frame's own time."""
    times = (np.arange(2000) / fps).astype(np.float32)
    curve = Curve(times=times, values=np.arange(2000.0)[:, None], interpolation=Interpolation.STEP)
    assert [value_at(curve, frame / fps) for frame in range(2000)] == [(float(frame),) for frame in range(2000)]
