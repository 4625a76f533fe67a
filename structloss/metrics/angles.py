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
from ._checks import check_reduction, prepare_pose, product_of, reduce, weighted
from ._once import once

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
    return reduce(*_illegal(test, pred, weight), reduction)


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
        self.told = (get(skeleton).name, flexion, *checked.values())
        self.skeleton, self.straight = skeleton, math.cos(math.radians(flexion)) if flexion else math.inf
        self.metres = 0.0 if checked["normalize_bones"] else float(checked["scale"])  # type: ignore[arg-type]
        self.structure: Structure = structure_of(
            ("illegal_angle",), get(skeleton).name, encode_options({"illegal_angle": checked})
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Test) and self.told == other.told

    def __hash__(self) -> int:
        return hash(self.told)


@once
def _illegal(test: _Test, pred: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weighted 0 or 1, and weights, `[..., T, hinges]`."""
    pred, weight, _ = prepare_pose(pred, weight, test.skeleton)
    structure = test.structure
    if test.metres and structure.hinge_tolerance:
        remedy = "pass scale=1e-3 for millimetres, or normalize_bones=True for any unit"
        warn_of_size("pred", extent(pred, weight > 0), test.metres, remedy, small=False, depth=5)
    chains = [joints for joints, _ in structure.hinges]
    signs = pred.new_tensor([sign * structure.hinge_scale for _, sign in structure.hinges])
    bones = [bone for a, b, c, d in chains for bone in ((b, a), (c, b), (d, c))]
    vectors, lengths = bone_vectors(pred, bones)
    units = direction(vectors, lengths).unflatten(-2, (len(chains), 3))
    sides = units if structure.hinge_unit_bones else vectors.unflatten(-2, (len(chains), 3))
    v1, v2, v3 = sides.unbind(-2)
    product = (torch.linalg.cross(v1, v2) * v3).sum(-1) * signs
    bent = (units[..., 1, :] * units[..., 2, :]).sum(-1) < test.straight
    illegal = ((product > structure.hinge_tolerance) & bent).to(product.dtype)
    return weighted(illegal.masked_fill(product.isnan(), math.nan), product_of(weight, chains))


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
        return _illegal(self._test, pred, weight)
