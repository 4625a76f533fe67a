"""Our own small lifting networks, for the weights that come with the package.

They see people, not pictures: what enters is relative to the place and the size that a person has in the image, so that
a network trained on cameras of all kinds has one thing to learn. A keypoint of confidence 0 is not looked at, wherever
it stands.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from .base import Backbone
from .blocks import check_rate, check_sizes, has_length
from .registry import family

__all__ = ["Lift"]

_TAPS = 3  # frames that a level combines
_SMALLEST = 1e-3  # of the screen: what a person's size is taken as at least


class _Level(nn.Module):
    """A residual layer over three frames, `dilation` apart, with `depth` residual layers of single frames behind it."""

    def __init__(self, channels: int, taps: int, dilation: int, depth: int, drop: float) -> None:
        super().__init__()
        self.taps, self.dilation = taps, dilation
        widths = [taps * channels, *[channels] * depth]
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in widths)
        hidden = [channels, *[2 * channels] * depth]
        self.rise = nn.ModuleList(nn.Linear(*sizes) for sizes in zip(widths, hidden, strict=True))
        self.fall = nn.ModuleList(nn.Linear(size, channels) for size in hidden)
        self.drop = nn.Dropout(drop)

    def forward(self, h: Tensor, strided: bool) -> Tensor:
        """`[B, T, C]` to the frames that have all their neighbours, or to every third of them."""
        for i, (norm, rise, fall) in enumerate(zip(self.norms, self.rise, self.fall, strict=True)):
            z = norm(h)
            if i == 0 and self.taps > 1:
                z, h = _windows(z, self.taps, self.dilation, strided), _middle(h, self.taps, self.dilation, strided)
            h = h + self.drop(fall(F.gelu(rise(z))))
        return h


def _windows(x: Tensor, taps: int, dilation: int, strided: bool) -> Tensor:
    """`[B, T, C]` to `[B, T', taps * C]`: neighbours side by side, or every group of `taps` frames."""
    if strided:
        return x.unflatten(1, (-1, taps)).flatten(2)
    length = x.shape[1] - (taps - 1) * dilation
    return torch.cat([x[:, k * dilation : k * dilation + length] for k in range(taps)], dim=-1)


def _middle(x: Tensor, taps: int, dilation: int, strided: bool) -> Tensor:
    """The frames in the middle of those windows."""
    if strided:
        return x.unflatten(1, (-1, taps))[:, :, taps // 2]
    reach = (taps - 1) * dilation
    return x[:, reach // 2 : x.shape[1] - reach // 2]


@family(
    "lift",
    {
        "s": {
            "params": 1_213_491,
            "macs": 1_206_528,
            "kind": "frame",
            "arguments": {"frames": 1, "depth": 4},
            "note": "One frame at a time, for single images.",
        },
        "27": {
            "params": 1_106_995,
            "macs": 2_469_632,
            "kind": "centre",
            "arguments": {"frames": 27, "depth": 1},
            "note": "For 20 to 60 frames a second; what `structloss predict` uses where no checkpoint is given.",
        },
    },
    flagship="27",
    paper="structloss, no paper; weights in the package",
    channels=("x", "y", "confidence"),
    file_entry="",
    file_prefix="",
)
class Lift(Backbone):
    """Residual layers over a receptive field that grows threefold with each level, on keypoints relative to the person.

    In every frame the mean of the keypoints, weighted with their confidence, is taken as the person's place c, and
    the root of their mean squared distance from it as the size s. The first layer sees (x - c) / s of its frames, with
    c and s of the one in the middle; confidences; c and log s themselves. Ours; the way in which levels grow is that
    of Pavllo et al., CVPR 2019.

    A clip of exactly `frames` frames runs in a form that computes only what its one pose needs, with the same numbers
    to rounding.

    Args:
        frames: receptive field: 1, 3, 9, 27, 81 or 243. The network predicts the frame in its middle.
        channels: width.
        depth: layers of single frames behind every level.
        num_joints: joints of input and output.
        dropout: rate behind every layer.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    skips_missing = True

    def __init__(
        self, *, frames: int = 27, channels: int = 256, depth: int = 1, num_joints: int = 17, dropout: float = 0.0
    ) -> None:
        check_sizes(frames=frames, channels=channels, depth=depth, num_joints=num_joints)
        check_rate("dropout", dropout)
        levels = round(math.log(frames, _TAPS))
        if _TAPS**levels != frames or levels > 5:
            raise ArgumentError(f"frames is {frames}, expected 1, 3, 9, 27, 81 or 243.")
        kind = "frame" if frames == 1 else "centre"
        longest = {"shortest": 1} if frames == 1 else {"shortest": frames}
        super().__init__(kind=kind, frames=frames, joints=(num_joints,), channels=3, **longest)
        self.taps = 1 if frames == 1 else _TAPS
        self.embed = nn.Linear(self.taps * 3 * num_joints + 3, channels)
        dilations = [_TAPS**level for level in range(1, levels)]
        sizes = [(self.taps, d) for d in dilations] or [(1, 1)]
        self.levels = nn.ModuleList(_Level(channels, *size, depth, dropout) for size in sizes)
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 3 * num_joints)

    def forward(self, x: Tensor) -> Tensor:
        """Lift a clip.

        Args:
            x: `[B, T, J, C]`, T of at least `frames`, C = 2 (x, y) or 3 (with confidence, 0 for a joint that was not
                found); image coordinates on the normalised screen.

        Returns:
            `[B, T - frames + 1, J, 3]` in the unit of the training target; as trained by its recipe metres in camera
            space, relative to the root. Frame 0 belongs to input frame `frames // 2`.

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        x = self.prepare(x)
        strided = self.taps > 1 and has_length(x, self.frames)
        h = self.embed(self._features(x, strided))
        for level in self.levels:
            h = self.run(level, h, strided)
        return self.head(self.norm(h)).unflatten(-1, (self.joints[0], 3))

    def _features(self, x: Tensor, strided: bool) -> Tensor:
        """What the first layer sees: `[B, T', taps * 3J + 3]`, coordinates first."""
        trust = x[..., 2:].clamp(min=0)
        seen = (trust > 0).to(x.dtype)
        place = torch.where(trust > 0, x[..., :2], 0)  # where a joint is that was not found means nothing
        total = trust.sum(2, keepdim=True).clamp(min=1e-6)
        centre = (place * trust).sum(2, keepdim=True) / total  # [B, T, 1, 2]
        size2 = ((place - centre).square() * trust).sum((2, 3), keepdim=True) / total
        size = size2.clamp(min=_SMALLEST**2).sqrt()
        centres, sizes = (
            _middle(v.flatten(2), self.taps, 1, strided) for v in (centre, size)
        )  # [B, T', 2], [B, T', 1]
        frames = _windows(torch.cat([place, seen, trust], dim=-1).flatten(2), self.taps, 1, strided)
        frames = frames.unflatten(2, (self.taps * self.joints[0], 4))
        relative = (frames[..., :2] - centres[:, :, None]) / sizes[:, :, None] * frames[..., 2:3]
        return torch.cat([relative.flatten(2), frames[..., 3], centres, sizes.log()], dim=-1)
