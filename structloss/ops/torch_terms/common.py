"""What the PyTorch forms of the terms share: their input, directions, steps and bones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..structure import Structure

__all__ = ["TermInput", "accumulation_dtype", "add_to_bones", "bone_vectors", "direction", "steps"]


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """Float64 where the device has it: sums cancel to many digits."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True)
class TermInput:
    """Poses of one call; what has no weight is zero.

    Attributes:
        pred, target: [B, T, J, 3], in the compute dtype; `target` is None where no term needs it.
        weight: [B, T, J] in the accumulation dtype, or None for 1.
        structure: skeleton and options, resolved.
    """

    pred: Tensor
    target: Tensor | None
    weight: Tensor | None
    structure: Structure

    @property
    def known_target(self) -> Tensor:
        """`target`, for a term that needs one."""
        assert self.target is not None, "checked before the call"
        return self.target

    @property
    def wide_pred(self) -> Tensor:
        """`pred` in the accumulation dtype."""
        return self.pred.to(accumulation_dtype(self.pred.device))

    @property
    def wide_target(self) -> Tensor:
        """`target` in the accumulation dtype."""
        return self.known_target.to(accumulation_dtype(self.pred.device))

    def weight_or_one(self) -> Tensor:
        """[B, T, J] in the accumulation dtype."""
        if self.weight is not None:
            return self.weight
        one = torch.ones((), dtype=accumulation_dtype(self.pred.device), device=self.pred.device)
        return one.expand(self.pred.shape[:-1])

    def joint_factors(self, factors: Sequence[float]) -> Tensor:
        """[J] or, without factors, [1]."""
        return self.pred.new_tensor(factors or (1.0,), dtype=accumulation_dtype(self.pred.device))


def direction(vector: Tensor, length: Tensor) -> Tensor:
    """Unit vectors [..., 3] of vectors with these lengths [...]; 0 for a vector of no length."""
    return vector / torch.where(length == 0, 1, length).unsqueeze(-1)


def steps(x: Tensor) -> Tensor:
    """Differences of neighbouring frames of [B, T, ...]: [B, T - 1, ...], or no frames."""
    return x[:, 1:] - x[:, :-1]


def bone_vectors(pose: Tensor, bones: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Child minus parent [..., K, 3] of each bone, and its length [..., K]."""
    child, parent = (list(ends) for ends in zip(*bones, strict=True))
    vector = pose[..., child, :] - pose[..., parent, :]
    return vector, torch.linalg.vector_norm(vector, dim=-1)


def add_to_bones(grad: Tensor, bones: Sequence[tuple[int, int]], bone_grad: Tensor) -> Tensor:
    """Add the gradient of bone vectors [..., K, 3] to that of the joints [..., J, 3], in place."""
    child, parent = (torch.tensor(ends, device=grad.device) for ends in zip(*bones, strict=True))
    return grad.index_add_(-2, child, bone_grad).index_add_(-2, parent, bone_grad, alpha=-1)
