"""The losses as modules, and weights that are learned with the model."""

from .fused import Objective
from .learned_weights import LearnedWeights
from .terms import (
    MPJPE,
    NMPJPE,
    BoneAngle,
    BoneAngleVelocity,
    BoneRatio,
    BoneSymmetry,
    DepthRanking,
    IllegalAngle,
    LimbLength,
    LimbVariance,
    RankingHinge,
    TemporalConsistency,
    Velocity,
    WeightedMPJPE,
)

__all__ = [
    "MPJPE",
    "NMPJPE",
    "BoneAngle",
    "BoneAngleVelocity",
    "BoneRatio",
    "BoneSymmetry",
    "DepthRanking",
    "IllegalAngle",
    "LearnedWeights",
    "LimbLength",
    "LimbVariance",
    "Objective",
    "RankingHinge",
    "TemporalConsistency",
    "Velocity",
    "WeightedMPJPE",
]
