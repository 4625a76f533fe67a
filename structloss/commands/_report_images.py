"""`structloss report` of networks from images: scores of people who were not trained on, and what is found in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import ArgumentError
from ..files import scratch_folder
from ..text import visible

if TYPE_CHECKING:
    import torch

    from ..harness.image_training import ImageModule
    from ..harness.run_folder import Run
    from ..images import ImagesDataModule
    from ..reports.results import ArmResult, PoseSamples, RunSummary

__all__ = ["RENDERED", "SCORED", "TEST", "Seen", "are_of_images", "facts_of", "score_images", "write_images"]

#: arguments of the data module that decide who is scored, and of rendered people alone
SCORED = ("data", "images", "val_data", "val_images", "format", "joints", "val_subjects", "val_count")
RENDERED = ("motion", "rendered", "unlabelled_subjects", "seed")
TEST = "people not trained on, 15 joints relative to the pelvis, bones of canonical length"
_DRAWN, _POSES = 12, 4  # people drawn with what was found, and people whose poses are


@dataclass(frozen=True)
class Seen:
    """A run that was scored: its module, in evaluation mode, and the people."""

    name: str
    module: ImageModule
    people: ImagesDataModule


def are_of_images(runs: Sequence[Run]) -> bool:
    """Whether the runs are of networks from images.

    Raises:
        ArgumentError: some are, and others not.
    """
    from ..harness.systems import IMAGES, system_of

    systems = [system_of(run.model) for run in runs]
    if IMAGES in systems and len(set(systems)) > 1:
        other = next(run for run, system in zip(runs, systems, strict=True) if system != IMAGES)
        raise ArgumentError(
            f"{other.folder} is of {system_of(other.model).says}, beside runs of {IMAGES.says}, expected runs of one "
            "kind for a common report."
        )
    return IMAGES in systems


def score_images(run: Run, arm: ArmResult, data: str | None, where: torch.device) -> Seen:
    """Score a run's checkpoint into `arm`."""
    from ..harness.image_stages import evaluate_images
    from ..harness.image_training import ImageModule, weights_of_losses
    from ..harness.load import load_module
    from ..harness.run_folder import images_of
    from ..harness.systems import IMAGES

    assert run.checkpoint is not None  # there is something to score
    loaded, facts = load_module(run.checkpoint, IMAGES)
    module = cast(ImageModule, loaded).to(where)
    arm.objective = weights_of_losses(run.model)
    arm.settings |= {"checkpoint": run.checkpoint.name, **facts}
    people = images_of(run, module.model.input_size, data)
    arm.take(evaluate_images(module, people, progress=arm.name))
    return Seen(arm.name, module, people)


def facts_of(scored: Sequence[Seen]) -> dict[str, Any]:
    """Who was scored, by run where they differ."""
    found = {}
    for seen in scored:
        samples = seen.people.val_dataset
        found[seen.name] = {"source": ", ".join(part.source for part in samples.people), "people": len(samples)}
    same = all(facts == found[scored[0].name] for facts in found.values())
    return found[scored[0].name] if scored and same else found


def write_images(summary: RunSummary, path: Path, scored: Sequence[Seen]) -> None:
    """Write the report: curves, tables, people with the joints that each network finds, and poses of some.

    Args:
        summary: of the runs.
        path: HTML file to write.
        scored: the runs that have a checkpoint.
    """
    from ..harness.image_pictures import draw_found
    from ..reports import plot_curves, plot_poses, run_report

    with scratch_folder(path) as scratch:
        figures: dict[str, Path] = {}
        if any(arm.curves.get(key) for arm in summary.arms for key in arm.curves if key not in ("step", "val_step")):
            figures["Training"] = plot_curves(summary, scratch / "curves.png")
        for number, seen in enumerate(scored):
            samples = seen.people.val_dataset
            shown = range(min(_DRAWN, len(samples)))
            title = "Joints found in strangers" + (f": {visible(seen.name)}" if len(scored) > 1 else "")
            figures[title] = draw_found(seen.module.model, samples, shown, scratch / f"people{number}.png")
            if len(scored) == 1:
                figures["Poses of strangers"] = plot_poses(_poses(seen), scratch / "poses.png")
        run_report(summary, path, figures=figures)


def _poses(seen: Seen) -> PoseSamples:
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
        predictions={seen.name: to_h36m(decode(heatmaps, depth, unit="mm")).numpy()},
        labels=[f"stranger {i + 1}" for i in shown],
    )
