"""What an analysis of a loss network's energy found, as plain data: the harness fills it in, reports show it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["CorruptionEnergies", "EnergyAnalysis"]


@dataclass
class CorruptionEnergies:
    """Energies of poses with one kind of fault.

    Attributes:
        sizes: of the fault, rising, the first 0.
        unit, label: what they measure, in words and for an axis.
        energy: mean energy at each size.
        auc: area under the ROC curve of telling them from the truth, 0.5 is chance; NaN at size 0.
        above: share of poses whose corrupted energy is above that of the same pose unharmed.
        default: the corruption's default size.
        default_auc, default_distance: AUC and mean MPJPE (mm) there.
        distance: mean MPJPE of the corruption at each size, mm.
    """

    sizes: list[float]
    unit: str
    label: str
    energy: list[float]
    auc: list[float]
    above: list[float]
    default: float
    default_auc: float
    default_distance: float
    distance: list[float]

    @property
    def rises(self) -> bool:
        """Whether the mean energy rises from each size to the next."""
        return all(a < b for a, b in zip(self.energy, self.energy[1:], strict=False))


@dataclass
class EnergyAnalysis:
    """What :func:`structloss.harness.energy.analyse` found.

    Attributes:
        frames: number of poses whose energy was evaluated.
        truth_mean, truth_std: energies of the true poses.
        corruptions: by name.
        correlation: Spearman's rank correlation of the energy with errors of the predictions: "mpjpe", "pa_mpjpe",
            "lse", "bsle", "lle"; and "mpjpe at equal pa_mpjpe", the mean within fifths of the predictions by PA-MPJPE.
        scatter: (MPJPE in mm, energy) of predictions, at most some thousands.
        prediction_auc: of telling predictions from the truth.
        cosine: mean cosine between -∂E/∂ŷ and y - ŷ: 1 where the energy pulls straight to the truth, 0 is chance.
        path: mean energy on the way from truth (0) to prediction (1).
        path_steps: where on it.
        pull: mean |∂E/∂ŷ| of each joint, per metre, with the pelvis held.
    """

    frames: int
    truth_mean: float
    truth_std: float
    corruptions: dict[str, CorruptionEnergies]
    correlation: dict[str, float] = field(default_factory=dict)
    scatter: list[tuple[float, float]] = field(default_factory=list)
    prediction_auc: float = math.nan
    cosine: float = math.nan
    path: list[float] = field(default_factory=list)
    path_steps: list[float] = field(default_factory=list)
    pull: list[float] = field(default_factory=list)
