"""Eight float32, int32 or booleans as one value, with operators. Knows LLVM vectors; knows nothing about rays or trees.

Inside kernels: `a + b`, `a < b`, `m & n` work lane by lane, a scalar beside a vector is repeated in every lane. Floats
compare ordered: a NaN makes every comparison but `!=` false. What has no operator is a function below.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np import arrayobj

LANES = 8

_BIT = ir.IntType(1)
_INT = ir.IntType(32)
_FLOAT = ir.FloatType()


class SimdType(types.Type):
    """A numba type of LANES elements; `scalar` is the numba type of one of them."""

    def __init__(self, name: str, scalar: Any, element: Any) -> None:
        self.scalar = scalar
        self.vector = ir.VectorType(element, LANES)
        super().__init__(name)


F32x8 = SimdType("F32x8", types.float32, _FLOAT)
I32x8 = SimdType("I32x8", types.int32, _INT)
Mask8 = SimdType("Mask8", types.boolean, _BIT)


@register_model(SimdType)
class _SimdModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.vector)


Emit = Callable[[Any, Any, Any], Any]


def _repeat(builder: Any, scalar: Any, kind: SimdType) -> Any:
    undefined = ir.Constant(kind.vector, ir.Undefined)
    single = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))


def _define_operator(function: Any, emitters: dict[SimdType, Emit], result: SimdType | None = None) -> None:
    """Types and lowers `function` for each vector type in `emitters`, and for a vector beside a scalar."""

    @infer_global(function)
    class Template(AbstractTemplate):
        def generic(self, arguments: Any, keywords: Any) -> Any:
            kinds = {kind for kind in arguments if isinstance(kind, SimdType)}
            if len(arguments) != 2 or len(kinds) != 1 or not kinds <= emitters.keys():
                return None
            (kind,) = kinds
            sides = [side if side is kind else kind.scalar for side in arguments]
            return signature(result or kind, *sides)

    def lower(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        kind = next(side for side in sig.args if isinstance(side, SimdType))
        left, right = (
            value if side is kind else _repeat(builder, value, kind)
            for side, value in zip(sig.args, arguments, strict=True)
        )
        return emitters[kind](builder, left, right)

    for kind in emitters:
        lower_builtin(function, kind, kind)(lower)
        if kind is not Mask8:
            lower_builtin(function, kind, kind.scalar)(lower)
            lower_builtin(function, kind.scalar, kind)(lower)


def _instruction(name: str) -> Emit:
    return lambda builder, left, right: getattr(builder, name)(left, right)


def _comparison(sign: str) -> dict[SimdType, Emit]:
    def floats(builder: Any, left: Any, right: Any) -> Any:
        compare = builder.fcmp_unordered if sign == "!=" else builder.fcmp_ordered
        return compare(sign, left, right)

    return {F32x8: floats, I32x8: lambda builder, left, right: builder.icmp_signed(sign, left, right)}


for _function, _float, _int in (
    (operator.add, "fadd", "add"),
    (operator.sub, "fsub", "sub"),
    (operator.mul, "fmul", "mul"),
):
    _define_operator(_function, {F32x8: _instruction(_float), I32x8: _instruction(_int)})
_define_operator(operator.truediv, {F32x8: _instruction("fdiv")})
for _function, _name in ((operator.and_, "and_"), (operator.or_, "or_"), (operator.xor, "xor")):
    _define_operator(_function, {I32x8: _instruction(_name), Mask8: _instruction(_name)})
for _function, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _define_operator(_function, _comparison(_sign), Mask8)


@infer_global(operator.neg)
class _Negate(AbstractTemplate):
    def generic(self, arguments: Any, keywords: Any) -> Any:
        return signature(F32x8, F32x8) if len(arguments) == 1 and arguments[0] is F32x8 else None


@lower_builtin(operator.neg, F32x8)
def _lower_negate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    return builder.fneg(arguments[0])


@infer_global(operator.invert)
class _Invert(AbstractTemplate):
    def generic(self, arguments: Any, keywords: Any) -> Any:
        return signature(Mask8, Mask8) if len(arguments) == 1 and arguments[0] is Mask8 else None


@lower_builtin(operator.invert, Mask8)
def _lower_invert(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    return builder.not_(arguments[0])


def _element_pointer(context: Any, builder: Any, sig: Any, arguments: Any, kind: SimdType) -> Any:
    """Address of element arguments[1] of the contiguous array arguments[0], as a pointer to a whole vector."""
    array = arrayobj.make_array(sig.args[0])(context, builder, arguments[0])
    index = context.cast(builder, arguments[1], sig.args[1], types.intp)
    return builder.bitcast(builder.gep(array.data, [index]), kind.vector.as_pointer())


def _loader(kind: SimdType) -> Any:
    @intrinsic
    def load(typingctx: Any, array: Any, index: Any) -> Any:
        """Elements index .. index + 7 of a contiguous 1-d array of 4-byte elements; bounds are not checked."""

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            return builder.load(_element_pointer(context, builder, sig, arguments, kind), align=4)

        return kind(array, index), generate

    return load


def _storer(kind: SimdType) -> Any:
    @intrinsic
    def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        """Writes elements index .. index + 7 of a contiguous one-dimensional array of 4-byte elements."""

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            builder.store(arguments[2], _element_pointer(context, builder, sig, arguments, kind), align=4)
            return context.get_dummy_value()

        return types.void(array, index, kind), generate

    return store


load_f8, load_i8 = _loader(F32x8), _loader(I32x8)
store_f8, store_i8 = _storer(F32x8), _storer(I32x8)


def _splatter(kind: SimdType) -> Any:
    @intrinsic
    def splat(typingctx: Any, scalar: Any) -> Any:
        """The scalar in every lane."""

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            return _repeat(builder, arguments[0], kind)

        return kind(kind.scalar), generate

    return splat


splat_f8, splat_i8 = _splatter(F32x8), _splatter(I32x8)


@intrinsic
def select(typingctx: Any, mask: Any, if_true: Any, if_false: Any) -> Any:
    """Lane by lane, `if_true` where the mask is set, else `if_false`."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return if_true(Mask8, if_true, if_true), generate


def _chooser(sign: str) -> Any:
    @intrinsic
    def choose(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            compare = builder.fcmp_ordered if a is F32x8 else builder.icmp_signed
            return builder.select(compare(sign, *arguments), *arguments)

        return a(a, a), generate

    return choose


# a < b ? a : b, and so b where either is NaN: one vminps, where llvm.minnum needs three instructions
vmin, vmax = _chooser("<"), _chooser(">")


@intrinsic
def vfma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding, on every machine."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(F32x8.vector, [F32x8.vector] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.v8f32"), arguments)

    return F32x8(F32x8, F32x8, F32x8), generate


@intrinsic
def mask_bits(typingctx: Any, mask: Any) -> Any:
    """The lanes of a mask as bits of an int32, lane 0 lowest."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(LANES)), _INT)

    return types.int32(Mask8), generate


@intrinsic
def first_bit(typingctx: Any, bits: Any) -> Any:
    """Index of the lowest set bit of an int32 that is not zero (of zero: undefined)."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(_BIT, 1))

    return types.int32(types.int32), generate


@intrinsic
def last_bit(typingctx: Any, bits: Any) -> Any:
    """Index of the highest set bit of an int32 that is not zero (of zero: undefined)."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.sub(ir.Constant(_INT, 31), builder.ctlz(arguments[0], ir.Constant(_BIT, 1)))

    return types.int32(types.int32), generate


@intrinsic
def reduce_min(typingctx: Any, values: Any) -> Any:
    """The smallest of the eight int32."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_INT, [I32x8.vector])
        name = "llvm.vector.reduce.smin.v8i32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)

    return types.int32(I32x8), generate


@intrinsic
def extract(typingctx: Any, vector: Any, lane: Any) -> Any:
    """One lane as a scalar; a lane outside 0..7 is undefined."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.extract_element(*arguments)

    return vector.scalar(vector, types.int32), generate


def _reinterpreter(source: SimdType, target: SimdType) -> Any:
    @intrinsic
    def reinterpret(typingctx: Any, vector: Any) -> Any:
        """The same 256 bits as the other type."""

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], target.vector)

        return target(source), generate

    return reinterpret


as_ints, as_floats = _reinterpreter(F32x8, I32x8), _reinterpreter(I32x8, F32x8)


@intrinsic
def truncate(typingctx: Any, vector: Any) -> Any:
    """Floats to int32, towards zero; a lane that is NaN or does not fit is undefined, so callers keep it in range."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.fptosi(arguments[0], I32x8.vector)

    return I32x8(F32x8), generate


@intrinsic
def swap_halves(typingctx: Any, vector: Any) -> Any:
    """Lanes 4 5 6 7 0 1 2 3."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        order = ir.Constant(ir.VectorType(_INT, LANES), [4, 5, 6, 7, 0, 1, 2, 3])
        return builder.shuffle_vector(arguments[0], arguments[0], order)

    return vector(vector), generate
