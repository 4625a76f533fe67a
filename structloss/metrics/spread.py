"""How steady a skeleton is over time: the spread of bone lengths, and BPLP-C, the consistency of their proportions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, check_choice
from ..ops.denominators import LEAST_FREEDOM, bone_weight
from ..ops.torch_terms.common import bone_vectors
from ..skeletons import Skeleton, get
from ._checks import check_labels, check_reduction, prepare_any, prepare_pose, reduce, weighted
from ._once import once
from ._precision import Sums, sums

__all__ = ["BPLPC", "BoneLengthSpread", "bone_length_spread", "bplp_c", "proportion_spread"]

_ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-6}  # a deviation below this share of the mean is rounding


@torch.no_grad()
def bone_length_spread(
    pred: Tensor, *, skeleton: str = "h36m", weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Standard deviation over time of each bone's length: 0 for a rigid skeleton. It needs no target.

    The deviation is the unbiased one over the frames of a clip. Its mean over bones and clips weighs by frames, so that
    clips of different lengths count for what they hold. ManiPose's MPSCE for clips of one length; for limbs, the table
    of Dabral et al., ECCV 2018.

    Args:
        pred: `[..., T, J, 3]`; the result has its unit.
        skeleton: name of the skeleton, J joints.
        weight: `[..., T, J]`, >= 0; a bone weighs the product of its joints' weights. A bone that is visible in fewer
            than two frames of a clip is left out.
        reduction: `"mean"`; `"none"` for one value per clip, `[...]`; `"bones"` for one per bone, in the order of
            `bones`; `"limbs"` for `[4]` in the order of `structloss.metrics.LIMBS`, left and right averaged.

    Returns:
        float64; NaN where no bone is visible twice.

    Raises:
        ArgumentError: a wrong shape, weight or reduction.
        UnknownNameError: an unknown skeleton.
        DtypeError: poses that are not floating point.

    >>> import torch
    >>> from structloss.metrics import bone_length_spread
    >>> pose = torch.zeros(3, 17, 3)
    >>> pose[:, 3, 1] = torch.tensor([11.0, 12.0, 13.0])  # the right shin grows by 1 mm a frame
    >>> bone_length_spread(pose, reduction="limbs").tolist()  # with the left shin, which stays the same
    [0.0, 0.5, 0.0, 0.0]
    """
    check_reduction(reduction, "bones", "limbs")
    pred, weight, body = prepare_pose(pred, weight, skeleton)
    return _reduce(*deviations(bone_length_moments(pred, weight, body)), reduction, body)


@torch.no_grad()
def bplp_c(
    pred: Tensor,
    *,
    skeleton: str = "h36m",
    parts: Sequence[tuple[int, int]] | None = None,
    min_torso: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Body part length proportion consistency: 1 / mean standard deviation of lengths divided by the torso's length.

    All frames of all clips are pooled, whoever they show. Higher is more consistent; a body of constant proportions
    gives infinity, whether or not it is in the right place. In 2D it falls with foreshortening.

    Args:
        pred: `[..., T, J, 3]`, any unit; with `parts`, also image positions `[..., T, J, 2]`.
        skeleton: name of the skeleton, J joints, with a pelvis and a thorax joint. The 13 parts are the torso (pelvis
            to thorax), hips, thighs, shins, clavicles, upper arms and forearms.
        parts: pairs of joints to measure instead, the torso first; `skeleton` is ignored. The torso, whose
            deviation is 0, counts in the mean as published.
        min_torso: leave out frames with a shorter torso, in the unit of `pred`; one of no length always is.
        weight: `[..., T, J]`, >= 0; a proportion weighs the product of its joints' and the torso's.

    Returns:
        0-d, float64, above 0; NaN where no proportion is visible twice.

    Raises:
        ArgumentError: a wrong shape, weight or part, or a skeleton without pelvis or thorax.
        UnknownNameError: an unknown skeleton.
        DtypeError: poses that are not floating point.

    Source: the metric of the poster and code on tuned shape templates (after Schmidtke et al., CVPR 2021).

    >>> import torch
    >>> from structloss.metrics import bplp_c
    >>> pose = torch.zeros(3, 3, 2)
    >>> pose[:, 1, 1] = 2.0  # the torso, from joint 0 to joint 1
    >>> pose[:, 2, 0] = torch.tensor([1.0, 2.0, 3.0])  # half of it, as long, and one and a half times as long
    >>> bplp_c(pose, parts=[(1, 0), (2, 0)]).item()  # standard deviations 0 of the torso and 0.5
    4.0
    """
    body = skeleton if parts is None else None
    return consistency(proportion_moments(pred, weight, body, _parts(skeleton, parts), _check_torso(min_torso)))


@torch.no_grad()
def proportion_spread(
    pred: Tensor,
    *,
    skeleton: str = "h36m",
    parts: Sequence[tuple[int, int]] | None = None,
    min_torso: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Standard deviation of each part's length divided by the torso's, over all frames: what :func:`bplp_c` is one
    over the mean of.

    Args, raises: as :func:`bplp_c`.

    Returns:
        `[parts]`, float64, the torso's first, which is 0; NaN for a part that is not visible twice.

    >>> import torch
    >>> from structloss.metrics import proportion_spread
    >>> pose = torch.zeros(3, 3, 2)
    >>> pose[:, 1, 1] = 2.0
    >>> pose[:, 2, 0] = torch.tensor([1.0, 2.0, 3.0])
    >>> proportion_spread(pose, parts=[(1, 0), (2, 0)]).tolist()
    [0.0, 0.5]
    """
    body = skeleton if parts is None else None
    total, count = deviations(proportion_moments(pred, weight, body, _parts(skeleton, parts), _check_torso(min_torso)))
    return total / count


# Moments are [..., 4, K]: sum of weights, sum of squared weights, mean, and sum of squared deviations of K quantities.
# Pooled as in Welford's parallel update they stay exact where a sum of squares would cancel.


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny


def moments_of(values: Tensor, weight: Tensor) -> Tensor:
    """`[..., N, K]` values and weights to moments over N, `[..., 4, K]`."""
    total = weight.sum(-2)
    mean = weighted(values, weight)[0].sum(-2) / total.clamp_min(_tiny(total))
    squares, _ = weighted((values - mean[..., None, :]).square(), weight)
    return torch.stack([total, weight.square().sum(-2), mean, squares.sum(-2)], -2)


def pool(moments: Tensor, group: Tensor, groups: int) -> Tensor:
    """Moments `[N, 4, K]` with their groups' numbers `[N]` to those of the groups, `[groups, 4, K]`."""

    def added(x: Tensor) -> Tensor:
        return x.new_zeros(groups, x.shape[-1]).index_add_(0, group, x)

    weight, squares, mean, spread = moments.unbind(1)
    total = added(weight)
    pooled = added(weight * mean) / total.clamp_min(_tiny(total))
    return torch.stack([total, added(squares), pooled, added(spread + weight * (mean - pooled[group]).square())], 1)


def _pool_processes(moments: Tensor) -> Tensor:
    """`[processes, 4, K]` to `[4, K]`."""
    return pool(moments, torch.zeros(len(moments), dtype=torch.long, device=moments.device), 1)[0]


def deviations(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased standard deviations times their weight, and the weight, `[..., K]`; 0 where fewer than two values
    weigh anything."""
    weight, squares, mean, spread = moments.unbind(-2)
    freedom = weight - squares / weight.clamp_min(_tiny(weight))
    known = freedom > LEAST_FREEDOM * weight  # as in the limb-variance loss
    deviation = (spread / torch.where(known, freedom, 1.0)).sqrt()
    deviation = torch.where(deviation <= _ROUNDING[mean.dtype] * mean.abs(), 0.0, deviation)
    return weighted(deviation, torch.where(known, weight, 0.0))


@once
def bone_length_moments(pose: Tensor, weight: Tensor, body: Skeleton) -> Tensor:
    """Moments over the frames of every clip, `[..., 4, bones]`, of poses and weights from `prepare_pose`."""
    return moments_of(bone_vectors(pose, body.bones)[1], bone_weight(weight, body.bones))


def _reduce(total: Tensor, count: Tensor, reduction: str, body: Skeleton) -> Tensor:
    if reduction != "limbs":
        return reduce(total, count, reduction)
    bones = reduce(total, count, "bones")
    sides = [[body.bones.index(bone) for bone in pair] for pair in dict(body.symmetric_groups)["limbs"]]
    return bones[torch.tensor(sides, device=bones.device)].mean(-1)


def _parts(skeleton: str, parts: Sequence[tuple[int, int]] | None) -> tuple[tuple[int, int], ...]:
    """Pairs of joints, the torso first."""
    if parts is not None:
        pairs = tuple(tuple(part) for part in parts)
        if len(pairs) < 2 or any(len(p) != 2 or p[0] == p[1] or min(p) < 0 for p in pairs):
            raise ArgumentError("parts is malformed, expected two or more pairs of different joints, the torso first.")
        return pairs  # type: ignore[return-value]
    body = get(skeleton)
    if "girdle" not in dict(body.symmetric_groups):
        raise ArgumentError(
            f"skeleton is {skeleton!r}, expected one with a pelvis and a thorax joint, such as 'h36m', or parts."
        )
    arm, leg = body.hinges[0], body.hinges[2]
    chains = [((h.s, h.c), (h.e, h.s), (h.w, h.e)) for h in body.hinges]
    return ((arm.c, leg.c), *(bone for chain in chains for bone in chain))


def _check_torso(min_torso: float) -> float:
    if isinstance(min_torso, bool) or not isinstance(min_torso, (int, float)) or not 0 <= min_torso < math.inf:
        raise ArgumentError(f"min_torso is {min_torso!r}, expected a finite number of 0 or more.")
    return float(min_torso)


def proportion_moments(
    pred: Tensor, weight: Tensor | None, skeleton: str | None, parts: tuple[tuple[int, int], ...], min_torso: float
) -> Tensor:
    """Moments over all frames of the parts' lengths divided by the first one's, `[4, parts]`."""
    if skeleton is None:
        pred, weight = prepare_any(pred, weight, last=max(joint for part in parts for joint in part))
    else:
        pred, weight, _ = prepare_pose(pred, weight, skeleton)
    length, weight = bone_vectors(pred, parts)[1], bone_weight(weight, parts)
    torso = length[..., :1]
    # A NaN torso stays in and makes the result NaN.
    usable = (weight[..., :1] > 0) & ~(torso < max(min_torso, _tiny(torso)))
    weight = torch.where(usable, weight * weight[..., :1], 0.0)
    proportion = torch.where(usable, length / torso, 0.0)
    return moments_of(proportion.flatten(0, -2), weight.flatten(0, -2))


def consistency(moments: Tensor) -> Tensor:
    """BPLP-C of moments `[4, parts]`."""
    total, weight = deviations(moments)
    known = weight > 0
    deviation = torch.where(known, total / torch.where(known, weight, 1.0), 0.0)
    return known.sum() / deviation.sum()


class BoneLengthSpread(Sums):
    """:func:`bone_length_spread` over a data set. `update` takes a target too, for collections, and ignores it.

    Args:
        skeleton: name of the skeleton.
        sequences: the clips are windows of longer sequences. Then `update` takes `sequence`, the number of each clip's,
            `[...]`, and deviations are over whole sequences, whichever batch or process saw their windows.
        reduction: `"mean"`, `"bones"` or `"limbs"`.
        kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    needs_target = False
    needs_skeleton = True

    keys: list[Tensor]
    moments: list[Tensor]
    total: Tensor
    count: Tensor

    def __init__(self, skeleton: str = "h36m", sequences: bool = False, reduction: str = "mean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduction = check_choice("reduction", reduction, ("mean", "bones", "limbs"))
        self.skeleton, self.sequences = skeleton, sequences
        bones = len(get(skeleton).bones)
        for name in ("total", "count"):
            self.add_state(name, default=sums(bones), dist_reduce_fx="sum")
        for name in ("keys", "moments"):  # of the sequences seen, a tensor each; several after a sync
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._fill_lists()

    def reset(self) -> None:
        super().reset()
        self._fill_lists()

    def _fill_lists(self) -> None:
        # A process without data must have tensors of the right shape to send.
        self.keys = [torch.zeros(0, dtype=torch.long, device=self.device)]
        self.moments = [sums(0, 4, len(self.total), device=self.device)]

    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Deviations of the bones of each clip times their weight, and the weight, both `[..., bones]`."""
        pose, weight, body = prepare_pose(pred, weight, self.skeleton)
        return deviations(bone_length_moments(pose, weight, body))

    def update(
        self,
        pred: Tensor,
        target: Tensor | None = None,
        weight: Tensor | None = None,
        *,
        sequence: Tensor | None = None,
    ) -> None:
        """Add a batch: poses `[..., T, J, 3]`, weight `[..., T, J]` or None; with sequences, their numbers `[...]`."""
        if (sequence is None) == self.sequences:
            expected = "the sequence of each clip" if self.sequences else "None, since sequences is False"
            raise ArgumentError(f"sequence is {'None' if sequence is None else 'given'}, expected {expected}.")
        with torch.no_grad():
            pred, weight, body = prepare_pose(pred, weight, self.skeleton)
            new = bone_length_moments(pred, weight, body).reshape(-1, 4, len(body.bones))
            if sequence is None:
                total, count = deviations(new)
                self.total, self.count = self.total + total.sum(0), self.count + count.sum(0)
            else:
                number = check_labels(
                    "sequence", sequence, torch.Size((*pred.shape[:-3], 1)), None, new.device, "clips"
                )
                self.keys, self.moments = [*self.keys, number.flatten()], [*self.moments, new]
                self.keys, self.moments = ([x] for x in self._pooled())

    def _pooled(self) -> tuple[Tensor, Tensor]:
        keys, group = torch.cat(_tensors(self.keys)).unique(return_inverse=True)
        return keys, pool(torch.cat(_tensors(self.moments)), group, len(keys))

    def compute(self) -> Tensor:
        """The spread over everything seen so far, float64; NaN where no bone was seen twice."""
        total, count = self.total[None], self.count[None]
        if self.sequences:
            total, count = deviations(self._pooled()[1])
        return _reduce(total, count, self.reduction, get(self.skeleton))


def _tensors(state: Tensor | list[Tensor]) -> list[Tensor]:
    """A list state, which a sync turns into one tensor."""
    return [state] if isinstance(state, Tensor) else state


class BPLPC(Sums):
    """:func:`bplp_c` over a data set. `update` takes a target too, for collections, and ignores it.

    Args:
        skeleton, parts, min_torso: as for the function.
        kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    needs_target = False
    needs_skeleton = True

    moments: Tensor

    def __init__(
        self,
        skeleton: str = "h36m",
        parts: Sequence[tuple[int, int]] | None = None,
        min_torso: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.parts, self.min_torso = _parts(skeleton, parts), _check_torso(min_torso)
        self.skeleton = skeleton if parts is None else None
        self.add_state("moments", default=sums(4, len(self.parts)), dist_reduce_fx=_pool_processes)

    def update(self, pred: Tensor, target: Tensor | None = None, weight: Tensor | None = None) -> None:
        """Add a batch: poses `[..., T, J, 3]` (with parts, 2 or 3 coordinates), weight `[..., T, J]` or None."""
        with torch.no_grad():
            new = proportion_moments(pred, weight, self.skeleton, self.parts, self.min_torso)
        self.moments = _pool_processes(torch.stack([self.moments, new]))

    def compute(self) -> Tensor:
        """The consistency over everything seen so far, 0-d, float64; NaN where no proportion was seen twice."""
        return consistency(self.moments)
