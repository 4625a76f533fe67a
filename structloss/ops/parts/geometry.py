"""From a part's matrix and its Gaussian to five numbers in the image, and back from their gradient: PyTorch, float64.

A part is peak exp(-|w|^2 / 2) with w = K (q - m), q = (x, y) a pixel, m = A (column, row, 1) and K = D R A_lin^-1,
where D R takes template coordinates, relative to the centre, to the part's axes in units of its scales:

    R = [[-sin, cos], [cos, sin]]        D = diag(1 / s_row, 1 / s_column)

A rotation from the left leaves |w| as it is, so K may be made upper triangular, L: w_y depends on the row alone.
Along a row w_x is linear, and there is no difference of large squares as in the form with Q = K^T K.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["REACH", "Ellipses", "chain", "ellipses"]

#: Scales beyond which a part is 0, by dtype: exp(-5.3^2 / 2) is 8e-7, exp(-8.7^2 / 2) below the rounding of 1.
REACH = {torch.float32: 5.3, torch.float64: 8.7}


class Ellipses(NamedTuple):
    """Where parts are in the image, float64, each [...] of the parts.

    Attributes:
        mean_x, mean_y: m, pixels.
        xx, yy, slope: w_x = xx (x - m_x + slope (y - m_y)) and w_y = yy (y - m_y) at the pixel (x, y).
        seen: 1; 0 for a part without area (a singular matrix); NaN for one whose matrix is not finite.
    """

    mean_x: Tensor
    mean_y: Tensor
    xx: Tensor
    yy: Tensor
    slope: Tensor
    seen: Tensor


def ellipses(
    matrices: Tensor,  # [N, P, 2, 3]
    template: Tensor,  # [P, 6]
) -> Ellipses:
    """The parts' ellipses [N, P]. Where a part isn't seen, mean and L are 0."""
    a, b, tx, c, d, ty = matrices.double().flatten(-2).unbind(-1)
    row, column, s_row, s_column, angle, _ = template.double().unbind(-1)
    sin, cos = angle.sin(), angle.cos()
    determinant = a * d - b * c
    # K = D R [[d, -b], [-c, a]] / determinant; its first column's length and direction, then the rotation.
    first_x, first_y = (-sin * d - cos * c) / s_row, (cos * d - sin * c) / s_column
    second_x, second_y = (sin * b + cos * a) / s_row, (sin * a - cos * b) / s_column
    length = torch.hypot(first_x, first_y)
    xx = length / determinant.abs()
    slope = (first_x / length * second_x + first_y / length * second_y) / length
    # det K = 1 / (s_row s_column det A), up to the sign, which |w| doesn't see.
    yy = 1 / (s_row * s_column * length)
    mean_x, mean_y = a * column + b * row + tx, c * column + d * row + ty
    five = (mean_x, mean_y, xx, yy, slope)
    # A matrix whose inverse is beyond float64 counts as singular.
    seen = (torch.stack(five).isfinite().all(0) & (determinant != 0) & (xx > 0) & (yy > 0)).double()
    finite = matrices.isfinite().all(-1).all(-1) & template.isfinite().all(-1)
    mean_x, mean_y, xx, yy, slope = (torch.where(seen != 0, x, 0) for x in five)
    return Ellipses(mean_x, mean_y, xx, yy, slope, torch.where(finite, seen, torch.nan))


def chain(
    at: Ellipses,
    matrices: Tensor,  # [N, P, 2, 3]
    template: Tensor,  # [P, 6]
    moments: Tensor,  # [5, N, P], float64: the sums of h w_x, h w_y, h w_x^2, h w_x w_y, h w_y^2
) -> Tensor:
    """The gradient [N, P, 2, 3], float64: h is the incoming gradient times the part, at each pixel.

    With p = A^-1 q the template's point that a pixel shows, dw = -K dA (p, 1), hence the gradient of the sum of
    h (-|w|^2 / 2) is K^T (sum of h w (p, 1)^T); and p = A_lin^-1 (q - m) + centre, q - m = L^-1 w.
    """
    x, y, xx, xy, yy = moments
    a, b, _, c, d, _ = matrices.double().flatten(-2).unbind(-1)
    row, column = template[:, 0].double(), template[:, 1].double()
    # L^T (sum of h w): the translation's.
    at_xy = at.xx * at.slope
    shift = torch.stack([at.xx * x, at_xy * x + at.yy * y], -1)
    # L^T (sum of h w w^T) L^-T, then A_lin^-T.
    by_y = (xy / at.yy, yy / at.yy)
    by_x = (xx / at.xx - at.slope * by_y[0], xy / at.xx - at.slope * by_y[1])
    determinant = a * d - b * c
    columns = []
    for k, centre in enumerate((column, row)):
        # column k of [by_x, by_y] A_lin^-T is what A_lin^-1's row k makes of the two
        first, second = ((d, -b), (-c, a))[k]
        w_x = (by_x[0] * first + by_y[0] * second) / determinant
        w_y = (by_x[1] * first + by_y[1] * second) / determinant
        columns.append(torch.stack([at.xx * w_x, at_xy * w_x + at.yy * w_y], -1) + shift * centre[:, None])
    gradient = torch.stack([*columns, shift], -1)
    seen = at.seen[..., None, None]
    return torch.where(seen == 1, gradient, seen)
