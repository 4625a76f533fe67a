"""Losses on the positions of joints."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ._call import relative_to, single

__all__ = ["mpjpe", "n_mpjpe", "weighted_mpjpe"]


def mpjpe(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    root: int | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Mean per-joint position error: the Euclidean distance of predicted and target joint, as a loss.

    Args:
        pred, target: poses [..., T, J, 3].
        weight: [..., T, J], >= 0.
        root: subtract this joint from both poses first; None takes them as given.
        reduction: "mean" divides by the number of joints (with weights by their sum); "sum" doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in the unit of the poses. The gradient of a joint without error is 0.
        :func:`structloss.metrics.mpjpe` takes the same and means the same; it has no gradient, is computed in float64
        and knows more reductions.

    Source: Human3.6M protocol 1 (Ionescu et al., TPAMI 2014).
    """
    pred, target, weight = relative_to(root, pred, target, weight)
    return single("mpjpe", pred, target, weight, reduction, check_finite, backend)


def weighted_mpjpe(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    joint_weight: Sequence[float] | Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Distance of predicted and target joint times a weight; the mean is over joints, not over their weights.

    So doubled weights give a doubled loss, where :func:`mpjpe` would stay the same.

    Args:
        pred, target: poses [..., T, J, 3].
        weight: [..., T, J] or what broadcasts to it, >= 0.
        joint_weight: J numbers >= 0, a further factor of each joint, such as MixSTE's.
        reduction: "mean" divides by the number of joints, whatever their weights; "sum" doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in the unit of the poses.

    Source: VideoPose3D (Pavllo et al., CVPR 2019); MixSTE (Zhang et al., CVPR 2022).
    """
    return single("weighted_mpjpe", pred, target, weight, reduction, check_finite, backend, joint_weight=joint_weight)


def n_mpjpe(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    root: int | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """MPJPE after the scale of each predicted frame that fits the target best in the least-squares sense.

    The scale is sum(p*g) / sum(p*p) over a frame's joints, without centring; the gradient flows through it.

    Args:
        pred, target: poses [..., T, J, 3].
        weight: [..., T, J], >= 0; also in the sums of the scale.
        root: subtract this joint from both poses first; None takes them as given.
        reduction: "mean" divides by the number of joints (with weights by their sum); "sum" doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in the unit of `target`. Where a whole predicted frame is 0 the published code gives NaN; here its
        scale is 0, its error the length of the target, its gradient 0.

    Source: Rhodin et al., CVPR 2018, in the form of VideoPose3D and MotionBERT.
    """
    pred, target, weight = relative_to(root, pred, target, weight)
    return single("n_mpjpe", pred, target, weight, reduction, check_finite, backend)
