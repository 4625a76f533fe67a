"""`structloss report`: score the checkpoints of runs on their validation data and write one HTML page."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, MissingFileError, needs_extra
from ..files import check_apart
from ..text import visible
from ._imports import import_torchmetrics
from ._parser import command, options, positive

if TYPE_CHECKING:
    import torch

    from ..data import MotionDataModule, PoseWindows
    from ..harness.lifting import LiftingModule
    from ..harness.run_folder import Run
    from ..reports.results import ArmResult, RunSummary
    from ._report_pictures import PicturesReport

__all__ = ["add", "write_run_report"]

ORDER = 40

#: arguments of the data module that decide what is scored, whatever the windows
_SCORED = (
    "data",
    "format",
    "skip_bad",
    "keypoints",
    "reference",
    "protocol",
    "skeleton",
    "detections",
    "val_subjects",
    "views",
)
_SYNTHETIC = ("num_subjects", "clips_per_subject", "frames", "seed")
_TEST = "mirrored average where the run has it, relative to the pelvis, subjects not trained on"

_Scored = dict[str, "tuple[LiftingModule, PoseWindows]"]  # run's name -> its module and what it was scored on


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "report",
        "score the checkpoints of runs on their validation data and write one HTML page that needs no network",
        "  structloss report runs/repose-tiny                      its newest with a checkpoint; report.html there\n"
        "  structloss report runs/repose-tiny/version_0 runs/repose-tiny/version_1 --out compared.html\n"
        "  structloss report runs/a runs/b --name MPJPE 'MPJPE + L_S' --json compared.json\n"
        "  structloss report runs/shape-template-tiny              frames with what is found in them, no player\n"
        "  structloss report runs/repose-h36m --data /new/place/h36m.poses --device cuda\n",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="folder of a run: runs/NAME/version_N, or runs/NAME")
    parser.add_argument("--out", metavar="FILE.html", help="page to write (default: report.html in the run's folder)")
    parser.add_argument("--checkpoint", default="best", help="best, last, or the path of one (default: best)")
    parser.add_argument("--data", metavar="PATH", help="data to score on, where that of the configuration has moved")
    parser.add_argument("--name", nargs="+", metavar="NAME", dest="names", help="what to call the runs, in their order")
    parser.add_argument("--title", help="heading of the page")
    parser.add_argument("--clips", type=positive, default=4, help="clips of the 3D player (default: 4)")
    parser.add_argument("--frames", type=positive, default=243, help="frames of each clip, at most (default: 243)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument("--json", metavar="FILE.json", help="write the numbers to this file, too")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    write_run_report(arguments.runs, **options(arguments, "runs"))


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
        folders: folders of runs, `runs/NAME/version_N`, or `runs/NAME` for the newest that was trained.
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
        import_torchmetrics()
        from ..harness.run_folder import read_run
        from ..harness.shown_clips import predict_clips
    from ..reports.machine import machine
    from ..reports.report import run_report, samples_of
    from ..reports.results import RunSummary, write_json
    from ..reports.tables import plain_table

    if checkpoint not in ("best", "last") and len(folders) > 1:
        raise ArgumentError(f"checkpoint is {checkpoint!r}, expected 'best' or 'last' for several runs.")
    given = {"checkpoint": checkpoint, "data": data, "name": names, "title": title}
    runs = [read_run(folder, checkpoint) for folder in folders]
    for run in runs:
        if run.checkpoint is None and not any(run.curves.values()):
            raise MissingFileError(f"{run.folder} has no checkpoint and no curves, expected a run that was trained.")
    names = _names(runs, names)
    path = Path(out) if out else runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html")
    for run in runs:
        read = {"data": data or str(run.data.get("data") or "") or None, "checkpoint": run.checkpoint}
        check_apart(path, **read)
        check_apart(json, **read)
    if json is not None and Path(json).absolute() == path.absolute():
        raise ArgumentError(f"json is {str(json)!r}, which is the page, too, expected another file.")
    where, pictures = _device(device), _pictures(runs)
    skeleton = _skeleton(runs) if pictures is None else pictures.SKELETON
    if pictures is not None and (clips, frames) != (4, 243):
        raise ArgumentError(f"clips and frames are {clips} and {frames}, expected 4 and 243 with runs from images.")
    scored: _Scored = {}
    opened: dict[str, MotionDataModule] = {}
    arms = []
    for run, name in zip(runs, names, strict=True):
        arms.append(_begun(run, name, pictures))
        if run.checkpoint is not None and pictures is not None:
            pictures.take(run, arms[-1], data, where)
        elif run.checkpoint is not None:
            _score(run, arms[-1], data, where, scored, opened)
    if _notes(runs, pictures):  # clips of one name show different motion, so no difference is paired
        for arm in arms:
            arm.clips = {}
    paths = dict(zip(names, (data or run.data.get("data") or "synthetic motion" for run in runs), strict=True))
    summary = RunSummary(
        title=title or (names[0] if len(runs) == 1 else "Runs side by side"),
        arms=arms,
        settings={"command": _command(folders, path, given), "test": _TEST if pictures is None else pictures.TEST},
        data=_facts(scored, paths) if pictures is None else pictures.facts(),
        machine=machine(),
        skeleton=skeleton,
        notes=[*_notes(runs, pictures), *(() if pictures is None else pictures.left_out)],
    )
    if pictures is not None:
        pictures.write(summary, path)
    else:
        run_report(summary, path, samples_of(predict_clips(scored, count=clips, frames=frames), skeleton))
    if json is not None:
        write_json(summary, json)
    if any(set(arm.metrics) & {"mpjpe", "reconstruction"} for arm in arms):
        print(f"\n{plain_table(summary)}")
    print(visible(f"Wrote {path}" + (f" and {json}" if json else "")), flush=True)
    return summary


def _pictures(runs: Sequence[Run]) -> PicturesReport[Any] | None:
    """The report of runs of networks that start from pixels; None for lifting networks.

    Raises:
        ArgumentError: runs of different systems.
    """
    from ..harness.systems import IMAGES, TEMPLATES, system_of
    from ._report_images import ImagesReport
    from ._report_templates import TemplatesReport

    system, *others = (system_of(run.model) for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        if other != system:
            raise ArgumentError(
                f"{run.folder} is of {other.says}, beside runs of {system.says}, expected runs of one kind for a "
                "common report."
            )
    if system == IMAGES:
        return ImagesReport()
    return TemplatesReport() if system == TEMPLATES else None


def _begun(run: Run, name: str, pictures: PicturesReport[Any] | None) -> ArmResult:
    """A run before it is scored."""
    from ..reports.results import ArmResult

    arm = ArmResult(name, curves=run.curves, config=run.text, settings={"run": str(run.folder)})
    arm.objective = dict(run.model.get("objective") or {}) if pictures is None else pictures.objective(run.model)
    if run.checkpoint is None:
        arm.settings["checkpoint"] = "none yet"
        print(visible(f"{name}: no checkpoint yet, its curves only"), flush=True)
    else:
        print(visible(f"{name}: scoring {run.checkpoint}"), flush=True)
    return arm


def _score(
    run: Run,
    arm: ArmResult,
    data: str | None,
    where: torch.device,
    scored: _Scored,
    opened: dict[str, MotionDataModule],
) -> None:
    """Fill in what a run came to; its module and windows are added to those `scored`, its data to what was `opened`."""
    from ..harness.clip_values import ClipValues
    from ..harness.evaluation import evaluate
    from ..harness.load import load_trained, objective_of
    from ..harness.run_folder import data_of

    assert run.checkpoint is not None  # there is something to score
    module, facts = load_trained(run.checkpoint)
    arm.objective = objective_of(module)
    arm.settings |= {"checkpoint": run.checkpoint.name, **facts}
    if run.model.get("learned"):
        arm.settings["learned loss"] = str(run.model["learned"])
    source = data_of(run, data, opened)
    clips = ClipValues(module.to(where), source.val_dataset)
    arm.take(evaluate(module, source.val_dataloader(), source.actions, progress=arm.name, clips=clips))
    arm.clips = clips.compute()
    scored[arm.name] = (module, source.val_dataset)


def _device(name: str) -> torch.device:
    import torch

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
            raise ArgumentError(f"--name is {', '.join(names)}, expected {len(runs)} different names, one per run.")
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


def _scored(run: Run, pictures: PicturesReport[Any] | None) -> dict[str, Any]:
    """The arguments that decide on what is scored."""
    arguments, files = run.data, ("data",) if pictures is None else pictures.PATHS
    keys, made = (_SCORED, _SYNTHETIC) if pictures is None else (pictures.SCORED, pictures.RENDERED)
    return {key: arguments.get(key) for key in (keys if any(map(arguments.get, files)) else (*keys, *made))}


def _notes(runs: Sequence[Run], pictures: PicturesReport[Any] | None) -> list[str]:
    """What makes the runs hard to compare."""
    first, *others = (_scored(run, pictures) for run in runs)
    different = [key for key in first if any(other.get(key) != first[key] for other in others)]
    if not different:
        return []
    return [f"The runs were scored on different data, so their numbers don't compare: {', '.join(different)} differ."]


def _facts(scored: _Scored, paths: Mapping[str, str]) -> dict[str, Any]:
    """What was scored, of each run where they differ."""
    found = {}
    for name, (_, windows) in scored.items():
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
