"""Scored frames put together video by video, whatever windows they came in: what is measured between frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from .. import backbones
from ..metrics import DepthOrderAccuracy
from ..metrics._precision import wide

__all__ = ["VideoOrder", "VideoSteps", "WholeVideos", "repeats_frames"]

#: Families whose published evaluation counts frames of a video's last window, where it overlaps the one before, twice.
_REPEATING = ("mixste", "ktpformer", "d3dp")


def repeats_frames(backbone: str) -> bool:
    """Whether the published evaluation of a variant, or of a family's, lays windows end to end: frames of the last
    window of a video that the one before has, too, count twice, and the step from window to window is one like others.
    """
    return backbones.info(backbone).family in _REPEATING


#: Frames of a video whose order is compared, for networks that predict one frame of a window; the usual window of
#: networks that predict several.
PIECE = 243


class WholeVideos(Metric):
    """Velocity error and order over frames of predictions that belong to videos.

    Frames may come in any order, in windows of any kind and, under distributed training, on any process; a frame that
    has no weight in a batch is none of it. A step is from a frame to the next of the same video.

    Args:
        actions: how many there are, or how many groups of another kind the steps are averaged by.
        end_to_end: a step is from a frame to the next one of its window, or to the first of the next window, whatever
            lies between them (MixSTE's evaluation). The same frame may come in two windows.
        kwargs: those of `torchmetrics.Metric`.

    Source: VideoPose3D's evaluation, which predicts videos whole.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    place: Any
    error: Any
    weight: Any
    depth: Any

    def __init__(self, actions: int, end_to_end: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.actions, self.end_to_end = actions, end_to_end
        for name in ("place", "error", "weight", "depth"):
            self.add_state(name, [], dist_reduce_fx="cat")

    @torch.no_grad()
    def update(
        self,
        error: Tensor,
        weight: Tensor,
        depth: Tensor | None = None,
        *,
        action: Tensor,
        video: Tensor,
        frame: Tensor,
        window: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            error: `[B, T, J, 3]`, predicted minus true poses.
            weight: `[B, T, J]`, >= 0; joints of weight 0 may be NaN.
            depth: `[B, T, J, 2]`, predicted and true depth, to compare the order over frames by; None for no order.
            action: `[B]`, number of each clip's action.
            video: `[B]`, a number that each video has alone.
            frame: `[B, T]`, number of each frame in its video.
            window: `[B]`, a number by which the windows of a video are in order; needed to lay them end to end.
        """
        scored = (weight > 0).any(-1)
        if window is None:
            window = torch.zeros_like(video)
        numbers = (action, video, window)
        labels = torch.stack([*(number[:, None].expand_as(frame) for number in numbers), frame], -1)
        self.place.append(labels[scored].long())
        self.error.append(error[scored].float())
        self.weight.append(weight[scored].float())
        joints = weight.shape[-1]
        self.depth.append(error.new_zeros(0, joints, 2).float() if depth is None else depth[scored].float())

    def pad(self, joints: int) -> None:
        """Add no frames, so that a process that was given none has the same states as the others."""
        nothing = torch.zeros(1, 0, joints, 3, device=self.device)
        none = torch.zeros(1, device=self.device, dtype=torch.long)
        self.update(nothing, nothing[..., 0], action=none, video=none, frame=none.new_zeros(1, 0))

    def compute(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Velocity error of each action `[A]`, in the unit of the errors per frame: the mean over the steps of each
        video, weighted by its number of frames, as published; that of all steps pooled; the share of pairs of frames
        whose order in depth is right, in pieces of :data:`PIECE` frames; and the frames that each action's is of,
        `[A]`. Float64 where the device has it, NaN where there is nothing.
        """
        place, error, weight, depth = (
            torch.cat(value) if isinstance(value, list) else value
            for value in (self.place, self.error, self.weight, self.depth)
        )
        order = torch.argsort(place[:, 3], stable=True)
        for column in (2, 1) if self.end_to_end else (1,):
            order = order[torch.argsort(place[order, column], stable=True)]
        place, error, weight = place[order], error[order], weight[order]
        action, video, _, frame = place.unbind(-1)
        together = video[1:] == video[:-1]
        if not self.end_to_end:
            together &= frame[1:] == frame[:-1] + 1
        w = torch.where(together[:, None], wide(weight[1:] * weight[:-1]), 0.0)
        step = torch.linalg.vector_norm(wide(error[1:]) - wide(error[:-1]), dim=-1)
        step = torch.where(w > 0, w * step, 0.0)
        _, which, frames = torch.unique_consecutive(video, return_inverse=True, return_counts=True)
        total = step.new_zeros(len(frames)).index_add(0, which[1:], step.sum(-1))
        count = step.new_zeros(len(frames)).index_add(0, which[1:], w.sum(-1))
        moving = count > 0
        of_action = action.new_zeros(len(frames)).index_copy(0, which, action)[moving]
        length = wide(frames[moving])
        mean = length * total[moving] / count[moving]
        by_action = [step.new_zeros(self.actions).index_add(0, of_action, part) for part in (mean, length)]
        pooled = total.sum() / count.sum()
        right = pooled.new_full((), torch.nan)
        if len(order) and len(depth) == len(order):
            right = _order(depth[order], weight, video, frame)
        return by_action[0] / by_action[1], pooled, right, by_action[1]


class VideoSteps(WholeVideos):
    """The velocity error of all steps pooled, alone."""

    def compute(self) -> Tensor:  # type: ignore[override]  # one of the four
        return super().compute()[1]


class VideoOrder(WholeVideos):
    """The share of pairs of frames whose order in depth is right, alone."""

    higher_is_better = True

    def compute(self) -> Tensor:  # type: ignore[override]  # one of the four
        return super().compute()[2]


#: Pieces of videos that are compared at a time: bounds the working memory, and leaves little padding.
_PIECES = 64


def _order(depth: Tensor, weight: Tensor, video: Tensor, frame: Tensor) -> Tensor:
    """Share of the pairs of a joint's frames in order, within pieces of a video."""
    score = DepthOrderAccuracy(over="frames").to(depth.device)
    _, lengths = torch.unique_consecutive(torch.stack([video, frame // PIECE], -1), dim=0, return_counts=True)
    pieces = list(zip(*(part.split(lengths.tolist()) for part in (depth, weight)), strict=True))
    pieces.sort(key=lambda piece: len(piece[0]))
    for first in range(0, len(pieces), _PIECES):
        # Shorter pieces are filled up with frames of weight 0, which make no pair.
        z, w = (
            torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
            for parts in zip(*pieces[first : first + _PIECES], strict=True)
        )
        pred, true = (torch.nn.functional.pad(part[..., None], (2, 0)) for part in z.unbind(-1))
        score.update(pred, true, w)
    return score.compute()
