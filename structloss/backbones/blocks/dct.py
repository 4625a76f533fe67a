"""The discrete cosine transform along tokens, as products with constant matrices.

The transforms of lifting networks are short, and often only a few coefficients are kept: a matrix product beats a fast
transform, and is differentiable and exportable as it stands.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["dct_matrix", "inverse_dct_matrix"]


def _cosines(length: int, kept: int) -> Tensor:
    """cos(πk(2t + 1) / 2N) for k < kept and t < N = length, `[kept, N]`, float64."""
    k, t = torch.arange(kept, dtype=torch.float64), torch.arange(length, dtype=torch.float64)
    return torch.cos(math.pi / (2 * length) * k[:, None] * (2 * t + 1))


def dct_matrix(length: int, kept: int | None = None) -> Tensor:
    """The DCT-II without normalisation: X_k = 2·Σ_t x_t·cos(πk(2t + 1) / 2N), so X_0 is 2N times the mean.

    Args:
        length: N.
        kept: number of coefficients, from the lowest; None is all.

    Returns:
        `[kept, N]`, of the default dtype: `dct_matrix(N) @ x` transforms axis -2 of `[..., N, C]`.
    """
    return (2 * _cosines(length, length if kept is None else kept)).to(torch.get_default_dtype())


def inverse_dct_matrix(length: int, kept: int | None = None) -> Tensor:
    """The inverse: x_t = (X_0 / 2 + Σ_{k≥1} X_k·cos(πk(2t + 1) / 2N)) / N, coefficients beyond `kept` being 0.

    Returns:
        `[N, kept]`, of the default dtype.
    """
    matrix = _cosines(length, length if kept is None else kept) / length
    matrix[0] /= 2
    return matrix.T.contiguous().to(torch.get_default_dtype())
