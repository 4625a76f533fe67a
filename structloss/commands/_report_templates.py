"""`structloss report` of shape templates: scores of folders that were not trained on, and what is found in their
frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ._report_pictures import PicturesReport

if TYPE_CHECKING:
    import torch

    from ..harness.run_folder import Run
    from ..harness.template_training import TemplateModule
    from ..images.template_module import TemplatesDataModule
    from ..metrics.evaluation import Evaluation

__all__ = ["SeenFrames", "TemplatesReport"]


@dataclass(frozen=True)
class SeenFrames:
    """A module, in evaluation mode, and the frames that it was scored on."""

    module: TemplateModule
    frames: TemplatesDataModule


class TemplatesReport(PicturesReport[SeenFrames]):
    """Of networks of shape templates."""

    PATHS = ("path", "val_path")
    # the order of the shuffled half of the pairs is that of the seed, of files as well
    SCORED = ("path", "boxes", "val_path", "val_boxes", "val_folders", "val_count", "val_pairs", "arms", "seed")
    RENDERED = ("motion", "rendered", "frames")
    TEST = "frames of people and backgrounds that were not trained on; labels are for the figures alone"

    def objective(self, model: Mapping[str, Any]) -> dict[str, float]:
        from ..harness.template_training import weights_of_terms

        return weights_of_terms(model)

    def evaluate(
        self, run: Run, checkpoint: Path, data: str | None, where: torch.device, progress: str
    ) -> tuple[SeenFrames, Evaluation, Mapping[str, int]]:
        from ..harness.load import load_module
        from ..harness.run_folder import frames_of
        from ..harness.systems import TEMPLATES
        from ..harness.template_ladder import evaluate_templates
        from ..harness.template_scores import without_labels
        from ..harness.template_training import TemplateModule

        loaded, place = load_module(checkpoint, TEMPLATES)
        module = cast(TemplateModule, loaded).to(where)
        frames = frames_of(run, module.model.input_size, data)
        found = evaluate_templates(module, frames, progress=progress)
        if missing := without_labels(found):
            self.left_out.append(f"{progress}: {missing}")
        return SeenFrames(module, frames), found, place

    def facts_of(self, seen: SeenFrames) -> dict[str, Any]:
        samples, data = seen.frames.val_dataset, seen.frames
        return {
            "source": str(data.val_path or data.path or f"rendered people, {data.motion or 'synthetic motion'}"),
            "folders": len(samples.numbers),
            "pairs": len(samples),
            **({} if data.arms == "all" else {"arms": data.arms}),
        }

    def pictures(self, name: str, seen: SeenFrames, scratch: Path) -> dict[str, Path]:
        """Frames, and what is made of them, as on the poster."""
        from ..harness.template_pictures import template_columns
        from ..reports.panels import plot_panels

        columns = template_columns({"": seen.module.model}, seen.frames.val_dataset)
        return {"Frames that were not trained on": plot_panels(columns, scratch / "panels.png")}
