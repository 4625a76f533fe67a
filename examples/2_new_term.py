"""A term of your own beside the fused ones: write it in PyTorch, mask it, check its gradient, add it.

    python examples/2_new_term.py

This is the way to try an idea. A term that has proved itself can become one of the fused ones, in C++, CUDA and Triton:
docs/adding.md has the recipe, "A loss term".
"""

import torch
from torch import Tensor

import structloss

torch.manual_seed(0)


def smoothness(pred: Tensor, weight: Tensor) -> Tensor:
    """Mean squared second difference of a joint's path: 0 for a joint that moves evenly.

    Three habits of the terms of this library are worth keeping: a weight [..., T, J] says what counts, a triple of
    frames weighs the product of its weights, and the sum is divided by the weights, so that masked frames don't dilute
    the mean. A batch in which nothing counts gives 0, not NaN.

    Args:
        pred: poses [..., T, J, 3].
        weight: [..., T, J], >= 0.

    Returns:
        0-d, the squared unit of the poses.
    """
    bend = pred[..., 2:, :, :] - 2 * pred[..., 1:-1, :, :] + pred[..., :-2, :, :]
    counts = weight[..., 2:, :] * weight[..., 1:-1, :] * weight[..., :-2, :]
    total = counts.sum()
    return (counts * bend.square().sum(-1)).sum() / torch.where(total > 0, total, 1.0)


# ---- Check the values by hand: an even motion has none, one kink has a known one.
even = torch.arange(5.0).reshape(5, 1, 1).expand(5, 17, 3)
ones = torch.ones(5, 17)
assert smoothness(even, ones) == 0
kink = even.clone()
kink[2, 0, 0] += 1.0  # one joint, one coordinate: second differences 1, -2, 1 in three triples of frames of 17 joints
assert torch.isclose(smoothness(kink, ones), torch.tensor(6.0 / (3 * 17)))
assert smoothness(kink, torch.zeros(5, 17)) == 0

# ---- Check the gradient against finite differences. They need float64.
pred = torch.randn(2, 6, 17, 3, dtype=torch.float64, requires_grad=True)
weight = torch.rand(2, 6, 17, dtype=torch.float64)
assert torch.autograd.gradcheck(lambda p: smoothness(p, weight), pred)
print("smoothness: values and gradient agree")

# ---- Add it to the fused terms. Their gradient is computed in the same pass as their values; autograd adds the two.
target = torch.randn(2, 6, 17, 3, dtype=torch.float64)


def total(pred: Tensor) -> Tensor:
    fused = structloss.objective(pred, target, {"mpjpe": 1.0, "bone_symmetry": 0.05}, weight=weight)
    return fused.total + 0.1 * smoothness(pred, weight)


assert torch.autograd.gradcheck(total, pred)
total(pred).backward()
assert pred.grad is not None
print(f"together: loss {total(pred).item():.4f}, size of the gradient {pred.grad.norm().item():.4f}")
