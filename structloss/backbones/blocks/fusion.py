"""Mixing two streams by scores that are computed from both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["fuse"]


def fuse(u: Tensor, v: Tensor, scores: nn.Linear) -> Tensor:
    """a₀·u + a₁·v with (a₀, a₁) = softmax(scores([u ; v])), without building the concatenation.

    The softmax of two scores is the sigmoid of their difference, so one output row is enough.

    Args:
        u, v: `[..., C]`.
        scores: from 2·C channels to 2, with a bias.
    """
    channels = u.shape[-1]
    weight, bias = scores.weight[0] - scores.weight[1], scores.bias[0] - scores.bias[1]
    score = F.linear(u, weight[None, :channels]) + F.linear(v, weight[None, channels:]) + bias
    return torch.lerp(v, u, torch.sigmoid(score).to(u.dtype))
