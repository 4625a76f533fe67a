"""Several trainings of one arm as one row of a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..reports.results import ArmResult

__all__ = ["averaged"]


def averaged(arms: Sequence[ArmResult], seeds: Sequence[int]) -> ArmResult:
    """The mean of an arm's trainings with several seeds: every number their mean, curves those of the first, and for
    the spread one pair per seed in place of one per clip. A single training stays as it is.

    Args:
        arms: results of one objective.
        seeds: of their trainings, in the same order.
    """
    from ..reports.results import ArmResult

    if len(arms) == 1:
        return arms[0]
    return ArmResult(
        name=arms[0].name,
        objective=arms[0].objective,
        metrics=_means([arm.metrics for arm in arms]),
        clips_per_second=statistics.fmean(arm.clips_per_second for arm in arms),
        loss_share=statistics.fmean(arm.loss_share for arm in arms),
        curves=arms[0].curves,
        per_joint_mpjpe=[statistics.fmean(values) for values in zip(*(a.per_joint_mpjpe for a in arms), strict=True)],
        per_action=_means([arm.per_action for arm in arms]),
        per_action_pa=_means([arm.per_action_pa for arm in arms]),
        structure=_means([arm.structure for arm in arms]),
        truth=arms[0].truth,
        clips={
            key: {f"seed {seed}": {**arm.metrics, **arm.structure}[key] for seed, arm in zip(seeds, arms, strict=True)}
            for key in {**arms[0].metrics, **arms[0].structure}
        },
        pairs="seeds",
        settings={"seeds": list(seeds), "curves and poses": f"of seed {seeds[0]}"},
    )


def _means(numbers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: statistics.fmean(of[key] for of in numbers) for key in numbers[0]}
