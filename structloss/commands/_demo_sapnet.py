"""`structloss demo sapnet`: Dabral et al.'s system from nothing, stage by stage, on rendered people."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import needs_extra
from ..files import scratch_folder
from ..text import visible
from ._demo_files import check_out, print_table, put_in_place
from ._imports import import_torchmetrics
from ._parser import command, nonnegative, options, positive

if TYPE_CHECKING:
    from ..harness.image_clips import Runs
    from ..harness.image_stages import Schedule, StageResult
    from ..harness.image_system import MotionRuns
    from ..reports.results import ArmResult, PoseSamples, RunSummary

__all__ = ["SAPNetDemoSettings", "add_sapnet", "run_sapnet_demo"]

#: what `run_sapnet_demo` writes
FILES = ("metrics.json", "curves.png", "poses.png", "people.png", "report.html")
_SHOWN = 12  # people drawn with what was found


def add_sapnet(actions: argparse._SubParsersAction) -> None:
    parser = command(
        actions,
        "sapnet",
        "train a small SAP-Net in its four stages on rendered people, and TP-Net on top; write a report",
        "  structloss demo sapnet\n"
        "  structloss demo sapnet --steps 100 60 60 40 --out quick\n"
        "  structloss demo sapnet --motion motion.npz --seed 2\n",
    )
    parser.add_argument(
        "--steps", nargs=4, type=positive, metavar="N", default=(450, 270, 250, 120),
        help="training steps of the four stages (default: 450 270 250 120)",
    )  # fmt: skip
    parser.add_argument("--epochs", type=positive, default=20, help="epochs of TP-Net (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, people and order (default: 0)")
    parser.add_argument("--motion", metavar="PATH", help="clips that people do (default: synthetic motion)")
    parser.add_argument("--count", type=positive, default=1500, help="people with and without 3D, each (default: 1500)")
    parser.add_argument("--runs", type=positive, default=12, help="strangers in motion who are scored (default: 12)")
    parser.add_argument("--batch-size", type=positive, default=16, help="images of a step (default: 16)")
    parser.add_argument("--lr", type=nonnegative, default=4e-3, help="peak learning rate (default: 4e-3)")
    parser.add_argument("--out", default="structloss-demo-sapnet", help="folder (default: structloss-demo-sapnet)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    names = [field.name for field in fields(SAPNetDemoSettings)]  # the demo above has others
    given = {name: value for name, value in options(arguments).items() if name in names}
    run_sapnet_demo(SAPNetDemoSettings(**{**given, "steps": tuple(arguments.steps)}))


@dataclass(frozen=True)
class SAPNetDemoSettings:
    """Settings of the demo.

    Attributes:
        steps: optimizer steps of the four stages.
        epochs: of TP-Net.
        seed: of weights, people, motion and order.
        motion: clips that people do; None is synthetic motion.
        count: people with 3D poses, and as many without, to train on.
        runs: strangers in motion who are scored, 40 images each; TP-Net is trained on two and a half times as many.
        batch_size: images of a step.
        lr: peak learning rate of SAP-Net.
        out: folder to write.
    """

    steps: tuple[int, ...] = (450, 270, 250, 120)
    epochs: int = 20
    seed: int = 0
    motion: str | None = None
    count: int = 1500
    runs: int = 12
    batch_size: int = 16
    lr: float = 4e-3
    out: str = "structloss-demo-sapnet"

    def command(self) -> str:
        """The command line that repeats the run."""
        parts: list[object] = ["structloss", "demo", "sapnet", "--steps", *self.steps, "--epochs", self.epochs]
        parts += ["--seed", self.seed, "--count", self.count, "--runs", self.runs]
        parts += ["--batch-size", self.batch_size, "--lr", f"{self.lr:g}"]
        parts += [] if self.motion is None else ["--motion", self.motion]
        return shlex.join(map(str, parts))


def run_sapnet_demo(settings: SAPNetDemoSettings) -> RunSummary:
    """Train the stages and TP-Net, print the table and write the folder `settings.out`, whole or not at all.

    Raises:
        ArgumentError: a number out of range, or `out` holds something other than an earlier demo.
        MissingFileError, DataError: the motion is missing or unreadable.
        MissingDependencyError: the `harness` or the `images` extra is not installed.
    """
    out = Path(settings.out)
    with needs_extra("harness"):
        import_torchmetrics()
        from ..harness.image_stages import STAGES, Schedule, people_of, stage, train_stage, weights_of
        from ..harness.image_system import runs_of
        from ..images import info
        from ..reports import plot_curves, plot_poses, run_report
        from ..reports.report import stills
        from ..reports.results import write_json
    check_out(out)
    schedule = Schedule(
        steps=(settings.steps[0], settings.steps[1], settings.steps[2], settings.steps[3]),
        lr=settings.lr,
        batch_size=settings.batch_size,
        seed=settings.seed,
        data={"count": settings.count, "val_count": min(96, max(12, settings.count // 10)), "motion": settings.motion},
    )
    size = info(schedule.network).input_size
    data = people_of(schedule, "mixed", size)
    runs = runs_of(
        settings.seed,
        train=round(2.5 * settings.runs),
        test=settings.runs,
        size=size,
        motion=settings.motion,
        rendered=schedule.rendered,
    )
    results: list[StageResult] = []
    arms: list[ArmResult] = []
    found: Runs | None = None
    for number in STAGES:
        what = stage(number, schedule)
        print(f"{what.name}, {what.steps} steps of {settings.batch_size} images", flush=True)
        start = weights_of(results[-1]) if results else None
        result = train_stage(what, data, start, validations=3, score=False)  # scored on people in motion
        found, arm = _scored(result, runs)
        _shift(arm, sum(other.stage.steps for other in results))
        results.append(result)
        arms.append(arm)
    assert found is not None  # there are stages
    refined, refiner = _refined(settings, results[-1], runs, found)
    arms.append(refined)
    summary = _summary(settings, schedule, arms, runs)
    clips = _samples(found, runs, arms, refiner)
    shown = stills(clips)
    assert shown is not None  # there are runs
    with scratch_folder(out) as scratch:
        write_json(summary, scratch / "metrics.json")
        plot_curves(summary, scratch / "curves.png")
        plot_poses(shown, scratch / "poses.png")
        _draw_people(results[-1], data, scratch / "people.png")
        figures = {
            "Training": scratch / "curves.png",
            "Joints found in strangers": scratch / "people.png",
            "Poses of strangers": scratch / "poses.png",
        }
        run_report(summary, scratch / "report.html", clips, figures=figures)
        put_in_place(scratch, out, FILES)
    print_table(summary)
    print(f"\nWrote {visible(out)}/: {', '.join(FILES)}", flush=True)
    return summary


def _scored(result: StageResult, runs: MotionRuns) -> tuple[Runs, ArmResult]:
    """What a stage makes of strangers in motion, and its row of the table."""
    from ..harness.image_clips import predict_runs, score_clips
    from ..harness.image_training import weights_of_losses
    from ..reports.results import ArmResult

    found = predict_runs(result.module.model, runs.test, progress="poses of strangers")
    arm = ArmResult(
        name=result.stage.name,
        objective=weights_of_losses(result.stage.model),
        clips_per_second=result.clips_per_second,
        curves=result.curves,
    )
    arm.take(score_clips(found.clips, error_2d=found.error_2d))
    return found, arm


def _shift(arm: ArmResult, steps: int) -> None:
    """Curves of a stage go on where those of the stage before end."""
    for axis in ("step", "val_step"):
        arm.curves[axis] = [steps + step for step in arm.curves.get(axis, [])]


def _refined(settings: SAPNetDemoSettings, last: StageResult, runs: MotionRuns, found: Runs) -> tuple[ArmResult, Any]:
    """TP-Net on the last stage's predictions of the training people: its row, and the module."""
    from ..harness.image_clips import predict_runs, score_clips
    from ..harness.image_system import refined_by, train_tpnet
    from ..reports.results import ArmResult

    print(f"TP-Net, {settings.epochs} epochs", flush=True)
    seen = predict_runs(last.module.model, runs.train, progress="poses of people in motion")
    refiner = train_tpnet(seen.clips, found.clips, epochs=settings.epochs, seed=settings.seed, quiet=True)
    arm = ArmResult(name="TP-Net on stage 4", objective={"squared error of poses": 1.0})
    arm.take(score_clips(found.clips, lambda poses: refined_by(refiner, poses)))
    return arm, refiner


def _samples(found: Runs, runs: MotionRuns, arms: Sequence[ArmResult], refiner: Any) -> list[PoseSamples]:
    """Strangers in motion for the player."""
    import torch

    from ..harness.image_system import refined_by
    from ..reports.results import PoseSamples

    samples = []
    for clip, keypoints in zip(found.clips, found.keypoints, strict=True):
        refined = refined_by(refiner, torch.from_numpy(clip.predicted)[None])[0].numpy()
        samples.append(
            PoseSamples(
                input=keypoints[..., :2],
                confidence=keypoints[..., 2],
                target=clip.true * 1000,
                predictions={arms[-2].name: clip.predicted * 1000, arms[-1].name: refined * 1000},
                labels=[f"frame {number}" for number in range(len(clip))],
                title=f"{clip.action}, {clip.name}",
                fps=clip.fps,
            )
        )
    return samples


def _draw_people(result: StageResult, data: Any, path: Path) -> None:
    """Some strangers with what the network finds in them."""
    from ..harness.image_pictures import draw_found

    draw_found(result.module.model, data.val_dataset, range(min(_SHOWN, len(data.val_dataset))), path)


def _summary(
    settings: SAPNetDemoSettings, schedule: Schedule, arms: Sequence[ArmResult], runs: MotionRuns
) -> RunSummary:
    from .. import images
    from ..reports.machine import machine
    from ..reports.results import RunSummary

    return RunSummary(
        title="SAP-Net stage by stage, and TP-Net",
        arms=list(arms),
        settings={
            "command": settings.command(),
            "network": schedule.network,
            "parameters": images.info(schedule.network).params,
            "steps": list(settings.steps),
            "batch size": settings.batch_size,
            "peak learning rate": settings.lr,
            "seed": settings.seed,
            "test": "rendered strangers in motion, 15 joints relative to the pelvis, bones of canonical length",
        },
        data={
            "training people": f"{settings.count} with 3D poses, {settings.count} with 2D joints alone",
            "motion": settings.motion or "synthetic motion (structloss.data.generate_clips)",
            "test": f"{len(runs.test) // runs.test.frames} runs of {runs.test.frames} images at {runs.test.fps:g} fps",
            "training of TP-Net": f"{len(runs.train) // runs.train.frames} runs of {runs.train.frames} images",
        },
        machine=machine(),
    )
