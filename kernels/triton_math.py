"""What the Triton kernels share: numbers of the terms, loads of joints and weights, vectors, the arc cosine."""

from __future__ import annotations

from collections.abc import Iterable

import triton
import triton.language as tl

from ..terms import TERMS, Denominator

_TERMS = list(TERMS)
_DENOMINATORS = [kind.name.lower() for kind in Denominator]

# (BIT << number) & mask tells in a kernel whether a term, or a denominator, is among those of a mask.
BIT = tl.constexpr(1)


def term_numbers(*names: str) -> list[tl.constexpr]:
    """Numbers of terms, which are their places in the term table, as a kernel reads them."""
    return [tl.constexpr(_TERMS.index(name)) for name in names]


def denominator_numbers(*names: str) -> list[tl.constexpr]:
    """The same of denominators."""
    return [tl.constexpr(_DENOMINATORS.index(name)) for name in names]


def packed(numbers: Iterable[int]) -> int:
    """Numbers as one constant of a kernel, a byte each: number k is (constant >> 8 * k) & 255.

    Constants have any width, so there may be any number of numbers.

    Raises:
        ValueError: a number does not fit in a byte.
    """
    constant = 0
    for place, number in enumerate(numbers):
        if not 0 <= number < 256:
            raise ValueError(f"a packed number is {number}, expected 0 to 255.")
        constant |= number << 8 * place
    return constant


# Beyond this, u exp(u) continues as its tangent: poses in millimetres would overflow it.
LINEAR_FROM = tl.constexpr(20.0)
# As published: shorter bones count as this long in a cosine, and cosines stay this far from 1.
SHORTEST = tl.constexpr(1e-8)
COSINE_LIMIT = tl.constexpr(1 - 1e-7)
# The degrees of freedom of a bone's variance that are more than rounding, as a share of its weight.
LEAST_FREEDOM = tl.constexpr(1e-12)

# Strides that follow a tensor's sizes: specialised on, every other length of a clip would compile anew.
STRIDES = tuple(f"{x}_stride_{axis}" for x in ("pred", "target", "weight") for axis in "btj")


@triton.jit
def load_weight(weight, offset, mask, DTYPE: tl.constexpr, WEIGHTED: tl.constexpr):
    """Weights at `offset`; 1 without weights, 0 outside the mask."""
    if WEIGHTED:
        found = tl.load(weight + offset, mask=mask, other=0).to(DTYPE)
    else:
        found = mask.to(DTYPE)
    return found


@triton.jit
def load_point(pose, offset, stride_c, mask, DTYPE: tl.constexpr):
    """Coordinates of the joint at `offset`; 0 outside the mask."""
    at = pose + offset
    x = tl.load(at, mask=mask, other=0).to(DTYPE)
    y = tl.load(at + stride_c, mask=mask, other=0).to(DTYPE)
    z = tl.load(at + 2 * stride_c, mask=mask, other=0).to(DTYPE)
    return x, y, z


@triton.jit
def load_bone(pose, offset, stride_j, stride_c, child, parent, child_mask, parent_mask, DTYPE: tl.constexpr):
    """Child minus parent in the frame at `offset`, and its length."""
    cx, cy, cz = load_point(pose, offset + child * stride_j, stride_c, child_mask, DTYPE)
    px, py, pz = load_point(pose, offset + parent * stride_j, stride_c, parent_mask, DTYPE)
    x, y, z = cx - px, cy - py, cz - pz
    return x, y, z, length(x, y, z)


@triton.jit
def length(x, y, z):
    return tl.sqrt(x * x + y * y + z * z)


@triton.jit
def dot(ax, ay, az, bx, by, bz):
    return ax * bx + ay * by + az * bz


@triton.jit
def cross(ax, ay, az, bx, by, bz):
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


@triton.jit
def inverse(x):
    """1 / x, and 0 for 0."""
    one = tl.full(x.shape, 1, x.dtype)
    return tl.where(x == 0, tl.zeros_like(x), one / tl.where(x == 0, one, x))


@triton.jit
def sign(x):
    """-1, 0 or 1."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


@triton.jit
def arc_cosine(x):
    """arccos of float64 in [-1, 1], within a few units in the last place; NaN stays NaN."""
    size = tl.abs(x)
    # Near +-1 the half angle: arccos(x) = 2 asin(sqrt((1 - x) / 2)).
    outer = size > 0.5
    z = tl.where(outer, (1.0 - size) * 0.5, size * size)
    y = tl.where(outer, tl.sqrt(z), size)
    # asin(y) = y + y^3 q(y^2) for |y| <= 1/2; q interpolates at Chebyshev nodes, to 4e-18.
    q = tl.full(x.shape, 0.028757851367421564708, tl.float64)
    q = q * z - 0.014851887071247203224
    q = q * z + 0.017400879442694022443
    q = q * z + 0.0054575067186403583004
    q = q * z + 0.010322814350185779287
    q = q * z + 0.011479177415184905896
    q = q * z + 0.013971212973552933304
    q = q * z + 0.017352392720869972942
    q = q * z + 0.022372172942149887875
    q = q * z + 0.030381944138531247287
    q = q * z + 0.044642857146355429783
    q = q * z + 0.074999999999984329332
    q = q * z + 0.16666666666666667827
    asin = y + y * z * q
    # pi in two parts: the second is what the first leaves over.
    inner = 1.57079632679489661923 - sign(x) * (asin - sign(x) * 6.123233995736766e-17)
    near = 2.0 * asin
    return tl.where(outer, tl.where(x < 0, 3.14159265358979323846 - (near - 1.2246467991473532e-16), near), inner)


@triton.jit
def cosine_between(ux, uy, uz, u_length, vx, vy, vz, v_length):
    """Unit vectors, inverse lengths and cosine of two float64 vectors."""
    # These comparisons keep a NaN.
    iu = 1.0 / tl.where(u_length < SHORTEST, tl.full(u_length.shape, SHORTEST, tl.float64), u_length)
    iv = 1.0 / tl.where(v_length < SHORTEST, tl.full(v_length.shape, SHORTEST, tl.float64), v_length)
    ux, uy, uz = ux * iu, uy * iu, uz * iu
    vx, vy, vz = vx * iv, vy * iv, vz * iv
    return ux, uy, uz, iu, vx, vy, vz, iv, dot(ux, uy, uz, vx, vy, vz)


@triton.jit
def clamp_cosine(cosine):
    """Into [-limit, limit]; a NaN stays."""
    limit = tl.full(cosine.shape, COSINE_LIMIT, tl.float64)
    return tl.where(cosine > limit, limit, tl.where(cosine < -limit, -limit, cosine))


@triton.jit
def widened(x):
    """An integer, constant or not, in 64 bits."""
    return x + tl.full((), 0, tl.int64)
