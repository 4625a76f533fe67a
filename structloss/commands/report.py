"""`structloss report`: score the checkpoints of runs on their validation data and write one HTML report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ArgumentError, DataError, MissingFileError, needs_extra
from ..reports.machine import machine
from ..reports.report import run_report, samples_of
from ..reports.results import ArmResult, RunSummary, write_json
from ..reports.run_folder import Run, read_run
from ..reports.tables import plain_table

if TYPE_CHECKING:
    from ..data import MotionDataModule, PoseWindows
    from ..harness.lifting import LiftingModule

__all__ = ["data_module", "write_run_report"]

#: arguments of the data module that decide what is scored, whatever the windows
_SCORED = ("data", "keypoints", "reference", "protocol", "skeleton", "detections", "val_subjects", "views")
_TEST = "mirrored average where the run has it, relative to the pelvis, subjects not trained on"
_SYNTHETIC = ("num_subjects", "clips_per_subject", "frames", "seed")


def write_run_report(
    folders: Sequence[str],
    *,
    out: str | None = None,
    checkpoint: str = "best",
    data: str | None = None,
    names: Sequence[str] | None = None,
    title: str | None = None,
    clips: int = 4,
    frames: int = 243,
    device: str = "auto",
    json: str | None = None,
) -> RunSummary:
    """Score each run's checkpoint on its validation data and write the report; prints progress and the table.

    Args:
        folders: folders of runs, `runs/NAME/version_N`, or `runs/NAME` for the newest version.
        out: HTML file to write; None is report.html in the folder of a single run, or here for several.
        checkpoint: "best", "last", or a path.
        data: data file or folder to score on instead of that of the configuration, for one that has moved.
        names: what to call the runs; None takes the folders' names.
        title: heading of the report.
        clips: clips in the player.
        frames: frames of each clip, at most.
        device: "cpu", "cuda", ..., or "auto" for a GPU where there is one.
        json: file to write the numbers to.

    Raises:
        MissingFileError, DataError: a folder, configuration, checkpoint or data file is missing or damaged.
        CheckpointError: a checkpoint is unreadable or of another model.
        ArgumentError: an impossible argument.
        MissingDependencyError: the `harness` extra is not installed.
    """
    with needs_extra("harness"):
        from ..harness.evaluation import evaluate
        from ..harness.load import load_trained, objective_of
        from ..harness.shown_clips import predict_clips
    if checkpoint not in ("best", "last") and len(folders) > 1:
        raise ArgumentError(f"checkpoint is {checkpoint!r}, expected 'best' or 'last' for several runs.")
    given = {"checkpoint": checkpoint, "data": data, "name": names, "title": title}
    runs = [read_run(folder, checkpoint) for folder in folders]
    names = _names(runs, names)
    path = Path(out) if out else runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html")
    where, skeleton = _device(device), _skeleton(runs)
    arms: list[ArmResult] = []
    modules: dict[str, tuple[LiftingModule, PoseWindows]] = {}
    sources: dict[str, MotionDataModule] = {}
    for run, name in zip(runs, names, strict=True):
        arm = ArmResult(name, curves=run.curves, config=run.text, settings={"run": str(run.folder)})
        arms.append(arm)
        if run.checkpoint is None:
            arm.settings["checkpoint"] = "none yet"
            arm.objective = dict(run.model.get("objective") or {})
            print(f"{name}: no checkpoint yet, its curves only", flush=True)
            continue
        module, facts = load_trained(run.checkpoint)
        arm.objective = objective_of(module)
        arm.settings |= {"checkpoint": run.checkpoint.name, **facts}
        if run.model.get("learned"):
            arm.settings["learned loss"] = str(run.model["learned"])
        print(f"{name}: scoring {run.checkpoint}", flush=True)
        source = data_module(run, data, sources)
        arm.take(evaluate(module.to(where), source.val_dataloader(), source.actions, progress=name))
        modules[name] = (module, source.val_dataset)
    paths = dict(zip(names, (data or run.data.get("data") or "synthetic motion" for run in runs), strict=True))
    summary = RunSummary(
        title=title or (names[0] if len(runs) == 1 else "Runs side by side"),
        arms=arms,
        settings={"command": _command(folders, path, given), "test": _TEST},
        data=_facts(modules, paths),
        machine=machine(),
        skeleton=skeleton,
        notes=_notes(runs),
    )
    run_report(summary, path, samples_of(predict_clips(modules, count=clips, frames=frames), skeleton))
    if json is not None:
        write_json(summary, json)
    if any("mpjpe" in arm.metrics for arm in arms):
        print(f"\n{plain_table(summary)}")
    print(f"Wrote {path}" + (f" and {json}" if json else ""), flush=True)
    return summary


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise ArgumentError(f"device is {name!r}, which can't be used here: {reason}") from error
    return device


def _names(runs: Sequence[Run], names: Sequence[str] | None) -> list[str]:
    """What to call the runs, all different."""
    if names:
        if len(names) != len(runs) or len(set(names)) < len(names):
            raise ArgumentError(f"names are {', '.join(names)}, expected {len(runs)} different ones, one a run.")
        return list(names)
    found = [run.name for run in runs]
    if len(set(found)) < len(found):
        found = [str(run.folder) for run in runs]
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise ArgumentError(f"{twice} is given twice, expected different runs.")
    return found


def _skeleton(runs: Sequence[Run]) -> str:
    found = list(dict.fromkeys(run.data.get("skeleton", "h36m") for run in runs))
    if len(found) > 1:
        raise ArgumentError(f"the runs have the skeletons {' and '.join(found)}, expected one for a common report.")
    return found[0]


def data_module(run: Run, data: str | None, opened: dict[str, MotionDataModule]) -> MotionDataModule:
    """The run's data; runs on the same data share it."""
    from ..data import MotionDataModule

    arguments = run.data | ({"data": data} if data is not None else {})
    # A class that a file names is not imported: configurations may come from anywhere.
    nested = arguments.get("class_path", f"{MotionDataModule.__module__}.{MotionDataModule.__qualname__}")
    if not str(nested).endswith(".MotionDataModule") or not str(nested).startswith("structloss."):
        raise DataError(f"data in {run.folder / 'config.yaml'} is a {nested}, expected structloss's MotionDataModule.")
    if "class_path" in arguments:
        arguments = {**(arguments.get("init_args") or {}), "seed": arguments["seed"]}
    key = repr(sorted(arguments.items(), key=str))
    if key not in opened:
        try:
            opened[key] = MotionDataModule(**arguments)
        except TypeError as error:
            raise DataError(f"data in {run.folder / 'config.yaml'} doesn't fit this version: {error}.") from error
        try:
            opened[key].setup("validate")
        except MissingFileError as error:
            raise MissingFileError(f"{str(error).rstrip('.')}; where the data has moved, pass --data PATH.") from error
    return opened[key]


def _scored(run: Run) -> dict[str, Any]:
    """The arguments that decide on what is scored."""
    arguments = run.data
    keys = _SCORED if arguments.get("data") else (*_SCORED, *_SYNTHETIC)
    return {key: arguments.get(key) for key in keys}


def _notes(runs: Sequence[Run]) -> list[str]:
    """What makes the runs hard to compare."""
    different = [key for key in _scored(runs[0]) if any(_scored(run).get(key) != _scored(runs[0])[key] for run in runs)]
    if not different:
        return []
    return [f"The runs were scored on different data, so their numbers don't compare: {', '.join(different)} differ."]


def _facts(modules: Mapping[str, tuple[LiftingModule, PoseWindows]], paths: Mapping[str, str]) -> dict[str, Any]:
    """What was scored, of each run where they differ."""
    found = {}
    for name, (_, windows) in modules.items():
        store = windows.store
        found[name] = {
            "source": paths[name],
            "validation subjects": ", ".join(store.subjects),
            "motions": len(store.motions),
            "views": len(store.views),
            "frames": store.frames,
        }
    different = [facts for i, facts in enumerate(found.values()) if facts not in list(found.values())[:i]]
    return different[0] if len(different) == 1 else found


def _command(folders: Sequence[str], path: Path, given: Mapping[str, object]) -> str:
    """The command line that repeats the report."""
    parts: list[object] = ["structloss", "report", *folders, "--out", path]
    for flag, value in given.items():
        if value not in (None, (), "best"):
            parts += [f"--{flag}", *(value if isinstance(value, (list, tuple)) else [value])]
    return shlex.join(map(str, parts))
