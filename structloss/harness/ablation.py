"""Ablations: a grid over objectives, backbones and seeds, each cell trained and scored once and remembered."""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import load_file, save

from .. import __version__, backbones
from ..data import MotionDataModule
from ..data.conditions import Detections
from ..errors import ArgumentError, DataError, StructlossError, check_name, shown
from ..files import write_bytes, write_json
from ..reading import read_json, read_yaml
from .engines import Engine, Local, Piece, as_told, paths_in, side_by_side
from .evaluation import evaluate
from .frames import check_term_frames
from .lifting import LiftingModule
from .recipe_files import recipe_settings
from .training import Checkpoints, train

__all__ = [
    "Cell",
    "CellResult",
    "Grid",
    "grid_names",
    "load_grid",
    "read_result",
    "run_grid",
    "run_seeds",
    "side_by_side",
    "train_what_is_missing",
    "write_result",
]

_KEYS = (
    "objectives",
    "backbones",
    "model",
    "learned",
    "data",
    "seeds",
    "steps",
    "pretrain_steps",
    "finetune_lr",
    "clip",
    "init_from",
    "arms",
    "conditions",
)

#: the term of an objective that stands for a loss network's energy
LEARNED = "learned"


@dataclass(frozen=True)
class Grid:
    """What to compare.

    Attributes:
        objectives: name -> (loss term -> lambda); the first is what the others are compared with. The term "learned" is
            a loss network's energy, its lambda a number or "auto:SHARE" (:class:`structloss.learned.LearnedLoss`).
        backbones: name in `structloss.backbones` -> {"model": ..., "data": ...}, arguments of
            :class:`~structloss.harness.lifting.LiftingModule` and :class:`~structloss.data.MotionDataModule` over those
            of the backbone's recipe and over `model` and `data`.
        learned: settings of the objectives with "learned", see `LiftingModule`.
        model, data: arguments for every backbone; `objective_options` of a term are for the objectives that have it.
        seeds: of weights, data order and simulated detections; the cells of one seed are pairs.
        steps: optimizer steps of a cell.
        pretrain_steps: steps with MPJPE alone before, shared by the objectives of a backbone and seed; 0 for none.
        finetune_lr: learning rate after that, or after `init_from`; None keeps the recipe's.
        init_from: backbone -> checkpoint to start from.
        clip: gradients are clipped to this norm; 0 for never.
        arms: objective -> arguments of `LiftingModule` for it alone, as `learn_weights` or `objective_options`.
        conditions: kinds of 2D that every cell is scored on besides that of its data, see
            :data:`~structloss.data.conditions.DETECTIONS`; for motion without 2D of its own.

    A backbone with settings may be called something else: its entry "backbone" is the registered name then.
    """

    objectives: dict[str, dict[str, float | str]]
    backbones: dict[str, dict[str, Any]]
    model: dict[str, Any] = field(default_factory=dict)
    learned: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 600
    pretrain_steps: int = 0
    finetune_lr: float | None = None
    init_from: dict[str, str] = field(default_factory=dict)
    clip: float = 1.0
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("objectives", "backbones", "seeds"):
            if not getattr(self, name):
                raise ArgumentError(f"{name} is empty, expected at least one.")
        for name, least in (("steps", 1), ("pretrain_steps", 0), ("clip", 0)):
            if not getattr(self, name) >= least:
                raise ArgumentError(f"{name} is {getattr(self, name)!r}, expected at least {least}.")
        if self.finetune_lr is not None and not 0 < self.finetune_lr < math.inf:
            raise ArgumentError(f"finetune_lr is {self.finetune_lr!r}, expected a positive number or null.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ArgumentError(f"seeds has {list(self.seeds)}, expected different ones.")
        for name in self.backbones:
            backbones.info(self.registered(name))
        for name in self.arms:
            check_name("objective of arms", name, self.objectives)
        for kind in self.conditions:
            Detections.of(kind)
        for name in self.init_from:
            if name not in self.backbones:
                raise ArgumentError(f"init_from has {name!r}, expected backbones of the grid: {list(self.backbones)}.")

    def registered(self, backbone: str) -> str:
        """The name in `structloss.backbones` of one of the grid's backbones."""
        return str(self.backbones[backbone].get("backbone", backbone))

    def cells(self) -> list[Cell]:
        """All cells, those that share data and a start next to each other."""
        return [
            Cell(backbone, objective, seed)
            for backbone in self.backbones
            for seed in self.seeds
            for objective in self.objectives
        ]


@dataclass(frozen=True)
class Cell:
    """One training run of a grid."""

    backbone: str
    objective: str
    seed: int

    @property
    def file(self) -> str:
        """Name of its result."""
        name = re.sub(r"[^\w.-]+", "_", self.objective.replace("+", "plus")).strip("_")
        digest = hashlib.sha256(self.objective.encode()).hexdigest()[:6]
        backbone = re.sub(r"[^\w.-]+", "_", self.backbone)
        return f"{backbone}__{name}-{digest}__seed{self.seed}.json"


@dataclass
class CellResult:
    """What a cell came to.

    Attributes:
        cell: which.
        metrics: scores on the held-out subjects.
        structure: structural metrics of the predicted skeletons.
        per_action: MPJPE of each action, mm.
        curves: see `callbacks.History`.
        seconds: of training and scoring.
        conditions: kind of 2D -> metrics and structure, together, of the grid's `conditions`.
    """

    cell: Cell
    metrics: dict[str, float]
    structure: dict[str, float]
    per_action: dict[str, float]
    curves: dict[str, list[float]]
    seconds: float
    conditions: dict[str, dict[str, float]] = field(default_factory=dict)


def grid_names() -> tuple[str, ...]:
    """Names of the grids in the package."""
    return tuple(sorted(path.stem for path in _folder().glob("*.yaml")))


def _folder() -> Path:
    return Path(str(files("structloss") / "harness" / "grids"))


def load_grid(name_or_path: str) -> Grid:
    """Read a grid: a YAML file, or one of :func:`grid_names`.

    Raises:
        MissingFileError: no such file.
        UnknownNameError: no such name.
        DataError: not YAML, or no grid.
        ArgumentError: an impossible value.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = _folder() / f"{check_name('grid', name_or_path, grid_names())}.yaml"
    content = read_yaml(path, "a grid")
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected a mapping with {', '.join(_KEYS)}.")
    for key in content:
        if key not in _KEYS:
            raise DataError(f"{path} has {key!r}, expected only {', '.join(_KEYS)}.")
    _check_kinds(path, content)
    if isinstance(content.get("backbones"), list):
        content["backbones"] = {name: {} for name in content["backbones"]}
    content["backbones"] = {name: value or {} for name, value in (content.get("backbones") or {}).items()}
    tuples = {"seeds": tuple(content.get("seeds", (0, 1, 2))), "conditions": tuple(content.get("conditions", ()))}
    try:
        return Grid(**{**content, **tuples})
    except TypeError as error:
        raise DataError(f"{path} is no grid: {error}.") from error


#: keys of a grid, and what stands under them
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    **dict.fromkeys(("objectives", "model", "learned", "data", "init_from", "arms"), (dict, "a mapping")),
    "backbones": ((dict, list), "a mapping or a list of names"),
    **dict.fromkeys(("seeds", "conditions"), (list, "a list")),
    **dict.fromkeys(("steps", "pretrain_steps"), (int, "a whole number")),
    **dict.fromkeys(("finetune_lr", "clip"), ((int, float, type(None)), "a number")),
}


def _check_kinds(path: Path, content: dict[str, Any]) -> None:
    """Raise :class:`DataError` where something in a grid is of another kind than what can stand there."""
    found = [(name, content[name], *_KINDS[name]) for name in content if name in _KINDS]
    for name in ("objectives", "arms", "backbones"):
        inner = content[name] if isinstance(content.get(name), dict) else {}
        given = {f"{name}[{key!r}]": value for key, value in inner.items() if value is not None or name != "backbones"}
        found += [(place, value, dict, "a mapping") for place, value in given.items()]
        if name == "backbones":
            for place, own in given.items():
                parts = [key for key in ("model", "data") if isinstance(own, dict) and key in own]
                found += [(f"{place}[{key!r}]", own[key], dict, "a mapping") for key in parts]
    for place, value, kind, expected in found:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"{path} is no grid: {place} is {shown(value)}, expected {expected}.")


def settings_of(grid: Grid, cell: Cell) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the module and of the data module for a cell."""
    model, data = recipe_settings(grid.registered(cell.backbone))
    own = grid.backbones[cell.backbone]
    for key in own:
        if key not in ("model", "data", "backbone"):
            raise ArgumentError(
                f"backbones[{cell.backbone!r}] has {key!r}, expected 'model', 'data' and 'backbone' only."
            )
    arm = grid.arms.get(cell.objective, {})
    model = {**model, **grid.model, **own.get("model", {}), **arm, "seed": cell.seed}
    data = {**data, **grid.data, **own.get("data", {}), "seed": cell.seed}
    for key in ("target", "skeleton"):
        if key in data:
            model[key] = data[key]
    options = {
        k: v for k, v in (model.pop("objective_options", None) or {}).items() if k in grid.objectives[cell.objective]
    }
    if options:
        model["objective_options"] = options
    if LEARNED in grid.objectives[cell.objective]:
        model["learned"] = {**grid.learned, "weight": grid.objectives[cell.objective][LEARNED]}
    return model, data


def _fingerprint(grid: Grid, cell: Cell) -> str:
    """What a result depends on: a cell is run again where anything of it has changed."""
    model, data = settings_of(grid, cell)
    parts = {
        "model": model,
        "data": data,
        "objective": grid.objectives[cell.objective],
        "steps": grid.steps,
        "clip": grid.clip,
        "start": [grid.pretrain_steps, grid.finetune_lr, grid.init_from.get(cell.backbone)],
    }
    if grid.conditions:
        parts["conditions"] = grid.conditions
    if (start := grid.init_from.get(cell.backbone)) in backbones.pretrained_names():
        parts["weights"] = hashlib.sha256(backbones.pretrained_file(start).read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(as_told(parts), sort_keys=True, default=str).encode()).hexdigest()


def run_grid(
    grid: Grid,
    folder: str | os.PathLike[str],
    *,
    jobs: int = 1,
    report: Callable[[int, int, CellResult], None] | None = None,
    engine: Engine | None = None,
    checkpoint_seconds: float = 300.0,
) -> list[CellResult]:
    """Train and score every cell that has no result in `folder` yet; returns all results in the order of the cells.

    A run that was stopped, or whose grid has grown, trains the cells that are missing; a cell that was under way goes
    on from its checkpoint.

    Args:
        grid: what to compare.
        folder: where results are kept, a JSON file each, and the checkpoints of cells that are under way.
        jobs: cells trained side by side, in processes that share the cores.
        report: called with (cells done, cells in all, result) whenever one is done.
        engine: what trains them, in place of `jobs` processes.
        checkpoint_seconds: time between checkpoints of a cell.

    Raises:
        StructlossError: bad input, or a cell failed; those that were done are kept.
    """

    def train_missing(missing: list[Cell], folder: Path) -> Iterator[CellResult]:
        _check_frames(grid, missing)
        return _train_all(grid, missing, folder, engine or Local(jobs), checkpoint_seconds)

    return train_what_is_missing(
        grid.cells(), lambda cell: _fingerprint(grid, cell), folder, train_missing, jobs=jobs, report=report
    )


def train_what_is_missing(
    cells: Sequence[Cell],
    fingerprint: Callable[[Cell], str],
    folder: str | os.PathLike[str],
    train_missing: Callable[[list[Cell], Path], Iterator[CellResult]],
    *,
    jobs: int,
    report: Callable[[int, int, CellResult], None] | None,
) -> list[CellResult]:
    """All results in the order of the cells: those in `folder` read, the others trained.

    Args:
        cells: what is asked for.
        fingerprint: of a cell: what its result depends on.
        folder: where results are kept, a JSON file each; made if it does not exist.
        train_missing: trains cells, writes their results into the folder and yields them; it may yield others, too.
        jobs: what it does side by side, to be looked at before anything is read.
        report: called with (cells done, cells in all, result), those that were there first.

    Raises:
        ArgumentError: `jobs` is below 1.
        StructlossError: what training raises; results of cells that were done are kept.
    """
    if jobs < 1:
        raise ArgumentError(f"jobs is {jobs}, expected at least 1.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[Cell, CellResult] = {}

    def take(result: CellResult) -> None:
        new = result.cell not in results
        results[result.cell] = result
        if report and new:
            report(len(results), len(cells), result)

    for cell in cells:
        if (found := read_result(folder, cell, fingerprint(cell))) is not None:
            take(found)
    if missing := [cell for cell in cells if cell not in results]:
        if other := sum(_put_aside(folder / cell.file) for cell in missing):
            warnings.warn(
                f"results of other settings are there for {other} of {len(cells)} cells, which are trained anew; the "
                f"earlier ones stay beside them in {folder}, for those settings.", stacklevel=2
            )  # fmt: skip
        for result in train_missing(missing, folder):
            take(result)
    return [results[cell] for cell in cells]


class SeededGrid(Protocol):
    """What :func:`run_seeds` trains: rows for each of some seeds."""

    @property
    def seeds(self) -> tuple[int, ...]: ...

    def cells(self, seed: int) -> list[Cell]: ...

    def fingerprint(self, name: str) -> str: ...


AnyGrid = TypeVar("AnyGrid", bound=SeededGrid)


def run_seeds(
    grid: AnyGrid,
    folder: str | os.PathLike[str],
    train_seed: Callable[[AnyGrid, list[Cell], Path], Iterator[CellResult]],
    *,
    jobs: int,
    report: Callable[[int, int, CellResult], None] | None,
    engine: Engine | None = None,
) -> list[CellResult]:
    """:func:`train_what_is_missing` of a grid whose rows of one seed are trained together.

    Args:
        grid: what to compare.
        folder: where results are kept.
        train_seed: (grid, the rows of a seed that are missing, folder) -> results, a function of a module.
        jobs: seeds side by side.
        report: as there.
        engine: what trains them, in place of `jobs` processes.
    """

    def train_missing(missing: list[Cell], folder: Path) -> Iterator[CellResult]:
        seeds = dict.fromkeys(cell.seed for cell in missing)
        reads = paths_in(grid)
        pieces = [
            Piece(
                f"seed {seed}", train_seed, (grid, [cell for cell in missing if cell.seed == seed]), reads,
                (f"*__seed{seed}.*", f"*__seed{seed}-*"),
            )
            for seed in seeds
        ]  # fmt: skip
        found = (engine or Local(min(jobs, len(pieces)))).run(pieces, folder)
        return (result for _, result in found)

    cells = [cell for seed in grid.seeds for cell in grid.cells(seed)]
    return train_what_is_missing(
        cells, lambda cell: grid.fingerprint(cell.objective), folder, train_missing, jobs=jobs, report=report
    )


def _check_frames(grid: Grid, cells: list[Cell]) -> None:
    """Raise before anything is trained for an objective over time of a backbone whose windows have one frame."""
    for backbone in dict.fromkeys(cell.backbone for cell in cells):
        own = [cell for cell in cells if cell.backbone == backbone]
        with _naming(own[0]):
            model, data = settings_of(grid, own[0])
            registered = grid.registered(backbone)
            network = backbones.create(registered, **(model.get("backbone_args") or {}))
            motion = MotionDataModule(**{"progress": False, **data})
            for objective in dict.fromkeys(cell.objective for cell in own):
                check_term_frames(grid.objectives[objective], network, registered, motion)


@contextmanager
def _naming(cell: Cell) -> Iterator[None]:
    """Around what is done for a cell and those like it: errors name it."""
    try:
        yield
    except TypeError as error:
        raise ArgumentError(f"the settings of {cell.backbone} can't be used: {error}.") from error
    except StructlossError as error:
        raise type(error)(f"{cell.backbone}, seed {cell.seed}: {error}") from error


def _train_all(
    grid: Grid, cells: list[Cell], folder: Path, engine: Engine, checkpoint_seconds: float
) -> Iterator[CellResult]:
    # The cells of a backbone and seed share their data and their start: where it costs, they stay in one process.
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.backbone, cell.seed), []).append(cell)
    apart = engine.spreads
    if apart:
        starting = [group for group in groups.values() if _pretrains(grid, group[0])]
        for _ in engine.run([_piece(grid, group, _write_start) for group in starting], folder):
            pass
    pieces = [
        _piece(grid, part, _train_group, checkpoint_seconds)
        for group in groups.values()
        for part in ([[cell] for cell in group] if apart else [group])
    ]
    for _, result in engine.run(pieces, folder):
        yield result


def _piece(grid: Grid, cells: list[Cell], work: Callable[..., Iterator[Any]], *settings: Any) -> Piece:
    first = cells[0]
    name = f"{first.backbone}, {f'{first.objective}, ' if len(cells) == 1 else ''}seed {first.seed}"
    pretrained = backbones.pretrained_names()
    reads = tuple(path for path in paths_in(settings_of(grid, first)) if path not in pretrained)
    reads += tuple(path for path in paths_in({"init_from": grid.init_from}) if path not in pretrained)
    resumes = tuple(pattern for cell in cells for pattern in (f"{_stem(cell)}-*.ckpt", _start_file(grid, cell)))
    return Piece(name, work, (grid, cells, *settings), tuple(dict.fromkeys(reads)), tuple(dict.fromkeys(resumes)))


def _stem(cell: Cell) -> str:
    return cell.file.removesuffix(".json")


def _pretrains(grid: Grid, cell: Cell) -> bool:
    return bool(grid.pretrain_steps) and cell.backbone not in grid.init_from


def _start_file(grid: Grid, cell: Cell) -> str:
    """Name of the weights that the cells of a backbone and seed start from."""
    model, data = settings_of(grid, replace(cell, objective=next(iter(grid.objectives))))
    parts = as_told({"model": model, "data": data, "steps": grid.pretrain_steps, "clip": grid.clip})
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^.0-9A-Za-z_-]+', '_', cell.backbone)}__start-{digest}__seed{cell.seed}.safetensors"


def _write_start(grid: Grid, cells: list[Cell], folder: Path) -> Iterator[str]:
    """Train the common start of cells, unless it is there, and keep it in the folder; yields the name of its file."""
    path = folder / _start_file(grid, cells[0])
    if not path.exists():
        model, data = settings_of(grid, cells[0])
        with _naming(cells[0]):
            windows = MotionDataModule(**{"progress": False, **data})
            windows.setup()
            start = _pretrain(grid, cells[0], model, windows)
            write_bytes(path, save({key: value.contiguous() for key, value in start.items()}))
    yield path.name


def _train_group(grid: Grid, cells: list[Cell], checkpoint_seconds: float, folder: Path) -> Iterator[CellResult]:
    """Train cells of one backbone and seed on the same data, from the same start."""
    if not cells:
        return
    model, data = settings_of(grid, cells[0])
    with _naming(cells[0]):
        windows = MotionDataModule(**{"progress": False, **data})
        windows.setup()
        start = None
        if _pretrains(grid, cells[0]):
            begun = folder / _start_file(grid, cells[0])
            start = load_file(begun) if begun.exists() else _pretrain(grid, cells[0], model, windows)
        others = {kind: MotionDataModule(**{"progress": False, **data, "detections": kind}) for kind in grid.conditions}
        for cell in cells:
            print_ = _fingerprint(grid, cell)
            kept = folder / f"{_stem(cell)}-{print_[:8]}.ckpt"
            checkpoints = Checkpoints(kept, checkpoint_seconds)
            result = _train_cell(grid, cell, settings_of(grid, cell)[0], windows, start, others, checkpoints)
            write_result(folder, result, print_)
            with suppress(OSError):  # nobody needs it any more
                kept.unlink()
            yield result


def _pretrain(grid: Grid, cell: Cell, model: dict[str, Any], windows: MotionDataModule) -> dict[str, torch.Tensor]:
    torch.manual_seed(cell.seed)  # the first weights, whatever was drawn before
    module = LiftingModule(**{**model, "objective": {"mpjpe": 1.0}, "learned": None})
    train(
        module,
        windows,
        steps=grid.pretrain_steps,
        validations=0,
        seed=cell.seed,
        clip=grid.clip,
        evaluation=False,
        quiet=True,
    )
    return {key: value.clone() for key, value in module.model.state_dict().items()}


def _train_cell(
    grid: Grid, cell: Cell, model: dict[str, Any], windows: MotionDataModule, start: Mapping[str, torch.Tensor] | None,
    others: Mapping[str, MotionDataModule], checkpoints: Checkpoints,
) -> CellResult:  # fmt: skip
    fixed = {term: weight for term, weight in grid.objectives[cell.objective].items() if term != LEARNED}
    arguments = {**model, "objective": fixed}
    if cell.backbone in grid.init_from:
        arguments["init_from"] = grid.init_from[cell.backbone]
    if grid.finetune_lr is not None and (start is not None or cell.backbone in grid.init_from):
        arguments["lr"] = grid.finetune_lr
    torch.manual_seed(cell.seed)  # the same first weights for all objectives
    module = LiftingModule(**arguments)
    if start is not None:
        module.model.load_state_dict(start)
    trained = train(
        module, windows, steps=grid.steps, seed=cell.seed, clip=grid.clip, validations=0, quiet=True,
        checkpoints=checkpoints,
    )  # fmt: skip
    found = trained.evaluation
    scored = {}
    for kind, data in others.items():
        of_kind = evaluate(module, data.test_dataloader(), data.actions, subjects=data.subjects, tested=data.test_set)
        scored[kind] = {**of_kind.metrics, **of_kind.structure}
    return CellResult(cell, found.metrics, found.structure, found.per_action, trained.curves, trained.seconds, scored)


def write_result(folder: Path, result: CellResult, fingerprint: str) -> None:
    """Keep the result of a cell, with what it depends on."""
    write_json(folder / result.cell.file, {"fingerprint": fingerprint, "version": __version__, **asdict(result)})


def _put_aside(result: Path) -> bool:
    """Give a result another name, by what it depends on; False where none is, or a damaged one."""
    try:
        mark = read_json(result, "the result of a cell")["fingerprint"][:8]
    except (StructlossError, KeyError, TypeError):
        return False
    os.replace(result, result.with_name(f"{result.stem}.{mark}.json"))
    return True


def read_result(folder: Path, cell: Cell, fingerprint: str) -> CellResult | None:
    """The result of a cell with these settings, also where one with others has its place; None if there is none."""
    if (result := _read_result(folder / cell.file, cell, fingerprint)) is not None:
        return result
    aside = sorted(folder.glob(f"{glob.escape(_stem(cell))}.????????.json"))
    found = (_read_result(place, cell, fingerprint) for place in aside)
    return next((result for result in found if result is not None), None)


def _read_result(place: Path, cell: Cell, fingerprint: str) -> CellResult | None:
    try:
        content = read_json(place, "the result of a cell")
        if content.pop("fingerprint") != fingerprint:
            return None
        content.pop("version")
        content.setdefault("conditions", {})
        for part in (content, content["conditions"]):
            for name in ("metrics", "structure", "per_action") if part is content else list(part):
                part[name] = {key: math.nan if value is None else value for key, value in part[name].items()}
        return replace(CellResult(**content), cell=cell)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
