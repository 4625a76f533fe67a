"""How sure a difference is: the interval of a mean, and that of two runs over the clips that both were tested on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from ..metrics.measures import Measure
from .results import ArmResult

__all__ = ["half_width", "paired"]

#: two-sided 95 % points of Student's t for 1 to 15 degrees of freedom; beyond, the normal's serves
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % confidence interval of a mean (Student's t); NaN for fewer than two values."""
    count = len(values)
    if count < 2:
        return math.nan
    t = _T95[count - 2] if count - 2 < len(_T95) else 1.96
    return t * statistics.stdev(values) / math.sqrt(count)


def paired(row: Measure, first: ArmResult, last: ArmResult) -> tuple[float, float, int]:
    """Mean difference of two arms over the clips that both have a value for, last minus first; half of its 95 %
    interval, in the measure's unit; and the number of clips. NaN where there are fewer than two."""
    a, b = first.clips.get(row.key, {}), last.clips.get(row.key, {})
    changes = [row.factor * (b[name] - a[name]) for name in a if name in b and math.isfinite(b[name] - a[name])]
    if len(changes) < 2:
        return math.nan, math.nan, len(changes)
    return statistics.fmean(changes), half_width(changes), len(changes)
