"""Turns a Python function into a kernel. The only file, with simd.py and vec3.py, that says numba or LLVM.

Kernels are float32 throughout: the decorator turns a function's float constants into float32, so that `x * 0.5` stays
in single precision. Integer arithmetic on unsigned values still widens: cast at each step (`u32(a * b)`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import from_dtype, njit
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj

F = TypeVar("F", bound=Callable[..., Any])

f32 = np.float32
i32 = np.int32
i64 = np.int64
u32 = np.uint32
u64 = np.uint64

OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
    "fastmath": False,
}


def _single_precision(constant: object) -> object:
    if isinstance(constant, float):
        return np.float32(constant)
    if isinstance(constant, tuple):
        return tuple(_single_precision(item) for item in constant)
    return constant


def _with_single_precision(function: F) -> F:
    code: CodeType = function.__code__
    constants = tuple(_single_precision(constant) for constant in code.co_consts)
    function.__code__ = code.replace(co_consts=constants)
    return function


def kernel(function: F) -> F:
    """Compiles `function` on first call: nogil, cached, IEEE arithmetic, float constants in single precision."""
    return njit(**OPTIONS)(_with_single_precision(function))  # type: ignore[no-any-return]


def inner_kernel(function: F) -> F:
    """Like `kernel`, and always inlined by LLVM: for a step of a hot loop whose vectors must stay in registers."""
    return njit(forceinline=True, **OPTIONS)(_with_single_precision(function))  # type: ignore[no-any-return]


def kernel64(function: F) -> F:
    """Like `kernel`, for preparation that needs double precision: float constants stay float64."""
    return njit(**OPTIONS)(function)  # type: ignore[no-any-return]


def view_type(dtype: str | np.dtype[Any], *inner: int) -> Any:
    """Makes a kernel function `view(address)`: a C-contiguous array [any, *inner] of `dtype` over a raw address.

    The view owns nothing and counts no references; whoever wrote the address keeps the memory alive.
    """
    numpy_dtype = np.dtype(dtype)
    element = from_dtype(numpy_dtype)
    array_type = types.Array(element, 1 + len(inner), "C")
    itemsize = numpy_dtype.itemsize

    @intrinsic
    def view(typingctx: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = arrayobj.make_array(array_type)(context, builder)
            constant = lambda value: context.get_constant(types.intp, value)  # noqa: E731
            strides = [itemsize]
            for extent in reversed(inner):
                strides.insert(0, strides[0] * extent)
            arrayobj.populate_array(
                array,
                data=builder.inttoptr(arguments[0], array.data.type),
                shape=[constant(extent) for extent in (1 << 40, *inner)],
                strides=[constant(stride) for stride in strides],
                itemsize=constant(itemsize),
                meminfo=None,
            )
            return array._getvalue()

        return array_type(types.uint64), generate

    return view


def stack_array(dtype: str | np.dtype[Any], count: int) -> Any:
    """Makes a kernel function `array()`: `count` uninitialised elements on the machine stack, 64-byte aligned."""
    element = from_dtype(np.dtype(dtype))
    array_type = types.Array(element, 1, "C")

    @intrinsic
    def array(typingctx: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data_type = context.get_data_type(element)
            with builder.goto_entry_block():
                memory = builder.alloca(ir.ArrayType(data_type, count))
                memory.align = 64
            result = arrayobj.make_array(array_type)(context, builder)
            itemsize = context.get_constant(types.intp, context.get_abi_sizeof(data_type))
            arrayobj.populate_array(
                result,
                data=builder.bitcast(memory, result.data.type),
                shape=[context.get_constant(types.intp, count)],
                strides=[itemsize],
                itemsize=itemsize,
                meminfo=None,
            )
            return result._getvalue()

        return array_type(), generate

    return array


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """float32 a * b + c with one rounding, on every machine."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        single = ir.FloatType()
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(single, [single] * 3), "llvm.fma.f32")
        return builder.call(function, arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@intrinsic
def float_bits(typingctx: Any, value: Any) -> Any:
    """The bits of a float32 as int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def bits_float(typingctx: Any, value: Any) -> Any:
    """The float32 whose bits are this int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def reverse_bits(typingctx: Any, value: Any) -> Any:
    """A uint32 with its 32 bits in reverse order."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitreverse(arguments[0])

    return types.uint32(types.uint32), generate
