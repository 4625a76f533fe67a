"""Losses that know what a body can't do; they need no target."""

from __future__ import annotations

from torch import Tensor

from ._call import single

__all__ = ["bone_ratio", "bone_symmetry", "illegal_angle"]


def bone_symmetry(
    pred: Tensor,
    *,
    skeleton: str = "h36m",
    pairs: str = "four",
    squared: bool = False,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Sum over mirrored bones of the absolute difference of their lengths.

    Args:
        pred: poses [..., T, J, 3].
        skeleton: name of the skeleton, J joints.
        pairs: "four" takes upper and lower arms and legs, as the paper does; "six" adds hips and clavicles, where the
            skeleton has a pelvis and a thorax joint; "all" every mirrored bone, feet and hands included.
        squared: square the differences.
        weight: [..., T, J], >= 0; a pair weighs the product of its four joints' weights.
        reduction: "mean" divides by the number of frames that have a joint with weight; "sum" doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in the unit of the poses (squared: its square). The gradient of a pair of equal length, and that of a
        bone of no length, is 0.

    Source: Dabral et al., ECCV 2018, L_s. On a pose of ground-truth x, y and predicted z it is the paper's 2D form.
    """
    return single(
        "bone_symmetry",
        *(pred, None, weight, reduction, check_finite, backend, skeleton),
        pairs=pairs,
        squared=squared,
    )


def illegal_angle(
    pred: Tensor,
    *,
    skeleton: str = "h36m",
    tolerance: float = 0.0,
    normalize_bones: bool = False,
    scale: float = 1.0,
    handedness: str = "right",
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Elbows and knees that bend to the wrong side: sum over the four joints of u * exp(u).

    Along the chain thorax A, shoulder B, elbow C, wrist D (pelvis, hip, knee, ankle) the triple product
    E = ((B - A) x (C - B)) . (D - C) has a sign that tells the side to which the limb bends, and
    u = max(s*E - tolerance, 0) with s = -1 for the right elbow and left knee, +1 for the left elbow and right knee:
    legal is E > 0 for the former, E < 0 for the latter.

    Frame and sign: these signs hold in every right-handed frame, whatever its axes mean: camera frames with x right, y
    down and z forward, as Human3.6M's and the 2.5D image space of most recipes, and z-up worlds. In a left-handed frame
    (y up and z forward, say) pass handedness="left". Mirroring a pose with its left and right joints exchanged changes
    nothing; without the exchange a legal pose becomes illegal.

    Real motion violates the strict limit now and then (an arm behind the back): 5 % of the frames of recorded motion
    have such a joint, mostly an elbow. `tolerance` says how much is let pass. A straight limb, or an arm in line with
    the clavicle, has E = 0: no loss, no gradient.

    Args:
        pred: poses [..., T, J, 3].
        skeleton: name of the skeleton, J joints. Where it has no thorax or pelvis, the chain starts at the other
            shoulder or hip, which about doubles E and keeps its sign.
        tolerance: >= 0, in the unit of E: cubic metres (|E| is about 0.01 for a bent limb), or none for unit bones.
        normalize_bones: take unit vectors, so that E lies in [-1, 1] whatever the unit and the size of the person.
        scale: factor of the poses to metres: 1e-3 for millimetres, where exp would overflow otherwise. Above u = 20
            the loss continues linearly with the slope that it has there. On the CPU, poses larger than any body in
            metres are warned of.
        handedness: "right" or "left", of the coordinate frame.
        weight: [..., T, J], >= 0; a hinge weighs the product of its four joints' weights.
        reduction: "mean" divides by the number of frames that have a joint with weight; "sum" doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss. In metres exp(u) is nearly 1 and u a volume; the published weight 0.03 belongs to poses in [-1, 1].

    Source: Dabral et al., ECCV 2018, L_a.
    """
    return single(
        "illegal_angle",
        *(pred, None, weight, reduction, check_finite, backend, skeleton),
        tolerance=tolerance,
        normalize_bones=normalize_bones,
        scale=scale,
        handedness=handedness,
    )


def bone_ratio(
    pred: Tensor,
    *,
    skeleton: str = "h36m",
    form: str = "code",
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Sum over bone groups of the variance of bone length over canonical length: bodies have fixed proportions.

    Groups are legs and arms (four bones each) and, where the skeleton has the joints, hips and shoulders (two each).

    Args:
        pred: poses [..., T, J, 3].
        skeleton: name of the skeleton, J joints.
        form: "code" scales each bone's length by that of the group's first bone over its own canonical length, so the
            loss has the squared unit of the poses; "paper" divides by the canonical length in millimetres, and on the
            CPU warns of poses that look like metres.
        weight: [..., T, J], >= 0; a bone weighs the product of its joints' weights, within its group.
        reduction: "mean" divides by the number of frames that have a joint with weight; "sum" doesn't divide.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss; a group without visible bones adds 0.

    Source: Zhou et al., ICCV 2017 (geometric loss); L_g of Dabral et al., ECCV 2018.
    """
    return single("bone_ratio", pred, None, weight, reduction, check_finite, backend, skeleton, form=form)
