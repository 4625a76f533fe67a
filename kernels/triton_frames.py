"""What the main kernel needs to know beforehand: frames' scales, sums of weights, bones' means, angles."""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_math import (
    BIT,
    LEAST_FREEDOM,
    STRIDES,
    arc_cosine,
    clamp_cosine,
    cosine_between,
    denominator_numbers,
    dot,
    inverse,
    length,
    load_bone,
    load_point,
    load_weight,
    widened,
)

__all__ = ["angle_kernel", "frame_kernel", "limb_kernel"]

JOINT_WEIGHTS, STEPS, JOINT_PAIRS, FRAMES = denominator_numbers("joint_weights", "steps", "joint_pairs", "frames")
BONES, ANGLES, ANGLE_STEPS = denominator_numbers("bones", "angles", "angle_steps")


@triton.jit
def _joint_weights(weight, offset, stride_j, joint, mask):
    return tl.load(weight + offset + joint * stride_j, mask=mask, other=0).to(tl.float64)


@triton.jit
def _angle_weights(weight, offset, stride_j, list_of_angles, angle, mask):
    """Product of the weights of the three joints of each angle."""
    w = _joint_weights(weight, offset, stride_j, tl.load(list_of_angles + angle * 6, mask=mask, other=0), mask)
    w *= _joint_weights(weight, offset, stride_j, tl.load(list_of_angles + angle * 6 + 1, mask=mask, other=0), mask)
    return w * _joint_weights(
        weight, offset, stride_j, tl.load(list_of_angles + angle * 6 + 4, mask=mask, other=0), mask
    )


@triton.jit(do_not_specialize=["frames", "T", "blocks", *STRIDES])
def frame_kernel(
    pred,
    target,
    weight,
    scales,  # [2, frames] float64: N-MPJPE's scale, and its slope times the frame's share in it
    counts,  # [denominators, blocks] float64: sums of weights
    list_of_bones,  # [N_BONES, 2]
    list_of_angles,  # [N_ANGLES, 6]
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
    J_PADDED: tl.constexpr,
    N_BONES: tl.constexpr,
    BONES_PADDED: tl.constexpr,
    N_ANGLES: tl.constexpr,
    ANGLES_PADDED: tl.constexpr,
    SCALED: tl.constexpr,  # whether n_mpjpe is computed
    COUNTED: tl.constexpr,  # the denominators that are counted, a bit each
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A block of BLOCK frames: N-MPJPE's scales, and the sums of weights that means divide by."""
    if WIDE:
        pred_stride_j, pred_stride_c = widened(pred_stride_j), widened(pred_stride_c)
        target_stride_j, target_stride_c = widened(target_stride_j), widened(target_stride_c)
        weight_stride_j = widened(weight_stride_j)
    block = tl.program_id(0)
    frame = block * BLOCK + tl.arange(0, BLOCK)[:, None]
    joint = tl.arange(0, J_PADDED)[None, :]
    if WIDE:
        frame, joint = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None], joint.to(tl.int64)
    clip, t = frame // T, frame % T
    mask = (frame < frames) & (joint < J)
    w_frame = clip * weight_stride_b + t * weight_stride_t
    w = load_weight(weight, w_frame + joint * weight_stride_j, mask, tl.float64, WEIGHTED)

    if SCALED:
        present = mask & (w > 0)
        offset = clip * pred_stride_b + t * pred_stride_t + joint * pred_stride_j
        px, py, pz = load_point(pred, offset, pred_stride_c, present, tl.float64)
        offset = clip * target_stride_b + t * target_stride_t + joint * target_stride_j
        dx, dy, dz = load_point(target, offset, target_stride_c, present, tl.float64)
        square = tl.sum(w * dot(px, py, pz, px, py, pz), 1, keep_dims=True)
        product = tl.sum(w * dot(px, py, pz, dx, dy, dz), 1, keep_dims=True)
        # Divided rather than multiplied by the inverse: the scale of a perfect prediction is exactly 1.
        scale = tl.where(square == 0, 0.0, product / tl.where(square == 0, 1.0, square))
        ex, ey, ez = scale * px - dx, scale * py - dy, scale * pz - dz
        by_scale = tl.sum(w * inverse(length(ex, ey, ez)) * dot(ex, ey, ez, px, py, pz), 1, keep_dims=True)
        tl.store(scales + frame, scale, mask=frame < frames)
        tl.store(scales + frames.to(tl.int64) + frame, by_scale * inverse(square), mask=frame < frames)

    if ((BIT << JOINT_WEIGHTS | BIT << JOINT_PAIRS) & COUNTED) != 0:
        of_frame = tl.sum(w, 1)
        tl.store(counts + blocks * JOINT_WEIGHTS + block, tl.sum(of_frame, 0))
        tl.store(counts + blocks * JOINT_PAIRS + block, tl.sum(of_frame * of_frame, 0))
    if ((BIT << FRAMES) & COUNTED) != 0:
        visible = tl.max((w > 0).to(tl.int32), 1).to(tl.float64)
        tl.store(counts + blocks * FRAMES + block, tl.sum(visible, 0))
    moving = t > 0
    before = w_frame - weight_stride_t
    if ((BIT << STEPS) & COUNTED) != 0:
        w_before = load_weight(weight, before + joint * weight_stride_j, mask & moving, tl.float64, WEIGHTED)
        tl.store(counts + blocks * STEPS + block, tl.sum(tl.sum(w * w_before, 1), 0))
    if ((BIT << BONES) & COUNTED) != 0:
        bone = tl.arange(0, BONES_PADDED)[None, :]
        mask = (frame < frames) & (bone < N_BONES)
        child = tl.load(list_of_bones + 2 * bone, mask=bone < N_BONES, other=0)
        parent = tl.load(list_of_bones + 2 * bone + 1, mask=bone < N_BONES, other=0)
        product = _joint_weights(weight, w_frame, weight_stride_j, child, mask)
        product *= _joint_weights(weight, w_frame, weight_stride_j, parent, mask)
        tl.store(counts + blocks * BONES + block, tl.sum(tl.sum(product, 1), 0))
    if ((BIT << ANGLES | BIT << ANGLE_STEPS) & COUNTED) != 0:
        angle = tl.arange(0, ANGLES_PADDED)[None, :]
        mask = (frame < frames) & (angle < N_ANGLES)
        kind = tl.load(list_of_angles + 6 * angle + 5, mask=angle < N_ANGLES, other=0)
        product = _angle_weights(weight, w_frame, weight_stride_j, list_of_angles, angle, mask)
        still = tl.where((kind & 1) != 0, product, 0.0)
        tl.store(counts + blocks * ANGLES + block, tl.sum(tl.sum(still, 1), 0))
        product *= _angle_weights(weight, before, weight_stride_j, list_of_angles, angle, mask & moving)
        product = tl.where((kind & 2) != 0, product, 0.0)
        tl.store(counts + blocks * ANGLE_STEPS + block, tl.sum(tl.sum(product, 1), 0))


@triton.jit(do_not_specialize=["T", "clips", *STRIDES])
def limb_kernel(
    pred,
    weight,
    limbs,  # [2, clips, N_BONES] float64: mean length, and 1 / degrees of freedom of the variance or 0
    list_of_bones,  # [N_BONES, 2]
    clips,
    T,
    pred_stride_b,
    pred_stride_t,
    pred_stride_j,
    pred_stride_c,
    weight_stride_b,
    weight_stride_t,
    weight_stride_j,
    N_BONES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A bone of a clip."""
    if WIDE:
        pred_stride_j, pred_stride_c = widened(pred_stride_j), widened(pred_stride_c)
        weight_stride_j = widened(weight_stride_j)
    index = tl.program_id(0)
    clip, bone = index // N_BONES, index % N_BONES
    child, parent = tl.load(list_of_bones + 2 * bone), tl.load(list_of_bones + 2 * bone + 1)
    if WIDE:
        clip, child, parent = clip.to(tl.int64), child.to(tl.int64), parent.to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float64)
    squares = tl.zeros((BLOCK,), tl.float64)
    lengths = tl.zeros((BLOCK,), tl.float64)
    start = 0
    while start < T:
        t = start + tl.arange(0, BLOCK)
        mask = t < T
        if WIDE:
            t = t.to(tl.int64)
        offset = clip * weight_stride_b + t * weight_stride_t
        w_child = load_weight(weight, offset + child * weight_stride_j, mask, tl.float64, WEIGHTED)
        w_parent = load_weight(weight, offset + parent * weight_stride_j, mask, tl.float64, WEIGHTED)
        offset = clip * pred_stride_b + t * pred_stride_t
        _x, _y, _z, size = load_bone(
            pred, offset, pred_stride_j, pred_stride_c, child, parent, w_child > 0, w_parent > 0, tl.float64
        )
        w = w_child * w_parent
        total += w
        squares += w * w
        lengths += w * size
        start += BLOCK
    weights, squared = tl.sum(total, 0), tl.sum(squares, 0)
    # A bone without weight divides 0 by 1.
    divisor = tl.where(weights > 0, weights, 1.0)
    mean = tl.sum(lengths, 0) / divisor
    freedom = weights - squared / divisor
    varies = freedom > weights * LEAST_FREEDOM
    tl.store(limbs + index, mean)
    tl.store(limbs + clips * N_BONES + index, tl.where(varies, 1.0 / tl.where(varies, freedom, 1.0), 0.0))


@triton.jit
def _angle(pose, offset, stride_j, stride_c, c1, p1, c2, p2, m1, n1, m2, n2):
    ux, uy, uz, u = load_bone(pose, offset, stride_j, stride_c, c1, p1, m1, n1, tl.float64)
    vx, vy, vz, v = load_bone(pose, offset, stride_j, stride_c, c2, p2, m2, n2, tl.float64)
    _ux, _uy, _uz, _iu, _vx, _vy, _vz, _iv, cosine = cosine_between(ux, uy, uz, u, vx, vy, vz, v)
    return arc_cosine(clamp_cosine(cosine))


@triton.jit(do_not_specialize=["frames", "T", *STRIDES])
def angle_kernel(
    pred,
    target,
    weight,
    angles,  # [1 or 2, frames, N_ANGLES] float64: predicted minus target angle, and with weights that of the angle
    list_of_angles,  # [N_ANGLES, 6]
    frames,
    T,
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
    N_ANGLES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A block of the angles of all frames."""
    if WIDE:
        pred_stride_j, pred_stride_c = widened(pred_stride_j), widened(pred_stride_c)
        target_stride_j, target_stride_c = widened(target_stride_j), widened(target_stride_c)
        weight_stride_j = widened(weight_stride_j)
    block = tl.program_id(0)
    if WIDE:
        block = block.to(tl.int64)
    index = block * BLOCK + tl.arange(0, BLOCK)
    frame, angle = index // N_ANGLES, index % N_ANGLES
    mask = frame < frames
    clip, t = frame // T, frame % T
    entry = list_of_angles + angle * 6
    c1, p1 = tl.load(entry), tl.load(entry + 1)
    c2, p2 = tl.load(entry + 2), tl.load(entry + 3)
    offset = clip * weight_stride_b + t * weight_stride_t
    w_c1 = load_weight(weight, offset + c1 * weight_stride_j, mask, tl.float64, WEIGHTED)
    w_p1 = load_weight(weight, offset + p1 * weight_stride_j, mask, tl.float64, WEIGHTED)
    w_c2 = load_weight(weight, offset + c2 * weight_stride_j, mask, tl.float64, WEIGHTED)
    w_p2 = load_weight(weight, offset + p2 * weight_stride_j, mask, tl.float64, WEIGHTED)
    m1, n1, m2, n2 = w_c1 > 0, w_p1 > 0, w_c2 > 0, w_p2 > 0
    offset = clip * pred_stride_b + t * pred_stride_t
    found = _angle(pred, offset, pred_stride_j, pred_stride_c, c1, p1, c2, p2, m1, n1, m2, n2)
    offset = clip * target_stride_b + t * target_stride_t
    found -= _angle(target, offset, target_stride_j, target_stride_c, c1, p1, c2, p2, m1, n1, m2, n2)
    tl.store(angles + index, found, mask=mask)
    if WEIGHTED:
        other = tl.load(entry + 4)
        w_other = tl.where(other == c2, w_c2, w_p2)
        tl.store(angles + frames.to(tl.int64) * N_ANGLES + index, w_c1 * w_p1 * w_other, mask=mask)
