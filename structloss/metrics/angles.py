"""How often elbows and knees bend the way that no body can."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..ops.structure import Structure, encode_options, structure_of
from ..ops.torch_terms.common import bone_vectors, direction
from ..skeletons import get
from ..terms import TERMS, check_options
from ..units import extent, warn_of_size
from ._base import PartsMean
from ._checks import check_reduction, prepare_pose, reduce, weighted

__all__ = ["IllegalAngleRate", "illegal_angle_rate"]

FLEXION = 20.0  # degrees; below it a limb is nearly straight and the side it bends to is noise


@torch.no_grad()
def illegal_angle_rate(
    pred: Tensor,
    *,
    skeleton: str = "h36m",
    flexion: float = FLEXION,
    tolerance: float = 0.0,
    normalize_bones: bool = True,
    scale: float = 1.0,
    handedness: str = "right",
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Share of elbows and knees that bend to the wrong side, from 0 to 1. It needs no target.

    The side is the sign of the triple product of the limb's chain, as in :func:`structloss.illegal_angle`; a joint is
    illegal if it is on the wrong side by more than `tolerance` and flexed by more than `flexion`. All joints of all
    frames count in the denominator, straight ones too. Real motion capture violates the test as well, since it does not
    know of the upper arm's roll: 0.6 % of the joints of the CMU clips with the default flexion.

    Args:
        pred: `[..., T, J, 3]`, in a frame of this `handedness`.
        skeleton: name of the skeleton, J joints.
        flexion: degrees that a joint is bent by, 0 for a straight limb; at most this much is never illegal. 0 leaves
            the triple product alone to decide.
        tolerance: of the triple product, which is that of unit vectors (-1 to 1), or else a volume in `scale` cubed.
        normalize_bones: take unit vectors along the bones, so that the size of the body makes no difference.
        scale: factor to metres for `tolerance`, where bones are not normalised: 1e-3 for millimetres.
        handedness: `"right"` (camera frame x right, y down, z forward; z-up world) or `"left"`.
        weight: `[..., T, J]`, >= 0; a hinge weighs the product of its four joints' weights.
        reduction: `"mean"`, `"none"` for one share per frame, `[..., T]`, or `"hinges"` for one per hinge: right elbow,
            left elbow, right knee, left knee.

    Returns:
        float64. NaN where nothing is scored and where a scored coordinate is NaN.

    Raises:
        ArgumentError: a wrong shape, weight or option.
        UnknownNameError: an unknown skeleton.
        DtypeError: poses that are not floating point.

    Source: the test is that of Dabral et al., ECCV 2018. Their table counts violations of another model of joint
    limits, so its figures are not comparable.

    >>> import torch
    >>> from structloss.metrics import illegal_angle_rate
    >>> pose = torch.zeros(2, 17, 3)  # two frames; limbs of no length bend to no side
    >>> pose[:, 14] = torch.tensor([1.0, 0.0, 0.0])  # right shoulder, seen from the thorax
    >>> pose[:, 15] = torch.tensor([1.0, 1.0, 0.0])  # right elbow
    >>> pose[:, 16] = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -1.0]])  # the wrist, bent one way and the other
    >>> illegal_angle_rate(pose, reduction="none").tolist()
    [0.0, 0.25]
    """
    check_reduction(reduction, "hinges")
    test = _Test(skeleton, flexion, tolerance, normalize_bones, scale, handedness)
    return reduce(*test(pred, weight), reduction)


class _Test:
    """The checked options, and what they say of poses."""

    def __init__(
        self, skeleton: str, flexion: float, tolerance: float, normalize_bones: bool, scale: float, handedness: str
    ) -> None:
        if isinstance(flexion, bool) or not isinstance(flexion, (int, float)) or not 0 <= flexion < 180:
            raise ArgumentError(f"flexion is {flexion!r}, expected degrees from 0 to below 180.")
        options = {
            "tolerance": tolerance,
            "normalize_bones": normalize_bones,
            "scale": scale,
            "handedness": handedness,
        }
        checked = check_options(TERMS["illegal_angle"], options)
        self.skeleton, self.straight = skeleton, math.cos(math.radians(flexion)) if flexion else math.inf
        self.metres = 0.0 if checked["normalize_bones"] else float(checked["scale"])  # type: ignore[arg-type]
        self.structure: Structure = structure_of(
            ("illegal_angle",), get(skeleton).name, encode_options({"illegal_angle": checked})
        )

    def __call__(self, pred: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weighted 0 or 1, and weights, `[..., T, hinges]`."""
        pred, weight, _ = prepare_pose(pred, weight, self.skeleton)
        if self.metres and self.structure.hinge_tolerance:
            remedy = "pass scale=1e-3 for millimetres, or normalize_bones=True for any unit"
            warn_of_size("pred", extent(pred, weight > 0), self.metres, remedy, small=False, depth=4)
        found = [self._hinge(pred, weight, joints, sign) for joints, sign in self.structure.hinges]
        illegal, weights = (torch.stack(part, -1) for part in zip(*found, strict=True))
        return weighted(illegal, weights)

    def _hinge(
        self, pred: Tensor, weight: Tensor, joints: tuple[int, int, int, int], sign: float
    ) -> tuple[Tensor, Tensor]:
        a, b, c, d = joints
        vectors, lengths = bone_vectors(pred, ((b, a), (c, b), (d, c)))
        units = direction(vectors, lengths)
        v1, v2, v3 = (units if self.structure.hinge_unit_bones else vectors).unbind(-2)
        product = (torch.linalg.cross(v1, v2) * v3).sum(-1) * (sign * self.structure.hinge_scale)
        bent = (units[..., 1, :] * units[..., 2, :]).sum(-1) < self.straight
        illegal = ((product > self.structure.hinge_tolerance) & bent).to(product.dtype)
        return illegal.masked_fill(product.isnan(), math.nan), weight[..., joints].prod(-1)


class IllegalAngleRate(PartsMean):
    """:func:`illegal_angle_rate` over a data set. `update` takes a target too, for collections, and ignores it.

    Args:
        skeleton, flexion, tolerance, normalize_bones, scale, handedness: as for the function.
        reduction: `"mean"`, or `"hinges"` to compute one share per hinge.
        kwargs: those of `torchmetrics.Metric`.
    """

    part = "hinges"
    needs_target = False

    def __init__(
        self,
        skeleton: str = "h36m",
        flexion: float = FLEXION,
        tolerance: float = 0.0,
        normalize_bones: bool = True,
        scale: float = 1.0,
        handedness: str = "right",
        reduction: str = "mean",
        **kwargs: Any,
    ) -> None:
        self._test = _Test(skeleton, flexion, tolerance, normalize_bones, scale, handedness)
        super().__init__(reduction, len(get(skeleton).hinges), **kwargs)

    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._test(pred, weight)
