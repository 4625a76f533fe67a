"""The main kernel: every term's share of a joint, and the gradient of the total with respect to it.

A lane is a joint of a frame, and collects whatever depends on that joint: its bones, hinges and angles, which tables
list joint by joint. Bones are thus looked at from both ends, but nothing is ever added to another lane's gradient:
no atomics, no scratch memory, and one store at the end. Neighbours and other joints come from the first-level cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_body import angle_share, hinge_share, limb_share, mirrored_share, ratio_share
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
    STRIDES,
    TEMPORAL_CONSISTENCY,
    VELOCITY,
    WEIGHTED_MPJPE,
    dot,
    inverse,
    length,
    load_point,
    load_weight,
    widened,
)

__all__ = ["joint_kernel"]


@triton.jit
def _pair(p, d, other_p, other_d):
    """Twice the slope of a pair's hinge in p: a wrong order counts 2, a tie in p 1, a tie in d nothing."""
    higher = (p > other_p).to(tl.int32) + (p >= other_p).to(tl.int32)
    return tl.where(d < other_d, higher, tl.where(d > other_d, higher - 2, 0))


@triton.jit
def _put(partials, TERM: tl.constexpr, blocks, block, value, mask):
    total = tl.sum(tl.where(mask, value.to(tl.float64), 0.0), 0)
    tl.store(partials + TERM * blocks + block, total)


@triton.jit(do_not_specialize=["frames", "T", "blocks", *STRIDES])
def joint_kernel(
    pred,
    target,
    weight,
    grad,  # [frames * J, 3], with DEPTH_ONLY [frames * J]
    ranks,  # [clips * J, T]: unscaled gradient of the ranking of frames
    frame_scales,  # [2, frames] from frame_kernel
    limbs,  # [2, clips, BONES] from limb_kernel
    angles,  # [1 or 2, frames, ANGLES] from angle_kernel
    entries,  # int32, rows of [J] one term after the other: what each joint takes part in, see triton_body
    mirrored,  # [pairs * 2, 2]: right and left bones of bone_symmetry
    hinges,  # [hinges, 5]: chains of illegal_angle and their sign
    groups,  # [groups * GROUP, 2]: bones of bone_ratio
    list_of_bones,  # [BONES, 2]
    list_of_angles,  # [ANGLES, 6]
    factors,  # float64: hinge scale and tolerance; [J] of weighted_mpjpe; [J] of temporal_consistency; bone_ratio's
    scales,  # [3, 16] from scale_kernel
    partials,  # [14, blocks]
    frames,
    T,
    blocks,
    pred_stride_b,
    pred_stride_t,
    pred_stride_j,
    pred_stride_c,
    target_stride_b,
    target_stride_t,
    target_stride_j,
    target_stride_c,
    weight_stride_b,
    weight_stride_t,
    weight_stride_j,
    J: tl.constexpr,
    TERMS: tl.constexpr,
    WEIGHTED: tl.constexpr,
    NEED_GRAD: tl.constexpr,
    DEPTH_ONLY: tl.constexpr,
    WIDE: tl.constexpr,
    DTYPE: tl.constexpr,
    # Rows of `entries` a term.
    N_MIRRORED: tl.constexpr,
    N_HINGES: tl.constexpr,
    N_RATIOS: tl.constexpr,
    N_BONES: tl.constexpr,
    N_ANGLES: tl.constexpr,
    GROUP: tl.constexpr,  # the most bones of a group of bone_ratio
    BONES: tl.constexpr,
    ANGLES: tl.constexpr,
    SQUARED: tl.constexpr,
    UNIT_BONES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A block of joints of all frames."""
    if WIDE:
        pred_stride_j, pred_stride_c = widened(pred_stride_j), widened(pred_stride_c)
        target_stride_j, target_stride_c = widened(target_stride_j), widened(target_stride_c)
        weight_stride_j = widened(weight_stride_j)
    block = tl.program_id(0)
    index = block * BLOCK + tl.arange(0, BLOCK)
    if WIDE:
        index = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    frame = index // J
    j = index % J
    mask = frame < frames
    clip = frame // T
    t = frame % T
    # Offsets of the frame; joints are added.
    p_at = clip * pred_stride_b + t * pred_stride_t
    d_at = clip * target_stride_b + t * target_stride_t
    w_at = clip * weight_stride_b + t * weight_stride_t
    here = j * pred_stride_j

    w = load_weight(weight, w_at + j * weight_stride_j, mask, DTYPE, WEIGHTED)
    present = mask & (w > 0)
    gx = tl.zeros((BLOCK,), DTYPE)
    gy = tl.zeros((BLOCK,), DTYPE)
    gz = tl.zeros((BLOCK,), DTYPE)

    # ---- positions

    if ((MPJPE | WEIGHTED_MPJPE) & TERMS) != 0:
        px, py, pz = load_point(pred, p_at + here, pred_stride_c, present, DTYPE)
        dx, dy, dz = load_point(target, d_at + j * target_stride_j, target_stride_c, present, DTYPE)
        ex, ey, ez = px - dx, py - dy, pz - dz
        error = length(ex, ey, ez)
        slope = tl.zeros((BLOCK,), DTYPE)
        if (MPJPE & TERMS) != 0:
            _put(partials, 0, blocks, block, w * error, mask)
            slope += tl.load(scales).to(DTYPE) * w
        if (WEIGHTED_MPJPE & TERMS) != 0:
            factor = tl.load(factors + 2 + j).to(DTYPE) * w
            _put(partials, 1, blocks, block, factor * error, mask)
            slope += tl.load(scales + 1).to(DTYPE) * factor
        slope *= inverse(error)
        gx += slope * ex
        gy += slope * ey
        gz += slope * ez

    if (N_MPJPE & TERMS) != 0:
        wide = w.to(tl.float64)
        px, py, pz = load_point(pred, p_at + here, pred_stride_c, present, tl.float64)
        dx, dy, dz = load_point(target, d_at + j * target_stride_j, target_stride_c, present, tl.float64)
        scale = tl.load(frame_scales + frame, mask=mask, other=0.0)
        share = tl.load(frame_scales + frames.to(tl.int64) + frame, mask=mask, other=0.0)
        ex, ey, ez = scale * px - dx, scale * py - dy, scale * pz - dz
        error = length(ex, ey, ez)
        _put(partials, 2, blocks, block, wide * error, mask)
        lam = tl.load(scales + 2)
        direct = lam * scale * wide * inverse(error)
        # The scale depends on every joint of the frame.
        indirect = lam * share * wide
        gx += (direct * ex + indirect * (dx - 2.0 * scale * px)).to(DTYPE)
        gy += (direct * ey + indirect * (dy - 2.0 * scale * py)).to(DTYPE)
        gz += (direct * ez + indirect * (dz - 2.0 * scale * pz)).to(DTYPE)

    # ---- motion: the step to this frame, and the step to the next

    if ((VELOCITY | TEMPORAL_CONSISTENCY) & TERMS) != 0:
        px, py, pz = load_point(pred, p_at + here, pred_stride_c, present, DTYPE)
        for side in tl.static_range(2):
            if side == 0:
                inside = mask & (t > 0)
                to_p, to_d, to_w = p_at - pred_stride_t, d_at - target_stride_t, w_at - weight_stride_t
            else:
                inside = mask & (t < T - 1)
                to_p, to_d, to_w = p_at + pred_stride_t, d_at + target_stride_t, w_at + weight_stride_t
            other_w = load_weight(weight, to_w + j * weight_stride_j, inside, DTYPE, WEIGHTED)
            both = w * other_w
            near = inside & (other_w > 0)
            qx, qy, qz = load_point(pred, to_p + here, pred_stride_c, near, DTYPE)
            sx, sy, sz = px - qx, py - qy, pz - qz
            if (TEMPORAL_CONSISTENCY & TERMS) != 0:
                factor = tl.load(factors + 2 + J + j).to(DTYPE) * both
                if side == 0:
                    _put(partials, 4, blocks, block, factor * dot(sx, sy, sz, sx, sy, sz), inside)
                slope = 2 * tl.load(scales + 4).to(DTYPE) * factor
                gx += slope * sx
                gy += slope * sy
                gz += slope * sz
            if (VELOCITY & TERMS) != 0:
                dx, dy, dz = load_point(target, d_at + j * target_stride_j, target_stride_c, present, DTYPE)
                qx, qy, qz = load_point(target, to_d + j * target_stride_j, target_stride_c, near, DTYPE)
                sx, sy, sz = sx - (dx - qx), sy - (dy - qy), sz - (dz - qz)
                error = length(sx, sy, sz)
                if side == 0:
                    _put(partials, 3, blocks, block, both * error, inside)
                slope = tl.load(scales + 3).to(DTYPE) * both * inverse(error)
                gx += slope * sx
                gy += slope * sy
                gz += slope * sz

    # ---- depth ranking

    if (DEPTH_RANKING_JOINTS & TERMS) != 0:
        # Depths alone: the other channels may well be unused.
        to_p, to_d = p_at + 2 * pred_stride_c, d_at + 2 * target_stride_c
        pz = tl.load(pred + (to_p + here), mask=present, other=0).to(DTYPE)
        dz = tl.load(target + (to_d + j * target_stride_j), mask=present, other=0).to(DTYPE)
        first_w = load_weight(weight, w_at, mask, DTYPE, WEIGHTED)
        first = tl.load(pred + to_p, mask=mask & (first_w > 0), other=0).to(DTYPE)
        invalid = tl.zeros((BLOCK,), tl.int1)
        if WEIGHTED:
            weighted = tl.zeros((BLOCK,), DTYPE)
        else:
            counted = tl.zeros((BLOCK,), tl.int32)
        for k in range(J):
            other_w = load_weight(weight, w_at + k * weight_stride_j, mask, DTYPE, WEIGHTED)
            near = mask & (other_w > 0)
            other_p = tl.load(pred + (to_p + k * pred_stride_j), mask=near, other=0).to(DTYPE)
            other_d = tl.load(target + (to_d + k * target_stride_j), mask=near, other=0).to(DTYPE)
            invalid = invalid | (other_p != other_p) | (other_d != other_d)
            twice = _pair(pz, dz, other_p, other_d)
            if WEIGHTED:
                weighted += other_w * twice.to(DTYPE)
            else:
                counted += twice
        if WEIGHTED:
            g = 0.5 * w * weighted
        else:
            g = 0.5 * counted.to(DTYPE)
        g = tl.where(invalid & present, float("nan"), g)
        # The gradients of a frame sum to zero, so a shift changes nothing but the rounding.
        _put(partials, 5, blocks, block, (pz.to(tl.float64) - first.to(tl.float64)) * g.to(tl.float64), mask)
        gz += tl.load(scales + 5).to(DTYPE) * g

    if (DEPTH_RANKING_FRAMES & TERMS) != 0:
        to_p = clip * pred_stride_b + here + 2 * pred_stride_c
        pz = tl.load(pred + (to_p + t * pred_stride_t), mask=present, other=0).to(DTYPE)
        first_w = load_weight(weight, clip * weight_stride_b + j * weight_stride_j, mask, DTYPE, WEIGHTED)
        first = tl.load(pred + to_p, mask=mask & (first_w > 0), other=0).to(DTYPE)
        g = tl.load(ranks + ((clip * J + j) * T + t), mask=mask, other=0).to(tl.float64)
        _put(partials, 6, blocks, block, (pz.to(tl.float64) - first.to(tl.float64)) * g, mask)
        gz += (tl.load(scales + 6) * g).to(DTYPE)

    # ---- a body

    if (BONE_SYMMETRY & TERMS) != 0:
        value, gx, gy, gz = mirrored_share(
            entries, mirrored, tl.load(scales + 7).to(DTYPE), gx, gy, gz, j, mask, pred, weight, p_at, w_at,
            pred_stride_j, pred_stride_c, weight_stride_j, N_MIRRORED, J, SQUARED, DTYPE, WEIGHTED,
        )  # fmt: skip
        _put(partials, 7, blocks, block, value, mask)
    if (ILLEGAL_ANGLE & TERMS) != 0:
        value, gx, gy, gz = hinge_share(
            entries + N_MIRRORED * J, hinges, factors, tl.load(scales + 8).to(DTYPE), gx, gy, gz, j, mask, pred, weight,
            p_at, w_at, pred_stride_j, pred_stride_c, weight_stride_j, N_HINGES, J, UNIT_BONES, DTYPE, WEIGHTED,
        )  # fmt: skip
        _put(partials, 8, blocks, block, value, mask)
    if (BONE_RATIO & TERMS) != 0:
        value, gx, gy, gz = ratio_share(
            entries + (N_MIRRORED + N_HINGES) * J, groups, factors + (2 + 2 * J), tl.load(scales + 9).to(DTYPE),
            gx, gy, gz, j, mask, pred, weight, p_at, w_at, pred_stride_j, pred_stride_c, weight_stride_j, N_RATIOS, J,
            GROUP, DTYPE, WEIGHTED,
        )  # fmt: skip
        _put(partials, 9, blocks, block, value, mask)
    if ((LIMB_LENGTH | LIMB_VARIANCE) & TERMS) != 0:
        freedoms = limbs + (frames // T).to(tl.int64) * BONES
        value, variance, gx, gy, gz = limb_share(
            entries + (N_MIRRORED + N_HINGES + N_RATIOS) * J, list_of_bones, limbs, freedoms, tl.load(scales + 10),
            tl.load(scales + 11), gx, gy, gz, j, mask, clip, pred, target, weight, p_at, d_at, w_at, pred_stride_j,
            pred_stride_c, target_stride_j, target_stride_c, weight_stride_j, N_BONES, J, BONES, TERMS, DTYPE, WEIGHTED,
        )  # fmt: skip
        if (LIMB_LENGTH & TERMS) != 0:
            _put(partials, 10, blocks, block, value, mask)
        if (LIMB_VARIANCE & TERMS) != 0:
            _put(partials, 11, blocks, block, variance, mask)
    if ((BONE_ANGLE | BONE_ANGLE_VELOCITY) & TERMS) != 0:
        angle_weights = angles + frames.to(tl.int64) * ANGLES
        value, velocity, gx, gy, gz = angle_share(
            entries + (N_MIRRORED + N_HINGES + N_RATIOS + N_BONES) * J, list_of_angles, angles, angle_weights,
            tl.load(scales + 12), tl.load(scales + 13), gx, gy, gz, j, mask, frame, t, T, pred, weight, p_at, w_at,
            pred_stride_j, pred_stride_c, weight_stride_j, N_ANGLES, J, ANGLES, TERMS, DTYPE, WEIGHTED,
        )  # fmt: skip
        if (BONE_ANGLE & TERMS) != 0:
            _put(partials, 12, blocks, block, value, mask)
        if (BONE_ANGLE_VELOCITY & TERMS) != 0:
            _put(partials, 13, blocks, block, velocity, mask)

    if NEED_GRAD:
        if DEPTH_ONLY:
            tl.store(grad + index, gz, mask=mask)
        else:
            at = grad + index * 3
            tl.store(at, gx, mask=mask)
            tl.store(at + 1, gy, mask=mask)
            tl.store(at + 2, gz, mask=mask)
