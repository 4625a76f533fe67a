"""Shape templates change by change, as their poster goes from Schmidtke et al. to its own: what `structloss demo
shape-template` and `structloss ablate shape-template` train."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import ArgumentError
from ..images.template_module import TemplatesDataModule
from ..metrics.evaluation import Evaluation
from ..progress import track
from .ablation import Cell, CellResult, read_result, run_seeds, write_result
from .engines import Engine, as_told
from .template_scores import TemplateScores
from .template_training import TemplateModule
from .training import fit

__all__ = [
    "ARMS",
    "ArmResult",
    "LadderSettings",
    "TemplateArm",
    "TemplateGrid",
    "evaluate_templates",
    "frames_of",
    "run_template_grid",
    "train_arm",
]


@dataclass(frozen=True)
class TemplateArm:
    """One model.

    Attributes:
        template, motion: see :class:`structloss.images.ShapeTemplateNet`.
        mse: weight of the MSE beside the perceptual term.
        flip: train on half of the pairs, and on the same mirrored.
    """

    template: str = "original"
    motion: str = "affine"
    mse: float = 1.0
    flip: bool = False


ARMS: Mapping[str, TemplateArm] = {
    "baseline": TemplateArm(mse=0.0),
    "+ MSE": TemplateArm(),
    "T_new": TemplateArm("natural"),
    "+ coarse-to-fine": TemplateArm("natural", "coarse-to-fine"),
    "+ flip": TemplateArm("natural", "coarse-to-fine", flip=True),
    "+ constrained": TemplateArm("natural", "constrained", flip=True),
}
"""Row of the table -> model: each is the one before with one change more. The first is that of Schmidtke et al., the
fifth the full model of the poster."""


@dataclass(frozen=True)
class LadderSettings:
    """How much is trained, on which network and people; as the recipe `shape-template-tiny` has it.

    Attributes:
        steps: optimizer steps of each model.
        network, network_args: in `structloss.images`, and what is changed of it but template and motion.
        perceptual_weight: of the perceptual term; the recipe has 0, with which the baseline would have nothing to learn
            from.
        perceptual: see :class:`~structloss.harness.template_training.TemplateModule`.
        lr: peak learning rate.
        batch_size: pairs of a step.
        size: sides of the frames, pixels; that of the network.
        count, val_count: folders to train on and to score, rendered.
        frames: of each.
        seed: of weights, people and order.
        data: further arguments of :class:`~structloss.images.template_module.TemplatesDataModule`.

    Raises:
        ArgumentError: fewer than two steps.
    """

    steps: int = 400
    network: str = "shape-template-tiny"
    network_args: Mapping[str, Any] = field(
        default_factory=lambda: {"translator_widths": [16, 32], "hidden": 64}, hash=False
    )
    perceptual_weight: float = 1.0
    perceptual: str = "laplacian"
    lr: float = 1e-3
    batch_size: int = 16
    size: int = 64
    count: int = 48
    val_count: int = 8
    frames: int = 24
    seed: int = 0
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ArgumentError(f"steps is {self.steps}, expected at least 2.")


@dataclass
class ArmResult:
    """What a training came to.

    Attributes:
        module: in evaluation mode.
        evaluation: scores on folders that were not trained on.
        curves: see `callbacks.History`.
        clips_per_second: pairs per second of the training step.
        seconds: of training and scoring.
    """

    module: TemplateModule
    evaluation: Evaluation
    curves: dict[str, list[float]]
    clips_per_second: float
    seconds: float


def frames_of(settings: LadderSettings, progress: bool = True) -> TemplatesDataModule:
    """The data module: rendered people, each before a background of their own; frames are kept in memory."""
    return TemplatesDataModule(
        size=settings.size,
        batch_size=settings.batch_size,
        eval_batch_size=4 * settings.batch_size,
        count=settings.count,
        val_count=settings.val_count,
        frames=settings.frames,
        seed=settings.seed,
        **{"progress": progress, **settings.data},
    )


def train_arm(
    settings: LadderSettings,
    arm: TemplateArm,
    data: TemplatesDataModule,
    *,
    label: str = "",
    validations: int = 4,
    quiet: bool = False,
) -> ArmResult:
    """Train a model from fresh weights of the seed, and score it.

    Args:
        settings: how much.
        arm: which model.
        data: of :func:`frames_of`; arms share its frames.
        label: shown with the progress.
        validations: how often to validate on the way; 0 for never.
        quiet: print nothing.
    """
    started = time.perf_counter()
    torch.manual_seed(settings.seed)
    module = TemplateModule(
        shape_network=settings.network,
        shape_network_args={**settings.network_args, "template": arm.template, "motion": arm.motion},
        loss_weights={"perceptual": settings.perceptual_weight, "mse": arm.mse, "anchor": 0.5, "boundary": 1.0},
        perceptual=settings.perceptual if settings.perceptual_weight else None,
        schedule="one_cycle",
        lr=settings.lr,
        seed=settings.seed,
    )
    pairs = data.with_flip(arm.flip)
    fitted = fit(
        module, pairs, steps=settings.steps, validations=validations, label=label, seed=settings.seed, quiet=quiet
    )
    evaluation = evaluate_templates(module, pairs, progress="" if quiet else label)
    seconds = time.perf_counter() - started
    return ArmResult(module.eval(), evaluation, fitted.curves, fitted.timer.clips_per_second, seconds)


def evaluate_templates(module: TemplateModule, data: TemplatesDataModule, *, progress: str = "") -> Evaluation:
    """Score a module on the folders that are held out.

    Args:
        module: is switched to evaluation mode.
        data: whose test pairs are scored.
        progress: label of a progress bar on a terminal; empty for none.
    """
    module.eval()
    scores = TemplateScores(module.model.input_size, module.device)
    loader: Any = data.test_dataloader()
    for batch in track(loader, progress, bool(progress)):
        module.scored({key: value.to(module.device) for key, value in batch.items()}, scores)
    return scores.evaluation()


@dataclass(frozen=True)
class TemplateGrid:
    """What to compare: every row of :data:`ARMS` with as many steps on the same people.

    Attributes:
        settings: of each training; its seed is replaced.
        seeds: of weights, people and order; rows of one seed are pairs.

    Raises:
        ArgumentError: no seeds, or equal ones.
    """

    settings: LadderSettings = field(default_factory=LadderSettings)
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ArgumentError(f"seeds is {list(self.seeds)}, expected different ones, at least one.")

    @property
    def objectives(self) -> Mapping[str, Any]:
        """Row -> what it is; the first is what the others are compared with."""
        return ARMS

    @property
    def backbones(self) -> Mapping[str, Any]:
        """The one network."""
        return {self.settings.network: {}}

    def cells(self, seed: int) -> list[Cell]:
        """Rows of a seed."""
        return [Cell(self.settings.network, name, seed) for name in ARMS]

    def fingerprint(self, name: str) -> str:
        """What a result depends on: it is made again where anything of it has changed."""
        parts = {"settings": asdict(replace(self.settings, seed=0)), "arm": asdict(ARMS[name])}
        return hashlib.sha256(json.dumps(as_told(parts), sort_keys=True, default=str).encode()).hexdigest()


def run_template_grid(
    grid: TemplateGrid,
    folder: str | os.PathLike[str],
    *,
    jobs: int = 1,
    report: Callable[[int, int, CellResult], None] | None = None,
    engine: Engine | None = None,
) -> list[CellResult]:
    """Train and score every row that has no result in `folder` yet; returns all results.

    A run that was stopped trains what is missing.

    Args:
        grid: what to compare.
        folder: where results are kept, a JSON file each.
        jobs: seeds side by side, in processes that share the cores.
        report: called with (rows done, rows in all, result) whenever one is done.
        engine: what trains them, in place of `jobs` processes; a seed is a piece of its work.

    Raises:
        StructlossError: bad input, or a training failed; those that were done are kept.
    """

    return run_seeds(grid, folder, _train_seed, jobs=jobs, report=report, engine=engine)


def _train_seed(grid: TemplateGrid, cells: list[Cell], folder: Path) -> Iterator[CellResult]:
    """Rows of one seed, on frames that are rendered once."""
    settings = replace(grid.settings, seed=cells[0].seed)
    data = frames_of(settings, progress=False)
    for cell in cells:
        known = read_result(folder, cell, grid.fingerprint(cell.objective))
        if known is not None:  # before the process was killed that began with this seed
            yield known
            continue
        made = train_arm(settings, ARMS[cell.objective], data, validations=0, quiet=True)
        found = made.evaluation
        result = CellResult(cell, found.metrics, found.structure, {}, made.curves, made.seconds)
        write_result(folder, result, grid.fingerprint(cell.objective))
        yield result
