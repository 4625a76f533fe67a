"""Losses on the lengths of bones and the angles between them."""

from __future__ import annotations

from torch import Tensor

from ._call import single

__all__ = ["bone_angle", "bone_angle_velocity", "limb_length", "limb_variance"]


def limb_length(
    pred: Tensor,
    target: Tensor,
    *,
    skeleton: str = "h36m",
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Absolute difference of predicted and target bone length.

    Args:
        pred, target: poses [..., T, J, 3].
        skeleton: name of the skeleton, J joints.
        weight: [..., T, J], >= 0; a bone weighs the product of its joints' weights.
        reduction: "mean" divides by the number of bones of all frames (with weights by the sum of theirs); "sum"
            doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in the unit of the poses.

    Source: MotionBERT (Zhu et al., ICCV 2023), limb-length loss.
    """
    return single("limb_length", pred, target, weight, reduction, check_finite, backend, skeleton)


def limb_variance(
    pred: Tensor,
    *,
    skeleton: str = "h36m",
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Unbiased variance over time of each bone's length: bones don't stretch. 0 for a single frame.

    Args:
        pred: poses [..., T, J, 3].
        skeleton: name of the skeleton, J joints.
        weight: [..., T, J], >= 0; a bone weighs the product W of its joints' weights, and the sum of squares is divided
            by sum(W) - sum(W*W) / sum(W): the number of its visible frames less one, for a mask.
        reduction: "mean" divides by the number of bones of all clips that are visible in two or more frames; "sum"
            doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in the squared unit of the poses.

    Source: MotionBERT (Zhu et al., ICCV 2023), limb-variance loss.
    """
    return single("limb_variance", pred, None, weight, reduction, check_finite, backend, skeleton)


def bone_angle(
    pred: Tensor,
    target: Tensor,
    *,
    skeleton: str = "h36m",
    pairs: str = "published",
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Absolute difference of the predicted and target angle between bones that meet in a joint.

    Bones point from child to parent, so a straight knee or elbow has the angle 0. Cosines are clamped to
    [-1 + 1e-7, 1 - 1e-7], and a clamped angle passes no gradient; nor does a bone of no length, whose angle counts as
    pi/2. (The published code passes a gradient of about 1e8 there.)

    Args:
        pred, target: poses [..., T, J, 3].
        skeleton: name of the skeleton, J joints.
        pairs: "published" (the 18 of the published code on h36m, where the left twin of neck-nose with the right
            clavicle is missing) or "all" pairs of bones with a common joint.
        weight: [..., T, J], >= 0; an angle weighs the product of its joints' weights.
        reduction: "mean" divides by the number of angles of all frames (with weights by the sum of theirs); "sum"
            doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in radians.

    Source: MotionBERT (Zhu et al., ICCV 2023), joint-angle loss.
    """
    return single("bone_angle", pred, target, weight, reduction, check_finite, backend, skeleton, pairs=pairs)


def bone_angle_velocity(
    pred: Tensor,
    target: Tensor,
    *,
    skeleton: str = "h36m",
    pairs: str = "published",
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Absolute difference of the predicted and target step of each bone angle from one frame to the next.

    Args:
        pred, target: poses [..., T, J, 3].
        skeleton, pairs: as in :func:`bone_angle`.
        weight: [..., T, J], >= 0; a step weighs the product of the angle's weights in both frames.
        reduction: "mean" divides by the number of steps, T - 1 an angle (with weights by the sum of theirs); "sum"
            doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in radians per frame; 0 for a single frame.

    Source: MotionBERT (Zhu et al., ICCV 2023), joint-angle velocity loss.
    """
    return single("bone_angle_velocity", pred, target, weight, reduction, check_finite, backend, skeleton, pairs=pairs)
