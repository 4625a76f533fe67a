"""Scores by joint, by action and by frame, as published tables average them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ._base import WeightedMean
from ._checks import check_labels
from ._precision import sums

__all__ = ["MotionBERTScore", "PerAction", "PerJoint"]


def _check_metric(metric: object) -> WeightedMean:
    if not isinstance(metric, WeightedMean) or metric.total.dim():
        raise ArgumentError(
            f"metric is a {type(metric).__name__}, expected a metric of structloss.metrics that is a weighted mean, "
            "such as MPJPE()."
        )
    return metric


def _check_names(argument: str, names: Sequence[str]) -> tuple[str, ...]:
    found = () if isinstance(names, str) else tuple(names)
    if not found or len(set(found)) < len(found) or not all(isinstance(name, str) for name in found):
        raise ArgumentError(f"{argument} is {names!r}, expected one or more different names.")
    return found


class _Breakdown(WeightedMean):
    """Sums of another metric's values by some group."""

    _metric: WeightedMean

    def __init__(self, metric: WeightedMean, groups: int, **kwargs: Any) -> None:
        super().__init__(shape=(groups,), **kwargs)
        self._metric = copy.deepcopy(_check_metric(metric))
        self.part, self.rows, self.factor = metric.part, metric.rows, metric.factor

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]  # a constant of torchmetrics' classes
        return bool(self._metric.higher_is_better)

    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._metric.values(pred, target, weight)


class PerJoint(_Breakdown):
    """A metric of joints, one value per joint over all frames.

    >>> import torch
    >>> from structloss.metrics import MPJPE, PerJoint
    >>> metric = PerJoint(MPJPE(root=0), joints=17)
    >>> metric.update(torch.zeros(2, 9, 17, 3), torch.ones(2, 9, 17, 3))
    >>> metric.compute().shape
    torch.Size([17])

    Args:
        metric: MPJPE, PAMPJPE, NMPJPE, MPJVE, AccelerationError, PCK or AUC; itself left alone.
        joints: how many joints it scores.
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ArgumentError: another metric.
    """

    def __init__(self, metric: WeightedMean, joints: int = 17, **kwargs: Any) -> None:
        if _check_metric(metric).part != "joints":
            raise ArgumentError(f"metric is a {type(metric).__name__}, expected one that scores each joint.")
        super().__init__(metric, joints, **kwargs)

    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        total, count = super().values(pred, target, weight)
        if total.shape[-1] != len(self.total):
            raise ArgumentError(
                f"pred has {total.shape[-1]} scored joints, expected {len(self.total)}, those of joints."
            )
        return total, count


class PerAction(_Breakdown):
    """A metric, action by action, and the mean over actions that published tables give.

    Every action counts the same in the mean, however many frames it has; actions without a scored frame are left out.
    Within an action frames are pooled (VideoPose3D's protocols; protocol 3 is NMPJPE).

    >>> import torch
    >>> from structloss.metrics import MPJPE, PerAction
    >>> metric = PerAction(MPJPE(root=0), ["Walking", "Sitting"])
    >>> metric.update(torch.zeros(2, 9, 17, 3), torch.ones(2, 9, 17, 3), action=torch.tensor([0, 1]))
    >>> metric.compute().item(), sorted(metric.per_action())
    (0.0, ['Sitting', 'Walking'])

    Args:
        metric: any weighted mean of this package with its defaults of one number: not the spread of bone lengths or
            BPLP-C; itself left alone.
        actions: names, in the order of the numbers that `update` takes.
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ArgumentError: another metric, or no names.
    """

    def __init__(self, metric: WeightedMean, actions: Sequence[str], **kwargs: Any) -> None:
        self.actions = _check_names("actions", actions)
        super().__init__(metric, len(self.actions), **kwargs)

    def update(  # type: ignore[override]
        self, pred: Tensor, target: Tensor | None = None, weight: Tensor | None = None, *, action: Tensor
    ) -> None:
        """Add a batch: poses `[..., T, J, 3]`, weight `[..., T, J]` or None, and the integer action of each clip,
        `[...]`, or frame, `[..., T]`."""
        with torch.no_grad():
            total, count = (x.sum(-1) for x in self.values(pred, target, weight))
            group = check_labels("action", action, total.shape, len(self.actions), total.device, self.rows).flatten()
            self.total = self.total.index_add(0, group, total.flatten().to(self.total.dtype))
            self.count = self.count.index_add(0, group, count.flatten().to(self.count.dtype))

    def compute(self) -> Tensor:
        """Mean over the actions, a float64 scalar; NaN where nothing was scored."""
        return self._by_action()[self.count > 0].mean()

    def per_action(self) -> dict[str, float]:
        """Value of each action with a scored frame, of all processes."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            values, seen = self._by_action().tolist(), (self.count > 0).tolist()
        return {name: value for name, value, s in zip(self.actions, values, seen, strict=True) if s}

    def _by_action(self) -> Tensor:
        return self.factor * (self.total / self.count)


class MotionBERTScore(PerAction):
    """A metric averaged as MotionBERT and its successors do: over the clips that contain a frame, then over the frames
    of an action, then over actions.

    A frame in three clips counts once, and so does a frame that a distributed sampler repeats.

    Args:
        metric: MPJPE, PAMPJPE, NMPJPE, PCK, ...: one with a value per frame; itself left alone.
        actions: names of the actions.
        frame_actions: `[N]` integers, the action of every frame of the data set; -1 leaves a frame out of the score
            (the published protocol skips three sequences of subject 9).
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        ArgumentError: another metric, no names, or an action out of range.

    Source: MotionBERT's evaluation. Where a clip was stretched from a shorter video and has a frame twice, the
    published code counts its last copy alone, this class the mean of its copies.
    """

    frame_actions: Tensor

    def __init__(
        self, metric: WeightedMean, actions: Sequence[str], frame_actions: Tensor | Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(metric, actions, **kwargs)
        if metric.rows != "frames":
            raise ArgumentError(f"metric is a {type(metric).__name__}, expected one with a value per frame.")
        labels = torch.as_tensor(frame_actions)
        wrong = labels.is_floating_point() or labels.dim() != 1 or not len(labels)
        if wrong or int(labels.min()) < -1 or int(labels.max()) >= len(self.actions):
            raise ArgumentError(
                f"frame_actions is malformed, expected integers from -1 to {len(self.actions) - 1}, one per frame."
            )
        self.register_buffer("frame_actions", labels.long(), persistent=False)
        for name in ("total", "count"):  # of each frame
            self.add_state(name, default=sums(len(labels)), dist_reduce_fx="sum")

    def update(  # type: ignore[override]
        self, pred: Tensor, target: Tensor | None = None, weight: Tensor | None = None, *, frame: Tensor
    ) -> None:
        """Add a batch: poses `[..., T, J, 3]`, weight `[..., T, J]` or None, and the number of each frame in the data
        set, `[..., T]`."""
        with torch.no_grad():
            total, count = (x.sum(-1) for x in self.values(pred, target, weight))
            if isinstance(frame, Tensor) and frame.shape != total.shape:
                raise ArgumentError(f"frame has shape {list(frame.shape)}, expected {list(total.shape)}.")
            index = check_labels("frame", frame, total.shape, len(self.total), total.device).flatten()
            scored = count > 0
            value = torch.where(scored, total / count, 0.0)
            self.total = self.total.index_add(0, index, value.flatten().to(self.total.dtype))
            self.count = self.count.index_add(0, index, scored.to(self.count.dtype).flatten())

    def compute(self) -> Tensor:
        """Mean over the actions, a float64 scalar; NaN where nothing was scored."""
        total, count = self._frames_by_action()
        return (self.factor * (total / count))[count > 0].mean()

    def per_action(self) -> dict[str, float]:
        """Value of each action with a scored frame, of all processes."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            total, count = self._frames_by_action()
        values = (self.factor * (total / count)).tolist()
        return {name: value for name, value, n in zip(self.actions, values, count.tolist(), strict=True) if n}

    def _frames_by_action(self) -> tuple[Tensor, Tensor]:
        scored = (self.count > 0) & (self.frame_actions >= 0)
        mean, group = (self.total / self.count)[scored], self.frame_actions[scored]
        total = mean.new_zeros(len(self.actions)).index_add(0, group, mean)
        return total, mean.new_zeros(len(self.actions)).index_add(0, group, torch.ones_like(mean))
