"""PCK and AUC: the share of joints closer to the truth than a threshold, in per cent as published.

Poses are `[..., T, J, 3]`, floating point. `unit` is theirs: "mm", "cm", "m", or metres per unit as a number; the
default thresholds are taken in it. Thresholds that are given share the poses' unit, whatever it is. Poses that plainly
have another unit, and thresholds that every or no joint of a body passes, are warned of.

Both return float64, per cent. `weight` is `[..., T, J]`, >= 0; entries of weight 0 drop out whatever they hold. A
scored joint whose error is NaN counts as wrong, as in MPI-INF-3DHP's evaluation. Unweighted counts are exact. Where
nothing is scored, the result is NaN.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, shown
from ..units import check_unit, extent, warn_of_size
from ._base import RootRelative
from ._checks import check_joints, check_reduction, prepare, reduce

__all__ = ["AUC", "AUC_THRESHOLDS", "PCK", "PCK_THRESHOLD", "auc", "pck"]

PCK_THRESHOLD = 150.0
"""Millimetres; MPI-INF-3DHP. :func:`pck` takes it in the poses' unit."""
AUC_THRESHOLDS = tuple(float(t) for t in range(0, 151, 5))
"""0, 5, ..., 150 mm; MPI-INF-3DHP. No error is below 0, so with `strict` the most that 31 thresholds can give is
96.77 %."""


@torch.no_grad()
def pck(
    pred: Tensor,
    target: Tensor,
    *,
    threshold: float | None = None,
    unit: str | float | None = None,
    strict: bool = True,
    joints: Sequence[int] | None = None,
    root: int | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Percentage of correct keypoints: joints whose error is below the threshold.

    Args:
        pred, target: `[..., T, J, 3]`.
        threshold: in the poses' unit; None is MPI-INF-3DHP's 150 mm in `unit`.
        unit: of the poses, "mm", "cm", "m", or metres per unit; None is "mm" where the threshold is not given.
        strict: an error equal to the threshold is wrong (MPI-INF-3DHP); False counts it as right.
        joints: the joints to score; None is all.
        root: subtract this joint first; it need not be scored itself.
        weight: `[..., T, J]`, >= 0.
        reduction: `"mean"`, `"none"` for one value per frame, `[..., T]`, or `"joints"` for one per scored joint.

    Returns:
        Per cent, float64.

    Raises:
        ArgumentError: a wrong shape, weight, threshold, unit or joint, or an unknown reduction.
        DtypeError: poses that are not floating point.

    Source: Mehta et al., 3DV 2017 (3DPCK).

    >>> import torch
    >>> from structloss.metrics import pck
    >>> target, pred = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)
    >>> pred[0, :, 0] = torch.tensor([100.0, 200.0])
    >>> pck(pred, target).item(), pck(pred / 1000, target, unit="m").item()
    (50.0, 50.0)
    """
    check_reduction(reduction, "joints")
    scale = _Scale(_one(threshold), (PCK_THRESHOLD,), unit)
    return 100 * reduce(*hits(pred, target, weight, scale, strict, check_joints(joints), root), reduction)


@torch.no_grad()
def auc(
    pred: Tensor,
    target: Tensor,
    *,
    thresholds: Sequence[float] | None = None,
    unit: str | float | None = None,
    strict: bool = True,
    joints: Sequence[int] | None = None,
    root: int | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Area under the curve of PCK over thresholds: the mean of PCK over them.

    Args:
        thresholds: in the poses' unit; None is MPI-INF-3DHP's 0, 5, ..., 150 mm in `unit`.
        pred, target, unit, strict, joints, root, weight, reduction: as for :func:`pck`.

    Returns, raises: as :func:`pck`. Source: Mehta et al., 3DV 2017.

    >>> import torch
    >>> from structloss.metrics import auc
    >>> target, pred = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)
    >>> pred[0, :, 0] = torch.tensor([100.0, 200.0])
    >>> round(auc(pred, target, reduction="joints")[0].item(), 2)  # 105, 110, ..., 150: 10 of 31 thresholds
    32.26
    """
    check_reduction(reduction, "joints")
    scale = _Scale(thresholds, AUC_THRESHOLDS, unit)
    return 100 * reduce(*hits(pred, target, weight, scale, strict, check_joints(joints), root), reduction)


def _one(threshold: float | None) -> tuple[float] | None:
    if threshold is None:
        return None
    try:
        value = float(threshold)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value < math.inf:
        raise ArgumentError(f"threshold is {shown(threshold)}, expected a finite number of 0 or more.")
    return (value,)


def _check(thresholds: Sequence[float]) -> tuple[float, ...]:
    try:
        values = tuple(sorted(float(t) for t in thresholds))
    except (TypeError, ValueError):
        values = ()
    if not values or not all(math.isfinite(t) and t >= 0 for t in values):
        raise ArgumentError(f"thresholds is {shown(thresholds)}, expected finite numbers of 0 or more.")
    return values


class _Scale:
    """Thresholds in the poses' unit, ascending, and what is known of that unit.

    Args:
        thresholds: as given; None takes the default.
        default: in millimetres.
        unit: as given.
    """

    # Of a body's extent: what no error reaches, and what lies below any annotation's precision.
    ANY, NONE = 10.0, 1e-4

    def __init__(
        self, thresholds: Sequence[float] | None, default: tuple[float, ...], unit: str | float | None
    ) -> None:
        # Given thresholds need no unit: they are in that of the poses.
        self.metres = check_unit("mm" if unit is None else unit) if thresholds is None or unit is not None else None
        # Rounded, so that 150 mm are 0.15 m, not 0.15000000000000002.
        in_unit = [float(f"{t * 1e-3 / (self.metres or 1.0):.15g}") for t in default]
        self.thresholds = _check(in_unit if thresholds is None else thresholds)

    def warn(self, target: Tensor, weight: Tensor) -> None:
        """Warn where true poses are of another size than the unit or the thresholds have it."""
        size = extent(target, weight > 0)
        if self.metres is not None:
            warn_of_size(
                "target", size, self.metres, "say unit=, which is 'mm' by default, for their thresholds", depth=6
            )
        elif not self.NONE * size <= self.thresholds[-1] <= self.ANY * size and self.thresholds[-1] and size > 0:
            warnings.warn(
                f"target has bodies of {size:.3g}, where a threshold of {self.thresholds[-1]:g} says nothing, expected "
                "both in one unit.",
                UserWarning,
                stacklevel=5,
            )


SCALES = (_Scale(None, (PCK_THRESHOLD,), "mm"), _Scale(None, AUC_THRESHOLDS, "mm"))
"""PCK's and AUC's, of poses in millimetres."""


def hits(
    pred: Tensor,
    target: Tensor | None,
    weight: Tensor | None,
    scale: _Scale,
    strict: bool,
    joints: tuple[int, ...] | None,
    root: int | None,
) -> tuple[Tensor, Tensor]:
    """Weighted number of thresholds that each joint passes, and of all thresholds; both `[..., T, J]`."""
    pred, target, weight = prepare(pred, target, weight, root)
    scale.warn(target, weight)
    thresholds = scale.thresholds
    if joints is not None:
        if max(joints) >= pred.shape[-2]:
            raise ArgumentError(f"joints has {max(joints)}, expected joints below {pred.shape[-2]}.")
        pred, target, weight = pred[..., joints, :], target[..., joints, :], weight[..., joints]
    error = torch.linalg.vector_norm(pred - target, dim=-1).contiguous()
    # How many thresholds lie at or below the error (strict), or below it: those are missed. NaN sorts last.
    missed = torch.searchsorted(error.new_tensor(thresholds), error, right=strict)
    passed = torch.where(error.isnan(), 0, len(thresholds) - missed)
    return weight * passed, weight * len(thresholds)


class PCK(RootRelative):
    """:func:`pck` over a data set, per cent.

    Args:
        threshold, unit, strict, joints, root: as for the function.
        kwargs: those of `torchmetrics.Metric`.
    """

    higher_is_better = True
    factor = 100.0

    def __init__(
        self,
        threshold: float | None = None,
        strict: bool = True,
        joints: Sequence[int] | None = None,
        root: int | None = None,
        unit: str | float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.scale = _Scale(_one(threshold), (PCK_THRESHOLD,), unit)
        self.strict, self.joints = strict, check_joints(joints)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """In the poses' unit, ascending."""
        return self.scale.thresholds

    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return hits(pred, target, weight, self.scale, self.strict, self.joints, self.root)


class AUC(PCK):
    """:func:`auc` over a data set, per cent.

    Args:
        thresholds, unit, strict, joints, root: as for the function.
        kwargs: those of `torchmetrics.Metric`.
    """

    def __init__(
        self,
        thresholds: Sequence[float] | None = None,
        strict: bool = True,
        joints: Sequence[int] | None = None,
        root: int | None = None,
        unit: str | float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(strict=strict, joints=joints, root=root, **kwargs)
        self.scale = _Scale(thresholds, AUC_THRESHOLDS, unit)
