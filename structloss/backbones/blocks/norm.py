"""Batch normalisation of tokens."""

from __future__ import annotations

from torch import Tensor, nn

from ...errors import ArgumentError

__all__ = ["TokenBatchNorm", "check_batch_statistics"]


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the channels of `[..., C]`: every token counts as a sample."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view(x.shape)


def check_batch_statistics(training: bool, samples: int, what: str) -> None:
    """Raise if batch normalisation has one sample to learn from: its variance would be 0.

    Args:
        training: the network's mode.
        samples: how many there are.
        what: noun for one of them.
    """
    if training and samples == 1:
        raise ArgumentError(f"x has 1 {what} in all, expected 2 or more in training, which batch normalisation needs.")
