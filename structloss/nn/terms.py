"""Each term as a module of its own. All take `reduction` and `backend` as :mod:`structloss.functional` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from .. import functional
from ..errors import check_choice
from ..functional.resolution import as_resolution
from ..ops.structure import encode_options, structure_of
from ..terms import TERMS, check_options

__all__ = [
    "MPJPE",
    "NMPJPE",
    "BoneAngle",
    "BoneAngleVelocity",
    "BoneRatio",
    "BoneSymmetry",
    "DepthRanking",
    "IllegalAngle",
    "LimbLength",
    "LimbVariance",
    "RankingHinge",
    "TemporalConsistency",
    "Velocity",
    "WeightedMPJPE",
]


class _Loss(nn.Module):
    """A function with its keywords fixed."""

    function: Callable[..., Tensor]

    def __init__(self, reduction: str = "mean", backend: str | None = None, **keywords: object) -> None:
        super().__init__()
        self.reduction = check_choice("reduction", reduction, functional.REDUCTIONS)
        self.backend = backend
        name = type(self).function.__name__
        if name in TERMS:  # checked, and in plain Python, so that a compiled graph can take them for constants
            options = {key: value for key, value in keywords.items() if key in TERMS[name].options}
            keywords |= check_options(TERMS[name], options)
            text = encode_options({name: {key: keywords[key] for key in options}})
            structure_of((name,), keywords.get("skeleton", ""), text)  # raises for bones that the skeleton lacks
        self.keywords = keywords

    def _run(self, *poses: Tensor, weight: Tensor | None) -> Tensor:
        return type(self).function(
            *poses, weight=weight, reduction=self.reduction, backend=self.backend, **self.keywords
        )

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in {**self.keywords, "reduction": self.reduction}.items())


class _TargetLoss(_Loss):
    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return self._run(pred, target, weight=weight)


class _PoseLoss(_Loss):
    def forward(self, pred: Tensor, weight: Tensor | None = None) -> Tensor:
        return self._run(pred, weight=weight)


class MPJPE(_TargetLoss):
    """Module form of :func:`structloss.mpjpe`: pred, target [..., T, J, 3], weight [..., T, J]."""

    function = functional.mpjpe

    def __init__(self, reduction: str = "mean", backend: str | None = None, root: int | None = None) -> None:
        super().__init__(reduction, backend, root=root)


class WeightedMPJPE(_TargetLoss):
    """Module form of :func:`structloss.weighted_mpjpe`: pred, target [..., T, J, 3], weight [..., T, J]."""

    function = functional.weighted_mpjpe

    def __init__(
        self,
        joint_weight: Sequence[float] | Tensor | None = None,
        reduction: str = "mean",
        backend: str | None = None,
    ) -> None:
        super().__init__(reduction, backend, joint_weight=joint_weight)


class NMPJPE(_TargetLoss):
    """Module form of :func:`structloss.n_mpjpe`: pred, target [..., T, J, 3], weight [..., T, J]."""

    function = functional.n_mpjpe

    def __init__(self, reduction: str = "mean", backend: str | None = None, root: int | None = None) -> None:
        super().__init__(reduction, backend, root=root)


class Velocity(_TargetLoss):
    """Module form of :func:`structloss.velocity`: pred, target [..., T, J, 3], weight [..., T, J]."""

    function = functional.velocity


class TemporalConsistency(_PoseLoss):
    """Module form of :func:`structloss.temporal_consistency`: pred [..., T, J, 3], weight [..., T, J]."""

    function = functional.temporal_consistency

    def __init__(
        self,
        joint_weight: Sequence[float] | Tensor | None = None,
        reduction: str = "mean",
        backend: str | None = None,
    ) -> None:
        super().__init__(reduction, backend, joint_weight=joint_weight)


class _RankingLoss(_TargetLoss):
    """In evaluation mode the offset of the resolution is fixed."""

    def __init__(self, reduction: str, backend: str | None, resolution: float, **keywords: object) -> None:
        super().__init__(reduction, backend, resolution=as_resolution(resolution), **keywords)

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return type(self).function(
            pred,
            target,
            weight=weight,
            reduction=self.reduction,
            backend=self.backend,
            training=self.training,
            **self.keywords,
        )


class RankingHinge(_RankingLoss):
    """Module form of :func:`structloss.ranking_hinge`: pred, target and weight [..., N].

    Args:
        resolution: in the unit of the target; in evaluation mode its offset is fixed.
    """

    function = functional.ranking_hinge

    def __init__(self, reduction: str = "mean", backend: str | None = None, resolution: float = 0.0) -> None:
        super().__init__(reduction, backend, resolution)


class DepthRanking(_RankingLoss):
    """Module form of :func:`structloss.depth_ranking`: pred, target [..., T, J, 3], weight [..., T, J].

    Args:
        over: "joints" (L_S) or "frames" (L_T).
        resolution: in the unit of the target; in evaluation mode its offset is fixed.
    """

    function = functional.depth_ranking

    def __init__(self, over: str, reduction: str = "mean", backend: str | None = None, resolution: float = 0.0) -> None:
        super().__init__(reduction, backend, resolution, over=check_choice("over", over, ("joints", "frames")))


class BoneSymmetry(_PoseLoss):
    """Module form of :func:`structloss.bone_symmetry`: pred [..., T, J, 3], weight [..., T, J]."""

    function = functional.bone_symmetry

    def __init__(
        self,
        skeleton: str = "h36m",
        pairs: str = "four",
        squared: bool = False,
        reduction: str = "mean",
        backend: str | None = None,
    ) -> None:
        super().__init__(reduction, backend, skeleton=skeleton, pairs=pairs, squared=squared)


class IllegalAngle(_PoseLoss):
    """Module form of :func:`structloss.illegal_angle`: pred [..., T, J, 3], weight [..., T, J]."""

    function = functional.illegal_angle

    def __init__(
        self,
        skeleton: str = "h36m",
        tolerance: float = 0.0,
        normalize_bones: bool = False,
        scale: float = 1.0,
        handedness: str = "right",
        reduction: str = "mean",
        backend: str | None = None,
    ) -> None:
        options = {"tolerance": tolerance, "normalize_bones": normalize_bones, "scale": scale, "handedness": handedness}
        super().__init__(reduction, backend, skeleton=skeleton, **options)


class BoneRatio(_PoseLoss):
    """Module form of :func:`structloss.bone_ratio`: pred [..., T, J, 3], weight [..., T, J]."""

    function = functional.bone_ratio

    def __init__(
        self, skeleton: str = "h36m", form: str = "code", reduction: str = "mean", backend: str | None = None
    ) -> None:
        super().__init__(reduction, backend, skeleton=skeleton, form=form)


class LimbLength(_TargetLoss):
    """Module form of :func:`structloss.limb_length`: pred, target [..., T, J, 3], weight [..., T, J]."""

    function = functional.limb_length

    def __init__(self, skeleton: str = "h36m", reduction: str = "mean", backend: str | None = None) -> None:
        super().__init__(reduction, backend, skeleton=skeleton)


class LimbVariance(_PoseLoss):
    """Module form of :func:`structloss.limb_variance`: pred [..., T, J, 3], weight [..., T, J]."""

    function = functional.limb_variance

    def __init__(self, skeleton: str = "h36m", reduction: str = "mean", backend: str | None = None) -> None:
        super().__init__(reduction, backend, skeleton=skeleton)


class BoneAngle(_TargetLoss):
    """Module form of :func:`structloss.bone_angle`: pred, target [..., T, J, 3], weight [..., T, J]."""

    function = functional.bone_angle

    def __init__(
        self, skeleton: str = "h36m", pairs: str = "published", reduction: str = "mean", backend: str | None = None
    ) -> None:
        super().__init__(reduction, backend, skeleton=skeleton, pairs=pairs)


class BoneAngleVelocity(BoneAngle):
    """Module form of :func:`structloss.bone_angle_velocity`: pred, target [..., T, J, 3], weight [..., T, J]."""

    function = functional.bone_angle_velocity
