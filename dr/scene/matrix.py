"""4x4 transforms and 3-vectors in float64, by + - * / and the square root. Knows no BLAS and no libm.

A matrix product through BLAS may differ in its last bit between machines; here each sum has one written order.
Matrices are row-major and act on column vectors, as in dr.scene.model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dr.scene import trig
from dr.scene.model import F64, Point


def identity() -> F64:
    return np.eye(4)


def from_rows(rows: Sequence[Sequence[float]]) -> F64:
    return np.array(rows, np.float64)


def multiply(a: F64, b: F64) -> F64:
    """`a @ b`: first b, then a. b may be many, [n, 4, 4]."""
    first, second, third, fourth = (a[:, k : k + 1] * b[..., k : k + 1, :] for k in range(4))
    product: F64 = first + second + third + fourth
    return product


def translation(offset: Sequence[float]) -> F64:
    matrix = identity()
    matrix[:3, 3] = offset
    return matrix


def scaling(factors: Sequence[float]) -> F64:
    matrix = identity()
    matrix[0, 0], matrix[1, 1], matrix[2, 2] = factors
    return matrix


def rotation(axis: Point, angle_rad: float) -> F64:
    """Right-handed turn about `axis`, which need not be unit but must not be zero."""
    sine = trig.sin(angle_rad / 2.0)
    x, y, z = normalize(axis)
    return from_quaternion((x * sine, y * sine, z * sine, trig.cos(angle_rad / 2.0)))


def from_quaternion(xyzw: Sequence[float]) -> F64:
    """The rotation of a quaternion of any length but zero."""
    x, y, z, w = xyzw
    length = math.sqrt(x * x + y * y + z * z + w * w)
    x, y, z, w = x / length, y / length, z / length, w / length
    matrix = identity()
    matrix[0, :3] = 1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)
    matrix[1, :3] = 2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)
    matrix[2, :3] = 2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)
    return matrix


def look_at(position: Point, target: Point, up: Point) -> F64:
    """Camera to world: at `position`, -Z towards `target`. ValueError when that leaves the roll undefined."""
    back = normalize(subtract(position, target))
    right = normalize(cross(up, back))
    return _frame(right, cross(back, right), back, position)


def without_scale(matrix: F64) -> F64:
    """A camera's transform as a right-handed frame: -Z stays, +Y as far as it can. ValueError when undefined."""
    back = normalize(_column(matrix, 2))
    right = normalize(cross(normalize(_column(matrix, 1)), back))
    return _frame(right, cross(back, right), back, _column(matrix, 3))


def determinant(matrix: F64) -> float:
    """Of the linear part: the factor by which volumes grow, negative for a mirror."""
    first, second, third = _rows(matrix)
    cofactor = cross(second, third)
    return first[0] * cofactor[0] + first[1] * cofactor[1] + first[2] * cofactor[2]


def cofactors(matrix: F64) -> F64:
    """[3, 3] of the linear part: the inverse transpose times the determinant, by which normals go."""
    first, second, third = _rows(matrix)
    return from_rows([cross(second, third), cross(third, first), cross(first, second)])


def inverse(matrix: F64) -> F64:
    """Of an affine transform whose determinant is not zero."""
    result = identity()
    result[:3, :3] = cofactors(matrix).T / determinant(matrix)
    x, y, z = transform_vector(result, _column(matrix, 3))
    result[:3, 3] = -x, -y, -z
    return result


def transform_point(matrix: F64, point: Point) -> Point:
    x, y, z = transform_vector(matrix, point)
    return x + float(matrix[0, 3]), y + float(matrix[1, 3]), z + float(matrix[2, 3])


def transform_vector(matrix: F64, vector: Point) -> Point:
    a, b, c = (_column(matrix, i) for i in range(3))
    x, y, z = vector
    return (
        a[0] * x + b[0] * y + c[0] * z,
        a[1] * x + b[1] * y + c[1] * z,
        a[2] * x + b[2] * y + c[2] * z,
    )


def normalize(v: Point) -> Point:
    """Unit length. ValueError for a vector without a direction."""
    largest = max(abs(v[0]), abs(v[1]), abs(v[2]))
    if not 0.0 < largest < math.inf:
        raise ValueError("a vector without a direction")
    x, y, z = v[0] / largest, v[1] / largest, v[2] / largest
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def cross(a: Point, b: Point) -> Point:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def subtract(a: Point, b: Point) -> Point:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def length(v: Point) -> float:
    return math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])


def _rows(matrix: F64) -> list[Point]:
    """Of the linear part."""
    return [(float(row[0]), float(row[1]), float(row[2])) for row in matrix[:3]]


def _column(matrix: F64, i: int) -> Point:
    return float(matrix[0, i]), float(matrix[1, i]), float(matrix[2, i])


def _frame(right: Point, up: Point, back: Point, origin: Point) -> F64:
    matrix = identity()
    for column, values in enumerate((right, up, back, origin)):
        matrix[:3, column] = values
    return matrix
