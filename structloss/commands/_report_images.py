"""`structloss report` of networks from images: scores of people who were not trained on, and what is found in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ._report_pictures import PicturesReport

if TYPE_CHECKING:
    import torch

    from ..harness.image_training import ImageModule
    from ..harness.run_folder import Run
    from ..images import ImagesDataModule
    from ..metrics.evaluation import Evaluation
    from ..reports.results import PoseSamples

__all__ = ["ImagesReport", "SeenPeople"]

_DRAWN, _POSES = 12, 4  # people drawn with what was found, and people whose poses are


@dataclass(frozen=True)
class SeenPeople:
    """A module, in evaluation mode, and the people that it was scored on."""

    module: ImageModule
    people: ImagesDataModule


class ImagesReport(PicturesReport[SeenPeople]):
    """Of networks from images to poses."""

    PATHS = ("data",)
    SCORED = ("data", "images", "val_data", "val_images", "format", "joints", "val_subjects", "val_count")
    RENDERED = ("motion", "rendered", "unlabelled_subjects", "seed")
    TEST = "people not trained on, 15 joints relative to the pelvis, bones of canonical length"
    SKELETON = "h36m"

    def objective(self, model: Mapping[str, Any]) -> dict[str, float]:
        from ..harness.image_training import weights_of_losses

        return weights_of_losses(model)

    def evaluate(
        self, run: Run, checkpoint: Path, data: str | None, where: torch.device, progress: str
    ) -> tuple[SeenPeople, Evaluation, Mapping[str, int]]:
        from ..harness.image_stages import evaluate_images
        from ..harness.image_training import ImageModule
        from ..harness.load import load_module
        from ..harness.run_folder import images_of
        from ..harness.systems import IMAGES

        loaded, place = load_module(checkpoint, IMAGES)
        module = cast(ImageModule, loaded).to(where)
        people = images_of(run, module.model.input_size, data)
        return SeenPeople(module, people), evaluate_images(module, people, progress=progress), place

    def facts_of(self, seen: SeenPeople) -> dict[str, Any]:
        samples = seen.people.val_dataset
        return {"source": ", ".join(part.source for part in samples.people), "people": len(samples)}

    def pictures(self, name: str, seen: SeenPeople, scratch: Path) -> dict[str, Path]:
        """People with the joints that are found, and, of a single run, poses of some."""
        from ..harness.image_pictures import draw_found
        from ..reports import plot_poses

        samples = seen.people.val_dataset
        shown = range(min(_DRAWN, len(samples)))
        found = {"Joints found in strangers": draw_found(seen.module.model, samples, shown, scratch / "people.png")}
        if len(self.scored) == 1:
            found["Poses of strangers"] = plot_poses(_poses(name, seen), scratch / "poses.png")
        return found


def _poses(name: str, seen: SeenPeople) -> PoseSamples:
    """Some of the people as they are and as they were found, evenly spaced among those who are scored."""
    import numpy as np
    import torch

    from ..harness.image_prediction import found_in
    from ..images import confidence, decode, to_h36m, to_image_units
    from ..reports.results import PoseSamples

    module, samples = seen.module, seen.people.val_dataset
    shown = sorted({int(i) for i in np.linspace(0, len(samples) - 1, _POSES)})
    batch = {key: torch.stack([samples[i][key] for i in shown]) for key in ("image", "pose")}
    out = found_in(module.model, batch["image"].to(module.device), bool(module.hparams["flip_test"]))
    heatmaps, depth = out.heatmaps[-1].cpu(), out.depth.cpu()
    flat = decode(heatmaps, depth, unit="pixels", input_size=module.model.input_size)[..., :2]
    certain = confidence(heatmaps).clamp(0, 1)[..., None]
    joints = to_h36m(torch.cat([to_image_units(flat, module.model.input_size), certain], dim=-1)).numpy()
    return PoseSamples(
        input=joints[..., :2],
        confidence=joints[..., 2],
        target=to_h36m(batch["pose"]).numpy(),
        predictions={name: to_h36m(decode(heatmaps, depth, unit="mm")).numpy()},
        labels=[f"stranger {i + 1}" for i in shown],
    )
