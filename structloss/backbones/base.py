"""What all backbones share: the clips they take, the frames they answer for, how they are trained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

from ..errors import ArgumentError, check_choice
from .blocks import RunsLevels, check_clip, check_size
from .official import Source

__all__ = ["KINDS", "Backbone", "SecondStage", "StartsFromFirstStage", "Supervision", "TakesStatistics"]

KINDS = ("sequence", "centre", "frame", "refine", "pretrain")
"""What a network does with a clip.

- `"sequence"`: T frames in, T poses out.
- `"centre"`: a receptive field of frames in, the pose of one of them out (more frames in, more poses out, if the
  network can slide).
- `"frame"`: every frame by itself, any T.
- `"refine"`: a second stage, which takes poses too.
- `"pretrain"`: a network for pre-training, whose output is no pose.
"""


@dataclass(frozen=True)
class Supervision:
    """A prediction that training compares with a target.

    Attributes:
        prediction, target: `[B, T', J, 3]`.
        weight: `[B, T', J]` weights of frames and joints, or None.
        share: factor of this prediction's loss in the total.
        pose: whether it is a pose. The last one that is one is what `forward` returns.
    """

    prediction: Tensor
    target: Tensor
    weight: Tensor | None = None
    share: float = 1.0
    pose: bool = True


class Backbone(RunsLevels):
    """Base class of the lifting networks: `[B, T, J, C]` in, `[B, T_out, J_out, 3]` out.

    A subclass calls `super().__init__` with what it takes, starts `forward` with :meth:`prepare`, and runs its repeated
    levels through :meth:`run`, which is all that gradient checkpointing needs.

    Args:
        kind: one of :data:`KINDS`.
        frames: clip length, or receptive field, in frames.
        joints: the numbers of joints J that it takes.
        channels: input channels of the network: 2 (x, y) or 3 (x, y, confidence).
        shortest, longest: the T that `forward` takes; `shortest=None` is exactly `frames` for both, `longest=None` is
            no limit otherwise.
        centre: index of the frame in its receptive field that a `"centre"` network predicts; None is the middle.

    Attributes:
        gradient_checkpointing: recompute levels in the backward pass instead of keeping their activations.
        keeps: which poses of a clip the published test keeps, `"all"` or `"centre"`.
        frame_step: the published clips take every n-th frame.
        samples: `forward` in evaluation mode draws samples, another function than what is trained (diffusion).
        skips_missing: keypoints of confidence 0 are not looked at, wherever they are.
    """

    #: official keys, by regular expression, that hold no weights: dropped on loading
    official_constants: str | None = None
    samples = False
    skips_missing = False

    def __init__(
        self,
        *,
        kind: str,
        frames: int,
        joints: Sequence[int] = (17,),
        channels: int = 2,
        shortest: int | None = None,
        longest: int | None = None,
        centre: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("kind", kind, KINDS)
        check_size("frames", frames)
        self.kind = kind
        self.frames = frames
        self.joints = tuple(joints)
        self.channels = channels
        self.shortest, self.longest = (frames, frames) if shortest is None else (shortest, longest)
        self.centre = frames // 2 if centre is None else centre
        self.keeps = "all"
        self.frame_step = 1

    def prepare(self, x: Tensor) -> Tensor:
        """Check an input clip `[B, T, J, 2 or 3]` and give it the network's channels: a confidence that is missing is
        1, one that the network doesn't take is dropped.

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        check_clip(x, self._any_weight(), joints=self.joints, shortest=self.shortest, longest=self.longest)
        if x.shape[-1] == self.channels:
            return x
        return x[..., :2] if self.channels == 2 else F.pad(x, (0, 1), value=1.0)

    def _any_weight(self) -> Tensor:
        return next(self.parameters())

    def match(self, clip: Tensor) -> Tensor:
        """The part of a clip-shaped tensor `[B, T, ...]` that `forward` predicts from an input of T frames: all of it,
        or for a `"centre"` network the frames at the centre of a full receptive field."""
        if self.kind != "centre":
            return clip
        if clip.dim() < 2 or clip.shape[1] < self.frames:
            raise ArgumentError(
                f"clip has shape {list(clip.shape)}, expected [B, T, ...] with T of at least {self.frames}, the "
                "receptive field."
            )
        return clip[:, self.centre : self.centre + clip.shape[1] - self.frames + 1]

    def supervise(self, x: Tensor, target: Tensor, weight: Tensor | None = None) -> list[Supervision]:
        """The forward pass of training: predictions and what they are compared with.

        Args:
            x: input clip, as for `forward`.
            target: `[B, T, J_out, 3]`, the poses of the same frames.
            weight: `[B, T, J_out]` or None.

        Returns:
            One :class:`Supervision`, or several for networks that the paper trains with intermediate predictions.
        """
        return [Supervision(self(x), self.match(target), None if weight is None else self.match(weight))]

    def constants(self) -> dict[str, Tensor]:
        """What published files hold under the keys of `official_constants`, beside the weights."""
        return {}

    def official(self, key: str) -> str | Source:
        """The published name of the state-dict entry `key`, or how the published entries make it up."""
        return key


@runtime_checkable
class SecondStage(Protocol):
    """A network that refines the poses of another, and can be trained behind it (Jointformer)."""

    def after(self, pose: Backbone) -> Backbone:
        """Both as one network, `pose` first and frozen."""
        ...


@runtime_checkable
class StartsFromFirstStage(Protocol):
    """A network that can start from the checkpoint of another, which was trained before it (P-STMO)."""

    def load_first_stage(self, checkpoint: Mapping[str, Any] | str | os.PathLike[str]) -> object:
        """Copy what the checkpoint has for this network.

        Raises:
            CheckpointError: it has nothing for it.
        """
        ...


@runtime_checkable
class TakesStatistics(Protocol):
    """A network that standardises its input and its target (SimpleBaseline)."""

    def set_statistics(self, *, input_mean: Tensor, input_std: Tensor, target_mean: Tensor, target_std: Tensor) -> None:
        """Standardise by the statistics of the training data: `[J, 2]` of the input and `[J, 3]` of the target."""
        ...
