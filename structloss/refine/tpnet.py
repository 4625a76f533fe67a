"""TP-Net: each pose of a video anew from the poses around it (Dabral et al., ECCV 2018)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ArgumentError
from .base import Refiner, check_count

__all__ = ["TPNet"]


class TPNet(Refiner):
    """A network of fully connected layers that takes the poses of a few frames at once and gives one of them.

    It takes poses of any single-frame network, relative to the pelvis, in metres, and is trained on that network's
    predictions. Source: Dabral et al., ECCV 2018, section 4.2: 20 poses, flattened and concatenated, "two-layer, 4096
    hidden neurons", ReLU. With 16 joints it has 4,132,912 parameters, with 17 4,390,963.

    The paper tells neither more of the layers nor of the borders. Ours, and arguments here: one hidden layer between
    two layers of weights; the pose itself is predicted; its first and last pose is repeated beyond a clip; online, the
    current frame is one of the 20. Poses are flattened frame by frame, oldest first, then by joints, then x, y, z;
    weights start as PyTorch's `Linear` has them. The state dict's names are `fc.0.weight`, `fc.0.bias`, `fc.1.weight`,
    ...

    Args:
        num_joints: joints of a pose; 16 in the paper, 17 in Human3.6M's order.
        past: frames before the one that is predicted. Online: 19.
        future: frames after it, by which a stream is late. Online: 0; semi-online: 10 with `past=9` (20 poses) or
            `past=10` (21 poses).
        hidden: neurons of a hidden layer.
        hidden_layers: hidden layers; 2 is the other reading of "two-layer".
        residual: add the answer to the frame's pose that came in.
        root: joint that is set to 0 in what comes out (Human3.6M: 0, MPII: 6); None predicts it like any other.
        border: beyond a clip's ends, "repeat" its first or last pose, or "zero".
        dropout: share of hidden neurons that training leaves out.

    Raises:
        ArgumentError: a number out of range.

    >>> import torch
    >>> from structloss.refine import TPNet
    >>> model = TPNet(num_joints=16, root=6)
    >>> sum(p.numel() for p in model.parameters())
    4132912
    >>> with torch.no_grad():
    ...     list(model(torch.zeros(2, 50, 16, 3)).shape)
    [2, 50, 16, 3]
    """

    past: int
    future: int

    def __init__(
        self,
        num_joints: int = 17,
        past: int = 19,
        future: int = 0,
        hidden: int = 4096,
        hidden_layers: int = 1,
        residual: bool = False,
        root: int | None = None,
        border: str = "repeat",
        dropout: float = 0.0,
    ) -> None:
        for name, value in (("past", past), ("future", future)):
            check_count(name, value, 0)  # None is for networks without a window
        super().__init__(num_joints, past, future, residual, root, border)
        check_count("hidden", hidden, 1)
        check_count("hidden_layers", hidden_layers, 1)
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout is {dropout!r}, expected a share, 0 <= dropout < 1.")
        self.hidden = hidden
        sizes = [self.window * num_joints * 3, *[hidden] * hidden_layers, num_joints * 3]
        self.fc = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)

    @property
    def window(self) -> int:
        """Poses that one answer is made of."""
        return self.past + 1 + self.future

    def predict(self, windows: Tensor) -> Tensor:
        if isinstance(windows.shape[1], int) and windows.shape[1] == self.window:
            return self.after_first(self.fc[0](windows.flatten(1)))[:, None]
        # [B, M, D, N] in views of the poses; the one copy is made here, of a piece of a clip at a time.
        gathered = windows.unfold(1, self.window, 1).transpose(2, 3).flatten(2)
        return self.after_first(self.fc[0](gathered))

    def step(self, window: Tensor, state: Any) -> tuple[Tensor, Any]:
        # One pose takes as long as it takes to read the first layer's weights, and two take no longer. So half of the
        # neurons, in turns, also get their sums for the next window, as far as its poses are known. The next time they
        # need but the part of the weights that meets the pose that has come: every frame reads half of the weights.
        flat = window.flatten(1)
        size, first = self.num_joints * 3, cast(nn.Linear, self.fc[0])
        newest, turn, ahead = state or (first.weight[:, -size:].t().contiguous(), 0, None)
        low, high = slice(0, first.out_features // 2), slice(first.out_features // 2, None)
        whole, known = (low, high) if turn == 0 else (high, low)
        following = torch.cat([flat[:, size:], torch.zeros_like(flat[:, :size])], dim=1)
        both = functional.linear(torch.cat([flat, following]), first.weight[whole], first.bias[whole])
        now, following = both.chunk(2)
        if ahead is None:  # a clip begins
            rest = functional.linear(flat, first.weight[known], first.bias[known])
        else:
            rest = torch.addmm(ahead, flat[:, -size:], newest[:, known])
        sums = torch.cat([now, rest] if turn == 0 else [rest, now], dim=1)
        return self.after_first(sums), (newest, 1 - turn, following)

    def after_first(self, hidden: Tensor) -> Tensor:
        """From the first layer's sums `[..., hidden]`, before the ReLU, to the answer `[..., J * 3]`."""
        for layer in list(self.fc)[1:]:
            hidden = layer(self.dropout(torch.relu(hidden)))
        return hidden

    def _width(self) -> int:
        return max(super()._width(), self.hidden)
