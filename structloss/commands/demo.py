"""`structloss demo`: the same backbone, seed and data order, trained with and without depth ranking, and compared."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import samples
from ..errors import ArgumentError, MissingFileError, needs_extra
from ..files import scratch_folder
from ..text import visible
from ._demo_files import check_out, print_table, put_in_place
from ._demo_sapnet import add_sapnet
from ._demo_shape_template import add_shape_template
from ._imports import import_torchmetrics
from ._parser import command, nonnegative, options, positive

if TYPE_CHECKING:
    from ..data import MotionDataModule, PoseWindows
    from ..harness.lifting import LiftingModule
    from ..reports.results import ArmResult, RunSummary

__all__ = ["DemoSettings", "add", "run_demo"]

ORDER = 10

#: What `run_demo` writes.
FILES = ("metrics.json", "curves.png", "poses.png", "report.html")


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "demo",
        "train the same small backbone with MPJPE and with MPJPE + depth ranking, compare them, write a report",
        "  structloss demo\n"
        "  structloss demo sapnet                        from images: SAP-Net in four stages, and TP-Net\n"
        "  structloss demo shape-template                without labels: shape templates, arms out and arms down\n"
        "  structloss demo --steps 50 --out quick\n"
        "  structloss demo --data motion.npz --seed 2\n"
        "  structloss demo --backbone repose-h36m --window 243 --steps 20000\n",
    )
    parser.add_argument("--steps", type=positive, default=500, help="training steps of each model (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, data and order (default: 0)")
    parser.add_argument("--data", metavar="FILE.npz", help="clip archive with real motion (default: synthetic motion)")
    parser.add_argument(
        "--backbone", default="repose-tiny", help="see structloss backbones list (default: repose-tiny)"
    )
    parser.add_argument("--out", default="structloss-demo", help="folder to write (default: structloss-demo)")
    parser.add_argument("--window", type=positive, default=27, help="frames of a clip (default: 27)")
    parser.add_argument("--batch-size", type=positive, default=16, help="clips of a step (default: 16)")
    parser.add_argument("--lr", type=nonnegative, default=2e-3, help="peak learning rate (default: 2e-3)")
    parser.add_argument("--lambda-s", type=nonnegative, default=1.0, help="weight of L_S (default: 1)")
    parser.add_argument("--lambda-t", type=nonnegative, default=1.0, help="weight of L_T (default: 1)")
    parser.set_defaults(run=_run)
    actions = parser.add_subparsers(dest="action", metavar="[sapnet | shape-template]", title="other demonstrations")
    add_sapnet(actions)
    add_shape_template(actions)


def _run(arguments: argparse.Namespace) -> None:
    run_demo(DemoSettings(**options(arguments)))


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demo.

    Attributes:
        steps: optimizer steps of each model.
        seed: of weights, synthetic data, detections, data order and mirroring.
        data: clip archive; None is the embedded synthetic motion.
        backbone: name in `structloss.backbones`.
        out: folder to write.
        window: frames of a clip.
        batch_size: clips of a step.
        lr: peak learning rate.
        lambda_s, lambda_t: weights of L_S and L_T in the second model.
    """

    steps: int = 500
    seed: int = 0
    data: str | None = None
    backbone: str = "repose-tiny"
    out: str = "structloss-demo"
    window: int = 27
    batch_size: int = 16
    lr: float = 2e-3
    lambda_s: float = 1.0
    lambda_t: float = 1.0

    def objectives(self) -> list[dict[str, float]]:
        """The loss of each arm: MPJPE alone, and with L_S and L_T."""
        ranking = {"depth_ranking_joints": self.lambda_s, "depth_ranking_frames": self.lambda_t}
        return [{"mpjpe": 1.0}, {"mpjpe": 1.0, **ranking}]

    def command(self) -> str:
        """The command line that repeats the run."""
        parts: list[object] = ["structloss", "demo", "--steps", self.steps, "--seed", self.seed]
        if self.data is not None:
            parts += ["--data", self.data]
        parts += ["--backbone", self.backbone, "--window", self.window, "--batch-size", self.batch_size]
        parts += ["--lr", f"{self.lr:g}", "--lambda-s", f"{self.lambda_s:g}", "--lambda-t", f"{self.lambda_t:g}"]
        return shlex.join(map(str, parts))


def run_demo(settings: DemoSettings) -> RunSummary:
    """Train both models, print the table and write the folder `settings.out`, whole or not at all.

    Raises:
        ArgumentError: `out` holds something other than an earlier demo, or the objective is MPJPE alone.
        UnknownNameError: an unknown backbone.
        MissingFileError, DataError: the archive is missing, unreadable or too short.
        MissingDependencyError: the `harness` extra is not installed.
    """
    out = Path(settings.out)
    _check(settings, out)
    with needs_extra("harness"):
        import_torchmetrics()
        from ..harness.shown_clips import predict_clips
        from ..reports import plot_curves, plot_poses, run_report
        from ..reports.report import samples_of, stills
        from ..reports.results import write_json

    data, facts = _prepare(settings)
    arms, modules = _train(settings, data)
    summary = _summary(settings, arms, modules, facts)
    clips = samples_of(predict_clips(modules), summary.skeleton)
    shown = stills(clips)
    assert shown is not None  # there are clips: the data was checked
    with scratch_folder(out) as scratch:
        write_json(summary, scratch / "metrics.json")
        plot_curves(summary, scratch / "curves.png")
        plot_poses(shown, scratch / "poses.png")
        figures = {"Training": scratch / "curves.png", "Poses of unseen subjects": scratch / "poses.png"}
        run_report(summary, scratch / "report.html", clips, figures=figures)
        put_in_place(scratch, out, FILES)
    print_table(summary)
    print(f"\nWrote {visible(out)}/: {', '.join(FILES)}", flush=True)
    return summary


def _check(settings: DemoSettings, out: Path) -> None:
    """Refuse before the training what would fail after it."""
    import torch

    from .. import backbones

    info = backbones.info(settings.backbone)
    if info.kind not in ("sequence", "frame") or info.joints_in[0] != 17 or info.joints_out != 17:
        raise ArgumentError(
            f"backbone is {settings.backbone!r}, expected one that predicts the 17 joints in every frame, since the "
            "demo compares depth order over frames."
        )
    with torch.device("meta"):
        model = backbones.create(settings.backbone)
    if settings.window < model.shortest or (model.longest is not None and settings.window > model.longest):
        expected = f"{model.shortest}" if model.shortest == model.longest else f"{model.shortest} to {model.longest}"
        raise ArgumentError(f"window is {settings.window}, expected {expected} frames for {settings.backbone}.")
    if settings.steps < 2:
        raise ArgumentError(f"steps is {settings.steps}, expected at least 2.")
    if settings.lambda_s == settings.lambda_t == 0:
        raise ArgumentError(
            "lambda_s and lambda_t are both 0, expected a positive one, since both models would be equal."
        )
    if settings.data is not None and not samples.resolve(settings.data, "motion").exists():
        raise MissingFileError(f"data file {settings.data} does not exist.")
    check_out(out)


def _prepare(settings: DemoSettings) -> tuple[MotionDataModule, dict[str, object]]:
    """The data of both models, and what the report says about it."""
    from ..data import MotionDataModule

    sizes: dict[str, Any] = {} if settings.data else {"num_subjects": 20, "frames": 4 * settings.window}
    data = MotionDataModule(
        data=settings.data,
        window=settings.window,
        batch_size=settings.batch_size,
        eval_batch_size=2 * settings.batch_size,
        seed=settings.seed,
        **sizes,
    )
    print(f"Preparing {visible(settings.data or 'synthetic motion')} ...", flush=True)
    data.setup("fit")
    train, test = data.train_dataset, data.val_dataset
    subjects = [", ".join(part.store.subjects) for part in (train, test)]
    print(f"{len(train)} training clips; {len(test)} clips of unseen subjects: {visible(subjects[1])}.", flush=True)
    return data, {
        "source": settings.data or "synthetic motion (structloss.data.generate_clips)",
        "training subjects": subjects[0],
        "test subjects": subjects[1],
        "training clips": len(train),
        "test clips": len(test),
        "2D input": "simulated detections with noise, self-occlusion and confidence",
    }


def _train(
    settings: DemoSettings, data: MotionDataModule
) -> tuple[list[ArmResult], dict[str, tuple[LiftingModule, PoseWindows]]]:
    """Train both models: the results of each, and by its name the model with the clips that it has not seen."""
    import torch

    from .. import backbones
    from ..harness.clip_values import clip_values
    from ..harness.lifting import LiftingModule, describe
    from ..harness.training import train
    from ..reports.results import ArmResult

    backbone = backbones.info(settings.backbone).name
    arms, modules = [], {}
    for objective in settings.objectives():
        name = describe(objective)
        print(f"Training {backbone} with {name}, {settings.steps} steps of {settings.batch_size} clips", flush=True)
        torch.manual_seed(settings.seed)  # both arms start from the same weights
        module = LiftingModule(
            backbone=settings.backbone,
            objective=objective,
            lr=settings.lr,
            schedule="one_cycle",
            seed=settings.seed,
        )
        trained = train(module, data, steps=settings.steps, label=name, seed=settings.seed)
        arm = ArmResult(
            name=name,
            objective=objective,
            clips_per_second=trained.clips_per_second,
            loss_share=trained.loss_share,
            curves=trained.curves,
        )
        arm.take(trained.evaluation)
        arm.clips = clip_values(trained.module, data.val_dataset)
        arms.append(arm)
        modules[name] = (trained.module, data.val_dataset)
    return arms, modules


def _summary(
    settings: DemoSettings,
    arms: Sequence[ArmResult],
    modules: Mapping[str, tuple[LiftingModule, PoseWindows]],
    data: dict[str, object],
) -> RunSummary:
    from .. import backbones
    from ..reports.machine import machine
    from ..reports.results import RunSummary

    module, _ = modules[arms[-1].name]
    return RunSummary(
        title="Depth ranking against MPJPE alone",
        arms=list(arms),
        settings={
            "command": settings.command(),
            "backbone": backbones.info(settings.backbone).name,
            "parameters": sum(p.numel() for p in module.model.parameters()),
            "steps": settings.steps,
            "batch size": settings.batch_size,
            "window": settings.window,
            "peak learning rate": settings.lr,
            "seed": settings.seed,
            "target": module.hparams["target"],
            "test": "mirrored average, root-relative, subjects not trained on",
        },
        data=data,
        machine=machine(),
    )
