"""What a loss network is shown of a batch: poses in metres about the pelvis, with all joints, some of the frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, check_floating, check_same_shape, check_tensor
from ..skeletons import Skeleton, relative
from .graph import adjacency
from .loss_net import check_unit

__all__ = ["LossNetInputs"]


class LossNetInputs(nn.Module):
    """Prepares 2D and poses for a loss network.

    Args:
        skeleton: of the loss network, J joints.
        joints: numbers of the joints that poses have, where they lack some: those are put halfway between their
            neighbours. None has all.
        frames: show this many frames of a clip, drawn anew at every call; None shows all.
        in_a_row: draw them as a run.

    Raises:
        ArgumentError: impossible joints or frames.
    """

    completion: Tensor | None

    def __init__(self, skeleton: Skeleton, joints: Sequence[int] | None, frames: int | None, *, in_a_row: bool) -> None:
        super().__init__()
        if frames is not None and (not isinstance(frames, int) or frames < 1):
            raise ArgumentError(f"frames is {frames!r}, expected None or a whole number of at least 1.")
        self.skeleton, self.frames, self.in_a_row = skeleton, frames, in_a_row
        completion = None if joints is None else _completion(skeleton, tuple(joints))
        self.register_buffer("completion", completion, persistent=False)

    def forward(
        self,
        x: Tensor,
        target: Tensor,
        prediction: Tensor | None,
        weight: Tensor | None,
        unit: float | Tensor,
        keep: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """What is scored: x, target and prediction about the pelvis in metres, `[..., F, J, C]`, and weights of the
        frames, `[..., F]` or None where all count; F drawn frames of each clip.

        Args:
            x: `[..., T, J or J', 2 or 3]`, J' the joints that poses have.
            target, prediction: `[..., T, J', 3]`.
            weight: `[..., T, J']`: a frame with a joint of weight 0 doesn't count.
            unit: metres per unit of the poses, a number or `[..., T]`.
            keep: let gradients through to the target.

        Raises:
            ArgumentError, DtypeError: wrong shapes or dtypes.
        """
        check_floating("target", target)
        check_floating("x", x)
        if target.dim() < 3:
            raise ArgumentError(f"target has shape {list(target.shape)}, expected [..., T, J, 3].")
        joints = {target.shape[-2], self.skeleton.num_joints}
        if x.shape[:-2] != target.shape[:-2] or x.shape[-2] not in joints or x.shape[-1] not in (2, 3):
            expected = f"{list(target.shape[:-1])} and 2 or 3 channels"
            raise ArgumentError(f"x has shape {list(x.shape)}, expected {expected}.")
        check_unit(unit, target)
        if prediction is not None:
            check_floating("prediction", prediction)
            check_same_shape("prediction", prediction, "target", target)
        counted = None
        if weight is not None:
            check_tensor("weight", weight)
            if weight.shape != target.shape[:-1]:
                raise ArgumentError(f"weight has shape {list(weight.shape)}, expected {list(target.shape[:-1])}.")
            counted = (weight > 0).all(-1)
        drawn = self._drawn(target)

        def scored(clip: Tensor) -> Tensor:
            """The drawn frames, float32 at least; those that don't count are 0, whatever they hold (NaN)."""
            clip = clip.to(torch.promote_types(clip.dtype, torch.float32))
            if counted is not None:
                clip = torch.where(counted[..., None, None], clip, 0.0)
            return clip if drawn is None else clip[..., drawn, :, :]

        scale = unit[..., None, None] if isinstance(unit, Tensor) else unit

        def pose(clip: Tensor) -> Tensor:
            return scored(relative(self._completed((clip if keep else clip.detach()) * scale), self.skeleton.pelvis))

        planar = x.detach()
        if planar.shape[-2] == target.shape[-2]:
            planar = self._completed(planar)
        found = scored(planar), pose(target), None if prediction is None else pose(prediction)
        if counted is not None:
            counted = (counted if drawn is None else counted[..., drawn]).to(torch.float32)
        return *found, counted

    def _completed(self, clip: Tensor) -> Tensor:
        """`[..., J', C]` with all joints of the skeleton, `[..., J, C]`."""
        if self.completion is None:
            return clip
        if clip.shape[-2] != self.completion.shape[1]:
            raise ArgumentError(f"a pose has {clip.shape[-2]} joints, expected {self.completion.shape[1]}.")
        with torch.autocast(clip.device.type, enabled=False):  # bfloat16 would round coordinates to millimetres
            return self.completion.to(clip.dtype) @ clip

    def _drawn(self, pose: Tensor) -> Tensor | None:
        """Indices of the frames that are scored; None for all of them."""
        total = pose.shape[-3]
        if self.frames is None or self.frames >= total:
            return None
        if self.in_a_row:
            start = int(torch.randint(total - self.frames + 1, ()))
            return torch.arange(start, start + self.frames, device=pose.device)
        return torch.randperm(total, device=pose.device)[: self.frames].sort().values


def _completion(skeleton: Skeleton, joints: tuple[int, ...]) -> Tensor | None:
    """`[J, J']`: how the J joints of a skeleton come from those that poses have; None where they have all."""
    total = skeleton.num_joints
    if sorted(set(joints)) != sorted(joints) or any(not 0 <= j < total for j in joints):
        raise ArgumentError(f"joints is {list(joints)}, expected different numbers from 0 to {total - 1}.")
    if joints == tuple(range(total)):
        return None
    linked = adjacency(skeleton)
    rows = torch.zeros(total, len(joints))
    for column, joint in enumerate(joints):
        rows[joint, column] = 1
    for joint in set(range(total)) - set(joints):
        near = [other for other in joints if linked[joint, other]]
        if not near:
            raise ArgumentError(f"joints lacks {joint} and all of its neighbours, expected one of them at least.")
        rows[joint] = rows[near].mean(0)
    return rows
