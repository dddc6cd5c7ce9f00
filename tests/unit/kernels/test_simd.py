"""Every SIMD operation against numpy, lane by lane."""

from __future__ import annotations

import numpy as np
import pytest

from workers.kernels import simd
from workers.kernels.jit import kernel
from workers.kernels.simd import (
    as_floats,
    as_ints,
    extract,
    first_bit,
    last_bit,
    load_f8,
    load_i8,
    mask_bits,
    reduce_min,
    select,
    splat_f8,
    splat_i8,
    store_f8,
    store_i8,
    swap_halves,
    truncate,
    vfma,
    vmax,
    vmin,
)

NAN, INF = np.float32(np.nan), np.float32(np.inf)
A = np.array([1.5, -2.25, 0.0, -0.0, NAN, INF, 1e-40, 3.0], np.float32)
B = np.array([-1.0, -2.25, -0.0, 0.0, 1.0, 2.0, 1e38, NAN], np.float32)
I = np.array([1, -7, 1 << 30, -(1 << 31), 0, 12345, -1, 8], np.int32)  # noqa: E741
J = np.array([3, -7, 5, 1, 0, -12345, 1, 9], np.int32)


@kernel
def float_arithmetic(a, b, out):  # type: ignore[no-untyped-def]
    x, y = load_f8(a, 0), load_f8(b, 0)
    store_f8(out, 0, x + y)
    store_f8(out, 8, x - y)
    store_f8(out, 16, x * y)
    store_f8(out, 24, x / y)
    store_f8(out, 32, -x)
    store_f8(out, 40, x + 2.0)
    store_f8(out, 48, 2.0 - x)
    store_f8(out, 56, splat_f8(0.1) * x)


def test_float_arithmetic_is_single_precision_in_every_lane() -> None:
    out = np.empty(64, np.float32)
    float_arithmetic(A, B, out)
    with np.errstate(all="ignore"):
        two, tenth = np.float32(2), np.float32(0.1)
        expected = np.concatenate([A + B, A - B, A * B, A / B, -A, A + two, two - A, tenth * A])
    np.testing.assert_array_equal(out, expected)


@kernel
def int_arithmetic(a, b, out):  # type: ignore[no-untyped-def]
    x, y = load_i8(a, 0), load_i8(b, 0)
    store_i8(out, 0, x + y)
    store_i8(out, 8, x - y)
    store_i8(out, 16, x * y)
    store_i8(out, 24, x & y)
    store_i8(out, 32, x | y)
    store_i8(out, 40, x ^ y)
    store_i8(out, 48, x & splat_i8(np.int32(7)))


def test_int_arithmetic_wraps_in_every_lane() -> None:
    out = np.empty(56, np.int32)
    int_arithmetic(I, J, out)
    expected = np.concatenate([I + J, I - J, I * J, I & J, I | J, I ^ J, I & 7])
    np.testing.assert_array_equal(out, expected)


@kernel
def comparisons(a, b, i, j, out):  # type: ignore[no-untyped-def]
    x, y, k, m = load_f8(a, 0), load_f8(b, 0), load_i8(i, 0), load_i8(j, 0)
    out[0] = mask_bits(x < y)
    out[1] = mask_bits(x <= y)
    out[2] = mask_bits(x > y)
    out[3] = mask_bits(x >= y)
    out[4] = mask_bits(x == y)
    out[5] = mask_bits(x != y)
    out[6] = mask_bits(k < m)
    out[7] = mask_bits(k <= m)
    out[8] = mask_bits(k > m)
    out[9] = mask_bits(k >= m)
    out[10] = mask_bits(k == m)
    out[11] = mask_bits(k != m)
    out[12] = mask_bits((x < y) & (k < m))
    out[13] = mask_bits((x < y) | (k < m))
    out[14] = mask_bits((x < y) ^ (k < m))
    out[15] = mask_bits(~(x < y))
    out[16] = mask_bits(x < 1.0)


def test_comparisons_and_masks_agree_with_numpy_also_for_nan() -> None:
    out = np.empty(17, np.int32)
    comparisons(A, B, I, J, out)
    less, int_less = A < B, I < J
    masks = [less, A <= B, A > B, A >= B, A == B, A != B, int_less, I <= J, I > J, I >= J, I == J, I != J]
    masks += [less & int_less, less | int_less, less ^ int_less, ~less, A < 1]
    assert out.tolist() == [int(np.packbits(mask, bitorder="little")[0]) for mask in masks]


@kernel
def choices(a, b, i, j, out, int_out):  # type: ignore[no-untyped-def]
    x, y, k, m = load_f8(a, 0), load_f8(b, 0), load_i8(i, 0), load_i8(j, 0)
    store_f8(out, 0, vmin(x, y))
    store_f8(out, 8, vmax(x, y))
    store_f8(out, 16, select(k < m, x, y))
    store_f8(out, 24, swap_halves(x))
    store_f8(out, 32, as_floats(as_ints(x)))
    store_i8(int_out, 0, vmin(k, m))
    store_i8(int_out, 8, vmax(k, m))
    store_i8(int_out, 16, select(x < y, k, m))
    store_i8(int_out, 24, as_ints(x))


def test_minimum_and_maximum_give_the_second_where_either_is_nan() -> None:
    out, int_out = np.empty(40, np.float32), np.empty(32, np.int32)
    choices(A, B, I, J, out, int_out)
    halves = np.concatenate([A[4:], A[:4]])
    floats = [np.where(A < B, A, B), np.where(A > B, A, B), np.where(I < J, A, B), halves, A]
    np.testing.assert_array_equal(out.view(np.int32), np.concatenate(floats).view(np.int32))
    ints = [np.minimum(I, J), np.maximum(I, J), np.where(A < B, I, J), A.view(np.int32)]
    np.testing.assert_array_equal(int_out, np.concatenate(ints))


@kernel
def fused(a, b, c, out):  # type: ignore[no-untyped-def]
    store_f8(out, 0, vfma(load_f8(a, 0), load_f8(b, 0), load_f8(c, 0)))


def test_fma_rounds_once() -> None:
    random = np.random.default_rng(1)
    a, b = (random.uniform(1, 2, 8).astype(np.float32) for _ in range(2))
    c = -(a * b)
    out = np.empty(8, np.float32)
    fused(a, b, c, out)
    exact = a.astype(np.float64) * b + c  # the rounding error of the product, which a second rounding would lose
    np.testing.assert_array_equal(out, exact.astype(np.float32))
    assert np.all(out != 0)


@kernel
def reductions(i, out):  # type: ignore[no-untyped-def]
    x = load_i8(i, 0)
    out[0] = reduce_min(x)
    for lane in range(8):
        out[1 + lane] = extract(x, np.int32(lane))


def test_reduction_and_extraction_see_every_lane() -> None:
    out = np.empty(9, np.int32)
    for shift in range(8):
        lanes = np.roll(I, shift)
        reductions(lanes, out)
        assert out.tolist() == [I.min(), *lanes.tolist()]


@kernel
def outer_bits(bits):  # type: ignore[no-untyped-def]
    return first_bit(np.int32(bits)), last_bit(np.int32(bits))


@pytest.mark.parametrize(("bits", "first", "last"), [(1, 0, 0), (0b1010_0100, 2, 7), (1 << 30, 30, 30), (-1, 0, 31)])
def test_first_and_last_bit_are_the_outermost(bits: int, first: int, last: int) -> None:
    assert outer_bits(bits) == (first, last)


@kernel
def truncated(a, out):  # type: ignore[no-untyped-def]
    store_i8(out, 0, truncate(load_f8(a, 0)))


def test_truncation_goes_towards_zero() -> None:
    out = np.empty(8, np.int32)
    truncated(np.array([0.99, -0.99, 1.0, -1.5, 31.999, 1e6, -1e6, 0.0], np.float32), out)
    assert out.tolist() == [0, 0, 1, -1, 31, 1000000, -1000000, 0]


@kernel
def shifted(source, target, at):  # type: ignore[no-untyped-def]
    store_f8(target, at, load_f8(source, at))


def test_loads_and_stores_need_no_alignment() -> None:
    source = np.arange(32, dtype=np.float32)
    for at in range(1, 9):
        target = np.zeros(32, np.float32)
        shifted(source, target, at)
        np.testing.assert_array_equal(target[at : at + 8], source[at : at + 8])
        assert target.sum() == source[at : at + 8].sum()


def test_mixing_floats_and_ints_does_not_compile() -> None:
    @kernel
    def mixed(a, i):  # type: ignore[no-untyped-def]
        return mask_bits(load_f8(a, 0) < load_i8(i, 0))

    with pytest.raises(Exception, match="No implementation"):
        mixed(A, I)


def test_a_vector_has_eight_lanes() -> None:
    assert simd.LANES == 8
