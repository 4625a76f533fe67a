"""Gradient of the depth-ranking hinge of rows over time: a difference of ranks, found by sorting.

A row's depths are sorted as integers of the same order, without their indices: 32 bits instead of 64 halve the price.
Every element then finds its place by bisection in the sorted row, so that all results stay in the order of the
elements. Ties cost another sort, which rows without ties skip.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_math import STRIDES, widened

__all__ = ["row_kernel"]

# Sorts after every depth that is a number.
_LAST = tl.constexpr(0x7FFFFFFF)


@triton.jit
def _exchange(x, ROWS: tl.constexpr, N: tl.constexpr, SPAN: tl.constexpr, RUN: tl.constexpr):
    """One step of a bitonic network: elements SPAN apart in order, in alternating directions from run to run."""
    pairs = tl.reshape(x, (ROWS * N // (2 * SPAN), 2, SPAN))
    low = tl.min(pairs, 1, keep_dims=True)
    high = tl.max(pairs, 1, keep_dims=True)
    descending = (tl.arange(0, ROWS * N // (2 * SPAN)) * (2 * SPAN) % N // RUN % 2)[:, None, None]
    second = tl.arange(0, 2)[None, :, None]
    return tl.reshape(tl.where(second == descending, low, high), (ROWS, N))


@triton.jit
def _sorted(x, ROWS: tl.constexpr, N: tl.constexpr, LOG: tl.constexpr):
    """Rows [ROWS, N] in ascending order."""
    for run in tl.static_range(1, LOG + 1):
        for step in tl.static_range(run):
            x = _exchange(x, ROWS, N, 2 ** (run - 1 - step), 2**run)
    return x


@triton.jit
def _share(row, column, x):
    """Store a row where every thread of the program can read it."""
    tl.debug_barrier()  # what is there may still be read
    tl.store(row + column, x)
    tl.debug_barrier()


@triton.jit
def _count_below(row, x, N: tl.constexpr, LOG: tl.constexpr):
    """How many of a sorted row are less than x, one of its elements."""
    count = tl.zeros_like(x)
    for i in tl.static_range(LOG):
        found = tl.load(row + (count + ((N >> (i + 1)) - 1)))
        count = tl.where(found < x, count + (N >> (i + 1)), count)
    return count


@triton.jit
def _count_up_to(row, x, N: tl.constexpr, LOG: tl.constexpr):
    """How many of a sorted row are not greater than x."""
    count = tl.zeros_like(x)
    for i in tl.static_range(LOG):
        found = tl.load(row + (count + ((N >> (i + 1)) - 1)))
        count = tl.where(found <= x, count + (N >> (i + 1)), count)
    return count + (tl.load(row + count) <= x).to(tl.int32)


@triton.jit
def _weights_before(place, w, weight_row, column, present):
    """Store the sums of weights in sorted order, for elements with these places in it."""
    _share(weight_row, place, w)
    in_order = tl.where(present, tl.load(weight_row + column), 0.0)
    _share(weight_row, column, tl.cumsum(in_order, 1))


@triton.jit
def _twice_midrank(first, after, w, weight_row):
    """Twice the weighted mid-rank, itself not counted, of elements whose run of equals is [first, after)."""
    below = tl.load(weight_row + (first - 1), mask=first > 0, other=0.0)
    return below + tl.load(weight_row + (after - 1)) - w


@triton.jit
def _image(x):
    """Integers in the order of float32; zeros of both signs are equal."""
    bits = tl.where(x == 0, tl.zeros_like(x), x).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit(do_not_specialize=["rows", "T", "J", *STRIDES])
def row_kernel(
    pred,
    target,
    weight,
    ranks,  # [rows, T]: the gradient, unscaled
    scratch,  # [programs, ROWS, N] int32
    weight_scratch,  # [programs, ROWS, N] float64
    rows,
    T,
    J,
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
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    N: tl.constexpr,
    LOG: tl.constexpr,
):
    """Rows (clip, joint) of depths, ROWS at a time, padded to N = 2**LOG; half types and float32."""
    tl.static_assert(N <= 16384, "two places of a row, the last one included, are packed in 31 bits")
    if WIDE:
        pred_stride_j, pred_stride_c = widened(pred_stride_j), widened(pred_stride_c)
        target_stride_j, target_stride_c = widened(target_stride_j), widened(target_stride_c)
        weight_stride_j = widened(weight_stride_j)
    local = tl.arange(0, ROWS)[:, None]
    # Written in full, for bisection's indices have the rows' shape.
    column = tl.broadcast_to(tl.arange(0, N)[None, :], (ROWS, N))
    place = tl.program_id(0) * ROWS + local
    row = scratch + place * N
    weight_row = weight_scratch + place * N
    block = tl.program_id(0)
    while block < tl.cdiv(rows, ROWS):
        index = block * ROWS + local
        clip = index // J
        joint = index % J
        frame = column
        if WIDE:
            index, clip, joint, frame = index.to(tl.int64), clip.to(tl.int64), joint.to(tl.int64), frame.to(tl.int64)
        inside = (index < rows) & (column < T)
        present = inside
        w = tl.zeros((ROWS, N), tl.float64)
        if WEIGHTED:
            offset = clip * weight_stride_b + frame * weight_stride_t + joint * weight_stride_j
            w = tl.load(weight + offset, mask=inside, other=0).to(tl.float64)
            present = inside & (w > 0)
        offset = clip * pred_stride_b + frame * pred_stride_t + joint * pred_stride_j + 2 * pred_stride_c
        p = tl.load(pred + offset, mask=present, other=0).to(tl.float32)
        offset = clip * target_stride_b + frame * target_stride_t + joint * target_stride_j + 2 * target_stride_c
        d = tl.load(target + offset, mask=present, other=0).to(tl.float32)
        invalid = tl.max(((p != p) | (d != d)).to(tl.int32), 1, keep_dims=True) > 0

        image_p = tl.where(inside, _image(p), _LAST)
        image_d = tl.where(inside, _image(d), _LAST)
        # Where the run of equals of each element begins in sorted order, and above 16 bits where it ends; whether a run
        # is longer than 1.
        zeros = tl.zeros((ROWS, N), tl.int32)
        run_p, run_d, place_p, place_d = zeros, zeros, zeros, zeros
        tied_p, tied_d = tl.full((), 0, tl.int32), tl.full((), 0, tl.int32)
        # All sorts are one piece of code: it is long, and a second copy would not fit in the instruction cache.
        for step in range(5 if WEIGHTED else 3):
            # By prediction, by target, and by the tied targets' predictions; for the order of weights, runs by index.
            if (step < 2) | ((step == 3) & (tied_p > 0)) | (((step == 2) | (step == 4)) & (tied_d > 0)):
                low = tl.where(step == 2, run_p & 0xFFFF, column)
                high = tl.where(step == 3, run_p, run_d) & 0xFFFF
                x = tl.where(step == 0, image_p, tl.where(step == 1, image_d, (high << 16) | low))
                _share(row, column, _sorted(x, ROWS, N, LOG))
                first = _count_below(row, x, N, LOG)
                after = first + 1
                following = tl.load(row + tl.minimum(after, N - 1))
                tie = (following == x) & (after < N) & inside
                tied = tl.max(tl.max(tie.to(tl.int32), 1), 0)
                if tied > 0:
                    after = _count_up_to(row, x, N, LOG)
                if WEIGHTED:
                    place_p = tl.where((step == 0) | (step == 3), first, place_p)
                    place_d = tl.where((step == 0) | (step == 3), place_d, first)
                run = (after << 16) | first
                by_target = (step == 1) | (step == 2)
                run_p, run_d = tl.where(step == 0, run, run_p), tl.where(by_target, run, run_d)
                tied_p, tied_d = tl.where(step == 0, tied, tied_p), tl.where(by_target, tied, tied_d)
        if WEIGHTED:
            _weights_before(place_p, w, weight_row, column, inside)
            g = _twice_midrank(run_p & 0xFFFF, run_p >> 16, w, weight_row)
            _weights_before(place_d, w, weight_row, column, inside)
            g = 0.5 * w * (g - _twice_midrank(run_d & 0xFFFF, run_d >> 16, w, weight_row))
        else:
            twice_p, twice_d = (run_p & 0xFFFF) + (run_p >> 16), (run_d & 0xFFFF) + (run_d >> 16)
            g = (twice_p - twice_d).to(tl.float32) * 0.5
        g = tl.where(invalid & present, float("nan"), g)
        tl.store(ranks + index * T + frame, g.to(ranks.dtype.element_ty), mask=inside)
        block += tl.num_programs(0)
