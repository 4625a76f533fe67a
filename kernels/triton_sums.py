"""Scales of the terms before the main kernel, and their values after it."""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_math import denominator_numbers

__all__ = ["PLACES", "multiply_kernel", "scale_kernel", "value_kernel"]

STEPS, STEP_COORDINATES, JOINTS = denominator_numbers("steps", "step_coordinates", "joints")
FRAME_PAIRS, VARYING_BONES = denominator_numbers("frame_pairs", "varying_bones")

# Terms that one launch of scale_kernel takes: their lambdas and counts are arguments.
PLACES = 8


@triton.jit
def _number(bits):
    """A float64 that came as the integer of its bits: floats arrive in float32."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


# Loops over what is not known when a kernel is compiled are written with `while`: the interpreter of Triton 3.6 takes
# no such bounds in `range`, with numpy 2.4.


@triton.jit
def _sum(values, n, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float64)
    start = 0
    while start < n:
        at = start + tl.arange(0, BLOCK)
        total += tl.load(values + at, mask=at < n, other=0.0)
        start += BLOCK
    return tl.sum(total, 0)


@triton.jit
def _sum_of_squares(values, n, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float64)
    start = 0
    while start < n:
        at = start + tl.arange(0, BLOCK)
        x = tl.load(values + at, mask=at < n, other=0.0)
        total += x * x
        start += BLOCK
    return tl.sum(total, 0)


@triton.jit
def _count_positive(values, n, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float64)
    start = 0
    while start < n:
        at = start + tl.arange(0, BLOCK)
        total += (tl.load(values + at, mask=at < n, other=0.0) > 0).to(tl.float64)
        start += BLOCK
    return tl.sum(total, 0)


@triton.jit
def _weighted_count(
    counts, row_weights, limbs, blocks, rows, bones, known, KIND: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """What a mean with weights divides by; `known` if that has nothing to do with the weights."""
    if KIND == FRAME_PAIRS:
        found = _sum_of_squares(row_weights, rows, BLOCK)
    elif KIND == VARYING_BONES:
        found = _count_positive(limbs + bones, bones, BLOCK)
    elif KIND == STEP_COORDINATES:
        found = 3 * _sum(counts + blocks * STEPS, blocks, BLOCK)
    elif KIND == JOINTS:
        found = known
    else:
        found = _sum(counts + blocks * KIND, blocks, BLOCK)
    return found


@triton.jit
def _put(
    scales, lambdas, counts, row_weights, limbs, blocks, rows, bones, lambda_bits, count_bits,
    PLACE: tl.constexpr, ORDER: tl.constexpr, KINDS: tl.constexpr, K: tl.constexpr, TERMS: tl.constexpr,
    WEIGHTED: tl.constexpr, GIVEN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Scales of the term in one place of the call."""
    if PLACE < K:
        lam = _number(lambda_bits)
        if GIVEN:
            lam = tl.load(lambdas + PLACE).to(tl.float64)
        count = _number(count_bits)
        if WEIGHTED:
            count = _weighted_count(
                counts, row_weights, limbs, blocks, rows, bones, count, (KINDS >> (8 * PLACE)) & 255, BLOCK
            )
        share = tl.where(count > 0, 1.0 / tl.where(count > 0, count, 1.0), 0.0)
        to = scales + ((ORDER >> (8 * PLACE)) & 255)
        tl.store(to, lam * share)
        tl.store(to + TERMS, share)
        tl.store(to + 2 * TERMS, lam)


_BITS = [f"{what}_{place}" for place in range(PLACES) for what in ("lambda", "count")]


@triton.jit(do_not_specialize=[*_BITS, "blocks", "rows", "bones"])
def scale_kernel(
    scales,  # [3, TERMS] float64: weight over count, 1 over count, weight of each term
    lambdas,  # [K]: weights of the terms, with GIVEN
    counts,  # [denominators, blocks] from frame_kernel, with WEIGHTED
    row_weights,  # [rows]: sums over time, with WEIGHTED
    limbs,  # [2, bones] from limb_kernel, with WEIGHTED
    blocks,
    rows,
    bones,
    # Of the places FIRST, FIRST + 1, ... of the call: lambda, and what the mean divides by where that is known.
    lambda_0: tl.int64,
    count_0: tl.int64,
    lambda_1: tl.int64,
    count_1: tl.int64,
    lambda_2: tl.int64,
    count_2: tl.int64,
    lambda_3: tl.int64,
    count_3: tl.int64,
    lambda_4: tl.int64,
    count_4: tl.int64,
    lambda_5: tl.int64,
    count_5: tl.int64,
    lambda_6: tl.int64,
    count_6: tl.int64,
    lambda_7: tl.int64,
    count_7: tl.int64,
    FIRST: tl.constexpr,
    ORDER: tl.constexpr,  # packed: the term in each place
    KINDS: tl.constexpr,  # packed: its denominator
    K: tl.constexpr,
    TERMS: tl.constexpr,
    WEIGHTED: tl.constexpr,
    GIVEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: what the sum and gradient of each of up to PLACES terms are multiplied with."""
    _put(
        scales, lambdas, counts, row_weights, limbs, blocks, rows, bones, lambda_0, count_0,
        FIRST + 0, ORDER, KINDS, K, TERMS, WEIGHTED, GIVEN, BLOCK,
    )  # fmt: skip
    _put(
        scales, lambdas, counts, row_weights, limbs, blocks, rows, bones, lambda_1, count_1,
        FIRST + 1, ORDER, KINDS, K, TERMS, WEIGHTED, GIVEN, BLOCK,
    )  # fmt: skip
    _put(
        scales, lambdas, counts, row_weights, limbs, blocks, rows, bones, lambda_2, count_2,
        FIRST + 2, ORDER, KINDS, K, TERMS, WEIGHTED, GIVEN, BLOCK,
    )  # fmt: skip
    _put(
        scales, lambdas, counts, row_weights, limbs, blocks, rows, bones, lambda_3, count_3,
        FIRST + 3, ORDER, KINDS, K, TERMS, WEIGHTED, GIVEN, BLOCK,
    )  # fmt: skip
    _put(
        scales, lambdas, counts, row_weights, limbs, blocks, rows, bones, lambda_4, count_4,
        FIRST + 4, ORDER, KINDS, K, TERMS, WEIGHTED, GIVEN, BLOCK,
    )  # fmt: skip
    _put(
        scales, lambdas, counts, row_weights, limbs, blocks, rows, bones, lambda_5, count_5,
        FIRST + 5, ORDER, KINDS, K, TERMS, WEIGHTED, GIVEN, BLOCK,
    )  # fmt: skip
    _put(
        scales, lambdas, counts, row_weights, limbs, blocks, rows, bones, lambda_6, count_6,
        FIRST + 6, ORDER, KINDS, K, TERMS, WEIGHTED, GIVEN, BLOCK,
    )  # fmt: skip
    _put(
        scales, lambdas, counts, row_weights, limbs, blocks, rows, bones, lambda_7, count_7,
        FIRST + 7, ORDER, KINDS, K, TERMS, WEIGHTED, GIVEN, BLOCK,
    )  # fmt: skip


@triton.jit(do_not_specialize=["blocks"])
def value_kernel(
    total,  # []
    values,  # [K]
    partials,  # [TERMS, blocks] float64: sums of the blocks of joint_kernel, one row per term
    scales,  # from scale_kernel
    blocks,
    ORDER: tl.constexpr,  # packed: the term of each value
    K: tl.constexpr,
    K_PADDED: tl.constexpr,
    TERMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: values of the terms and their weighted total, added in a fixed order."""
    k = tl.arange(0, K_PADDED)
    term = tl.zeros((K_PADDED,), tl.int32)
    for place in tl.static_range(K):
        term = tl.where(k == place, (ORDER >> (8 * place)) & 255, term)
    sums = tl.zeros((K_PADDED, BLOCK), tl.float64)
    start = 0
    while start < blocks:
        at = start + tl.arange(0, BLOCK)[None, :]
        mask = (at < blocks) & (k < K)[:, None]
        sums += tl.load(partials + (term.to(tl.int64) * blocks)[:, None] + at, mask=mask, other=0.0)
        start += BLOCK
    share = tl.load(scales + TERMS + term, mask=k < K, other=0.0)
    lam = tl.load(scales + 2 * TERMS + term, mask=k < K, other=0.0)
    value = tl.sum(sums, 1) * share
    tl.store(values + k, value.to(values.dtype.element_ty), mask=k < K)
    tl.store(total, tl.sum(tl.where(k < K, lam * value, 0.0), 0).to(total.dtype.element_ty))


@triton.jit(do_not_specialize=["n"])
def multiply_kernel(
    x,  # contiguous, n elements
    by,  # []
    n: tl.int64,
    BLOCK: tl.constexpr,
):
    """x *= by in place; memory is left alone where `by` is 1."""
    factor = tl.load(by)
    if factor != 1:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        tl.store(x + at, tl.load(x + at, mask=at < n) * factor, mask=at < n)
