"""The project's own trigonometry against the C library's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dr.scene import trig

ULPS = 4
CASES = [
    (trig.sin, math.sin, (-7.0, 7.0)),
    (trig.cos, math.cos, (-7.0, 7.0)),
    (trig.tan, math.tan, (-1.57, 1.57)),
    (trig.atan, math.atan, (-100.0, 100.0)),
]


@pytest.mark.parametrize(("ours", "theirs", "interval"), CASES)
def test_each_function_is_within_its_stated_error(ours, theirs, interval):
    for x in np.random.default_rng(1).uniform(*interval, 5000).tolist():
        assert abs(ours(x) - theirs(x)) <= ULPS * math.ulp(theirs(x))


@pytest.mark.parametrize("x", [0.0, 1e-300, -1e-9, 1.0, -1.0, 1e300])
def test_atan_holds_at_the_ends_of_its_range(x):
    assert abs(trig.atan(x) - math.atan(x)) <= ULPS * math.ulp(math.atan(x))


def test_whole_turns_vanish_exactly():
    assert trig.radians(720.0 + 30.0) == trig.radians(30.0) == -trig.radians(-390.0)


def test_the_right_angles_are_exact_enough_to_leave_no_skew():
    for quarter in range(-8, 9):
        assert abs(trig.sin(trig.radians(90.0 * quarter)) - (0, 1, 0, -1)[quarter % 4]) <= 3e-16
        assert abs(trig.cos(trig.radians(90.0 * quarter)) - (1, 0, -1, 0)[quarter % 4]) <= 3e-16
