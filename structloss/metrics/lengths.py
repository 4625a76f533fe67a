"""Errors of bone and limb lengths: LSE, BSLE, LLE and the symmetry of each limb.

Poses are `[..., T, J, 3]` of a registered skeleton, floating point; results have their unit, or per cent where
`relative` is set, and are float64. Bones, mirrored pairs and limbs are those of :mod:`structloss.skeletons`. `weight`
is `[..., T, J]`, >= 0: a bone weighs the product of its joints' weights, a pair that of its two bones. Entries of
weight 0 drop out whatever they hold; where nothing is scored the result is NaN.

`reduction` is `"mean"`, `"none"` for one value per frame, `[..., T]`, or the name of the parts for one value each.

All raise :class:`~structloss.errors.ArgumentError` for a wrong shape, weight or option,
:class:`~structloss.errors.UnknownNameError` for an unknown skeleton and :class:`~structloss.errors.DtypeError` for
poses that are not floating point.

LSE, BSLE and LLE are reported by SCoTL-pose / SEAL-pose (Kim et al.), whose formulas are not public: these definitions
are ours. LSE equals ManiPose's MPSSE; BSLE is MotionBERT's limb-length loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, check_choice
from ..ops.torch_terms.common import bone_vectors
from ..skeletons import Bone, Skeleton, get
from ._base import PartsMean
from ._checks import check_body, check_reduction, prepare, prepare_pose, product_of, reduce, weighted
from ._once import once

__all__ = ["BSLE", "LIMBS", "LLE", "LSE", "LimbSymmetry", "bsle", "limb_symmetry", "lle", "lse"]

LIMBS = ("upper leg", "lower leg", "upper arm", "lower arm")
"""The pairs that :func:`limb_symmetry` returns, in this order."""

Chain = tuple[Bone, ...]  # neighbouring bones whose lengths are added
Pair = tuple[Chain, Chain]  # left, right


@torch.no_grad()
def lse(
    pred: Tensor,
    *,
    skeleton: str = "h36m",
    level: str = "bone",
    group: str | None = None,
    relative: bool = False,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Limb symmetry error: mean of |left length - right length| over the mirrored pairs. It needs no target.

    Args:
        pred: `[..., T, J, 3]`; the result has its unit.
        skeleton: name of the skeleton, J joints.
        level: `"bone"` compares bones (6 pairs on Human3.6M), `"limb"` whole arms and legs (2 pairs: arms, legs).
        group: one of the skeleton's `symmetric_groups` alone: "limbs", "girdle", on H3WB "feet" or "hands".
        relative: divide by the sum of the two lengths, in per cent.
        weight: `[..., T, J]`, >= 0.
        reduction: `"mean"`, `"none"`, or `"pairs"` for one value per pair, in the order of `symmetric_bones`.

    See the module for dtypes, weights and errors raised.

    >>> import torch
    >>> from structloss.metrics import lse
    >>> pose = torch.zeros(1, 17, 3)
    >>> pose[0, 3, 1] = 12.0  # the right shin is 12 mm long, all other bones have no length
    >>> lse(pose).item()  # of six pairs
    2.0
    """
    check_reduction(reduction, "pairs")
    return reduce(*lse_values(pred, weight, skeleton, _pairs(skeleton, level, group), relative), reduction)


@torch.no_grad()
def limb_symmetry(
    pred: Tensor,
    *,
    skeleton: str = "h36m",
    relative: bool = False,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean of |left length - right length| of each limb segment, `[4]` in the order of :data:`LIMBS`.

    The symmetry table of Dabral et al., ECCV 2018: :func:`lse` of the group "limbs", pair by pair.

    Args:
        pred, skeleton, relative, weight: as for :func:`lse`.

    >>> import torch
    >>> from structloss.metrics import limb_symmetry
    >>> pose = torch.zeros(1, 17, 3)
    >>> pose[0, 3, 1] = 12.0  # the right shin
    >>> limb_symmetry(pose).tolist()
    [0.0, 12.0, 0.0, 0.0]
    """
    return lse(pred, skeleton=skeleton, group="limbs", relative=relative, weight=weight, reduction="pairs")


@torch.no_grad()
def bsle(
    pred: Tensor,
    target: Tensor,
    *,
    skeleton: str = "h36m",
    relative: bool = False,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Body segment length error: mean of |predicted - true length| over the skeleton's bones.

    Args:
        pred, target: `[..., T, J, 3]`; the result has their unit.
        skeleton: name of the skeleton, J joints.
        relative: divide by the true length, in per cent.
        weight: `[..., T, J]`, >= 0.
        reduction: `"mean"`, `"none"`, or `"bones"` for one value per bone, in the order of `bones`.

    See the module for dtypes, weights and errors raised.

    >>> import torch
    >>> from structloss.metrics import bsle
    >>> target, pred = torch.zeros(1, 17, 3), torch.zeros(1, 17, 3)
    >>> pred[0, 3, 1] = 12.0  # the right shin is 12 mm too long
    >>> bsle(pred, target).item()  # of 16 bones
    0.75
    """
    check_reduction(reduction, "bones")
    return reduce(*length_error_values(pred, target, weight, skeleton, _bones(get(skeleton)), relative), reduction)


@torch.no_grad()
def lle(
    pred: Tensor,
    target: Tensor,
    *,
    skeleton: str = "h36m",
    relative: bool = False,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Limb length error: mean of |predicted - true length| of whole arms and legs, the sum of two bones each.

    Args:
        pred, target, skeleton, relative, weight: as for :func:`bsle`.
        reduction: `"mean"`, `"none"`, or `"limbs"`: right arm, left arm, right leg, left leg (the order of `hinges`).

    See the module for dtypes, weights and errors raised.

    >>> import torch
    >>> from structloss.metrics import lle
    >>> target, pred = torch.zeros(1, 17, 3), torch.zeros(1, 17, 3)
    >>> pred[0, 3, 1] = 12.0  # the right shin is 12 mm too long, and so is the leg
    >>> lle(pred, target).item(), lle(pred, target, reduction="limbs").tolist()
    (3.0, [0.0, 0.0, 12.0, 0.0])
    """
    check_reduction(reduction, "limbs")
    return reduce(*length_error_values(pred, target, weight, skeleton, _limbs(get(skeleton)), relative), reduction)


def _bones(body: Skeleton) -> tuple[Chain, ...]:
    return tuple((bone,) for bone in body.bones)


def _limbs(body: Skeleton) -> tuple[Chain, ...]:
    return tuple(((hinge.e, hinge.s), (hinge.w, hinge.e)) for hinge in body.hinges)


def _pairs(skeleton: str, level: str, group: str | None) -> tuple[Pair, ...]:
    body = get(skeleton)
    if check_choice("level", level, ("bone", "limb")) == "limb":
        if group is not None:
            raise ArgumentError(f"group is {group!r}, expected None with level 'limb'.")
        right_arm, left_arm, right_leg, left_leg = _limbs(body)
        return ((left_arm, right_arm), (left_leg, right_leg))
    groups = dict(body.symmetric_groups)
    bones = body.symmetric_bones if group is None else groups[check_choice("group", group, tuple(groups))]
    return tuple(((left,), (right,)) for left, right in bones)


@once
def chain_lengths(pose: Tensor, weight: Tensor, chains: tuple[Chain, ...]) -> tuple[Tensor, Tensor]:
    """Lengths and weights, `[..., T, len(chains)]`, of chains of one number of bones; a joint that two bones share
    counts once in the weight."""
    _, length = bone_vectors(pose, [bone for chain in chains for bone in chain])
    joints = [sorted({joint for bone in chain for joint in bone}) for chain in chains]
    return length.unflatten(-1, (len(chains), -1)).sum(-1), product_of(weight, joints)


def _share(difference: Tensor, whole: Tensor) -> Tensor:
    """Per cent of `whole`; no difference is 0 %, even of nothing."""
    return torch.where(difference == 0, 0.0, 100 * difference / whole)


@once
def lse_values(
    pred: Tensor, weight: Tensor | None, skeleton: str, pairs: tuple[Pair, ...], relative: bool
) -> tuple[Tensor, Tensor]:
    """Weighted differences and weights of each pair, `[..., T, pairs]`."""
    pred, weight, _ = prepare_pose(pred, weight, skeleton)
    (left, w_left), (right, w_right) = (chain_lengths(pred, weight, side) for side in zip(*pairs, strict=True))
    difference = (left - right).abs()
    return weighted(_share(difference, left + right) if relative else difference, w_left * w_right)


@once
def length_error_values(
    pred: Tensor, target: Tensor | None, weight: Tensor | None, skeleton: str, chains: tuple[Chain, ...], relative: bool
) -> tuple[Tensor, Tensor]:
    """Weighted differences and weights of each chain, `[..., T, chains]`."""
    pred, target, weight = prepare(pred, target, weight)
    check_body(pred, skeleton)
    found, weight_of_chain = chain_lengths(pred, weight, chains)
    true, _ = chain_lengths(target, weight, chains)
    difference = (found - true).abs()
    return weighted(_share(difference, true) if relative else difference, weight_of_chain)


class LSE(PartsMean):
    """:func:`lse` over a data set. `update` takes a target too, for collections, and ignores it.

    Args:
        skeleton, level, group, relative: as for the function.
        reduction: `"mean"`, or `"pairs"` to compute one value per pair.
        kwargs: those of `torchmetrics.Metric`.
    """

    part = "pairs"
    needs_target = False

    def __init__(
        self,
        skeleton: str = "h36m",
        level: str = "bone",
        group: str | None = None,
        relative: bool = False,
        reduction: str = "mean",
        **kwargs: Any,
    ) -> None:
        self._pairs = _pairs(skeleton, level, group)
        super().__init__(reduction, len(self._pairs), **kwargs)
        self.skeleton, self.relative = skeleton, relative

    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return lse_values(pred, weight, self.skeleton, self._pairs, self.relative)


class LimbSymmetry(LSE):
    """:func:`limb_symmetry` over a data set: `compute` returns `[4]` in the order of :data:`LIMBS`.

    Args:
        skeleton, relative: as for the function.
        kwargs: those of `torchmetrics.Metric`.
    """

    def __init__(self, skeleton: str = "h36m", relative: bool = False, **kwargs: Any) -> None:
        super().__init__(skeleton, group="limbs", relative=relative, reduction="pairs", **kwargs)


class BSLE(PartsMean):
    """:func:`bsle` over a data set.

    Args:
        skeleton, relative: as for the function.
        reduction: `"mean"`, or `"bones"` to compute one value per bone.
        kwargs: those of `torchmetrics.Metric`.
    """

    part = "bones"
    _chains_of = staticmethod(_bones)

    def __init__(self, skeleton: str = "h36m", relative: bool = False, reduction: str = "mean", **kwargs: Any) -> None:
        self._chains = self._chains_of(get(skeleton))
        super().__init__(reduction, len(self._chains), **kwargs)
        self.skeleton, self.relative = skeleton, relative

    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return length_error_values(pred, target, weight, self.skeleton, self._chains, self.relative)


class LLE(BSLE):
    """:func:`lle` over a data set.

    Args:
        skeleton, relative: as for the function.
        reduction: `"mean"`, or `"limbs"` to compute one value per limb.
        kwargs: those of `torchmetrics.Metric`.
    """

    part = "limbs"
    _chains_of = staticmethod(_limbs)
