"""The main kernel: every term's share of a joint, and the gradient of the total with respect to it.

A lane is a joint of a frame, and collects whatever depends on that joint: its bones, hinges and angles, which tables
list joint by joint. Bones are thus met at both ends, but nothing is ever added to another lane's gradient:
no atomics, no scratch memory, and one store at the end. Neighbours and other joints come from the first-level cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_body import angle_share, hinge_share, limb_share, mirrored_share, ratio_share
from .triton_math import BIT, STRIDES, dot, inverse, length, load_point, load_weight, term_numbers, widened

__all__ = ["joint_kernel"]

MPJPE, WEIGHTED_MPJPE, N_MPJPE = term_numbers("mpjpe", "weighted_mpjpe", "n_mpjpe")
VELOCITY, TEMPORAL_CONSISTENCY = term_numbers("velocity", "temporal_consistency")
DEPTH_RANKING_JOINTS, DEPTH_RANKING_FRAMES = term_numbers("depth_ranking_joints", "depth_ranking_frames")
BONE_SYMMETRY, ILLEGAL_ANGLE, BONE_RATIO = term_numbers("bone_symmetry", "illegal_angle", "bone_ratio")
LIMB_LENGTH, LIMB_VARIANCE = term_numbers("limb_length", "limb_variance")
BONE_ANGLE, BONE_ANGLE_VELOCITY = term_numbers("bone_angle", "bone_angle_velocity")


@triton.jit
def _pair(p, d, other_p, other_d):
    """Twice the slope of a pair's hinge in p: a wrong order counts 2, a tie in p 1, a tie in d nothing."""
    higher = (p > other_p).to(tl.int32) + (p >= other_p).to(tl.int32)
    return tl.where(d < other_d, higher, tl.where(d > other_d, higher - 2, 0))


@triton.jit
def _put(partials, TERM: tl.constexpr, blocks, block, value, mask):
    total = tl.sum(tl.where(mask, value.to(tl.float64), 0.0), 0)
    tl.store(partials + blocks * TERM + block, total)


# ---- shares of a joint: each adds its gradient, and leaves the block's sum in `partials` ----------------------------


@triton.jit
def _position_share(
    pred, target, p_at, d_at, pred_stride_c, target_stride_c, joint_factors, scales, partials, blocks, block,
    gx, gy, gz, w, mask, present, TERMS: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """MPJPE and weighted MPJPE."""
    px, py, pz = load_point(pred, p_at, pred_stride_c, present, DTYPE)
    dx, dy, dz = load_point(target, d_at, target_stride_c, present, DTYPE)
    ex, ey, ez = px - dx, py - dy, pz - dz
    error = length(ex, ey, ez)
    slope = tl.zeros((BLOCK,), DTYPE)
    if ((BIT << MPJPE) & TERMS) != 0:
        _put(partials, MPJPE, blocks, block, w * error, mask)
        slope += tl.load(scales + MPJPE).to(DTYPE) * w
    if ((BIT << WEIGHTED_MPJPE) & TERMS) != 0:
        factor = tl.load(joint_factors).to(DTYPE) * w
        _put(partials, WEIGHTED_MPJPE, blocks, block, factor * error, mask)
        slope += tl.load(scales + WEIGHTED_MPJPE).to(DTYPE) * factor
    slope *= inverse(error)
    return gx + slope * ex, gy + slope * ey, gz + slope * ez


@triton.jit
def _scaled_position_share(
    pred, target, p_at, d_at, pred_stride_c, target_stride_c, frame_scales, frame, frames, scales, partials, blocks,
    block, gx, gy, gz, w, mask, present, DTYPE: tl.constexpr,
):  # fmt: skip
    """N-MPJPE, in float64."""
    wide = w.to(tl.float64)
    px, py, pz = load_point(pred, p_at, pred_stride_c, present, tl.float64)
    dx, dy, dz = load_point(target, d_at, target_stride_c, present, tl.float64)
    scale = tl.load(frame_scales + frame, mask=mask, other=0.0)
    share = tl.load(frame_scales + frames.to(tl.int64) + frame, mask=mask, other=0.0)
    ex, ey, ez = scale * px - dx, scale * py - dy, scale * pz - dz
    error = length(ex, ey, ez)
    _put(partials, N_MPJPE, blocks, block, wide * error, mask)
    lam = tl.load(scales + N_MPJPE)
    direct = lam * scale * wide * inverse(error)
    # The scale depends on every joint of the frame.
    indirect = lam * share * wide
    gx += (direct * ex + indirect * (dx - 2.0 * scale * px)).to(DTYPE)
    gy += (direct * ey + indirect * (dy - 2.0 * scale * py)).to(DTYPE)
    gz += (direct * ez + indirect * (dz - 2.0 * scale * pz)).to(DTYPE)
    return gx, gy, gz


@triton.jit
def _motion_share(
    pred, target, weight, p_at, d_at, w_at, here, there, pred_stride_t, target_stride_t, weight_stride_t,
    pred_stride_c, target_stride_c, weight_stride_j, joint_factors, scales, partials, blocks, block,
    gx, gy, gz, w, mask, present, j, t, T, TERMS: tl.constexpr, DTYPE: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Velocity and temporal consistency: the step to this frame, and the step to the next.

    The two are a loop at run time: side by side they would take more registers than four programs on a multiprocessor
    have. A step's value counts for the frame it leads to.
    """
    px, py, pz = load_point(pred, p_at + here, pred_stride_c, present, DTYPE)
    steps = tl.zeros_like(gx)
    squares = tl.zeros_like(gx)
    for side in range(2):
        back = side == 0
        inside = mask & tl.where(back, t > 0, t < T - 1)
        to_p = tl.where(back, p_at - pred_stride_t, p_at + pred_stride_t)
        to_d = tl.where(back, d_at - target_stride_t, d_at + target_stride_t)
        to_w = tl.where(back, w_at - weight_stride_t, w_at + weight_stride_t)
        other_w = load_weight(weight, to_w + j * weight_stride_j, inside, DTYPE, WEIGHTED)
        both = w * other_w
        near = inside & (other_w > 0)
        qx, qy, qz = load_point(pred, to_p + here, pred_stride_c, near, DTYPE)
        sx, sy, sz = px - qx, py - qy, pz - qz
        if ((BIT << TEMPORAL_CONSISTENCY) & TERMS) != 0:
            factor = tl.load(joint_factors).to(DTYPE) * both
            squares += tl.where(back & inside, factor * dot(sx, sy, sz, sx, sy, sz), 0.0)
            slope = 2 * tl.load(scales + TEMPORAL_CONSISTENCY).to(DTYPE) * factor
            gx += slope * sx
            gy += slope * sy
            gz += slope * sz
        if ((BIT << VELOCITY) & TERMS) != 0:
            dx, dy, dz = load_point(target, d_at + there, target_stride_c, present, DTYPE)
            qx, qy, qz = load_point(target, to_d + there, target_stride_c, near, DTYPE)
            sx, sy, sz = sx - (dx - qx), sy - (dy - qy), sz - (dz - qz)
            error = length(sx, sy, sz)
            steps += tl.where(back & inside, both * error, 0.0)
            slope = tl.load(scales + VELOCITY).to(DTYPE) * both * inverse(error)
            gx += slope * sx
            gy += slope * sy
            gz += slope * sz
    if ((BIT << TEMPORAL_CONSISTENCY) & TERMS) != 0:
        _put(partials, TEMPORAL_CONSISTENCY, blocks, block, squares, mask)
    if ((BIT << VELOCITY) & TERMS) != 0:
        _put(partials, VELOCITY, blocks, block, steps, mask)
    return gx, gy, gz


@triton.jit
def _joint_ranking_share(
    pred, target, weight, to_p, to_d, w_at, here, there, pred_stride_j, target_stride_j, weight_stride_j, scales,
    partials, blocks, block, gz, w, mask, present,
    J: tl.constexpr, DTYPE: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Depth ranking over the joints of a frame, by counting. Loads depths alone: other channels may be unused."""
    pz = tl.load(pred + (to_p + here), mask=present, other=0).to(DTYPE)
    dz = tl.load(target + (to_d + there), mask=present, other=0).to(DTYPE)
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
    first_w = load_weight(weight, w_at, mask, DTYPE, WEIGHTED)
    first = tl.load(pred + to_p, mask=mask & (first_w > 0), other=0).to(DTYPE)
    value = (pz.to(tl.float64) - first.to(tl.float64)) * g.to(tl.float64)
    _put(partials, DEPTH_RANKING_JOINTS, blocks, block, value, mask)
    return gz + tl.load(scales + DEPTH_RANKING_JOINTS).to(DTYPE) * g


@triton.jit
def _frame_ranking_share(
    pred, weight, ranks, to_p, pred_stride_t, to_w, clip, j, t, T, scales, partials, blocks, block, mask, present,
    J: tl.constexpr, DTYPE: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Depth ranking over the frames of a joint, whose gradient is in `ranks`."""
    pz = tl.load(pred + (to_p + t * pred_stride_t), mask=present, other=0).to(DTYPE)
    first_w = load_weight(weight, to_w, mask, DTYPE, WEIGHTED)
    first = tl.load(pred + to_p, mask=mask & (first_w > 0), other=0).to(DTYPE)
    g = tl.load(ranks + ((clip * J + j) * T + t), mask=mask, other=0).to(tl.float64)
    _put(partials, DEPTH_RANKING_FRAMES, blocks, block, (pz.to(tl.float64) - first.to(tl.float64)) * g, mask)
    return (tl.load(scales + DEPTH_RANKING_FRAMES) * g).to(DTYPE)


# ---- the kernel --------------------------------------------------------------------------------------------------


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
    scales,  # [3, terms] from scale_kernel
    partials,  # [terms, blocks]
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
    # Rows of `entries` per kind.
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
    there = j * target_stride_j

    w = load_weight(weight, w_at + j * weight_stride_j, mask, DTYPE, WEIGHTED)
    present = mask & (w > 0)
    gx = tl.zeros((BLOCK,), DTYPE)
    gy = tl.zeros((BLOCK,), DTYPE)
    gz = tl.zeros((BLOCK,), DTYPE)

    # A joint by itself, or with those of its frame or its neighbours in time.

    if ((BIT << MPJPE | BIT << WEIGHTED_MPJPE) & TERMS) != 0:
        gx, gy, gz = _position_share(
            pred, target, p_at + here, d_at + there, pred_stride_c, target_stride_c, factors + (2 + j), scales,
            partials, blocks, block, gx, gy, gz, w, mask, present, TERMS, DTYPE, BLOCK,
        )  # fmt: skip
    if ((BIT << N_MPJPE) & TERMS) != 0:
        gx, gy, gz = _scaled_position_share(
            pred, target, p_at + here, d_at + there, pred_stride_c, target_stride_c, frame_scales, frame, frames,
            scales, partials, blocks, block, gx, gy, gz, w, mask, present, DTYPE,
        )  # fmt: skip
    if ((BIT << VELOCITY | BIT << TEMPORAL_CONSISTENCY) & TERMS) != 0:
        gx, gy, gz = _motion_share(
            pred, target, weight, p_at, d_at, w_at, here, there, pred_stride_t, target_stride_t, weight_stride_t,
            pred_stride_c, target_stride_c, weight_stride_j, factors + (2 + J + j), scales, partials, blocks, block,
            gx, gy, gz, w, mask, present, j, t, T, TERMS, DTYPE, WEIGHTED,
        )  # fmt: skip
    if ((BIT << DEPTH_RANKING_FRAMES) & TERMS) != 0:
        # Before the loop over the joints, which then needs to keep no clip; added in its turn.
        ranked = _frame_ranking_share(
            pred, weight, ranks, clip * pred_stride_b + here + 2 * pred_stride_c, pred_stride_t,
            clip * weight_stride_b + j * weight_stride_j, clip, j, t, T, scales, partials, blocks, block, mask,
            present, J, DTYPE, WEIGHTED,
        )  # fmt: skip
    if ((BIT << DEPTH_RANKING_JOINTS) & TERMS) != 0:
        gz = _joint_ranking_share(
            pred, target, weight, p_at + 2 * pred_stride_c, d_at + 2 * target_stride_c, w_at, here, there,
            pred_stride_j, target_stride_j, weight_stride_j, scales, partials, blocks, block, gz, w, mask, present,
            J, DTYPE, WEIGHTED, BLOCK,
        )  # fmt: skip
    if ((BIT << DEPTH_RANKING_FRAMES) & TERMS) != 0:
        gz += ranked

    # A body; each kind has its rows of `entries`.

    if ((BIT << BONE_SYMMETRY) & TERMS) != 0:
        scale = tl.load(scales + BONE_SYMMETRY).to(DTYPE)
        value, gx, gy, gz = mirrored_share(
            entries, mirrored, scale, gx, gy, gz, j, mask, pred, weight, p_at, w_at, pred_stride_j, pred_stride_c,
            weight_stride_j, N_MIRRORED, J, SQUARED, DTYPE, WEIGHTED,
        )  # fmt: skip
        _put(partials, BONE_SYMMETRY, blocks, block, value, mask)
    entries += N_MIRRORED * J
    if ((BIT << ILLEGAL_ANGLE) & TERMS) != 0:
        scale = tl.load(scales + ILLEGAL_ANGLE).to(DTYPE)
        value, gx, gy, gz = hinge_share(
            entries, hinges, factors, scale, gx, gy, gz, j, mask, pred, weight, p_at, w_at, pred_stride_j,
            pred_stride_c, weight_stride_j, N_HINGES, J, UNIT_BONES, DTYPE, WEIGHTED,
        )  # fmt: skip
        _put(partials, ILLEGAL_ANGLE, blocks, block, value, mask)
    entries += N_HINGES * J
    if ((BIT << BONE_RATIO) & TERMS) != 0:
        scale = tl.load(scales + BONE_RATIO).to(DTYPE)
        value, gx, gy, gz = ratio_share(
            entries, groups, factors + (2 + 2 * J), scale, gx, gy, gz, j, mask, pred, weight, p_at, w_at,
            pred_stride_j, pred_stride_c, weight_stride_j, N_RATIOS, J, GROUP, DTYPE, WEIGHTED,
        )  # fmt: skip
        _put(partials, BONE_RATIO, blocks, block, value, mask)
    entries += N_RATIOS * J
    if ((BIT << LIMB_LENGTH | BIT << LIMB_VARIANCE) & TERMS) != 0:
        length_scale, variance_scale = tl.load(scales + LIMB_LENGTH), tl.load(scales + LIMB_VARIANCE)
        freedoms = limbs + (frames // T).to(tl.int64) * BONES
        value, variance, gx, gy, gz = limb_share(
            entries, list_of_bones, limbs, freedoms, length_scale, variance_scale, gx, gy, gz, j, mask, clip, pred,
            target, weight, p_at, d_at, w_at, pred_stride_j, pred_stride_c, target_stride_j, target_stride_c,
            weight_stride_j, N_BONES, J, BONES, TERMS, DTYPE, WEIGHTED,
        )  # fmt: skip
        if ((BIT << LIMB_LENGTH) & TERMS) != 0:
            _put(partials, LIMB_LENGTH, blocks, block, value, mask)
        if ((BIT << LIMB_VARIANCE) & TERMS) != 0:
            _put(partials, LIMB_VARIANCE, blocks, block, variance, mask)
    entries += N_BONES * J
    if ((BIT << BONE_ANGLE | BIT << BONE_ANGLE_VELOCITY) & TERMS) != 0:
        angle_scale, velocity_scale = tl.load(scales + BONE_ANGLE), tl.load(scales + BONE_ANGLE_VELOCITY)
        angle_weights = angles + frames.to(tl.int64) * ANGLES
        value, velocity, gx, gy, gz = angle_share(
            entries, list_of_angles, angles, angle_weights, angle_scale, velocity_scale, gx, gy, gz, j, mask, frame, t,
            T, pred, weight, p_at, w_at, pred_stride_j, pred_stride_c, weight_stride_j, N_ANGLES, J, ANGLES, TERMS,
            DTYPE, WEIGHTED,
        )  # fmt: skip
        if ((BIT << BONE_ANGLE) & TERMS) != 0:
            _put(partials, BONE_ANGLE, blocks, block, value, mask)
        if ((BIT << BONE_ANGLE_VELOCITY) & TERMS) != 0:
            _put(partials, BONE_ANGLE_VELOCITY, blocks, block, velocity, mask)

    if NEED_GRAD:
        if DEPTH_ONLY:
            tl.store(grad + index, gz, mask=mask)
        else:
            at = grad + index * 3
            tl.store(at, gx, mask=mask)
            tl.store(at + 1, gy, mask=mask)
            tl.store(at + 2, gz, mask=mask)
