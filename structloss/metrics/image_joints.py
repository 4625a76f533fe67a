"""Scores of joints found in images: PDJ, the error as a share of the image, and the gap between left and right.

Joints are `[..., J, 2]`, pixels; everything returned is float64, per cent. `annotated` `[..., J]` are the joints with a
true position; the others drop out, whatever they hold. Where nothing is scored, the result is NaN.

Source: the code of Yoo and Russakovsky (ICCV 2023 workshop) on shape templates, for whose 15 joints
(:data:`structloss.shape_templates.JOINTS`) the defaults are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import (
    ArgumentError,
    check_choice,
    check_floating,
    check_same_device,
    check_same_shape,
    check_tensor,
    shown,
)
from ..shape_templates import JOINTS
from ._base import WeightedMean
from ._checks import check_reduction, reduce, weighted
from ._precision import wide

__all__ = [
    "LEFT_RIGHT_JOINTS",
    "PDJ",
    "TEMPLATE_PARTS",
    "LeftRightGap",
    "NormalizedL2",
    "left_right_gap",
    "normalized_l2",
    "pdj",
]

_SIDES = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")

LEFT_RIGHT_JOINTS: tuple[tuple[int, int], ...] = tuple(
    (JOINTS.index(f"{name}R"), JOINTS.index(f"{name}L")) for name in _SIDES
)
"""(right, left) of hip, knee, ankle, shoulder, elbow and wrist among the 15 joints of shape templates."""

_PARENTS = (8, 0, 1, 2, 0, 4, 5, 7, 8, 7, 9, 10, 7, 12, 13)
TEMPLATE_PARTS: tuple[tuple[int, int], ...] = tuple((j, _PARENTS[j]) for j in range(15) if j not in (7, 8))
"""The 13 parts whose proportions BPLP-C is about, of the same joints: `bplp_c(joints, parts=TEMPLATE_PARTS)`. The torso
is first, from neck to abdomen."""


@torch.no_grad()
def pdj(
    pred: Tensor,
    target: Tensor,
    diagonal: Tensor | float,
    threshold: float = 0.05,
    *,
    annotated: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Percentage of detected joints: those nearer to the truth than a share of the diagonal of the person's box.

    Args:
        pred, target: `[..., J, 2]`, pixels.
        diagonal: `[...]`, of the person's box in each frame, pixels; or one for all. Frames where it is NaN drop out.
        threshold: share of the diagonal; an error equal to it is not nearer.
        annotated: bool `[..., J]`; None is all.
        reduction: "mean" over joints and frames together, "none" for one value per frame, `[...]`, or "joints" for one
            per joint, `[J]`.

    Returns:
        Per cent, float64. An annotated joint that is predicted to be at NaN counts as not detected.

    Raises:
        ArgumentError: a wrong shape, diagonal, threshold or reduction.
        DtypeError: positions that are not floating point.

    >>> import torch
    >>> from structloss.metrics import pdj
    >>> target, pred = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)
    >>> pred[0, 0, 0] = 10.0  # of a box whose diagonal is 200: just not nearer than 5 %
    >>> pdj(pred, target, 200.0).item(), pdj(pred, target, 201.0).item()
    (50.0, 100.0)
    """
    check_reduction(reduction, "joints")
    return 100 * reduce(*detected(pred, target, diagonal, annotated, _threshold(threshold)), reduction)


@torch.no_grad()
def normalized_l2(
    pred: Tensor,
    target: Tensor,
    size: float = 256,
    *,
    annotated: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean distance to the true joint as a percentage of the image's side.

    Args:
        pred, target: `[..., J, 2]`, pixels.
        size: of the image, pixels.
        annotated, reduction: as of :func:`pdj`.

    Returns:
        Per cent, float64.

    Raises:
        ArgumentError: a wrong shape, size or reduction.
        DtypeError: positions that are not floating point.

    >>> import torch
    >>> from structloss.metrics import normalized_l2
    >>> target, pred = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)
    >>> pred[0, 0] = torch.tensor([3.0, 4.0])
    >>> normalized_l2(pred, target, size=100).item()
    2.5
    """
    check_reduction(reduction, "joints")
    error, weight = errors(pred, target, annotated)
    return 100 / _size(size) * reduce(*weighted(error, weight), reduction)


@torch.no_grad()
def left_right_gap(
    pred: Tensor,
    target: Tensor,
    size: float = 256,
    *,
    annotated: Tensor | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    reduction: str = "mean",
) -> Tensor:
    """How much worse a network is on one side: the difference between the mean errors of the right and the left joint,
    as a percentage of the image's side [ours: the poster names no formula].

    Args:
        pred, target: `[..., J, 2]`, pixels.
        size: of the image, pixels.
        annotated: bool `[..., J]`; None is all.
        pairs: (right, left) joints; None is :data:`LEFT_RIGHT_JOINTS`.
        reduction: "mean" over those pairs of which either side was scored, or "pairs" for one value per pair.

    Returns:
        Per cent, float64.

    Raises:
        ArgumentError: a wrong shape, size, pair or reduction.
        DtypeError: positions that are not floating point.

    >>> import torch
    >>> from structloss.metrics import left_right_gap
    >>> target, pred = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    >>> pred[0, 0, 0] = 8.0  # the right joint is off by 8 pixels in one of two frames
    >>> left_right_gap(pred, target, size=100, pairs=[(0, 1)]).item()
    4.0
    """
    check_choice("reduction", reduction, ("mean", "pairs"))
    error, weight = errors(pred, target, annotated)
    right, left = _sides(pairs, error.shape[-1])
    side = _size(size)
    total, count = weighted(error, weight)
    joints = total.shape[-1:]
    return _gap(total.sum_to_size(joints), count.sum_to_size(joints), right, left, side, reduction)


def _gap(total: Tensor, count: Tensor, right: list[int], left: list[int], size: float, reduction: str) -> Tensor:
    mean = 100 / size * total / count
    gap = (mean[right] - mean[left]).abs()
    return gap if reduction == "pairs" else gap.nanmean()


def detected(
    pred: Tensor, target: Tensor, diagonal: Tensor | float, annotated: Tensor | None, threshold: float
) -> tuple[Tensor, Tensor]:
    """Whether each joint is near enough, and its weight, both `[..., J]`."""
    error, weight = errors(pred, target, annotated)
    box = _diagonal(diagonal, error, weight)
    weight = torch.where(box.isnan()[..., None], 0.0, weight)
    return weighted((error < threshold * box[..., None]).to(error), weight)


def errors(pred: Tensor, target: Tensor, annotated: Tensor | None) -> tuple[Tensor, Tensor]:
    """Distances to the true joints and what they weigh, 0 or 1, both float64 `[..., J]`.

    Raises:
        ArgumentError, DtypeError: as :func:`pdj`.
    """
    for name, joints in (("pred", pred), ("target", target)):
        check_floating(name, joints)
        if joints.ndim < 2 or joints.shape[-1] != 2:
            raise ArgumentError(f"{name} has shape {list(joints.shape)}, expected [..., J, 2].")
    check_same_shape("target", target, "pred", pred)
    check_same_device("target", target, "pred", pred)
    error = torch.linalg.vector_norm(wide(pred.detach()) - wide(target.detach()), dim=-1)
    if annotated is None:
        return error, torch.ones_like(error)
    check_tensor("annotated", annotated, "a bool tensor")
    check_same_device("annotated", annotated, "pred", pred)
    if annotated.dtype != torch.bool or annotated.shape != error.shape:
        raise ArgumentError(
            f"annotated is {annotated.dtype} {list(annotated.shape)}, expected torch.bool {list(error.shape)}."
        )
    return error, annotated.to(error)


def _diagonal(diagonal: Tensor | float, error: Tensor, weight: Tensor) -> Tensor:
    if isinstance(diagonal, Tensor):
        check_floating("diagonal", diagonal)
        check_same_device("diagonal", diagonal, "pred", error)
        found = wide(diagonal.detach())
    elif isinstance(diagonal, int | float) and not isinstance(diagonal, bool):
        found = error.new_tensor(float(diagonal))
    else:
        raise ArgumentError(f"diagonal is {shown(diagonal)}, expected a tensor or a number of pixels.")
    frames = error.shape[:-1]
    if found.shape not in (frames, torch.Size()):
        raise ArgumentError(f"diagonal has shape {list(found.shape)}, expected {list(frames)}, one per frame.")
    found = found.expand(frames)
    bad = ((found <= 0) | found.isinf()) & (weight > 0).any(-1)
    if bool(bad.any()):
        raise ArgumentError(f"diagonal has the value {float(found[bad][0]):g}, expected pixels above 0.")
    return found


def _threshold(threshold: object) -> float:
    if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0 < threshold < math.inf:
        raise ArgumentError(f"threshold is {shown(threshold)}, expected a share of the diagonal above 0.")
    return float(threshold)


def _size(size: object) -> float:
    if not isinstance(size, int | float) or isinstance(size, bool) or not 0 < size < math.inf:
        raise ArgumentError(f"size is {shown(size)}, expected pixels of the image's side, above 0.")
    return float(size)


def _sides(pairs: Sequence[tuple[int, int]] | None, joints: int) -> tuple[list[int], list[int]]:
    found = LEFT_RIGHT_JOINTS if pairs is None else tuple(tuple(pair) for pair in pairs)
    if not found or any(len(pair) != 2 or pair[0] == pair[1] or min(pair) < 0 for pair in found):
        raise ArgumentError(f"pairs is {shown(pairs)}, expected pairs of different joints, the right one first.")
    most = max(max(pair) for pair in found)
    if most >= joints:
        raise ArgumentError(f"pairs has joint {most}, expected joints below {joints}, those of pred.")
    return [pair[0] for pair in found], [pair[1] for pair in found]


class _OfJoints(WeightedMean):
    """A share of the joints, or a mean error, per cent: one number, or one per joint.

    Args:
        reduction: "mean" or "joints".
        joints: J, for the latter.
        kwargs: those of `torchmetrics.Metric`.
    """

    factor = 100.0

    def __init__(self, reduction: str = "mean", joints: int = len(JOINTS), **kwargs: Any) -> None:
        check_choice("reduction", reduction, ("mean", "joints"))
        super().__init__(shape=() if reduction == "mean" else (joints,), **kwargs)

    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError  # update takes other arguments

    def _add(self, total: Tensor, count: Tensor) -> None:
        shape = self.total.shape
        if shape and total.shape[-1] != shape[0]:
            raise ArgumentError(f"pred has {total.shape[-1]} joints, expected {shape[0]}, those of joints.")
        self.total = self.total + total.sum_to_size(shape)
        self.count = self.count + count.sum_to_size(shape)


class PDJ(_OfJoints):
    """:func:`pdj` over a data set, per cent.

    Args:
        threshold: as for the function.
        reduction: "mean", or "joints" for one value per joint.
        joints: J, for the latter.
        kwargs: those of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(
        self, threshold: float = 0.05, reduction: str = "mean", joints: int = len(JOINTS), **kwargs: Any
    ) -> None:
        super().__init__(reduction, joints, **kwargs)
        self.threshold = _threshold(threshold)

    def update(  # type: ignore[override]
        self, pred: Tensor, target: Tensor, diagonal: Tensor | float, annotated: Tensor | None = None
    ) -> None:
        """Add a batch: joints `[..., J, 2]`, diagonals `[...]`, annotated `[..., J]` or None."""
        with torch.no_grad():
            self._add(*detected(pred, target, diagonal, annotated, self.threshold))


class NormalizedL2(_OfJoints):
    """:func:`normalized_l2` over a data set, per cent.

    Args:
        size: as for the function.
        reduction: "mean", or "joints" for one value per joint.
        joints: J, for the latter.
        kwargs: those of `torchmetrics.Metric`.
    """

    def __init__(self, size: float = 256, reduction: str = "mean", joints: int = len(JOINTS), **kwargs: Any) -> None:
        super().__init__(reduction, joints, **kwargs)
        self.size = _size(size)

    def update(  # type: ignore[override]
        self, pred: Tensor, target: Tensor, annotated: Tensor | None = None
    ) -> None:
        """Add a batch: joints `[..., J, 2]`, annotated `[..., J]` or None."""
        with torch.no_grad():
            error, weight = errors(pred, target, annotated)
            self._add(*weighted(error / self.size, weight))


class LeftRightGap(_OfJoints):
    """:func:`left_right_gap` over a data set, per cent.

    Args:
        size, pairs, reduction: as for the function.
        joints: J.
        kwargs: those of `torchmetrics.Metric`.
    """

    def __init__(
        self,
        size: float = 256,
        pairs: Sequence[tuple[int, int]] | None = None,
        reduction: str = "mean",
        joints: int = len(JOINTS),
        **kwargs: Any,
    ) -> None:
        super().__init__("joints", joints, **kwargs)
        self.size, self.reduction = _size(size), check_choice("reduction", reduction, ("mean", "pairs"))
        self.right, self.left = _sides(pairs, joints)

    def update(  # type: ignore[override]
        self, pred: Tensor, target: Tensor, annotated: Tensor | None = None
    ) -> None:
        """Add a batch: joints `[..., J, 2]`, annotated `[..., J]` or None."""
        with torch.no_grad():
            self._add(*weighted(*errors(pred, target, annotated)))

    def compute(self) -> Tensor:
        """The gap over everything seen so far, float64; NaN where nothing was scored."""
        return _gap(self.total, self.count, self.right, self.left, self.size, self.reduction)
