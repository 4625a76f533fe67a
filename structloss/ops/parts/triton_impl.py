"""Rendered parts and their gradient as Triton kernels: GPU tensors, or CPU tensors in Triton's interpreter.

A tiny kernel places the parts; a second one draws them, or sums the gradient over each part's box in a fixed order,
and then a third one follows the chain to the matrices. Nothing is read back to the host.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ...kernels.triton_parts import PLACE_NUMBERS, chain_kernel, draw_kernel, place_kernel, sum_kernel
from ..devices import device_guard
from .geometry import REACH

__all__ = ["backward", "forward"]

# Parts that a program places.
_PARTS = 64
# Pixels of a tile that a program draws, and of one that it adds up; columns of a tile at most.
_DRAWN_PIXELS = 4096
_SUMMED_PIXELS = 512
_MOST_COLUMNS = {_DRAWN_PIXELS: 256, _SUMMED_PIXELS: 64}
# A part of so many rows is added up by one program; by size alone, so that no other part changes its gradient.
_ROWS_A_SPLIT = 64

# No contraction to fused multiply-adds, as in the other kernels.
_OPTIONS = {"enable_fp_fusion": False}


def _tile(size: int, pixels: int) -> tuple[int, int]:
    """Rows and columns of a tile, powers of two."""
    columns = min(triton.next_power_of_2(size), _MOST_COLUMNS[pixels])
    return min(triton.next_power_of_2(size), pixels // columns), columns


def _places(matrices: Tensor, template: Tensor, size: int) -> Tensor:
    parts = matrices.shape[0]
    places = torch.empty((PLACE_NUMBERS, parts), dtype=matrices.dtype, device=matrices.device)
    place_kernel[(triton.cdiv(parts, _PARTS),)](
        matrices,
        template,
        places,
        parts,
        template.shape[0],
        size,
        RADIUS=REACH[matrices.dtype],
        LARGEST=torch.finfo(matrices.dtype).max,
        BLOCK=_PARTS,
        num_warps=2,
        **_OPTIONS,
    )
    return places


def forward(
    matrices: Tensor,  # [N, P, 2, 3]
    template: Tensor,  # [P, 6]
    size: int,
) -> Tensor:
    """Parts [N, P, size, size] in the matrices' dtype, float32 or float64; inputs are contiguous."""
    N, P = matrices.shape[:2]
    out = torch.empty((N, P, size, size), dtype=matrices.dtype, device=matrices.device)
    if out.numel() == 0:
        return out
    rows, columns = _tile(size, _DRAWN_PIXELS)
    tiles = triton.cdiv(size, rows), triton.cdiv(size, columns)
    with device_guard(matrices.device):
        places = _places(matrices.view(N * P, 2, 3), template, size)
        draw_kernel[(N * P * tiles[0] * tiles[1],)](
            places,
            out,
            N * P,
            size,
            *tiles,
            RADIUS=REACH[matrices.dtype],
            ROWS=rows,
            COLUMNS=columns,
            num_warps=8,
            **_OPTIONS,
        )
    return out


def backward(
    grad: Tensor,  # [N, P, size, size], any strides
    matrices: Tensor,  # [N, P, 2, 3]
    template: Tensor,  # [P, 6]
    size: int,
) -> Tensor:
    """Gradient [N, P, 2, 3] of the matrices, from that of the parts; all of one dtype, the others contiguous."""
    out = torch.empty_like(matrices)
    if grad.numel() == 0:
        return out.zero_()
    parts = matrices.shape[0] * matrices.shape[1]
    rows, columns = _tile(size, _SUMMED_PIXELS)
    splits = triton.cdiv(size, _ROWS_A_SPLIT)
    sums = torch.empty((splits, 5, parts), dtype=torch.float64, device=matrices.device)
    with device_guard(matrices.device):
        places = _places(matrices.view(parts, 2, 3), template, size)
        sum_kernel[(parts * splits,)](
            places,
            grad,
            sums,
            parts,
            template.shape[0],
            splits,
            *grad.stride(),
            RADIUS=REACH[matrices.dtype],
            ROWS=rows,
            COLUMNS=columns,
            num_warps=4,
            **_OPTIONS,
        )
        chain_kernel[(triton.cdiv(parts, _PARTS),)](
            matrices,
            template,
            sums,
            out,
            parts,
            template.shape[0],
            splits,
            LARGEST=torch.finfo(matrices.dtype).max,
            BLOCK=_PARTS,
            num_warps=2,
            **_OPTIONS,
        )
    return out
