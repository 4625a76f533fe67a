"""Metrics of 3D human pose: functions, and `torchmetrics.Metric` classes of the same meaning.

>>> import torch
>>> from structloss.metrics import MPJPE, mpjpe
>>> pred, target = torch.zeros(2, 9, 17, 3), torch.ones(2, 9, 17, 3)
>>> round(mpjpe(pred, target).item(), 3)
1.732
>>> metric = MPJPE(root=0)
>>> metric.update(pred, target)
>>> metric.compute().item()
0.0

Position and motion: MPJPE, PA-MPJPE, N-MPJPE, MPJVE, acceleration error, PCK, AUC, depth order. Structure: LSE, BSLE,
LLE, limb symmetry, spread of bone lengths, BPLP-C, illegal angles. Joints in images: PDJ, L2, left/right gap.
`PerJoint`, `PerAction` and `MotionBERTScore` break a metric down; `MPIINF3DHPScore` and `H3WBScore` are whole
protocols. :mod:`structloss.metrics.measures` is the table of what evaluation gives.

Everything is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy
from .measures import exported

if TYPE_CHECKING:
    from .angles import IllegalAngleRate, illegal_angle_rate
    from .classes import MPJPE, MPJVE, NMPJPE, PAMPJPE, AccelerationError, DepthOrderAccuracy
    from .depth_order import depth_order_accuracy
    from .functional import acceleration_error, mpjpe, mpjve, n_mpjpe, pa_mpjpe
    from .grouped import MotionBERTScore, PerAction, PerJoint
    from .image_joints import (
        LEFT_RIGHT_JOINTS,
        PDJ,
        TEMPLATE_PARTS,
        LeftRightGap,
        NormalizedL2,
        left_right_gap,
        normalized_l2,
        pdj,
    )
    from .lengths import BSLE, LIMBS, LLE, LSE, LimbSymmetry, bsle, limb_symmetry, lle, lse
    from .protocols import H3WBScore, MPIINF3DHPScore
    from .spread import BPLPC, BoneLengthSpread, bone_length_spread, bplp_c, proportion_spread
    from .thresholds import AUC, AUC_THRESHOLDS, PCK, PCK_THRESHOLD, auc, pck

__all__ = [
    # position and motion
    "MPJPE",
    "MPJVE",
    "NMPJPE",
    "PAMPJPE",
    "AccelerationError",
    "DepthOrderAccuracy",
    "acceleration_error",
    "depth_order_accuracy",
    "mpjpe",
    "mpjve",
    "n_mpjpe",
    "pa_mpjpe",
    # thresholds
    "AUC",
    "AUC_THRESHOLDS",
    "PCK",
    "PCK_THRESHOLD",
    "auc",
    "pck",
    # structure
    "BPLPC",
    "BSLE",
    "LIMBS",
    "LLE",
    "LSE",
    "BoneLengthSpread",
    "IllegalAngleRate",
    "LimbSymmetry",
    "bone_length_spread",
    "bplp_c",
    "bsle",
    "illegal_angle_rate",
    "limb_symmetry",
    "lle",
    "lse",
    "proportion_spread",
    # joints in images
    "LEFT_RIGHT_JOINTS",
    "PDJ",
    "TEMPLATE_PARTS",
    "LeftRightGap",
    "NormalizedL2",
    "left_right_gap",
    "normalized_l2",
    "pdj",
    # breakdowns
    "MotionBERTScore",
    "PerAction",
    "PerJoint",
    # protocols
    "H3WBScore",
    "MPIINF3DHPScore",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "angles": ("IllegalAngleRate", "illegal_angle_rate"),
    "classes": ("MPJPE", "MPJVE", "NMPJPE", "PAMPJPE", "AccelerationError", "DepthOrderAccuracy"),
    "depth_order": ("depth_order_accuracy",),
    "energy": (),
    "evaluation": (),
    "functional": ("acceleration_error", "mpjpe", "mpjve", "n_mpjpe", "pa_mpjpe"),
    "grouped": ("MotionBERTScore", "PerAction", "PerJoint"),
    "image_joints": (
        *("LEFT_RIGHT_JOINTS", "PDJ", "TEMPLATE_PARTS", "LeftRightGap", "NormalizedL2"),
        *("left_right_gap", "normalized_l2", "pdj"),
    ),
    "lengths": ("BSLE", "LIMBS", "LLE", "LSE", "LimbSymmetry", "bsle", "limb_symmetry", "lle", "lse"),
    "measures": (),
    "procrustes": (),
    "protocols": ("H3WBScore", "MPIINF3DHPScore"),
    "spread": ("BPLPC", "BoneLengthSpread", "bone_length_spread", "bplp_c", "proportion_spread"),
    "thresholds": ("AUC", "AUC_THRESHOLDS", "PCK", "PCK_THRESHOLD", "auc", "pck"),
}
for _module, _name in exported():  # what a row of the table names is handed on without being listed here
    _HOMES[_module] = tuple(dict.fromkeys((*_HOMES.get(_module, ()), _name)))

__getattr__, __dir__ = lazy(__name__, _HOMES)
