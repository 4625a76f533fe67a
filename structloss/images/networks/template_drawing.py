"""Templates as images: drawn, and moved by sampling as published. `structloss.render_parts` evaluates them instead."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["draw", "warp"]


def draw(parameters: Tensor, size: int) -> Tensor:
    """The parts of a template where they are: parameters `[P, 6]` (see
    :attr:`~structloss.shape_templates.ShapeTemplate.parameters`), pixels of an image of `size`, -> `[P, size, size]`.

    Source: Schmidtke et al., CVPR 2021.
    """
    row, column, across, along, angle, peak = parameters[:, :, None, None].unbind(1)
    place = torch.arange(size, dtype=parameters.dtype, device=parameters.device)
    down, right = place[:, None] - row, place - column
    u = angle.cos() * down - angle.sin() * right
    v = angle.sin() * down + angle.cos() * right
    return peak * torch.exp(-0.5 * ((u / across).square() + (v / along).square()))


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Move images by matrices, sampling them bilinearly; 0 outside.

    The value at pixel q is that of the image at A^-1 q, pixel centres at 0 ... S - 1 [Schmidtke et al.]. An image whose
    matrix is singular has no area and becomes 0.

    Args:
        images: `[N, S, S]`.
        matrices: `[N, 2, 3]`, pixels.

    Returns:
        `[N, S, S]`. Differentiable in both.
    """
    size = images.shape[-1]
    a, b, x = matrices[:, 0].unbind(-1)
    c, d, y = matrices[:, 1].unbind(-1)
    determinant = a * d - b * c
    flat = determinant == 0
    inverse = 1 / torch.where(flat, 1, determinant)
    place = torch.arange(size, dtype=matrices.dtype, device=matrices.device)
    right, down = place - x[:, None], place - y[:, None]  # [N, S] from the moved origin
    along = (d * inverse)[:, None, None] * right[:, None] - (b * inverse)[:, None, None] * down[:, :, None]
    across = (a * inverse)[:, None, None] * down[:, :, None] - (c * inverse)[:, None, None] * right[:, None]
    grid = torch.stack((along, across), -1) * (2 / (size - 1)) - 1
    moved = F.grid_sample(images[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[:, 0]
    return torch.where(flat[:, None, None], 0, moved)
