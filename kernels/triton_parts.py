"""Parts of a shape template under affine matrices, drawn and differentiated: Gaussians, each within its own box.

A part is peak * exp(-|w|^2 / 2) with w = K (q - m) at pixel q = (x, y). For a matrix [L | t] and a template part with
centre c = (x, y), scales s_x, s_y and angle a,

    B = [[-sin a, cos a], [cos a, sin a]] diag(s_x, s_y),   M = L B,   K = M^-1,   m = L c + t.

The ellipse |w| <= radius lies within m +- radius * the lengths of M's rows. With h = gradient * value, whole gradients
are five sums over its pixels, all of the same magnitude because w has no unit:

    s = sum of h w,   S = sum of h w w^T,   dL/dm = K^T s,   dL/dM = K^T S,
    dL/dt = dL/dm,    dL/dL = dL/dM B^T + dL/dm c^T.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["PLACE_NUMBERS", "chain_kernel", "draw_kernel", "place_kernel", "sum_kernel"]

# Numbers of a part that place_kernel writes, each a row [parts]: the first and last column and row of its box; the
# pixel next to its centre and the centre from there, x and y; K; its peak; the value outside the ellipse.
PLACE_NUMBERS = 14


@triton.jit
def _load(at, mask, finite):
    """A number in float64, and whether it and those before are finite; 0 in the place of one that is not."""
    x = tl.load(at, mask=mask, other=0).to(tl.float64)
    known = tl.abs(x) < float("inf")
    return tl.where(known, x, 0.0), finite & known


@triton.jit
def _load_parts(matrices, template, part, P, mask):
    """Of the parts with these numbers, in float64: L, t, c, B, the peak, and whether all is finite."""
    finite = mask
    at = matrices + part * 6
    a, finite = _load(at, mask, finite)
    b, finite = _load(at + 1, mask, finite)
    tx, finite = _load(at + 2, mask, finite)
    c, finite = _load(at + 3, mask, finite)
    d, finite = _load(at + 4, mask, finite)
    ty, finite = _load(at + 5, mask, finite)
    at = template + part % P * 6
    cy, finite = _load(at, mask, finite)
    cx, finite = _load(at + 1, mask, finite)
    sx, finite = _load(at + 2, mask, finite)
    sy, finite = _load(at + 3, mask, finite)
    angle, finite = _load(at + 4, mask, finite)
    peak, finite = _load(at + 5, mask, finite)
    sin, cos = tl.sin(angle), tl.cos(angle)
    return a, b, c, d, tx, ty, cx, cy, -sin * sx, cos * sy, cos * sx, sin * sy, peak, finite


@triton.jit
def _invert(a, b, c, d, b00, b01, b10, b11, LARGEST: tl.constexpr):
    """M, its inverse K, and whether the part has an area; K is 0 where there is none."""
    m00, m01 = a * b00 + b * b10, a * b01 + b * b11
    m10, m11 = c * b00 + d * b10, c * b01 + d * b11
    # Not M's own, which rounding keeps from 0: these products are exact for matrices in float32.
    determinant = (a * d - b * c) * (b00 * b11 - b01 * b10)
    factor = 1.0 / tl.where(determinant == 0, 1.0, determinant)
    k00, k01, k10, k11 = m11 * factor, -m01 * factor, -m10 * factor, m00 * factor
    # What is too thin for the dtype of the parts has no area either.
    largest = tl.maximum(tl.maximum(tl.abs(k00), tl.abs(k01)), tl.maximum(tl.abs(k10), tl.abs(k11)))
    visible = (determinant != 0) & (tl.abs(determinant) < float("inf")) & (largest < LARGEST)
    k00, k01 = tl.where(visible, k00, 0.0), tl.where(visible, k01, 0.0)
    k10, k11 = tl.where(visible, k10, 0.0), tl.where(visible, k11, 0.0)
    return m00, m01, m10, m11, k00, k01, k10, k11, visible


@triton.jit
def _interval(centre, extent, size):
    """First and last pixel within `extent` of `centre`, as far as they are in the image."""
    first = tl.maximum(tl.ceil(centre - extent), 0.0)
    last = tl.minimum(tl.floor(centre + extent), size - 1.0)
    return first, last


@triton.jit(do_not_specialize=["parts", "P", "size"])
def place_kernel(
    matrices,  # [parts, 2, 3]
    template,  # [P, 6]
    places,  # [PLACE_NUMBERS, parts]
    parts: tl.int64,
    P,
    size,
    RADIUS: tl.constexpr,
    LARGEST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Where each part lies, in float64; then in the dtype of the parts."""
    dtype = places.dtype.element_ty
    part = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = part < parts
    a, b, c, d, tx, ty, cx, cy, b00, b01, b10, b11, peak, finite = _load_parts(matrices, template, part, P, mask)
    m00, m01, m10, m11, k00, k01, k10, k11, visible = _invert(a, b, c, d, b00, b01, b10, b11, LARGEST)
    mx, my = a * cx + b * cy + tx, c * cx + d * cy + ty
    x0, x1 = _interval(mx, RADIUS * tl.sqrt(m00 * m00 + m01 * m01), size)
    y0, y1 = _interval(my, RADIUS * tl.sqrt(m10 * m10 + m11 * m11), size)
    # Whole numbers that int32 holds, and no pixels where nothing is to be seen.
    visible = visible & finite & (x0 <= x1) & (y0 <= y1)
    x0, x1 = tl.where(visible, x0, 0.0), tl.where(visible, x1, -1.0)
    y0, y1 = tl.where(visible, y0, 0.0), tl.where(visible, y1, -1.0)
    # Near its pixel a centre loses no digits in float32.
    px = tl.floor(tl.minimum(tl.maximum(mx, 0.0), size - 1.0) + 0.5)
    py = tl.floor(tl.minimum(tl.maximum(my, 0.0), size - 1.0) + 0.5)
    fill = tl.where(finite, 0.0, float("nan"))
    at = places + part
    tl.store(at, x0.to(dtype), mask)
    tl.store(at + parts, x1.to(dtype), mask)
    tl.store(at + 2 * parts, y0.to(dtype), mask)
    tl.store(at + 3 * parts, y1.to(dtype), mask)
    tl.store(at + 4 * parts, px.to(dtype), mask)
    tl.store(at + 5 * parts, py.to(dtype), mask)
    tl.store(at + 6 * parts, (mx - px).to(dtype), mask)
    tl.store(at + 7 * parts, (my - py).to(dtype), mask)
    tl.store(at + 8 * parts, k00.to(dtype), mask)
    tl.store(at + 9 * parts, k01.to(dtype), mask)
    tl.store(at + 10 * parts, k10.to(dtype), mask)
    tl.store(at + 11 * parts, k11.to(dtype), mask)
    tl.store(at + 12 * parts, peak.to(dtype), mask)
    tl.store(at + 13 * parts, fill.to(dtype), mask)


@triton.jit
def _box(places, part, parts):
    """First and last column, first and last row."""
    at = places + part
    x0, x1 = tl.load(at).to(tl.int32), tl.load(at + parts).to(tl.int32)
    return x0, x1, tl.load(at + 2 * parts).to(tl.int32), tl.load(at + 3 * parts).to(tl.int32)


@triton.jit
def _white(places, part, parts, x, y):
    """w at pixels (x, y)."""
    at = places + part
    dx = x.to(places.dtype.element_ty) - tl.load(at + 4 * parts) - tl.load(at + 6 * parts)
    dy = y.to(places.dtype.element_ty) - tl.load(at + 5 * parts) - tl.load(at + 7 * parts)
    w0 = tl.load(at + 8 * parts) * dx + tl.load(at + 9 * parts) * dy
    w1 = tl.load(at + 10 * parts) * dx + tl.load(at + 11 * parts) * dy
    return w0, w1


@triton.jit(do_not_specialize=["parts", "row_tiles", "column_tiles"])
def draw_kernel(
    places,  # [PLACE_NUMBERS, parts]
    out,  # [parts, size, size]
    parts: tl.int64,
    size,
    row_tiles,
    column_tiles,
    RADIUS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One tile of one part: nothing is computed beyond its box."""
    dtype = out.dtype.element_ty
    program = tl.program_id(0)
    part = (program // (row_tiles * column_tiles)).to(tl.int64)
    tile = program % (row_tiles * column_tiles)
    top, left = tile // column_tiles * ROWS, tile % column_tiles * COLUMNS
    row, x = tl.arange(0, ROWS)[:, None], left + tl.arange(0, COLUMNS)[None, :]
    y = top + row
    x0, x1, y0, y1 = _box(places, part, parts)
    value = tl.zeros((ROWS, COLUMNS), dtype) + tl.load(places + part + 13 * parts)
    if (x0 < left + COLUMNS) & (x1 >= left) & (y0 < top + ROWS) & (y1 >= top):
        w0, w1 = _white(places, part, parts, x, y)
        square = w0 * w0 + w1 * w1
        peak = tl.load(places + part + 12 * parts)
        value = tl.where(square <= RADIUS * RADIUS, peak * tl.exp(-0.5 * square), value)
    # In 64 bits to the tile, in 32 bits within it.
    first = out + (part * size + top) * size
    tl.store(first + (row * size + x), value, mask=(y < size) & (x < size))


@triton.jit(do_not_specialize=["parts", "P", "splits", "stride_n", "stride_p"])
def sum_kernel(
    places,  # [PLACE_NUMBERS, parts]
    grad,  # [parts / P, P, size, size], any strides
    sums,  # [splits, 5, parts] float64
    parts: tl.int64,
    P,
    splits,
    stride_n: tl.int64,
    stride_p: tl.int64,
    stride_y: tl.int64,
    stride_x: tl.int64,
    RADIUS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """s and S of every `splits`-th tile of rows of a part's box: sums of an element of the tile in the parts' dtype,
    a few hundred at most, then in float64."""
    dtype = grad.dtype.element_ty
    program = tl.program_id(0)
    part = (program // splits).to(tl.int64)
    split = program % splits
    x0, x1, y0, y1 = _box(places, part, parts)
    peak = tl.load(places + part + 12 * parts)
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    grad += part // P * stride_n + part % P * stride_p
    s0 = tl.zeros((ROWS, COLUMNS), dtype)
    s1, s00, s01, s11 = s0, s0, s0, s0
    top = y0 + split * ROWS
    # `while`, not `range`: see triton_sums.py.
    while top <= y1:
        left = x0
        while left <= x1:
            x, y = left + column, top + row
            w0, w1 = _white(places, part, parts, x, y)
            square = w0 * w0 + w1 * w1
            inside = (square <= RADIUS * RADIUS) & (x <= x1) & (y <= y1)
            g = tl.load(grad + (y * stride_y + x * stride_x), mask=inside, other=0)
            # A gradient of infinity counts where the part is; w is 0 elsewhere, where it may overflow.
            h = tl.where(inside, g * (peak * tl.exp(-0.5 * square)), 0.0)
            w0, w1 = tl.where(inside, w0, 0.0), tl.where(inside, w1, 0.0)
            h0, h1 = h * w0, h * w1
            s0 += h0
            s1 += h1
            s00 += h0 * w0
            s01 += h0 * w1
            s11 += h1 * w1
            left += COLUMNS
        top += splits * ROWS
    at = sums + split * 5 * parts + part
    tl.store(at, tl.sum(tl.sum(s0.to(tl.float64), 1), 0))
    tl.store(at + parts, tl.sum(tl.sum(s1.to(tl.float64), 1), 0))
    tl.store(at + 2 * parts, tl.sum(tl.sum(s00.to(tl.float64), 1), 0))
    tl.store(at + 3 * parts, tl.sum(tl.sum(s01.to(tl.float64), 1), 0))
    tl.store(at + 4 * parts, tl.sum(tl.sum(s11.to(tl.float64), 1), 0))


@triton.jit(do_not_specialize=["parts", "P", "splits"])
def chain_kernel(
    matrices,  # [parts, 2, 3]
    template,  # [P, 6]
    sums,  # [splits, 5, parts] float64
    out,  # [parts, 2, 3]
    parts: tl.int64,
    P,
    splits,
    LARGEST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """From s and S to the gradient of the matrix."""
    dtype = out.dtype.element_ty
    part = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = part < parts
    s0 = tl.zeros((BLOCK,), tl.float64)
    s1, s00, s01, s11 = s0, s0, s0, s0
    at = sums + part
    split = 0
    while split < splits:
        s0 += tl.load(at, mask=mask, other=0)
        s1 += tl.load(at + parts, mask=mask, other=0)
        s00 += tl.load(at + 2 * parts, mask=mask, other=0)
        s01 += tl.load(at + 3 * parts, mask=mask, other=0)
        s11 += tl.load(at + 4 * parts, mask=mask, other=0)
        at += 5 * parts
        split += 1
    a, b, c, d, _, _, cx, cy, b00, b01, b10, b11, _, finite = _load_parts(matrices, template, part, P, mask)
    # Where a part has no area, K and the sums are 0.
    _, _, _, _, k00, k01, k10, k11, _ = _invert(a, b, c, d, b00, b01, b10, b11, LARGEST)
    mx, my = k00 * s0 + k10 * s1, k01 * s0 + k11 * s1
    m00, m01 = k00 * s00 + k10 * s01, k00 * s01 + k10 * s11
    m10, m11 = k01 * s00 + k11 * s01, k01 * s01 + k11 * s11
    invalid = float("nan")
    at = out + part * 6
    tl.store(at, tl.where(finite, m00 * b00 + m01 * b01 + mx * cx, invalid).to(dtype), mask)
    tl.store(at + 1, tl.where(finite, m00 * b10 + m01 * b11 + mx * cy, invalid).to(dtype), mask)
    tl.store(at + 2, tl.where(finite, mx, invalid).to(dtype), mask)
    tl.store(at + 3, tl.where(finite, m10 * b00 + m11 * b01 + my * cx, invalid).to(dtype), mask)
    tl.store(at + 4, tl.where(finite, m10 * b10 + m11 * b11 + my * cy, invalid).to(dtype), mask)
    tl.store(at + 5, tl.where(finite, my, invalid).to(dtype), mask)
