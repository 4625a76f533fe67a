"""structloss: fused structural losses for 3D human pose, lifting backbones and a training harness.

Importing it compiles nothing, touches no GPU and loads no native library; the heavy parts (`structloss.data`,
`structloss.harness`, `structloss.learned`, `structloss.reports`, `structloss.metrics`, `structloss.backbones`) load
when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from . import errors, functional, nn, skeletons
from .functional import (
    Objective,
    bone_angle,
    bone_angle_velocity,
    bone_ratio,
    bone_symmetry,
    depth_ranking,
    illegal_angle,
    limb_length,
    limb_variance,
    mpjpe,
    n_mpjpe,
    objective,
    ranking_hinge,
    temporal_consistency,
    velocity,
    weighted_mpjpe,
)
from .ops.backend import backends, use_backend
from .terms import TERMS

__version__ = "0.1.0"

__all__ = [
    # operators
    "Objective",
    "bone_angle",
    "bone_angle_velocity",
    "bone_ratio",
    "bone_symmetry",
    "depth_ranking",
    "illegal_angle",
    "limb_length",
    "limb_variance",
    "mpjpe",
    "n_mpjpe",
    "objective",
    "ranking_hinge",
    "temporal_consistency",
    "velocity",
    "weighted_mpjpe",
    # term table and backends
    "TERMS",
    "backends",
    "use_backend",
    # modules
    "backbones",
    "data",
    "errors",
    "functional",
    "harness",
    "learned",
    "metrics",
    "nn",
    "reports",
    "skeletons",
]

_LAZY = frozenset({"backbones", "data", "harness", "learned", "metrics", "reports"})


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | _LAZY)
