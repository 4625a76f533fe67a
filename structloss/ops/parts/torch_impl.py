"""Parts in PyTorch, any device: forward and backward in groups of parts, so that beside the result there is little."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .geometry import REACH, Ellipses, chain, ellipses

__all__ = ["backward", "forward"]

# Larger than what any image reaches, and its square is a float32.
_FAR = 1e18
# Numbers of a group of images: of a CPU's a cache's worth, of others enough to keep them busy.
_GROUP_ON_CPU, _GROUP = 2**17, 2**25


def forward(
    matrices: Tensor,  # [N, P, 2, 3]
    template: Tensor,  # [P, 6]
    size: int,
) -> Tensor:
    """The parts' images [N, P, size, size], in the dtype of the matrices."""
    N, P = matrices.shape[:2]
    image = matrices.new_empty(N, P, size, size)
    at, peaks = ellipses(matrices, template), template[:, 5].repeat(N)
    for group, _, values in _groups(at, image.view(-1, size, size)):
        values.mul_(peaks[group, None, None])
    return image


def backward(
    grad: Tensor,  # [N, P, size, size], any strides
    matrices: Tensor,  # [N, P, 2, 3]
    template: Tensor,  # [P, 6]
    size: int,
) -> Tensor:
    """The gradient [N, P, 2, 3], in the dtype of the matrices. Where a part is 0, no incoming gradient counts."""
    N, P = matrices.shape[:2]
    at = ellipses(matrices, template)
    sums = torch.empty(5, N * P, dtype=torch.float64, device=matrices.device)
    for group, (x, y), values in _groups(at, None, size, matrices.dtype):
        index = torch.arange(group.start, group.stop, device=grad.device)
        incoming = grad[index // P, index % P]  # a copy of the group alone, whatever the strides
        h = torch.where(values != 0, values * incoming, 0)
        by_row = h.sum(-1)
        sums[1, group], sums[4, group] = (by_row * y).sum(-1), (by_row * y * y).sum(-1)
        by_row = h.mul_(x).sum(-1)
        sums[0, group], sums[3, group] = by_row.sum(-1), (by_row * y).sum(-1)
        sums[2, group] = h.mul_(x).sum((-1, -2))
    sums = sums.view(5, N, P) * template[:, 5]
    return chain(at, matrices, template, sums).to(matrices.dtype)


def _groups(
    at: Ellipses, images: Tensor | None, size: int = 0, dtype: torch.dtype | None = None
) -> Iterator[tuple[slice, tuple[Tensor, Tensor], Tensor]]:
    """Groups of parts: which of all N P, w_x [n, size, size] and w_y [n, size], and exp(-|w|^2 / 2) [n, size, size],
    which is written into `images` where there are any."""
    if images is not None:
        size, dtype = images.shape[-1], images.dtype
    assert dtype is not None
    device = at.seen.device
    mean_x, mean_y, xx, yy, slope, seen = (part.flatten() for part in at)
    pixels = torch.arange(size, dtype=torch.float64, device=device)
    columns, reach = pixels.to(dtype), REACH[dtype]
    each = max(1, (_GROUP_ON_CPU if device.type == "cpu" else _GROUP) // (size * size))
    for start in range(0, len(seen), each):
        group = slice(start, min(start + each, len(seen)))
        y = pixels - mean_y[group, None]  # [n, size], of rows
        w_y = (yy[group, None] * y).to(dtype)
        # Where w_x is 0 in each row, as a whole pixel and the rest, which keep float32 exact near it; clamped so that
        # what is beyond float32 is beyond reach, not NaN.
        middle = (mean_x[group, None] - slope[group, None] * y).clamp_(-_FAR, _FAR)
        whole = middle.round()
        w_x = columns - whole.to(dtype)[:, :, None]
        w_x.sub_((middle - whole).to(dtype)[:, :, None]).mul_(xx[group].clamp(max=_FAR).to(dtype)[:, None, None])
        # A part that isn't seen is beyond reach everywhere, one that isn't finite NaN.
        rows = (w_y * w_y).add_(torch.where(seen[group] == 0, torch.inf, 0 * seen[group])[:, None].to(dtype))
        values = torch.mul(w_x, w_x, out=None if images is None else images[group])
        values.add_(rows[:, :, None]).mul_(-0.5)
        torch.threshold_(values, -0.5 * reach * reach, -torch.inf).exp_()
        yield group, (w_x.clamp_(-reach, reach), w_y.clamp_(-reach, reach)), values
