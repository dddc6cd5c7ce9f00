"""Elementary functions of float32 from +, *, /, sqrt and fma alone: the same bits on every machine. Knows no libm.

Each docstring states the largest error seen over its domain, in ulp of the float32 result; the tests
measure it against float64. The polynomials are weighted minimax fits of the remainder after the leading terms.
"""

from __future__ import annotations

import math

from workers.kernels.jit import bits_float, f32, float_bits, fma, i32, kernel, kernel64

PI = f32(3.14159274)
TWO_PI = f32(6.28318548)
HALF_PI = f32(1.57079637)
INV_PI = f32(0.318309873)
ONE_MINUS_EPSILON = f32(0.99999994)  # the largest float32 below 1
INFINITY = f32(math.inf)
NAN = f32(math.nan)

_TWO_PI_LOW = f32(-1.74845553e-7)  # what float32 loses of 2 pi, of pi and of pi/2
_PI_LOW = f32(-8.74227766e-8)
_HALF_PI_LOW = f32(-4.37113883e-8)
_HALF_PI_LOWEST = f32(-1.71512489e-15)
_TWO_OVER_PI = f32(0.636619747)
_LN2 = f32(0.693147182)
_LN2_LOW = f32(-1.90465421e-9)
_LOG2_E = f32(1.44269502)
_ROUND = f32(12582912.0)  # 1.5 * 2^23: adding it rounds to the nearest integer, which then sits in the low bits
_ROUND_BITS = i32(0x4B400000)
_SQRT_HALF_BITS = i32(0x3F3504F3)
_ROUND64 = 6755399441055744.0  # the same for float64


@kernel
def clamp01(x):
    return min(max(x, 0.0), 1.0)


@kernel
def sqr(x):
    return x * x


@kernel
def _power_of_two(n):
    """2^n for n in [-126, 127], exactly."""
    return bits_float(i32((n + i32(127)) << i32(23)))


@kernel
def _negate_if(x, odd):
    """-x if the lowest bit of `odd` is set, else x."""
    return bits_float(i32(float_bits(x) ^ i32(odd << i32(31))))


@kernel
def _sin_cos_quadrant(x, quadrant):
    """Sine and cosine of x + quadrant * pi/2 for x in [-pi/4, pi/4]."""
    x2 = x * x
    s = fma(fma(fma(-1.951521812e-4, x2, 8.332160292e-3), x2, -1.666665460e-1), x2 * x, x)
    c = fma(fma(2.443837945e-5, x2, -1.388736691e-3), x2, 4.166664685e-2)
    c = fma(c, x2 * x2, fma(-0.5, x2, 1.0))
    swap = (quadrant & i32(1)) != 0
    sine = c if swap else s
    cosine = s if swap else c
    half_turn = quadrant >> i32(1)
    return _negate_if(sine, half_turn), _negate_if(cosine, half_turn ^ quadrant)


@kernel
def sin_cos(x):
    """Sine and cosine of `x` radians, |x| <= 8192, both within 1.6 ulp; larger arguments lose accuracy."""
    shifted = fma(x, _TWO_OVER_PI, _ROUND)
    n = shifted - _ROUND
    rest = fma(-n, _HALF_PI_LOWEST, fma(-n, _HALF_PI_LOW, fma(-n, HALF_PI, x)))
    return _sin_cos_quadrant(rest, float_bits(shifted))


@kernel
def sin_cos_turns(u):
    """Sine and cosine of `u` full turns (2 pi u radians), u in [-1, 1], both within 1.6 ulp; exact at quarters."""
    shifted = fma(u, 4.0, _ROUND)
    rest = fma(shifted - _ROUND, -0.25, u)
    return _sin_cos_quadrant(fma(rest, TWO_PI, rest * _TWO_PI_LOW), float_bits(shifted))


@kernel
def tan(x):
    """Tangent of `x` radians, |x| <= 8192, within 3.5 ulp."""
    s, c = sin_cos(x)
    return s / c


@kernel
def exp(x):
    """e^x within 1.1 ulp, subnormal results included; overflows to infinity, underflows to 0, NaN gives NaN."""
    bounded = 89.0 if x > 89.0 else (-104.0 if x < -104.0 else x)
    shifted = fma(bounded, _LOG2_E, _ROUND)
    n = shifted - _ROUND
    r = fma(-n, _LN2_LOW, fma(-n, _LN2, bounded))
    p = fma(fma(1.395049114e-3, r, 8.368889363e-3), r, 4.166620580e-2)
    p = fma(fma(p, r, 1.666651884e-1), r, 0.5)
    return _scale(fma(p, r * r, r) + 1.0, i32(float_bits(shifted) - _ROUND_BITS))


@kernel
def _scale(x, n):
    """x * 2^n with one rounding, for |n| <= 252: two factors, so that the result may be subnormal or overflow."""
    half = n >> i32(1)
    return x * _power_of_two(half) * _power_of_two(i32(n - half))


@kernel
def _split(x):
    """x = m * 2^n with m in [sqrt(1/2), sqrt(2)), for finite x > 0."""
    subnormal = x < 1.17549435e-38
    bits = float_bits(x * 8388608.0 if subnormal else x)
    n = i32((bits - _SQRT_HALF_BITS) >> i32(23))
    m = bits_float(i32(bits - (n << i32(23))))
    return m, i32(n - i32(23)) if subnormal else n


@kernel
def log(x):
    """Natural logarithm within 1 ulp; 0 gives -infinity, negatives and NaN give NaN."""
    if not (x > 0.0 and x < INFINITY):
        return -INFINITY if x == 0.0 else (x if x > 0.0 else NAN)
    m, n = _split(x)
    f = m - 1.0
    p = fma(fma(6.746640328e-2, f, -1.167565177e-1), f, 1.188816232e-1)
    p = fma(fma(p, f, -1.240558893e-1), f, 1.421955235e-1)
    p = fma(fma(p, f, -1.666799585e-1), f, 2.000211866e-1)
    p = fma(fma(p, f, -2.500000960e-1), f, 3.333331260e-1)
    f2 = f * f
    small = fma(f32(n), _LN2_LOW, fma(p, f2 * f, -0.5 * f2))
    return fma(f32(n), _LN2, f + small)


@kernel64
def power(x, y):
    """x^y for x >= 0, within 0.51 ulp (0.75 of subnormals); 0^0 = 1, a negative base gives NaN even for a whole y.

    The logarithm needs more digits than float32 has, so this one computes in float64 inside.
    """
    if y == f32(0.0) or x == f32(1.0):
        return f32(1.0)
    if not (x > f32(0.0) and x < INFINITY):
        if not x >= f32(0.0):
            return NAN
        return f32(0.0) if (x == f32(0.0)) == (y > f32(0.0)) else INFINITY
    m, n = _split(x)
    s = (float(m) - 1.0) / (float(m) + 1.0)
    s2 = s * s
    p = (0.28283586017458667 * s2 + 0.31991077745296831) * s2 + 0.41220910791319432
    p = ((p * s2 + 0.57707794411730007) * s2 + 0.96179669410531832) * s2 + 2.8853900817778566
    t = float(y) * (p * s + n)
    t = 200.0 if t > 200.0 else (-200.0 if t < -200.0 else t)
    whole = t + _ROUND64 - _ROUND64
    r = t - whole
    e = (1.5314948994157663e-5 * r + 1.5467110131255803e-4) * r + 1.3333430778133927e-3
    e = ((e * r + 9.6180369116439738e-3) * r + 5.5504109625816617e-2) * r + 2.4022651075846360e-1
    return _scale(f32((e * r + 6.9314718054165203e-1) * r + 1.0), i32(whole))


@kernel
def _asin_small(x):
    """Arc sine for |x| <= 1/2."""
    x2 = x * x
    p = fma(fma(4.216630297e-2, x2, 2.417951815e-2), x2, 4.547037520e-2)
    p = fma(fma(p, x2, 7.495297650e-2), x2, 1.666675248e-1)
    return fma(p, x2 * x, x)


@kernel
def acos(x):
    """Arc cosine in radians, within 1.5 ulp; arguments beyond [-1, 1] are clamped."""
    a = min(abs(x), 1.0)
    if a <= 0.5:
        return HALF_PI - (_asin_small(x) - _HALF_PI_LOW)
    half_angle = _asin_small(math.sqrt(fma(-0.5, a, 0.5)))
    return 2.0 * half_angle if x > 0.0 else PI - (2.0 * half_angle - _PI_LOW)


@kernel
def asin(x):
    """Arc sine in radians, within 2.5 ulp; arguments beyond [-1, 1] are clamped."""
    a = min(abs(x), 1.0)
    if a <= 0.5:
        return _asin_small(x)
    half_angle = _asin_small(math.sqrt(fma(-0.5, a, 0.5)))
    return f32(math.copysign(HALF_PI - (2.0 * half_angle - _HALF_PI_LOW), x))


@kernel
def atan2(y, x):
    """Angle of the point (x, y) in [-pi, pi] radians, within 1.5 ulp; signs of zero as in C; (0, 0) gives 0 or pi."""
    ax = abs(x)
    ay = abs(y)
    larger = max(ax, ay)
    a = min(ax, ay) / larger if larger > 0.0 else f32(0.0)
    a2 = a * a
    p = fma(fma(-1.793622653e-3, a2, 1.091461013e-2), a2, -3.117785434e-2)
    p = fma(fma(p, a2, 5.795760246e-2), a2, -8.403450872e-2)
    p = fma(fma(p, a2, 1.095218597e-1), a2, -1.426424172e-1)
    p = fma(fma(p, a2, 1.999854829e-1), a2, -3.333329909e-1)
    angle = fma(p, a2 * a, a)
    if ay > ax:
        angle = HALF_PI - (angle - _HALF_PI_LOW)
    if float_bits(x) < i32(0):
        angle = PI - (angle - _PI_LOW)
    return f32(math.copysign(angle, y))
