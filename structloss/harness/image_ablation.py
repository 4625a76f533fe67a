"""The ablation of Dabral et al. (ECCV 2018, Table 3) on rendered people: what each loss and the refiner add."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import images
from ..errors import ArgumentError, CheckpointError
from ..metrics.evaluation import Evaluation
from .ablation import Cell, CellResult, read_result, run_seeds, write_result
from .engines import Engine, as_told
from .image_clips import Runs, predict_runs, score_clips
from .image_stages import Schedule, StageResult, people_of, stage, train_stage, weights_of
from .image_system import predictions_of, refined_by, runs_of, train_tpnet

__all__ = ["ARMS", "REFINED", "ImageGrid", "run_image_grid"]

ARMS: Mapping[str, Mapping[str, float]] = {
    "baseline": {},
    "+ geometry": {"bone_ratio": 0.03},
    "+ angle": {"bone_ratio": 0.03, "illegal_angle": 0.03},
    "+ symmetry": {"bone_ratio": 0.03, "illegal_angle": 0.03, "bone_symmetry": 0.05},
}
"""Row of the table -> structure-aware loss of the half without 3D poses. Symmetry joins in stage 4, as published."""

REFINED: Mapping[str, tuple[int, int]] = {"+ TP-Net": (19, 0), "+ semi-online": (9, 10)}
"""Row -> frames before and after each that TP-Net takes of the predictions of the row above both."""

_LAST = "+ symmetry"


@dataclass(frozen=True)
class ImageGrid:
    """What to compare. Every row trains stages 3 and 4 from the same weights of its seed, with as many steps.

    Attributes:
        schedule: steps, network and people; its seed is replaced.
        seeds: of weights, people and order; rows of one seed are pairs.
        epochs: of TP-Net.
        motion: clips that people do; None is synthetic.
        runs, frames: test people in motion, and images of each; three times as many train TP-Net.

    Raises:
        ArgumentError: no seeds, equal ones, or a number below 1.
    """

    schedule: Schedule = field(default_factory=Schedule)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 20
    motion: str | None = None
    runs: int = 20
    frames: int = 40

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ArgumentError(f"seeds is {list(self.seeds)}, expected different ones, at least one.")
        for name in ("epochs", "runs", "frames"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} is {getattr(self, name)}, expected at least 1.")

    @property
    def objectives(self) -> Mapping[str, Any]:
        """Row -> what it is; the first is what the others are compared with."""
        return {**ARMS, **REFINED}

    @property
    def backbones(self) -> Mapping[str, Any]:
        """The one network."""
        return {self.schedule.network: {}}

    def cells(self, seed: int) -> list[Cell]:
        """Rows of a seed."""
        return [Cell(self.schedule.network, name, seed) for name in self.objectives]

    def fingerprint(self, name: str) -> str:
        """What a result depends on: it is made again where anything of it has changed."""
        own = {key: value for key, value in asdict(self).items() if key != "seeds"}
        parts = {
            "grid": own,
            "row": name,
            "losses": {key: dict(of) for key, of in ARMS.items()},
            "refined": {**REFINED},
        }
        return hashlib.sha256(json.dumps(as_told(parts), sort_keys=True, default=str).encode()).hexdigest()


def run_image_grid(
    grid: ImageGrid,
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
        folder: where results and weights to go on from are kept.
        jobs: seeds side by side, in processes that share the cores.
        report: called with (rows done, rows in all, result) whenever one is done.
        engine: what trains them, in place of `jobs` processes; a seed is a piece of its work.

    Raises:
        StructlossError: bad input, or a training failed; those that were done are kept.
    """

    return run_seeds(grid, folder, _train_seed, jobs=jobs, report=report, engine=engine)


def _train_seed(grid: ImageGrid, missing: list[Cell], folder: Path) -> Iterator[CellResult]:
    """All rows of the seed that some are missing of, those that are there read."""
    seed = missing[0].seed
    schedule = replace(grid.schedule, seed=seed)
    size = images.info(schedule.network).input_size
    data = people_of(schedule, "mixed", size)
    sizes = {"train": 3 * grid.runs, "test": grid.runs, "frames": grid.frames, "size": size}
    runs = runs_of(seed, **sizes, motion=grid.motion, rendered=schedule.rendered)
    start: dict[str, Tensor] | None = None
    last: images.SAPNet | None = None
    seen: tuple[Runs, Runs] | None = None  # what it makes of the runs: both refiners take the same
    for cell in grid.cells(seed):
        name, print_ = cell.objective, grid.fingerprint(cell.objective)
        weights = folder / f"{schedule.network}__{name.replace('+ ', '')}__seed{seed}.safetensors"
        done = read_result(folder, cell, print_)
        if name in ARMS:
            if done is None or (name == _LAST and not weights.exists()):
                start = start or _start(schedule, data, folder, grid.fingerprint("start"))
                result = _train_arm(schedule, data, name, start)
                found = predict_runs(result.module.model, runs.test)
                done = _cell_result(cell, score_clips(found.clips, error_2d=found.error_2d), result)
                if name == _LAST:
                    images.save_checkpoint(result.module.model, weights)
                write_result(folder, done, print_)
            if name == _LAST:
                last = _loaded(schedule.network, weights)
        elif done is None:
            assert last is not None  # of the row above
            seen = seen or predictions_of(last, runs)
            done = _refined(cell, *seen, grid)
            write_result(folder, done, print_)
        assert done is not None  # of one kind or the other
        yield done


def _loaded(network: str, weights: Path) -> images.SAPNet:
    model = images.create(network)
    assert isinstance(model, images.SAPNet)  # the stages have trained it
    images.load_published(model, weights)
    return model.eval()


def _start(schedule: Schedule, data: Any, folder: Path, fingerprint: str) -> dict[str, Tensor]:
    """Weights after stages 1 and 2, kept in the folder."""
    path = folder / f"{schedule.network}__stage2__seed{schedule.seed}-{fingerprint[:8]}.safetensors"
    model = images.create(schedule.network)
    try:
        images.load_published(model, path)
    except (CheckpointError, FileNotFoundError):
        result: StageResult | None = None
        for number in (1, 2):
            weights = weights_of(result) if result is not None else None
            result = train_stage(stage(number, schedule), data, weights, validations=0, score=False, quiet=True)
        assert result is not None  # there are two stages
        images.save_checkpoint(result.module.model, path)
        return weights_of(result)
    return {key: value.clone() for key, value in model.state_dict().items()}


def _train_arm(schedule: Schedule, data: Any, name: str, start: Mapping[str, Tensor]) -> StageResult:
    """Stages 3 and 4 with the losses of a row."""
    result: StageResult | None = None
    for number in (3, 4):
        own = {term: weight for term, weight in ARMS[name].items() if number == 4 or term != "bone_symmetry"}
        what = stage(number, schedule, structure_aware=own or None)
        weights = start if result is None else weights_of(result)
        result = train_stage(what, data, weights, validations=0, score=False, quiet=True)
    assert result is not None  # there are two stages
    return result


def _refined(cell: Cell, train: Runs, test: Runs, grid: ImageGrid) -> CellResult:
    past, future = REFINED[cell.objective]
    module = train_tpnet(
        train.clips, test.clips, past=past, future=future, epochs=grid.epochs, seed=cell.seed, quiet=True
    )
    evaluation = score_clips(test.clips, lambda poses: refined_by(module, poses), error_2d=test.error_2d)
    return CellResult(cell, evaluation.metrics, evaluation.structure, evaluation.per_action, {}, 0.0)


def _cell_result(cell: Cell, found: Evaluation, result: StageResult) -> CellResult:
    return CellResult(cell, found.metrics, found.structure, found.per_action, result.curves, result.seconds)
