import hashlib
import math

import numba
import numpy as np
import pytest

from workers.kernels import mathf
from workers.kernels.jit import kernel

POINTS = 1 << 18
SMALLEST_NORMAL = np.float32(2.0**-126)


@kernel
def sine(x):
    return mathf.sin_cos(x)[0]


@kernel
def cosine(x):
    return mathf.sin_cos(x)[1]


@kernel
def sine_turns(u):
    return mathf.sin_cos_turns(u)[0]


@kernel
def cosine_turns(u):
    return mathf.sin_cos_turns(u)[1]


@numba.njit
def fill(function, xs, out):
    for i in range(xs.size):
        out[i] = function(xs[i])


@numba.njit
def fill_two(function, xs, ys, out):
    for i in range(xs.size):
        out[i] = function(xs[i], ys[i])


def apply(function, *arguments):
    arguments = [np.ascontiguousarray(argument, np.float32) for argument in arguments]
    out = np.empty_like(arguments[0])
    (fill if len(arguments) == 1 else fill_two)(function, *arguments, out)
    return out


def largest_ulp_error(got, exact):
    """In units of the last place of the exact result rounded to float32; subnormals count in their own last place."""
    finite = np.abs(exact) <= np.finfo(np.float32).max
    rounded = np.maximum(np.abs(exact[finite]).astype(np.float32), SMALLEST_NORMAL)
    return float((np.abs(got[finite] - exact[finite]) / np.spacing(rounded).astype(np.float64)).max())


def whole_turns(function):
    """sin or cos of 2 pi u without rounding 2 pi u near zeros: u is a float32, so its quarters come off exactly."""

    def exact(u):
        quarter = np.round(4.0 * u)
        rest = 2.0 * np.pi * (u - quarter / 4.0)
        shift = 0 if function is np.sin else 1
        table = (np.sin(rest), np.cos(rest), -np.sin(rest), -np.cos(rest))
        return np.choose((quarter.astype(int) + shift) % 4, table)

    return exact


def around(*centres):
    """Each number and its closest float32 neighbours, where branches and roundings change."""
    steps = np.arange(-64, 65, dtype=np.int32)
    bits = np.asarray(centres, np.float32).view(np.int32)
    return (bits[:, None] + steps).ravel().view(np.float32)


QUARTERS = np.arange(1, 17) * math.pi / 4
SMALL = np.geomspace(1e-30, 1.0, 4096)

ONE_ARGUMENT = [
    (sine, np.sin, np.concatenate([np.linspace(-8, 8, POINTS), around(*QUARTERS), SMALL, -SMALL]), 1.6),
    (sine, np.sin, np.linspace(-8192, 8192, POINTS), 1.6),
    (cosine, np.cos, np.concatenate([np.linspace(-8, 8, POINTS), around(*QUARTERS), SMALL, -SMALL]), 1.6),
    (cosine, np.cos, np.linspace(-8192, 8192, POINTS), 1.6),
    (sine_turns, whole_turns(np.sin), np.concatenate([np.linspace(-1, 1, POINTS), around(0.125, 0.25, 0.5)]), 1.6),
    (cosine_turns, whole_turns(np.cos), np.concatenate([np.linspace(-1, 1, POINTS), around(0.125, 0.25, 0.5)]), 1.6),
    (mathf.tan, np.tan, np.concatenate([np.linspace(-8, 8, POINTS), SMALL]), 3.5),
    (mathf.tan, np.tan, np.linspace(-8192, 8192, POINTS), 3.5),
    (mathf.exp, np.exp, np.concatenate([np.linspace(-104, 88.8, POINTS), around(-87.3, 88.72), SMALL, -SMALL]), 1.1),
    (mathf.log, np.log, np.concatenate([np.linspace(0.3, 3, POINTS), around(0.70710678, 1.0, 1.41421356)]), 1.0),
    (mathf.log, np.log, np.geomspace(1e-45, 3.4e38, POINTS), 1.0),
    (mathf.acos, np.arccos, np.concatenate([np.linspace(-1, 1, POINTS), around(-0.5, 0.5), SMALL, 1 - SMALL]), 1.5),
    (mathf.asin, np.arcsin, np.concatenate([np.linspace(-1, 1, POINTS), around(-0.5, 0.5), SMALL, -SMALL]), 2.5),
]


def name_of(value):
    return getattr(value, "__name__", "")


@pytest.mark.parametrize(("function", "exact", "xs", "bound"), ONE_ARGUMENT, ids=name_of)
def test_a_function_stays_within_its_stated_error(function, exact, xs, bound):
    xs = np.asarray(xs, np.float32)
    with np.errstate(over="ignore"):
        error = largest_ulp_error(apply(function, xs), exact(xs.astype(np.float64)))
    assert error <= bound


def test_atan2_stays_within_its_stated_error_all_around_and_at_all_ratios():
    rng = np.random.default_rng(1)
    radius = np.exp(rng.uniform(-30, 30, (2, POINTS)))
    y, x = (radius * rng.choice([-1.0, 1.0], (2, POINTS))).astype(np.float32)
    near = rng.normal(size=(2, POINTS)).astype(np.float32)
    for a, b in ((y, x), near):
        assert largest_ulp_error(apply(mathf.atan2, a, b), np.arctan2(a.astype(float), b.astype(float))) <= 1.5


def test_power_stays_within_its_stated_error_even_where_the_result_is_huge_or_tiny():
    rng = np.random.default_rng(2)
    x = np.exp(rng.uniform(-40, 40, POINTS)).astype(np.float32)
    y = rng.uniform(-6, 6, POINTS).astype(np.float32)
    with np.errstate(over="ignore"):
        exact = np.power(x.astype(float), y.astype(float))
    normal = exact >= SMALLEST_NORMAL
    got = apply(mathf.power, x, y)
    assert largest_ulp_error(got[normal], exact[normal]) <= 0.51
    assert largest_ulp_error(got[~normal], exact[~normal]) <= 0.75


def test_quarter_turns_are_exact():
    u = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    assert apply(sine_turns, u).tolist() == [0.0, 1.0, 0.0, -1.0, 0.0]
    assert apply(cosine_turns, u).tolist() == [1.0, 0.0, -1.0, 0.0, 1.0]


def test_special_values_give_what_mathematics_says():
    infinity, nan = math.inf, math.nan
    assert mathf.exp(np.float32(-infinity)) == 0.0
    assert mathf.exp(np.float32(infinity)) == infinity
    assert mathf.exp(np.float32(0.0)) == 1.0
    assert mathf.log(np.float32(0.0)) == -infinity
    assert mathf.log(np.float32(1.0)) == 0.0
    assert mathf.log(np.float32(infinity)) == infinity
    assert mathf.power(np.float32(0.0), np.float32(0.0)) == 1.0
    assert mathf.power(np.float32(0.0), np.float32(2.4)) == 0.0
    assert mathf.power(np.float32(0.0), np.float32(-1.0)) == infinity
    assert mathf.power(np.float32(infinity), np.float32(2.0)) == infinity
    assert mathf.power(np.float32(infinity), np.float32(-2.0)) == 0.0
    undefined = (mathf.exp(np.float32(nan)), mathf.log(np.float32(nan)), mathf.log(np.float32(-1.0)))
    assert all(math.isnan(value) for value in undefined)
    assert math.isnan(mathf.power(np.float32(-2.0), np.float32(2.0)))
    assert math.isnan(mathf.power(np.float32(2.0), np.float32(nan)))


def test_inverse_functions_clamp_arguments_that_rounding_has_pushed_out():
    assert mathf.acos(np.float32(1.0000002)) == 0.0
    assert mathf.acos(np.float32(-1.0000002)) == mathf.PI
    assert mathf.asin(np.float32(1.0000002)) == mathf.HALF_PI


def test_atan2_keeps_the_signs_of_zero():
    zero, one = np.float32(0.0), np.float32(1.0)
    assert mathf.atan2(zero, zero) == 0.0
    assert mathf.atan2(zero, -one) == mathf.PI
    assert mathf.atan2(-zero, -one) == -mathf.PI
    assert mathf.atan2(one, zero) == mathf.HALF_PI


def test_clamp01_bounds_both_ends():
    assert [mathf.clamp01(np.float32(x)) for x in (-1.0, 0.0, 0.25, 1.0, 7.0)] == [0.0, 0.0, 0.25, 1.0, 1.0]


def test_results_have_the_same_bits_on_every_machine():
    xs = np.arange(-4096, 4097, dtype=np.float32) / np.float32(512)
    unit = xs / np.float32(8)
    results = [apply(function, xs) for function in (sine, cosine, mathf.tan, mathf.exp)]
    results += [apply(function, unit) for function in (sine_turns, cosine_turns, mathf.acos, mathf.asin)]
    results += [apply(mathf.log, np.abs(xs)), apply(mathf.atan2, unit, xs), apply(mathf.power, np.abs(xs), unit)]
    digest = hashlib.sha256(np.stack(results).tobytes()).hexdigest()
    assert digest[:16] == "cbc1d7a14d3c1bf9"
