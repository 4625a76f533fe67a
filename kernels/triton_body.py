"""Terms of a body in the main kernel: what a joint gets from its bones, hinges and angles.

A lane is a joint `j` of a frame. `entries` [N, J] lists by joint what it takes part in, as an index into a list of
bones, hinges or angles, -1 where there is nothing more. Each function returns the lane's share of the sum, for every
bone or angle is counted by one of its joints only, and the gradient with this term's added.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_math import (
    BIT,
    COSINE_LIMIT,
    LINEAR_FROM,
    SHORTEST,
    clamp_cosine,
    cosine_between,
    cross,
    dot,
    inverse,
    length,
    load_bone,
    load_point,
    load_weight,
    sign,
    term_numbers,
)

__all__ = ["angle_share", "hinge_share", "limb_share", "mirrored_share", "ratio_share"]

LIMB_LENGTH, LIMB_VARIANCE = term_numbers("limb_length", "limb_variance")
BONE_ANGLE, BONE_ANGLE_VELOCITY = term_numbers("bone_angle", "bone_angle_velocity")


@triton.jit
def _bone_of(
    bones, index, inside, pose, weight, p_at, w_at, stride_j, stride_c, weight_stride_j,
    DTYPE: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Child joint, vector, length and weight of the bones with these indices."""
    child = tl.load(bones + 2 * index, mask=inside, other=0)
    parent = tl.load(bones + 2 * index + 1, mask=inside, other=0)
    w_child = load_weight(weight, w_at + child * weight_stride_j, inside, DTYPE, WEIGHTED)
    w_parent = load_weight(weight, w_at + parent * weight_stride_j, inside, DTYPE, WEIGHTED)
    x, y, z, size = load_bone(pose, p_at, stride_j, stride_c, child, parent, w_child > 0, w_parent > 0, DTYPE)
    return child, x, y, z, size, w_child * w_parent


@triton.jit
def mirrored_share(
    entries, bones, scale, gx, gy, gz, j, mask, pose, weight, p_at, w_at, stride_j, stride_c, weight_stride_j,
    N: tl.constexpr, J: tl.constexpr, SQUARED: tl.constexpr, DTYPE: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Bone symmetry; right and left bones alternate in `bones`."""
    value = tl.zeros_like(gx)
    for i in range(N):
        index = tl.load(entries + i * J + j, mask=mask, other=-1)
        inside = index >= 0
        child, x, y, z, mine, w = _bone_of(
            bones, index, inside, pose, weight, p_at, w_at, stride_j, stride_c, weight_stride_j, DTYPE, WEIGHTED
        )
        _child, _x, _y, _z, its, other_w = _bone_of(
            bones, index ^ 1, inside, pose, weight, p_at, w_at, stride_j, stride_c, weight_stride_j, DTYPE, WEIGHTED
        )
        w *= other_w
        # Seen from the other bone the difference changes sign, and so does its slope.
        difference = mine - its
        if SQUARED:
            share = w * difference * difference
            slope = 2 * w * difference
        else:
            share = w * tl.abs(difference)
            slope = w * sign(difference)
        value += tl.where(inside & ((index & 1) == 0) & (child == j), share, 0.0)
        slope = scale * tl.where(child == j, slope, -slope) * inverse(mine)
        gx += slope * x
        gy += slope * y
        gz += slope * z
    return value, gx, gy, gz


@triton.jit
def _of_role(role, first, second, third):
    """Gradient of the joint with this role in a chain from those of the three bones: it ends one, begins another."""
    ends = tl.where(role == 1, first, tl.where(role == 2, second, third))
    begins = tl.where(role == 0, first, tl.where(role == 1, second, third))
    return tl.where(role == 0, -begins, tl.where(role == 3, ends, ends - begins))


@triton.jit
def hinge_share(
    entries, hinges, factors, scale, gx, gy, gz, j, mask, pose, weight, p_at, w_at, stride_j, stride_c,
    weight_stride_j, N: tl.constexpr, J: tl.constexpr, UNIT_BONES: tl.constexpr, DTYPE: tl.constexpr,
    WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Illegal angle. An entry is 4 * hinge + the joint's role in the chain A-B-C-D of `hinges` [., 5]."""
    value = tl.zeros_like(gx)
    hinge_scale = tl.load(factors).to(DTYPE)
    tolerance = tl.load(factors + 1).to(DTYPE)
    for i in range(N):
        index = tl.load(entries + i * J + j, mask=mask, other=-1)
        inside = index >= 0
        role = index & 3
        hinge = hinges + (index >> 2) * 5
        a = tl.load(hinge, mask=inside, other=0)
        b = tl.load(hinge + 1, mask=inside, other=0)
        c = tl.load(hinge + 2, mask=inside, other=0)
        d = tl.load(hinge + 3, mask=inside, other=0)
        factor = hinge_scale * tl.load(hinge + 4, mask=inside, other=0).to(DTYPE)
        wa = load_weight(weight, w_at + a * weight_stride_j, inside, DTYPE, WEIGHTED)
        wb = load_weight(weight, w_at + b * weight_stride_j, inside, DTYPE, WEIGHTED)
        wc = load_weight(weight, w_at + c * weight_stride_j, inside, DTYPE, WEIGHTED)
        wd = load_weight(weight, w_at + d * weight_stride_j, inside, DTYPE, WEIGHTED)
        ax, ay, az = load_point(pose, p_at + a * stride_j, stride_c, wa > 0, DTYPE)
        bx, by, bz = load_point(pose, p_at + b * stride_j, stride_c, wb > 0, DTYPE)
        cx, cy, cz = load_point(pose, p_at + c * stride_j, stride_c, wc > 0, DTYPE)
        dx, dy, dz = load_point(pose, p_at + d * stride_j, stride_c, wd > 0, DTYPE)
        ux, uy, uz = bx - ax, by - ay, bz - az
        vx, vy, vz = cx - bx, cy - by, cz - bz
        sx, sy, sz = dx - cx, dy - cy, dz - cz
        if UNIT_BONES:
            iu, iv, js = inverse(length(ux, uy, uz)), inverse(length(vx, vy, vz)), inverse(length(sx, sy, sz))
            ux, uy, uz = iu * ux, iu * uy, iu * uz
            vx, vy, vz = iv * vx, iv * vy, iv * vz
            sx, sy, sz = js * sx, js * sy, js * sz
        nx, ny, nz = cross(ux, uy, uz, vx, vy, vz)
        over = factor * dot(nx, ny, nz, sx, sy, sz) - tolerance
        u = tl.where(over <= 0, tl.zeros_like(over), over)  # keeps a NaN
        bounded = tl.where(u > LINEAR_FROM, tl.full(u.shape, LINEAR_FROM, DTYPE), u)
        power = tl.exp(bounded)
        rise = (1 + bounded) * power
        w = wa * wb * wc * wd
        value += tl.where(inside & (role == 0), w * (bounded * power + (u - bounded) * rise), 0.0)
        g = tl.where(u == 0, tl.zeros_like(u), rise) * w * (scale * factor)
        fx, fy, fz = cross(vx, vy, vz, sx, sy, sz)
        fx, fy, fz = g * fx, g * fy, g * fz
        mx, my, mz = cross(sx, sy, sz, ux, uy, uz)
        mx, my, mz = g * mx, g * my, g * mz
        lx, ly, lz = g * nx, g * ny, g * nz
        if UNIT_BONES:  # only what turns a bone counts, and a bone of no length turns nowhere
            along = dot(fx, fy, fz, ux, uy, uz)
            fx, fy, fz = iu * (fx - along * ux), iu * (fy - along * uy), iu * (fz - along * uz)
            along = dot(mx, my, mz, vx, vy, vz)
            mx, my, mz = iv * (mx - along * vx), iv * (my - along * vy), iv * (mz - along * vz)
            along = dot(lx, ly, lz, sx, sy, sz)
            lx, ly, lz = js * (lx - along * sx), js * (ly - along * sy), js * (lz - along * sz)
        gx += _of_role(role, fx, mx, lx)
        gy += _of_role(role, fy, my, ly)
        gz += _of_role(role, fz, mz, lz)
    return value, gx, gy, gz


@triton.jit
def ratio_share(
    entries, bones, factors, scale, gx, gy, gz, j, mask, pose, weight, p_at, w_at, stride_j, stride_c,
    weight_stride_j, N: tl.constexpr, J: tl.constexpr, GROUP: tl.constexpr, DTYPE: tl.constexpr,
    WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Bone ratio. `bones` has GROUP places a group, with factor 0 and the bone (-1, -1) where a group is smaller."""
    value = tl.zeros_like(gx)
    for i in range(N):
        index = tl.load(entries + i * J + j, mask=mask, other=-1)
        inside = index >= 0
        group = index // GROUP * GROUP
        count = tl.zeros_like(gx)
        total = tl.zeros_like(gx)
        for k in range(GROUP):
            exists = tl.load(bones + 2 * (group + k), mask=inside, other=-1) >= 0
            factor = tl.load(factors + group + k, mask=exists, other=0.0).to(DTYPE)
            _child, _x, _y, _z, size, w = _bone_of(
                bones, group + k, exists, pose, weight, p_at, w_at, stride_j, stride_c, weight_stride_j, DTYPE, WEIGHTED
            )
            count += w
            total += w * factor * size
        share = inverse(count)
        factor = tl.load(factors + index, mask=inside, other=0.0).to(DTYPE)
        child, x, y, z, size, w = _bone_of(
            bones, index, inside, pose, weight, p_at, w_at, stride_j, stride_c, weight_stride_j, DTYPE, WEIGHTED
        )
        deviation = factor * size - total * share
        weighted = w * deviation * share
        value += tl.where(inside & (child == j), weighted * deviation, 0.0)
        # The slope through the mean cancels.
        slope = 2 * scale * factor * weighted * inverse(size)
        slope = tl.where(child == j, slope, -slope)
        gx += slope * x
        gy += slope * y
        gz += slope * z
    return value, gx, gy, gz


@triton.jit
def limb_share(
    entries, bones, limbs, freedoms, length_scale, variance_scale, gx, gy, gz, j, mask, clip, pred, target, weight,
    p_at, d_at, w_at, stride_j, stride_c, target_stride_j, target_stride_c, weight_stride_j,
    N: tl.constexpr, J: tl.constexpr, BONES: tl.constexpr, TERMS: tl.constexpr, DTYPE: tl.constexpr,
    WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Limb length and limb variance: two values. Lengths are compared in float64."""
    of_length = tl.zeros(gx.shape, tl.float64)
    of_variance = tl.zeros(gx.shape, tl.float64)
    for i in range(N):
        index = tl.load(entries + i * J + j, mask=mask, other=-1)
        inside = index >= 0
        child, x, y, z, size, w = _bone_of(
            bones, index, inside, pred, weight, p_at, w_at, stride_j, stride_c, weight_stride_j, tl.float64, WEIGHTED
        )
        counts = inside & (child == j)
        slope = tl.zeros(gx.shape, tl.float64)
        if ((BIT << LIMB_LENGTH) & TERMS) != 0:
            _child, _x, _y, _z, true_size, _w = _bone_of(
                bones, index, inside, target, weight, d_at, w_at, target_stride_j, target_stride_c, weight_stride_j,
                tl.float64, WEIGHTED,
            )  # fmt: skip
            difference = size - true_size
            of_length += tl.where(counts, w * tl.abs(difference), 0.0)
            slope += length_scale * w * sign(difference)
        if ((BIT << LIMB_VARIANCE) & TERMS) != 0:
            mean = tl.load(limbs + (clip * BONES + index), mask=inside, other=0.0)
            freedom = tl.load(freedoms + (clip * BONES + index), mask=inside, other=0.0)
            deviation = size - mean
            scaled = w * freedom * deviation
            of_variance += tl.where(counts, scaled * deviation, 0.0)
            slope += 2 * variance_scale * scaled
        slope = tl.where(child == j, slope, -slope) * inverse(size)
        gx += (slope * x).to(DTYPE)
        gy += (slope * y).to(DTYPE)
        gz += (slope * z).to(DTYPE)
    return of_length, of_variance, gx, gy, gz


@triton.jit
def angle_share(
    entries, list_of_angles, angles, angle_weights, angle_scale, velocity_scale, gx, gy, gz, j, mask, frame, t, T,
    pose, weight, p_at, w_at, stride_j, stride_c, weight_stride_j,
    N: tl.constexpr, J: tl.constexpr, ANGLES: tl.constexpr, TERMS: tl.constexpr, DTYPE: tl.constexpr,
    WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Bone angle and its velocity: two values. The differences of the angles are known already."""
    of_angle = tl.zeros(gx.shape, tl.float64)
    of_velocity = tl.zeros(gx.shape, tl.float64)
    for i in range(N):
        index = tl.load(entries + i * J + j, mask=mask, other=-1)
        inside = index >= 0
        row = list_of_angles + index * 6
        c1 = tl.load(row, mask=inside, other=0)
        p1 = tl.load(row + 1, mask=inside, other=0)
        c2 = tl.load(row + 2, mask=inside, other=0)
        p2 = tl.load(row + 3, mask=inside, other=0)
        kind = tl.load(row + 5, mask=inside, other=0)
        counts = inside & (c1 == j)
        at = frame * ANGLES + index
        difference = tl.load(angles + at, mask=inside, other=0.0)
        w = load_weight(angle_weights, at, inside, tl.float64, WEIGHTED)
        g = tl.zeros(gx.shape, tl.float64)
        if ((BIT << BONE_ANGLE) & TERMS) != 0:
            still = tl.where((kind & 1) != 0, w, 0.0)
            of_angle += tl.where(counts, still * tl.abs(difference), 0.0)
            g += angle_scale * still * sign(difference)
        if ((BIT << BONE_ANGLE_VELOCITY) & TERMS) != 0:
            near = inside & (t > 0) & ((kind & 2) != 0)
            both = w * load_weight(angle_weights, at - ANGLES, near, tl.float64, WEIGHTED)
            step = difference - tl.load(angles + (at - ANGLES), mask=near, other=0.0)
            of_velocity += tl.where(counts & near, both * tl.abs(step), 0.0)
            g += velocity_scale * both * sign(step)
            near = inside & (t < T - 1) & ((kind & 2) != 0)
            both = w * load_weight(angle_weights, at + ANGLES, near, tl.float64, WEIGHTED)
            step = tl.load(angles + (at + ANGLES), mask=near, other=0.0) - difference
            g -= velocity_scale * both * sign(step)
        # The bones' ends; what has no weight is 0.
        m1 = load_weight(weight, w_at + c1 * weight_stride_j, inside, DTYPE, WEIGHTED) > 0
        n1 = load_weight(weight, w_at + p1 * weight_stride_j, inside, DTYPE, WEIGHTED) > 0
        m2 = load_weight(weight, w_at + c2 * weight_stride_j, inside, DTYPE, WEIGHTED) > 0
        n2 = load_weight(weight, w_at + p2 * weight_stride_j, inside, DTYPE, WEIGHTED) > 0
        ux, uy, uz, u = load_bone(pose, p_at, stride_j, stride_c, c1, p1, m1, n1, tl.float64)
        vx, vy, vz, v = load_bone(pose, p_at, stride_j, stride_c, c2, p2, m2, n2, tl.float64)
        ux, uy, uz, iu, vx, vy, vz, iv, cosine = cosine_between(ux, uy, uz, u, vx, vy, vz, v)
        flat = (tl.abs(cosine) > COSINE_LIMIT) | (u <= SHORTEST) | (v <= SHORTEST)
        clamped = clamp_cosine(cosine)
        slope = tl.where(flat, 0.0, -g / tl.sqrt(1.0 - clamped * clamped))
        # How the joint moves each bone: its child end with it, its parent end against it.
        first = slope * iu * ((c1 == j).to(tl.float64) - (p1 == j).to(tl.float64))
        second = slope * iv * ((c2 == j).to(tl.float64) - (p2 == j).to(tl.float64))
        gx += (first * (vx - cosine * ux) + second * (ux - cosine * vx)).to(DTYPE)
        gy += (first * (vy - cosine * uy) + second * (uy - cosine * vy)).to(DTYPE)
        gz += (first * (vz - cosine * uz) + second * (uz - cosine * vz)).to(DTYPE)
    return of_angle, of_velocity, gx, gy, gz
