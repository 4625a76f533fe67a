"""`structloss demo`: the same backbone, seed and data order, trained with and without depth ranking, and compared."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import backbones
from ..errors import ArgumentError, MissingFileError, needs_extra
from ..reports.machine import machine
from ..reports.results import ArmResult, RunSummary, read_json, write_json

__all__ = ["DemoSettings", "run_demo"]

#: What `run_demo` writes.
FILES = ("metrics.json", "curves.png", "poses.png", "report.html")


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
        parts = ["structloss", "demo", "--steps", self.steps, "--seed", self.seed]
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
        from ..data import MotionDataModule
        from ..harness.lifting import LiftingModule, describe
        from ..harness.shown_clips import predict_clips
        from ..harness.training import train
        from ..reports import plain_table, plot_curves, plot_poses, run_report
        from ..reports.report import samples_of, stills

    info = backbones.info(settings.backbone)
    sizes = {} if settings.data else {"num_subjects": 20, "frames": 4 * settings.window}
    data = MotionDataModule(
        data=settings.data,
        window=settings.window,
        batch_size=settings.batch_size,
        eval_batch_size=2 * settings.batch_size,
        seed=settings.seed,
        **sizes,
    )
    print(f"Preparing {settings.data or 'synthetic motion'} ...", flush=True)
    data.setup("fit")
    subjects = [", ".join(d.store.subjects) for d in (data.train_dataset, data.val_dataset)]
    counts = len(data.train_dataset), len(data.val_dataset)
    print(f"{counts[0]} training clips; {counts[1]} clips of unseen subjects: {subjects[1]}.", flush=True)
    arms, modules = [], {}
    for objective in settings.objectives():
        name = describe(objective)
        print(f"Training {info.name} with {name}, {settings.steps} steps of {settings.batch_size} clips", flush=True)
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
        arms.append(arm)
        modules[name] = (trained.module, data.val_dataset)
    summary = RunSummary(
        title="Depth ranking against MPJPE alone",
        arms=arms,
        settings={
            "command": settings.command(),
            "backbone": info.name,
            "parameters": sum(p.numel() for p in module.model.parameters()),
            "steps": settings.steps,
            "batch size": settings.batch_size,
            "window": settings.window,
            "peak learning rate": settings.lr,
            "seed": settings.seed,
            "target": module.hparams.target,
            "test": "mirrored average, root-relative, subjects not trained on",
        },
        data={
            "source": settings.data or "synthetic motion (structloss.data.generate_clips)",
            "training subjects": subjects[0],
            "test subjects": subjects[1],
            "training clips": counts[0],
            "test clips": counts[1],
            "2D input": "simulated detections with noise, self-occlusion and confidence",
        },
        machine=machine(),
    )
    clips = samples_of(predict_clips(modules), summary.skeleton)
    scratch = _scratch(out)
    try:
        write_json(summary, scratch / "metrics.json")
        plot_curves(summary, scratch / "curves.png")
        plot_poses(stills(clips), scratch / "poses.png")
        figures = {"Training": scratch / "curves.png", "Poses of unseen subjects": scratch / "poses.png"}
        run_report(summary, scratch / "report.html", clips, figures=figures)
        _replace(scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _print_table(summary, plain_table)
    print(f"\nWrote {out}/: {', '.join(FILES)}", flush=True)
    return summary


def _check(settings: DemoSettings, out: Path) -> None:
    """Refuse before the training what would fail after it."""
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
    if settings.data is not None and not Path(settings.data).exists():
        raise MissingFileError(f"data file {settings.data} does not exist.")
    if out.exists() and not out.is_dir():
        raise ArgumentError(f"out is {str(out)!r}, a file, expected a folder.")
    if out.is_dir() and any(out.iterdir()):
        try:
            read_json(out / "metrics.json")
        except Exception as error:
            raise ArgumentError(
                f"out is {str(out)!r}, a folder with other content, expected an empty one or one of an earlier demo."
            ) from error


def _scratch(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))


def _replace(scratch: Path, out: Path) -> None:
    """Put each finished file in its place; the folder may hold an earlier demo."""
    out.mkdir(exist_ok=True)
    for name in FILES:
        (scratch / name).replace(out / name)


def _print_table(summary: RunSummary, plain_table) -> None:
    print()
    if sys.stdout.isatty():
        from rich.console import Console

        from ..reports import table

        Console().print(table(summary))
    else:
        print(plain_table(summary))
