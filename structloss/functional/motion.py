"""Losses on the motion of joints from one frame to the next."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ._call import single

__all__ = ["temporal_consistency", "velocity"]


def velocity(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Distance between a joint's predicted and target step from one frame to the next; 0 for a single frame.

    Args:
        pred, target: poses [..., T, J, 3].
        weight: [..., T, J], >= 0; a step weighs w_t * w_(t-1).
        reduction: "mean" divides by the number of steps, (T - 1)*J per clip (with weights by the sum of theirs); "sum"
            doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in the unit of the poses per frame (not per second).

    Source: the velocity loss of MotionBERT (Zhu et al., ICCV 2023), VideoPose3D's MPJVE.
    """
    return single("velocity", pred, target, weight, reduction, check_finite, backend)


def temporal_consistency(
    pred: Tensor,
    *,
    weight: Tensor | None = None,
    joint_weight: Sequence[float] | Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Squared step of each joint from one frame to the next: smooth predictions, whatever the target does.

    Args:
        pred: poses [..., T, J, 3].
        weight: [..., T, J], >= 0; a step weighs w_t * w_(t-1).
        joint_weight: J numbers >= 0, a further factor of each joint that is not divided out, such as MixSTE's.
        reduction: "mean" divides by the number of coordinates, (T - 1)*J*3 per clip (with weights by three times the
            sum of theirs); "sum" doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in the squared unit of the poses.

    Source: MixSTE (Zhang et al., CVPR 2022), temporal consistency loss.
    """
    return single(
        "temporal_consistency", pred, None, weight, reduction, check_finite, backend, joint_weight=joint_weight
    )
