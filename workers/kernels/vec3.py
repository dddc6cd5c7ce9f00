"""Vec3: three float32 as one value, with operators. A struct in registers, never an array.

Inside kernels: `vec3(x, y, z)`, `a + b`, `a - b`, `a * b` (per component), `a * s`, `a / s`, `-a`, `a.x`.
"""

from __future__ import annotations

import math
import operator
from typing import Any

from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, make_attribute_wrapper, models, register_model

from workers.kernels.jit import f32, kernel


class Vec3Type(types.Type):
    def __init__(self) -> None:
        super().__init__("Vec3")


Vec3 = Vec3Type()
_SCALAR = types.float32


@register_model(Vec3Type)
class Vec3Model(models.StructModel):
    def __init__(self, manager: Any, front_end_type: Any) -> None:
        super().__init__(manager, front_end_type, [("x", _SCALAR), ("y", _SCALAR), ("z", _SCALAR)])


for _name in "xyz":
    make_attribute_wrapper(Vec3Type, _name, _name)


def _pack(context: Any, builder: Any, components: Any) -> Any:
    proxy = cgutils.create_struct_proxy(Vec3)(context, builder)
    proxy.x, proxy.y, proxy.z = components
    return proxy._getvalue()


def _unpack(context: Any, builder: Any, value: Any) -> tuple[Any, Any, Any]:
    proxy = cgutils.create_struct_proxy(Vec3)(context, builder, value=value)
    return proxy.x, proxy.y, proxy.z


@intrinsic
def vec3(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """Makes a Vec3 of three scalars."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return _pack(context, builder, arguments)

    return Vec3(_SCALAR, _SCALAR, _SCALAR), generate


def _is_scalar(candidate: Any) -> bool:
    return isinstance(candidate, types.Float | types.Integer)


def _define_operator(function: Any, instruction: str) -> None:
    @infer_global(function)
    class Template(AbstractTemplate):
        def generic(self, arguments: Any, keywords: Any) -> Any:
            if len(arguments) != 2 or Vec3 not in arguments:
                return None
            left, right = arguments
            if left is Vec3 and right is Vec3:
                return signature(Vec3, Vec3, Vec3)
            if left is Vec3 and _is_scalar(right):
                return signature(Vec3, Vec3, _SCALAR)
            if right is Vec3 and _is_scalar(left):
                return signature(Vec3, _SCALAR, Vec3)
            return None

    def lower(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        sides = [
            _unpack(context, builder, value) if kind is Vec3 else (value,) * 3
            for kind, value in zip(sig.args, arguments, strict=True)
        ]
        emit = getattr(builder, instruction)
        return _pack(context, builder, [emit(a, b) for a, b in zip(*sides, strict=True)])

    for kinds in ((Vec3, Vec3), (Vec3, _SCALAR), (_SCALAR, Vec3)):
        lower_builtin(function, *kinds)(lower)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_function, _instruction)


@infer_global(operator.neg)
class _Negate(AbstractTemplate):
    def generic(self, arguments: Any, keywords: Any) -> Any:
        return signature(Vec3, Vec3) if len(arguments) == 1 and arguments[0] is Vec3 else None


@lower_builtin(operator.neg, Vec3)
def _lower_negate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    return _pack(context, builder, [builder.fneg(part) for part in _unpack(context, builder, arguments[0])])


@kernel
def dot(a, b):
    return a.x * b.x + a.y * b.y + a.z * b.z


@kernel
def cross(a, b):
    return vec3(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x)


@kernel
def length(a):
    return math.sqrt(dot(a, a))


@kernel
def normalize(a):
    """Unit vector; a zero vector gives NaN, so callers guard where that can happen."""
    return a * (f32(1.0) / math.sqrt(dot(a, a)))


@kernel
def reflect(w, n):
    """Mirrors `w` (pointing away from the surface) about the unit vector `n`."""
    return n * (f32(2.0) * dot(w, n)) - w


@kernel
def luminance(a):
    """Rec. 709 luminance of a linear RGB value."""
    return f32(0.2126) * a.x + f32(0.7152) * a.y + f32(0.0722) * a.z


@kernel
def largest(a):
    return max(a.x, max(a.y, a.z))


@kernel
def frame(n):
    """Tangent and bitangent of the unit vector `n` (Duff et al. 2017, Building an Orthonormal Basis, Revisited)."""
    sign = f32(math.copysign(f32(1.0), n.z))
    a = f32(-1.0) / (sign + n.z)
    b = n.x * n.y * a
    tangent = vec3(f32(1.0) + sign * n.x * n.x * a, sign * b, -sign * n.x)
    return tangent, vec3(b, sign + n.y * n.y * a, -n.y)


@kernel
def to_world(v, tangent, bitangent, n):
    return tangent * v.x + bitangent * v.y + n * v.z


@kernel
def to_local(v, tangent, bitangent, n):
    return vec3(dot(v, tangent), dot(v, bitangent), dot(v, n))


@kernel
def load3(array, i):
    """Row `i` of an array [any, 3] as a Vec3."""
    return vec3(array[i, 0], array[i, 1], array[i, 2])


@kernel
def load_vec3(field):
    """A record's field of three float32 as a Vec3."""
    return vec3(field[0], field[1], field[2])
