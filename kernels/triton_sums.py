"""Scales of the terms before the main kernel, and their values after it."""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_math import (
    BONE_ANGLE,
    BONE_ANGLE_VELOCITY,
    BONE_RATIO,
    BONE_SYMMETRY,
    DEPTH_RANKING_FRAMES,
    DEPTH_RANKING_JOINTS,
    ILLEGAL_ANGLE,
    LIMB_LENGTH,
    LIMB_VARIANCE,
    MPJPE,
    N_MPJPE,
    TEMPORAL_CONSISTENCY,
    VELOCITY,
)

__all__ = ["multiply_kernel", "scale_kernel", "value_kernel"]


@triton.jit
def _number(bits):
    """A float64 that came as the integer of its bits: floats arrive in float32."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _sum(values, n, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(values + at, mask=at < n, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def _sum_of_squares(values, n, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(values + at, mask=at < n, other=0.0)
        total += x * x
    return tl.sum(total, 0)


@triton.jit
def _count_positive(values, n, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += (tl.load(values + at, mask=at < n, other=0.0) > 0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def _put(scales, lambdas, places, bits, count, TERM: tl.constexpr, MEAN: tl.constexpr, GIVEN: tl.constexpr):
    lam = _number(bits)
    if GIVEN:
        lam = tl.load(lambdas + ((places.to(tl.int64) >> (4 * TERM)) & 15)).to(tl.float64)
    share = tl.full((), 1, tl.float64)
    if MEAN:
        share = tl.where(count > 0, 1.0 / tl.where(count > 0, count, 1.0), 0.0)
    tl.store(scales + TERM, lam * share)
    tl.store(scales + 16 + TERM, share)
    tl.store(scales + 32 + TERM, lam)


_BITS = [f"lambda_{k}" for k in range(14)]


@triton.jit(do_not_specialize=[*_BITS, "places", "clips", "T", "J", "bones", "angles", "angles_velocity", "blocks"])
def scale_kernel(
    scales,  # [3, 16] float64: weight over count, 1 over count, weight of each term
    lambdas,  # [K]: weights of the terms, with GIVEN
    counts,  # [7, blocks] from frame_kernel, with WEIGHTED
    row_weights,  # [clips, J]: sums over time, with WEIGHTED
    limbs,  # [2, clips, bones] from limb_kernel, with WEIGHTED
    lambda_0: tl.int64,
    lambda_1: tl.int64,
    lambda_2: tl.int64,
    lambda_3: tl.int64,
    lambda_4: tl.int64,
    lambda_5: tl.int64,
    lambda_6: tl.int64,
    lambda_7: tl.int64,
    lambda_8: tl.int64,
    lambda_9: tl.int64,
    lambda_10: tl.int64,
    lambda_11: tl.int64,
    lambda_12: tl.int64,
    lambda_13: tl.int64,
    places: tl.int64,  # four bits a term: its place in `lambdas`
    clips,
    T,
    J,
    bones,
    angles,
    angles_velocity,
    blocks,
    TERMS: tl.constexpr,
    WEIGHTED: tl.constexpr,
    MEAN: tl.constexpr,
    GIVEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: what each term's sum and gradient are multiplied with."""
    b, t, j = clips.to(tl.float64), T.to(tl.float64), J.to(tl.float64)
    frames = b * t
    steps = b * tl.where(t > 1, t - 1, 0.0)
    joints = frames * j
    shared, visible, moving = joints, frames, steps * j
    among_joints, among_frames = joints * j, joints * t
    limb = frames * bones.to(tl.float64)
    varying = tl.where(t > 1, b * bones.to(tl.float64), 0.0)
    still, turning = frames * angles.to(tl.float64), steps * angles_velocity.to(tl.float64)
    if WEIGHTED and MEAN:
        if ((MPJPE | N_MPJPE) & TERMS) != 0:
            shared = _sum(counts, blocks, BLOCK)
        if (DEPTH_RANKING_JOINTS & TERMS) != 0:
            among_joints = _sum(counts + blocks, blocks, BLOCK)
        if ((BONE_SYMMETRY | ILLEGAL_ANGLE | BONE_RATIO) & TERMS) != 0:
            visible = _sum(counts + 2 * blocks, blocks, BLOCK)
        if ((VELOCITY | TEMPORAL_CONSISTENCY) & TERMS) != 0:
            moving = _sum(counts + 3 * blocks, blocks, BLOCK)
        if (LIMB_LENGTH & TERMS) != 0:
            limb = _sum(counts + 4 * blocks, blocks, BLOCK)
        if (BONE_ANGLE & TERMS) != 0:
            still = _sum(counts + 5 * blocks, blocks, BLOCK)
        if (BONE_ANGLE_VELOCITY & TERMS) != 0:
            turning = _sum(counts + 6 * blocks, blocks, BLOCK)
        if (DEPTH_RANKING_FRAMES & TERMS) != 0:
            among_frames = _sum_of_squares(row_weights, clips * J, BLOCK)
        if (LIMB_VARIANCE & TERMS) != 0:
            varying = _count_positive(limbs + clips * bones, clips * bones, BLOCK)
    _put(scales, lambdas, places, lambda_0, shared, 0, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_1, joints, 1, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_2, shared, 2, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_3, moving, 3, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_4, 3 * moving, 4, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_5, among_joints, 5, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_6, among_frames, 6, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_7, visible, 7, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_8, visible, 8, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_9, visible, 9, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_10, limb, 10, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_11, varying, 11, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_12, still, 12, MEAN, GIVEN)
    _put(scales, lambdas, places, lambda_13, turning, 13, MEAN, GIVEN)


@triton.jit(do_not_specialize=["order", "blocks"])
def value_kernel(
    total,  # []
    values,  # [K]
    partials,  # [14, blocks] float64: sums of the blocks of joint_kernel, a row a term
    scales,  # from scale_kernel
    order: tl.int64,  # four bits a value: the number of its term
    blocks,
    K: tl.constexpr,
    K_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: values of the terms and their weighted total, added in a fixed order."""
    k = tl.arange(0, K_PADDED)
    term = (order.to(tl.int64) >> (4 * k.to(tl.int64))) & 15
    sums = tl.zeros((K_PADDED, BLOCK), tl.float64)
    for start in range(0, blocks, BLOCK):
        at = start + tl.arange(0, BLOCK)[None, :]
        mask = (at < blocks) & (k < K)[:, None]
        sums += tl.load(partials + (term * blocks)[:, None] + at, mask=mask, other=0.0)
    share = tl.load(scales + 16 + term, mask=k < K, other=0.0)
    lam = tl.load(scales + 32 + term, mask=k < K, other=0.0)
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
