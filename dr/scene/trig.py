"""Sine, cosine, tangent and arc tangent of one float, from + - * / and the square root alone. Knows no array.

The platform's libm may round these functions differently from one machine to the next; IEEE arithmetic may not. A
scene that every server loads for itself must come out the same to the bit, so whatever ends in a scene uses these.
Within 4 units in the last place of the true value for angles of a few turns.
"""

from __future__ import annotations

import math

PI = 3.141592653589793
_HALF_PI_HIGH = 1.5707963267341256  # the first 33 bits of pi / 2: a small integer times this is exact
_HALF_PI_LOW = 6.077100506506192e-11  # the rest of it

# Taylor series in x^2, highest power first. On |x| <= pi / 4 the first term left out is below 2^-60.
_SIN = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(8, -1, -1))
_COS = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(9, -1, -1))
_ATAN = tuple((-1.0) ** k / (2 * k + 1) for k in range(11, -1, -1))  # on |x| <= tan(pi / 16)


def radians(degrees: float) -> float:
    """An angle of any number of turns as radians between -2 pi and 2 pi."""
    return math.fmod(degrees, 360.0) * (PI / 180.0)


def sin(angle_rad: float) -> float:
    return _sin_cos(angle_rad)[0]


def cos(angle_rad: float) -> float:
    return _sin_cos(angle_rad)[1]


def tan(angle_rad: float) -> float:
    sine, cosine = _sin_cos(angle_rad)
    return sine / cosine


def atan(x: float) -> float:
    """The angle in -pi/2 .. pi/2 whose tangent is x."""
    if x < 0.0:
        return -atan(-x)
    if x > 1.0:
        return PI / 2.0 - atan(1.0 / x)
    # atan x = 2 atan(x / (1 + sqrt(1 + x^2))), twice
    for _ in range(2):
        x = x / (1.0 + math.sqrt(1.0 + x * x))
    return 4.0 * x * _horner(_ATAN, x * x)


def _sin_cos(angle: float) -> tuple[float, float]:
    turns = math.floor(angle * (2.0 / PI) + 0.5)
    x = (angle - turns * _HALF_PI_HIGH) - turns * _HALF_PI_LOW
    sine, cosine = x * _horner(_SIN, x * x), _horner(_COS, x * x)
    quadrant = turns % 4
    if quadrant == 0:
        return sine, cosine
    if quadrant == 1:
        return cosine, -sine
    if quadrant == 2:
        return -sine, -cosine
    return -cosine, sine


def _horner(coefficients: tuple[float, ...], x: float) -> float:
    total = 0.0
    for coefficient in coefficients:
        total = total * x + coefficient
    return total
