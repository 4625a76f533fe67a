"""`structloss demo`: the weights of the package, fine-tuned with and without depth ranking, and compared."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .. import samples
from ..errors import ArgumentError, MissingFileError, needs_extra
from ..files import scratch_folder
from ..text import visible
from ._demo_files import check_out, print_table, put_in_place
from ._demo_motion import HELD_OUT, demo_motion, window_of
from ._demo_sapnet import add_sapnet
from ._demo_seeds import averaged
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
        "fine-tune the weights of the package with MPJPE and with MPJPE + depth ranking, compare them, write a report",
        "  structloss demo\n"
        "  structloss demo sapnet                        from images: SAP-Net in four stages, and TP-Net\n"
        "  structloss demo shape-template                without labels: shape templates, arms out and arms down\n"
        "  structloss demo --steps 50 --out quick\n"
        "  structloss demo --data motion.npz --seed 2\n"
        "  structloss demo --backbone repose-h36m --window 243 --steps 20000   from fresh weights\n",
    )
    parser.add_argument("--steps", type=positive, default=400, help="training steps of each model (default: 400)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed, of weights, data and order (default: 0)")
    parser.add_argument("--seeds", type=positive, default=3, help="so many trainings of each (default: 3)")
    parser.add_argument(
        "--data", metavar="FILE.npz", help="clip archive with motion (default: the samples, and synthetic motion)"
    )
    parser.add_argument(
        "--backbone",
        default="lift-27",
        help="lift-27 or lift-s, whose weights come with the package, or one of structloss backbones list (default: "
        "lift-27)",
    )
    parser.add_argument("--out", default="structloss-demo", help="folder to write (default: structloss-demo)")
    parser.add_argument("--window", type=positive, default=27, help="frames of a clip (default: 27)")
    parser.add_argument("--batch-size", type=positive, default=16, help="clips of a step (default: 16)")
    parser.add_argument(
        "--lr", type=nonnegative, help="peak learning rate (default: 5e-5, and 2e-3 from fresh weights)"
    )
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
        seed: of weights, synthetic data, detections, data order and mirroring; the first of `seeds`.
        seeds: trainings of each model.
        data: clip archive; None is the samples of the package and synthetic motion.
        backbone: name in `structloss.backbones`; with its weights where they come with the package.
        out: folder to write.
        window: frames in a row that are predicted.
        batch_size: clips of a step.
        lr: peak learning rate; None is 5e-5, and 2e-3 from fresh weights.
        lambda_s, lambda_t: weights of L_S and L_T in the second model.
    """

    steps: int = 400
    seed: int = 0
    seeds: int = 3
    data: str | None = None
    backbone: str = "lift-27"
    out: str = "structloss-demo"
    window: int = 27
    batch_size: int = 16
    lr: float | None = None
    lambda_s: float = 1.0
    lambda_t: float = 1.0

    @property
    def all_seeds(self) -> range:
        """The seeds of the trainings."""
        return range(self.seed, self.seed + self.seeds)

    def objectives(self) -> list[dict[str, float]]:
        """The loss of each arm: MPJPE alone, and with L_S and L_T."""
        ranking = {"depth_ranking_joints": self.lambda_s, "depth_ranking_frames": self.lambda_t}
        return [{"mpjpe": 1.0}, {"mpjpe": 1.0, **ranking}]

    def command(self) -> str:
        """The command line that repeats the run."""
        parts: list[object] = ["structloss", "demo", "--steps", self.steps, "--seed", self.seed]
        parts += ["--seeds", self.seeds]
        if self.data is not None:
            parts += ["--data", self.data]
        parts += ["--backbone", self.backbone, "--window", self.window, "--batch-size", self.batch_size]
        parts += [] if self.lr is None else ["--lr", f"{self.lr:g}"]
        parts += ["--lambda-s", f"{self.lambda_s:g}", "--lambda-t", f"{self.lambda_t:g}"]
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

    with TemporaryDirectory() as folder:
        data, facts = _prepare(settings, Path(folder))
    before = _before(settings, data)
    arms, modules = _train(settings, data)
    summary = _summary(settings, arms, modules, facts | before)
    summary.notes += [f"Before fine-tuning: {text}." for text in before.values()]
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
    for note in summary.notes:
        print(f"\n{note}", flush=True)
    print(f"\nWrote {visible(out)}/: {', '.join(FILES)}", flush=True)
    return summary


def _check(settings: DemoSettings, out: Path) -> None:
    """Refuse before the training what would fail after it."""
    import torch

    from .. import backbones

    info = backbones.info(settings.backbone)
    slides = info.name in backbones.pretrained_names()
    if (info.kind not in ("sequence", "frame") and not slides) or info.joints_in[0] != 17 or info.joints_out != 17:
        raise ArgumentError(
            f"backbone is {settings.backbone!r}, expected one that predicts the 17 joints in every frame, since the "
            "demo compares depth order over frames."
        )
    with torch.device("meta"):
        model = backbones.create(settings.backbone)
    window = window_of(settings.backbone, settings.window)["window"]
    if window < model.shortest or (model.longest is not None and window > model.longest):
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


def _prepare(settings: DemoSettings, folder: Path) -> tuple[MotionDataModule, dict[str, object]]:
    """The data of all models, and what the report says about it. The folder is needed no more afterwards."""
    from ..data import MotionDataModule

    common: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "eval_batch_size": 2 * settings.batch_size,
        "seed": settings.seed,
        **window_of(settings.backbone, settings.window),
    }
    named = settings.data or f"the samples and synthetic motion; held out: {' and '.join(HELD_OUT)}"
    print(f"Preparing {visible(named)} ...", flush=True)
    if settings.data is None:
        data = demo_motion(folder, common, 4 * settings.window)
    else:
        data = MotionDataModule(settings.data, **common)
    data.setup("fit")
    train, test = data.train_dataset, data.val_dataset
    subjects = [", ".join(part.store.subjects) for part in (train, test)]
    print(f"{len(train)} training clips; {len(test)} clips of unseen subjects: {visible(subjects[1])}.", flush=True)
    return data, {
        "source": settings.data or "structloss.samples and structloss.data.generate_clips",
        "training subjects": subjects[0],
        "test subjects": subjects[1],
        "training clips": len(train),
        "test clips": len(test),
        "2D input": "simulated detections with noise, self-occlusion and confidence",
    }


def _module(settings: DemoSettings, objective: Mapping[str, float], seed: int) -> LiftingModule:
    """A network to train: with the weights of the package where it has some."""
    import torch

    from .. import backbones
    from ..harness.lifting import LiftingModule

    torch.manual_seed(seed)  # both arms start from the same weights
    name = backbones.info(settings.backbone).name
    ours = name in backbones.pretrained_names()
    return LiftingModule(
        backbone=settings.backbone,
        objective=dict(objective),
        lr=settings.lr if settings.lr is not None else 5e-5 if ours else 2e-3,
        schedule="one_cycle",
        target=window_of(settings.backbone, settings.window)["target"],
        init_from=name if ours else None,
        seed=seed,
    )


def _before(settings: DemoSettings, data: MotionDataModule) -> dict[str, object]:
    """What the weights of the package come to before they are trained on; nothing where there are none."""
    from .. import backbones
    from ..harness.evaluation import evaluate
    from ..metrics.measures import measure

    if backbones.info(settings.backbone).name not in backbones.pretrained_names():
        return {}
    module = _module(settings, {"mpjpe": 1.0}, settings.seed)
    found = evaluate(module, data.test_dataloader(), data.actions, subjects=data.subjects)
    rows = [measure(key) for key in ("mpjpe", "pa_mpjpe", "mpjve", "depth_order_joints", "depth_order_frames")]
    text = ", ".join(f"{row.title} {row.value(found):.{row.decimals or 1}f} {row.unit}" for row in rows)
    print(f"Before fine-tuning: {text}", flush=True)
    return {"before fine-tuning": text}


def _train(
    settings: DemoSettings, data: MotionDataModule
) -> tuple[list[ArmResult], dict[str, tuple[LiftingModule, PoseWindows]]]:
    """Train both models with every seed: the means of each, and by its name the first seed's model with the clips that
    it has not seen."""
    from .. import backbones
    from ..harness.clip_values import clip_values
    from ..harness.lifting import describe
    from ..harness.training import train
    from ..reports.results import ArmResult

    backbone = backbones.info(settings.backbone).name
    trainings: dict[str, list[ArmResult]] = {describe(objective): [] for objective in settings.objectives()}
    modules: dict[str, tuple[LiftingModule, PoseWindows]] = {}
    for seed in settings.all_seeds:
        data.seed = seed  # of the order; motion and detections are the same
        for objective in settings.objectives():
            name = describe(objective)
            what = f"{settings.steps} steps of {settings.batch_size} clips, seed {seed}"
            print(f"Training {backbone} with {name}, {what}", flush=True)
            module = _module(settings, objective, seed)
            trained = train(module, data, steps=settings.steps, label=name, seed=seed)
            arm = ArmResult(
                name=name,
                objective=objective,
                clips_per_second=trained.clips_per_second,
                loss_share=trained.loss_share,
                curves=trained.curves,
            )
            arm.take(trained.evaluation)
            arm.clips = clip_values(trained.module, data.val_dataset)
            trainings[name].append(arm)
            modules.setdefault(name, (trained.module, data.val_dataset))
    return [averaged(of_arm, settings.all_seeds) for of_arm in trainings.values()], modules


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
            "peak learning rate": module.hparams["lr"],
            "seeds": ", ".join(map(str, settings.all_seeds)),
            "target": module.hparams["target"],
            "test": "mirrored average, root-relative, subjects not trained on",
        },
        data=data,
        machine=machine(),
    )
