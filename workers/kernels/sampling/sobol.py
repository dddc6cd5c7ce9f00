"""The sample sequence: Owen-scrambled Sobol points hashed per pixel. Knows no state: an index is all it takes.

Burley 2020, Practical Hash-based Owen Scrambling: each (pixel, dimension) shuffles and scrambles one (0,2)-sequence its
own way, so that the first 2^k samples of a pixel are stratified in every dimension and pixels are independent.
"""

from __future__ import annotations

from workers.kernels.jit import f32, inner_kernel, kernel, reverse_bits, u32

_GOLDEN = u32(0x9E3779B9)
_FIRST_AXIS = u32(0x68BC21EB)
_SECOND_AXIS = u32(0x02E5BE93)
_UNIT = f32(2.0**-24)


@kernel
def hash32(x):
    """A bijection of uint32 that leaves no visible pattern (Wellons 2018, Prospecting for Hash Functions)."""
    x = u32(x)
    x = u32(x ^ (x >> u32(16)))
    x = u32(x * u32(0x21F0AAAD))
    x = u32(x ^ (x >> u32(15)))
    x = u32(x * u32(0xD35A2D97))
    return u32(x ^ (x >> u32(15)))


@kernel
def pixel_hash(x, y, seed):
    """What makes a pixel's samples its own: a hash of full-frame pixel coordinates and the frame's seed, uint32."""
    return hash32(u32(x) ^ hash32(u32(y) ^ hash32(u32(seed))))


@kernel
def permute_nested(x, seed):
    """Nested uniform scrambling of a uint32 with its bits reversed: each bit is flipped by a hash of those below it.

    Laine and Karras 2011, with the constants of Vegdahl 2021, Building a Better LK Hash.
    """
    x = u32(x ^ u32(x * u32(0x3D20ADEA)))
    x = u32(x + seed)
    x = u32(x * u32((seed >> u32(16)) | u32(1)))
    x = u32(x ^ u32(x * u32(0x05526C56)))
    return u32(x ^ u32(x * u32(0x53A22864)))


@kernel
def to_unit(bits):
    """The upper 24 bits of a uint32 as a float32 in [0, 1)."""
    return f32(u32(bits) >> u32(8)) * _UNIT


@kernel
def _second_axis(index):
    """Sobol's second coordinate with its bits reversed: Pascal's triangle modulo 2 applied to the bits of `index`."""
    x = u32(index ^ (index >> u32(16)))
    x = u32(x ^ ((x & u32(0xFF00FF00)) >> u32(8)))
    x = u32(x ^ ((x & u32(0xF0F0F0F0)) >> u32(4)))
    x = u32(x ^ ((x & u32(0xCCCCCCCC)) >> u32(2)))
    return u32(x ^ ((x & u32(0xAAAAAAAA)) >> u32(1)))


@kernel
def _shuffled(index, key):
    """The sample that takes the place of `index`: a permutation that keeps aligned blocks of 2^k together."""
    return reverse_bits(permute_nested(reverse_bits(u32(index)), key))


@inner_kernel
def sample_1d(pixel, index, dimension):
    """One number in [0, 1) of sample `index`; `pixel` from `pixel_hash`, one `dimension` for each use along a path."""
    key = hash32(pixel ^ u32(u32(dimension) * _GOLDEN))
    shuffled = _shuffled(index, key)
    return to_unit(reverse_bits(permute_nested(shuffled, hash32(key ^ _FIRST_AXIS))))


@inner_kernel
def sample_2d(pixel, index, dimension):
    """Two numbers in [0, 1), stratified together. The first is `sample_1d` of the same dimension: use one of them."""
    key = hash32(pixel ^ u32(u32(dimension) * _GOLDEN))
    shuffled = _shuffled(index, key)
    first = permute_nested(shuffled, hash32(key ^ _FIRST_AXIS))
    second = permute_nested(_second_axis(shuffled), hash32(key ^ _SECOND_AXIS))
    return to_unit(reverse_bits(first)), to_unit(reverse_bits(second))
