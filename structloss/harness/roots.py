"""What published evaluations make of the predicted root before they measure, where the true root is 0.

Errors of a root-relative pose depend on it: VideoPose3D's P1 counts how far the predicted root is from 0, SemGCN's
moves the whole pose so that it is 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .. import backbones
from ..data import to_millimetres
from ..data.image_space import relative
from ..errors import ArgumentError, check_choice
from ..metrics.evaluation import ROOTS
from ..skeletons import Skeleton

__all__ = ["ROOTS", "check_published_root", "measured_poses"]

#: Family -> what its evaluation does with metric poses. Those that are not here subtract the root: SemGCN, Jointformer,
#: RePOSE and what is ours. The simple baseline predicts no root, so all three come to the same.
_OF_FAMILY = {
    "videopose3d": "kept",
    "poseformer": "kept",
    "poseformerv2": "kept",
    "mixste": "kept",
    "ktpformer": "kept",
    "mhformer": "zeroed",
    "stcformer": "zeroed",
    "pstmo": "zeroed",
    "d3dp": "zeroed",
}
_OF_TARGET = {"root_relative": "zeroed", "global": "subtracted"}  # MotionBERT's evaluation, of either kind of network
_POSSIBLE = {
    "camera": ("kept", "zeroed", "subtracted"),
    "root_relative": ("zeroed", "subtracted"),
    "global": ("subtracted",),
}


def check_published_root(root: str | None, backbone: str, target: str, skeleton: Skeleton) -> str:
    """The convention to follow.

    Args:
        root: one of :data:`ROOTS`; None is what the backbone's published evaluation does.
        backbone: name of a variant, or of a family.
        target: the space that it predicts in.
        skeleton: of its poses.

    Raises:
        UnknownNameError: `root` is none of :data:`ROOTS`.
        ArgumentError: it means nothing for the target or the skeleton.
    """
    possible = _POSSIBLE[target]
    if len(skeleton.pelvis) > 1:  # the root is no joint, but the middle of two
        possible = ("subtracted",)
    if root is None:
        usual = _OF_FAMILY.get(backbones.info(backbone).family, "subtracted")
        root = usual if target == "camera" else _OF_TARGET[target]
        return root if root in possible else "subtracted"
    check_choice("root", root, tuple(ROOTS))
    if root not in possible:
        raise ArgumentError(
            f"root is {root!r}, expected {' or '.join(map(repr, possible))} for target {target!r} and skeleton "
            f"{skeleton.name!r}."
        )
    return root


def measured_poses(
    prediction: Tensor, batch: Mapping[str, Tensor], root: str, target: str, skeleton: Skeleton
) -> Tensor:
    """Predicted poses in mm that have their true root at 0, as a convention of :data:`ROOTS` has them.

    Args:
        prediction: `[B, T, J, 3]` in the space of the target.
        batch: of the same frames, see :func:`structloss.data.to_millimetres`.
        root: one of :data:`ROOTS`, that :func:`check_published_root` accepts.
        target: the space of the prediction.
        skeleton: of the poses.

    Returns:
        `[B, T, J, 3]`; the truth to compare with is `camera_pose` minus its root.
    """
    pelvis = list(skeleton.pelvis)
    if target == "camera" and root == "kept":
        return 1000 * prediction.float()
    if root == "zeroed":
        prediction = prediction.clone()
        prediction[..., pelvis, :] = 0.0
        if target == "camera":
            return 1000 * prediction.float()
    return relative(to_millimetres(prediction, batch, target, root=skeleton.pelvis), pelvis)
