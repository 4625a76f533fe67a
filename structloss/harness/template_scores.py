"""What is scored of shape templates: how well frames are reconstructed, and where the joints are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from ..images import TemplateOutput
from ..metrics import BPLPC, LEFT_RIGHT_JOINTS, PDJ, TEMPLATE_PARTS, LeftRightGap, NormalizedL2
from ..metrics.evaluation import Evaluation
from ..shape_templates import JOINTS
from .scores import scoring

__all__ = ["NEEDS_LABELS", "TemplateScores", "without_labels"]

NEEDS_LABELS = ("pdj", "normalized_l2", "left_right_gap")
"""Measures of joints that are annotated; the first also needs the person's box."""

#: parts of the measures that have one value for each: joint by joint, or pair by pair
_PARTS = {
    "pdj": JOINTS,
    "normalized_l2": JOINTS,
    "left_right_gap": tuple(JOINTS[right].removesuffix("R") for right, _ in LEFT_RIGHT_JOINTS),
}


class TemplateScores:
    """Adds up scores of batches; under DDP they are those of all processes.

    - `reconstruction`: mean squared difference of the reconstruction to the frame, as the loss has it.
    - `bplp_c`: of the joints that were found, which needs no labels.
    - `pdj`, `normalized_l2`, `left_right_gap`: of joints that are annotated; left out where none is.

    Args:
        size: sides of the frames, pixels.
        device: where batches are.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        self.loss, self.reconstruction = MeanMetric(), MeanMetric()
        self.found, self.true = BPLPC(parts=TEMPLATE_PARTS), BPLPC(parts=TEMPLATE_PARTS)
        self.joints: dict[str, tuple[Metric, Metric]] = {
            "pdj": (PDJ(), PDJ(reduction="joints")),
            "normalized_l2": (NormalizedL2(size), NormalizedL2(size, reduction="joints")),
            "left_right_gap": (LeftRightGap(size), LeftRightGap(size, reduction="pairs")),
        }
        of_joints = (metric for pair in self.joints.values() for metric in pair)
        for metric in (self.loss, self.reconstruction, self.found, self.true, *of_joints):
            metric.to(device)

    def update(
        self, out: TemplateOutput, image: Tensor, batch: Mapping[str, Tensor], loss: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            out: of the network.
            image: the frames as the network sees them, `[B, 3, S, S]`, normalised.
            batch: samples.
            loss: the weighted sum of the batch; None where it is not known.
        """
        with scoring():
            if loss is not None:
                self.loss.update(loss.detach().float(), len(image))
            if out.reconstruction is not None:
                self.reconstruction.update((out.reconstruction.float() - image.float()).square().mean((1, 2, 3)))
            joints, true, annotated = out.joints.float(), batch["joints"].float(), batch["annotated"]
            self.found.update(joints[:, None])
            whole = annotated.all(1)  # lengths of the others would be those of joints at 0
            self.true.update(true[whole][:, None])
            for key, metrics in self.joints.items():
                more = (batch["diagonal"],) if key == "pdj" else ()
                for metric in metrics:
                    metric.update(joints, true, *more, annotated=annotated)

    def means(self) -> dict[str, float]:
        """Key -> value, of those that there are; values are stored as the table of measures has them."""
        with scoring():
            found = {
                key: float(metric.compute())
                for key, metric in (
                    ("loss", self.loss),
                    ("reconstruction", self.reconstruction),
                    *((key, of_all) for key, (of_all, _) in self.joints.items()),
                    ("bplp_c", self.found),
                )
                if metric.update_called
            }
        return {key: value for key, value in found.items() if not math.isnan(value) or key not in _PARTS}

    def evaluation(self) -> Evaluation:
        """All of it: `metrics`; `structure`, errors joint by joint as KEY/JOINT; `truth`, the consistency of the true
        joints."""
        means = {key: value for key, value in self.means().items() if key != "loss"}
        with scoring():
            parts = {key: self.joints[key][1].compute().tolist() for key in self.joints if key in means}
            true = float(self.true.compute())
        return Evaluation(
            metrics=means,
            structure={
                f"{key}/{name}": value
                for key, values in parts.items()
                for name, value in zip(_PARTS[key], values, strict=True)
                if not math.isnan(value)
            },
            truth={} if math.isnan(true) else {"bplp_c": true},
        )


def without_labels(found: Evaluation) -> str:
    """A sentence on the measures that an evaluation lacks since the frames have no labels; empty where it has all."""
    missing = [key for key in NEEDS_LABELS if key not in found.metrics]
    if not missing:
        return ""
    what = "boxes" if missing == ["pdj"] else "annotated joints"
    return f"the frames that are scored have no {what}: {', '.join(missing)} are left out."
