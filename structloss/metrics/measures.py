"""THE table of measures: every number that evaluation gives, how it is computed and how it is shown.

Scores, terminal tables, the HTML page, ablations and the `test` command read it; nothing else lists metrics. A row
names the class that computes it, so that reading the table loads neither torch nor a metric.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ArgumentError, check_choice

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["GROUPS", "MEASURES", "Measure", "Result", "exported", "group", "measure", "register"]

GROUPS = MappingProxyType(
    {
        "accuracy": "how far the prediction is from the truth: the main table",
        "structure": "what the predicted skeletons are like: a table with the true poses beside them",
        "limb": "structure part by part, one value per limb or hinge: the keys are KEY/PART",
        "hypotheses": "of networks that predict several poses of one clip",
        "image": "of networks that start from pixels, beside the accuracy",
        "template": "of networks that find joints by shape templates; numbers are stored as they are shown",
        "trajectory": "of networks that predict where the root is, too",
        "training": "of the training itself; attributes of the result with the key's name",
    }
)
"""Which table a measure belongs to."""


class Result(Protocol):
    """Anything with numbers by the keys of measures, as they are stored."""

    @property
    def metrics(self) -> Mapping[str, float]: ...

    @property
    def structure(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Measure:
    """One number of an evaluation.

    Attributes:
        key: what files call it (`metrics.csv`, `test.json`, results); fixed once it is published.
        title: what tables call it; a comma separates what it is of, as in "Depth order, joints".
        unit: of the number as shown: "mm", "mm/frame", "%", ...
        higher_is_better: otherwise lower is.
        decimals: as shown; None picks 0 or 1 by the size of the numbers.
        factor: from the stored number to the shown one, 100 for a share in per cent.
        group: one of :data:`GROUPS`.
        meaning: what it is, in words, for the notes under tables.
        metric: the class that computes it from poses in mm relative to the pelvis: "MODULE.CLASS" within
            `structloss.metrics`, or the class itself. Empty where the number comes from elsewhere.
        options: keywords of that class.
        function: "MODULE.FUNCTION" of the same meaning, if there is one.
        parts: of what a metric with one value per part has parts: "limbs" or "hinges"; empty for one number.
        validation: also computed at every validation of a training: "millimetres" or "target", the space in which
            prediction and truth are compared; empty for at test alone.
        headline: named in the sentence of numbers at the top of the page.
        ablation: a column of ablation tables.
        ablation_decimals: decimals there, where small differences count; None for `decimals`.
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool = False
    decimals: int | None = 1
    factor: float = 1.0
    group: str = "accuracy"
    meaning: str = ""
    metric: str | Callable[..., Metric] = ""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    function: str = ""
    parts: str = ""
    validation: str = ""
    headline: bool = False
    ablation: bool = True
    ablation_decimals: int | None = None

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def better(self) -> str:
        """Which way is better, in a word."""
        return "higher" if self.higher_is_better else "lower"

    def load_function(self) -> Callable[..., Any] | None:
        """The function of the same meaning, if there is one."""
        return _load(self.function) if self.function else None

    def value(self, result: Result) -> float:
        """The number of a result in `unit`; NaN where it has none."""
        if self.group == "training":
            return self.factor * float(getattr(result, self.key, math.nan))
        found = result.metrics.get(self.key, result.structure.get(self.key, math.nan))
        return self.factor * found

    def by_part(self, stored: Mapping[str, float]) -> dict[str, float]:
        """Part -> number in `unit`, of stored numbers under KEY/PART."""
        prefix = f"{self.key}/"
        return {
            name.removeprefix(prefix): self.factor * number
            for name, number in stored.items()
            if name.startswith(prefix)
        }

    def make(self, skeleton: str) -> Metric:
        """A new metric that computes it, for poses of a skeleton."""
        kind = _load(self.metric) if isinstance(self.metric, str) else self.metric
        known = {"skeleton": skeleton} if getattr(kind, "needs_skeleton", False) else {}
        return kind(**known, **self.options)


def _load(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)


_ROWS = (
    # ------------------------------------------------------------------------------------------------------- accuracy
    Measure(
        "mpjpe",
        "MPJPE",
        "mm",
        meaning="mean distance to the true joint",
        metric="classes.MPJPE",
        function="functional.mpjpe",
        validation="millimetres",
        headline=True,
    ),
    Measure(
        "pa_mpjpe",
        "PA-MPJPE",
        "mm",
        meaning="MPJPE after the best rotation, scale and shift",
        metric="classes.PAMPJPE",
        function="functional.pa_mpjpe",
        validation="millimetres",
    ),
    Measure(
        "n_mpjpe",
        "N-MPJPE",
        "mm",
        meaning="MPJPE after the best scale",
        metric="classes.NMPJPE",
        function="functional.n_mpjpe",
        validation="millimetres",
        ablation=False,
    ),
    Measure(
        "mpjve",
        "MPJVE",
        "mm/frame",
        decimals=2,
        meaning="mean error of a joint's velocity",
        metric="classes.MPJVE",
        function="functional.mpjve",
        validation="millimetres",
        headline=True,
    ),
    # In the space of the target: the way to millimetres multiplies each frame by its true scale, and the order over
    # frames would come from that.
    Measure(
        "depth_order_joints",
        "Depth order, joints",
        "%",
        higher_is_better=True,
        factor=100,
        meaning="share of the pairs of joints whose order in depth is right",
        metric="classes.DepthOrderAccuracy",
        options=MappingProxyType({"over": "joints"}),
        function="depth_order.depth_order_accuracy",
        validation="target",
        headline=True,
        ablation_decimals=2,
    ),
    Measure(
        "depth_order_frames",
        "Depth order, frames",
        "%",
        higher_is_better=True,
        factor=100,
        meaning="share of the pairs of a joint's frames whose order in depth is right",
        metric="classes.DepthOrderAccuracy",
        options=MappingProxyType({"over": "frames"}),
        function="depth_order.depth_order_accuracy",
        validation="target",
        headline=True,
        ablation_decimals=2,
    ),
    # ------------------------------------------------------------------------------------------------------ structure
    Measure(
        "lse",
        "LSE",
        "mm",
        group="structure",
        meaning="difference in length of mirrored bones",
        metric="lengths.LSE",
        function="lengths.lse",
    ),
    Measure(
        "bsle",
        "BSLE",
        "mm",
        group="structure",
        meaning="error in length of bones",
        metric="lengths.BSLE",
        function="lengths.bsle",
    ),
    Measure(
        "lle",
        "LLE",
        "mm",
        group="structure",
        meaning="error in length of whole arms and legs",
        metric="lengths.LLE",
        function="lengths.lle",
        ablation=False,
    ),
    Measure(
        "bone_length_spread",
        "Bone-length spread",
        "mm",
        group="structure",
        meaning="standard deviation of a bone's length over a clip",
        metric="spread.BoneLengthSpread",
        options=MappingProxyType({"sequences": True}),
        function="spread.bone_length_spread",
    ),
    Measure(
        "illegal_angle_rate",
        "Illegal angles",
        "%",
        decimals=2,
        factor=100,
        group="structure",
        meaning="share of elbows and knees, flexed by more than 20°, that bend to the wrong side",
        metric="angles.IllegalAngleRate",
        function="angles.illegal_angle_rate",
    ),
    # ---------------------------------------------------------------------------------------------------- part by part
    Measure("symmetry", "Left against right", "mm", group="limb", metric="lengths.LimbSymmetry", parts="limbs"),
    Measure(
        "spread",
        "Spread over time",
        "mm",
        group="limb",
        metric="spread.BoneLengthSpread",
        options=MappingProxyType({"sequences": True, "reduction": "limbs"}),
        parts="limbs",
    ),
    Measure(
        "illegal",
        "Illegal angles",
        "%",
        decimals=2,
        factor=100,
        group="limb",
        metric="angles.IllegalAngleRate",
        options=MappingProxyType({"reduction": "hinges"}),
        parts="hinges",
    ),
    # ----------------------------------------------------------------------------------------------------- hypotheses
    Measure(
        "j_best",
        "J-Best",
        "mm",
        group="hypotheses",
        meaning="MPJPE of the best hypothesis of each joint, chosen by the truth",
        ablation=False,
    ),
    Measure(
        "p_best",
        "P-Best",
        "mm",
        group="hypotheses",
        meaning="MPJPE of the hypothesis that is best over a view's clips in a batch, chosen by the truth",
        ablation=False,
    ),
    Measure(
        "p_agg",
        "P-Agg",
        "mm",
        group="hypotheses",
        meaning="MPJPE of the mean of all hypotheses",
        ablation=False,
    ),
    Measure(
        "j_agg",
        "J-Agg",
        "mm",
        group="hypotheses",
        meaning="MPJPE of each joint's hypothesis that projects nearest to the 2D input",
        ablation=False,
    ),
    # ---------------------------------------------------------------------------------------------------------- image
    Measure(
        "joint_error_2d",
        "2D error",
        "% of the box",
        decimals=2,
        factor=100,
        group="image",
        meaning="mean distance of a joint found in the image to the true one, of the joints that are seen",
    ),
    Measure(
        "depth_error",
        "Depth error",
        "mm",
        group="image",
        meaning="mean error of a joint's depth relative to the pelvis",
    ),
    # ------------------------------------------------------------------------------------------------------- template
    Measure(
        "reconstruction",
        "Reconstruction",
        "MSE",
        decimals=4,
        group="template",
        meaning="mean squared difference of the reconstructed frame to the true one, both normalised",
        ablation_decimals=4,
    ),
    Measure(
        "pdj",
        "PDJ@0.05",
        "%",
        higher_is_better=True,
        decimals=2,
        group="template",
        meaning="share of the joints that are nearer to the truth than 5 % of the diagonal of the person's box",
        function="image_joints.pdj",
        ablation_decimals=2,
    ),
    Measure(
        "normalized_l2",
        "L2",
        "%",
        decimals=2,
        group="template",
        meaning="mean distance to the true joint, of the image's side",
        function="image_joints.normalized_l2",
        ablation_decimals=2,
    ),
    Measure(
        "bplp_c",
        "BPLP-C",
        "1/σ",
        higher_is_better=True,
        decimals=2,
        group="template",
        meaning="1 / mean standard deviation of the lengths of the body's parts over that of the torso",
        function="spread.bplp_c",
        ablation_decimals=2,
    ),
    Measure(
        "left_right_gap",
        "Left/right gap",
        "%",
        decimals=2,
        group="template",
        meaning="difference between the errors of right and left joints, of the image's side",
        function="image_joints.left_right_gap",
        ablation_decimals=2,
    ),
    # ----------------------------------------------------------------------------------------------------- trajectory
    Measure(
        "trajectory",
        "Trajectory",
        "mm",
        group="trajectory",
        meaning="distance of the root that the trajectory network predicts to the true one, in the camera's frame",
        ablation=False,
    ),
    # ------------------------------------------------------------------------------------------------------- training
    Measure("clips_per_second", "Speed", "clips/s", True, None, group="training", headline=True, ablation=False),
    Measure(
        "loss_share",
        "Loss share",
        "%",
        factor=100,
        group="training",
        meaning="share of a training step spent on the loss",
        ablation=False,
    ),
)

MEASURES: dict[str, Measure] = {row.key: row for row in _ROWS}
"""Key -> measure, in the order of the columns; :func:`register` adds to it."""


def register(row: Measure) -> Measure:
    """Add a measure at the end of the table; returns it.

    Raises:
        ArgumentError: the key is taken, or the group, the parts or the validation are none that there are.
    """
    if row.key in MEASURES:
        raise ArgumentError(f"key is {row.key!r}, which is taken, expected a new one.")
    check_choice("group", row.group, tuple(GROUPS))
    check_choice("parts", row.parts, ("", "limbs", "hinges"))
    check_choice("validation", row.validation, ("", "millimetres", "target"))
    MEASURES[row.key] = row
    return row


def group(*names: str) -> tuple[Measure, ...]:
    """The measures of some groups, group by group."""
    return tuple(row for name in names for row in MEASURES.values() if row.group == name)


def measure(key: str) -> Measure:
    """The measure with a key; KEY/PART gives that of KEY.

    Raises:
        KeyError: there is none.
    """
    return MEASURES[key.partition("/")[0]]


def exported() -> Iterator[tuple[str, str]]:
    """(module, name) of the classes and functions that rows name, which `structloss.metrics` hands on."""
    for row in MEASURES.values():
        for name in (row.metric, row.function):
            if isinstance(name, str) and name:
                module, _, attribute = name.rpartition(".")
                yield module, attribute
