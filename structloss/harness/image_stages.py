"""SAP-Net's four stages one after the other in one process, each from where the last one ended: what demo and ablation
repeat. The stages' losses and data are those of the recipes `sapnet-stage1` to `sapnet-stage4`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..images.module import ImagesDataModule
from ..metrics.evaluation import Evaluation
from ..progress import track
from ..reading import read_yaml
from .image_scores import ImageScores
from .image_training import ImageModule
from .recipe_files import recipe_path
from .training import fit

__all__ = [
    "STAGES",
    "Schedule",
    "Stage",
    "StageResult",
    "evaluate_images",
    "people_of",
    "stage",
    "train_stage",
    "weights_of",
]

STAGES = (1, 2, 3, 4)

#: people whose left and right a small network tells apart after few steps
EASY: Mapping[str, float] = {"facing": 75.0, "occluders": 0.1, "truncated": 0.0}

#: what each stage adds, for tables
_SAYS = {1: "heatmaps", 2: "depth", 3: "structure", 4: "symmetry"}


@dataclass(frozen=True)
class Schedule:
    """How much of the stages, on which network and people.

    Attributes:
        network: name in `structloss.images`.
        steps: optimizer steps of each stage.
        lr: peak learning rate of the first stage. The second and third have half of it, since a rate that starts anew
            undoes some of the stage before [ours]; the fourth has a tenth of theirs, as published.
        optimizer: of all stages.
        heatmap_weight: of L_HM: with 1, as published, depths outweigh heatmaps in a training as short as ours.
        batch_size: samples of a step.
        seed: of weights, people and order.
        data: further arguments of :class:`~structloss.images.ImagesDataModule`.
        rendered: how people are rendered: by default most of the front, with little in the way, which a small network
            learns in minutes.

    Raises:
        ArgumentError: another number of stages than four, or one without steps.
    """

    network: str = "sapnet-tiny"
    steps: tuple[int, int, int, int] = (700, 400, 400, 200)
    lr: float = 4e-3
    optimizer: str = "adam"
    heatmap_weight: float = 100.0
    batch_size: int = 16
    seed: int = 0
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)
    rendered: Mapping[str, float] = field(default_factory=lambda: dict(EASY), hash=False)

    def __post_init__(self) -> None:
        if len(self.steps) != len(STAGES) or any(steps < 2 for steps in self.steps):
            raise ArgumentError(f"steps is {list(self.steps)}, expected four numbers of at least 2.")


@dataclass(frozen=True)
class Stage:
    """A training from given weights.

    Attributes:
        name: for tables.
        model: arguments of :class:`~structloss.harness.image_training.ImageModule`.
        batch: of :class:`~structloss.images.ImagesDataModule`.
        steps: optimizer steps.
    """

    name: str
    model: dict[str, Any]
    batch: str
    steps: int


@dataclass
class StageResult:
    """What a stage came to.

    Attributes:
        stage: which.
        module: the trained module, in evaluation mode.
        evaluation: scores of people who were not trained on.
        curves: see `callbacks.History`.
        clips_per_second: images per second of the training step.
        seconds: of training and scoring.
    """

    stage: Stage
    module: ImageModule
    evaluation: Evaluation
    curves: dict[str, list[float]]
    clips_per_second: float
    seconds: float


def stage(number: int, schedule: Schedule, **model: Any) -> Stage:
    """One of the published stages, with the schedule's network, steps and optimizer.

    Args:
        number: 1 to 4.
        schedule: how much of it.
        model: arguments of the module to use instead, such as `structure_aware`.
    """
    recipe = read_yaml(recipe_path(f"sapnet-stage{number}"), "a recipe")
    own = {key: value for key, value in recipe["model"].items() if key != "init_from"}
    settings = {
        **own,
        "network": schedule.network,
        "optimizer": schedule.optimizer,
        "schedule": "one_cycle",
        "lr": schedule.lr * {1: 1.0, 4: 0.05}.get(number, 0.5),
        "heatmap_weight": schedule.heatmap_weight,
        "seed": schedule.seed,
        **model,
    }
    return Stage(f"stage {number}: {_SAYS[number]}", settings, recipe["data"]["batch"], schedule.steps[number - 1])


def people_of(schedule: Schedule, batch: str, input_size: int) -> ImagesDataModule:
    """The data module of a schedule, for batches of a kind."""
    own: dict[str, Any] = {"keep_megabytes": 2048.0, "progress": True, **schedule.data}
    own["rendered"] = dict(schedule.rendered)
    own |= {"batch_size": schedule.batch_size, "eval_batch_size": 2 * schedule.batch_size, "input_size": input_size}
    return ImagesDataModule(batch=batch, seed=schedule.seed, **own)


def train_stage(
    what: Stage,
    data: ImagesDataModule,
    start: Mapping[str, Tensor] | None = None,
    *,
    validations: int = 2,
    score: bool = True,
    quiet: bool = False,
) -> StageResult:
    """Train a stage and score it.

    Args:
        what: the stage.
        data: its people; the kind of its batches is set.
        start: the network's state dict after the stage before; None starts from fresh weights of the stage's seed.
        validations: how often to validate on the way.
        score: score it on the held-out people; otherwise the evaluation is empty.
        quiet: print nothing.
    """
    started = time.perf_counter()
    torch.manual_seed(what.model["seed"])
    module = ImageModule(**what.model)
    if start is not None:
        module.model.load_state_dict(start)
    people = data.with_batch(what.batch)
    fitted = fit(
        module, people, steps=what.steps, validations=validations, label=what.name, seed=what.model["seed"], quiet=quiet
    )
    evaluation = Evaluation({})
    if score:
        evaluation = evaluate_images(module, people, progress="" if quiet else what.name)
    seconds = time.perf_counter() - started
    return StageResult(what, module.eval(), evaluation, fitted.curves, fitted.timer.clips_per_second, seconds)


@torch.no_grad()
def evaluate_images(module: ImageModule, data: ImagesDataModule, *, progress: str = "") -> Evaluation:
    """Score a module on the people who are held out.

    Args:
        module: is switched to evaluation mode.
        data: whose test people are scored.
        progress: label of a progress bar on a terminal; empty for none.
    """
    module.eval()
    scores = ImageScores(data.actions, module.device)
    loader: Any = data.test_dataloader()
    for batch in track(loader, progress, bool(progress)):
        on_device = {key: value.to(module.device) for key, value in batch.items()}
        scores.update(module.found(on_device["image"]), on_device, module.model.input_size)
    return scores.evaluation()


def weights_of(result: StageResult) -> dict[str, Tensor]:
    """A copy of the network's weights, to start from."""
    return {key: value.clone() for key, value in result.module.model.state_dict().items()}
