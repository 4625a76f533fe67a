"""`structloss demo shape-template`: where a person's parts are, learned without labels, with both templates."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import needs_extra
from ..files import scratch_folder
from ..text import visible
from ._demo_files import check_out, print_table, put_in_place
from ._imports import import_torchmetrics
from ._parser import command, nonnegative, options, positive

if TYPE_CHECKING:
    from ..harness.template_ladder import ArmResult as Trained
    from ..harness.template_ladder import LadderSettings
    from ..images.template_module import TemplatesDataModule
    from ..reports.results import ArmResult, RunSummary

__all__ = ["ShapeTemplateDemoSettings", "add_shape_template", "run_shape_template_demo"]

#: what `run_shape_template_demo` writes
FILES = ("metrics.json", "curves.png", "panels.png", "report.html")
#: row of the table -> row of the ladder
_ARMS = {"T_orig": "+ MSE", "T_new": "T_new"}


def add_shape_template(actions: argparse._SubParsersAction) -> None:
    parser = command(
        actions,
        "shape-template",
        "train small shape templates without labels on rendered people, with arms out and arms down; write a report",
        "  structloss demo shape-template\n"
        "  structloss demo shape-template --steps 100 --out quick\n"
        "  structloss demo shape-template --motion motion.npz --seed 2\n",
    )
    parser.add_argument("--steps", type=positive, default=600, help="training steps of each model (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, people and order (default: 0)")
    parser.add_argument("--motion", metavar="PATH", help="clips that people do (default: synthetic motion)")
    parser.add_argument("--count", type=positive, default=48, help="folders to train on, 24 frames each (default: 48)")
    parser.add_argument("--batch-size", type=positive, default=16, help="pairs of a step (default: 16)")
    parser.add_argument("--lr", type=nonnegative, default=1e-3, help="peak learning rate (default: 1e-3)")
    parser.add_argument(
        "--out", default="structloss-demo-shape-template", help="folder (default: structloss-demo-shape-template)"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    names = [field.name for field in fields(ShapeTemplateDemoSettings)]  # the demo above has others
    given = {name: value for name, value in options(arguments).items() if name in names}
    run_shape_template_demo(ShapeTemplateDemoSettings(**given))


@dataclass(frozen=True)
class ShapeTemplateDemoSettings:
    """Settings of the demo.

    Attributes:
        steps: optimizer steps of each model.
        seed: of weights, people, motion and order.
        motion: clips that people do; None is synthetic motion.
        count: folders to train on, 24 frames each; 8 others are scored.
        batch_size: pairs of a step.
        lr: peak learning rate.
        out: folder to write.
    """

    steps: int = 600
    seed: int = 0
    motion: str | None = None
    count: int = 48
    batch_size: int = 16
    lr: float = 1e-3
    out: str = "structloss-demo-shape-template"

    def command(self) -> str:
        """The command line that repeats the run."""
        parts: list[object] = ["structloss", "demo", "shape-template", "--steps", self.steps, "--seed", self.seed]
        parts += ["--count", self.count, "--batch-size", self.batch_size, "--lr", f"{self.lr:g}"]
        parts += [] if self.motion is None else ["--motion", self.motion]
        return shlex.join(map(str, parts))


def run_shape_template_demo(settings: ShapeTemplateDemoSettings) -> RunSummary:
    """Train with both templates, print the table and write the folder `settings.out`, whole or not at all.

    Raises:
        ArgumentError: a number out of range, or `out` holds something other than an earlier demo.
        MissingFileError, DataError: the motion is missing or unreadable.
        MissingDependencyError: the `harness` or the `images` extra is not installed.
    """
    out = Path(settings.out)
    with needs_extra("harness"):
        import_torchmetrics()
        from ..harness.template_ladder import ARMS, LadderSettings, frames_of, train_arm
        from ..reports import plot_curves, run_report
        from ..reports.results import write_json
    check_out(out)
    ladder = LadderSettings(
        steps=settings.steps,
        seed=settings.seed,
        count=settings.count,
        batch_size=settings.batch_size,
        lr=settings.lr,
        perceptual_weight=0.0,  # as the recipe
        data={} if settings.motion is None else {"motion": settings.motion},
    )
    data = frames_of(ladder)
    print(f"Rendering people when they are first seen: {ladder.count} folders of {ladder.frames} frames", flush=True)
    trained: dict[str, Trained] = {}
    for name, row in _ARMS.items():
        print(f"{name}, {ladder.steps} steps of {ladder.batch_size} pairs", flush=True)
        trained[name] = train_arm(ladder, ARMS[row], data, label=name, validations=5)
    arms = [_arm(name, result) for name, result in trained.items()]
    summary = _summary(settings, ladder, arms, trained)
    with scratch_folder(out) as scratch:
        write_json(summary, scratch / "metrics.json")
        plot_curves(summary, scratch / "curves.png")
        _draw(trained, data, scratch / "panels.png")
        figures = {"Training": scratch / "curves.png", "Frames that were not trained on": scratch / "panels.png"}
        run_report(summary, scratch / "report.html", figures=figures)
        put_in_place(scratch, out, FILES)
    print_table(summary)
    print(f"\nWrote {visible(out)}/: {', '.join(FILES)}", flush=True)
    return summary


def _arm(name: str, result: Trained) -> ArmResult:
    from ..reports.results import ArmResult

    arm = ArmResult(
        name=name,
        objective=dict(result.module.weights),
        clips_per_second=result.clips_per_second,
        curves=result.curves,
    )
    arm.take(result.evaluation)
    return arm


def _draw(trained: Mapping[str, Trained], data: TemplatesDataModule, path: Path) -> None:
    """Some frames of folders that were not trained on."""
    from ..harness.template_pictures import template_columns
    from ..reports.panels import plot_panels

    models = {name: result.module.model for name, result in trained.items()}
    plot_panels(template_columns(models, data.val_dataset), path)


def _summary(
    settings: ShapeTemplateDemoSettings,
    ladder: LadderSettings,
    arms: Sequence[ArmResult],
    trained: Mapping[str, Trained],
) -> RunSummary:
    from ..reports.machine import machine
    from ..reports.results import RunSummary

    module = next(iter(trained.values())).module
    truth = next(iter(trained.values())).evaluation.truth
    return RunSummary(
        title="Shape templates without labels: arms out (T_orig) and arms down (T_new)",
        arms=list(arms),
        settings={
            "command": settings.command(),
            "network": ladder.network,
            "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
            "steps": settings.steps,
            "batch size": settings.batch_size,
            "peak learning rate": settings.lr,
            "loss": dict(module.weights),
            "seed": settings.seed,
            "test": "frames of people and backgrounds that were not trained on; labels are for the figures alone",
            "BPLP-C of the true joints": round(truth["bplp_c"], 2) if "bplp_c" in truth else "not known",
        },
        data={
            "training": f"{ladder.count} folders of {ladder.frames} rendered frames, one person and background each",
            "test": f"{ladder.val_count} folders",
            "motion": settings.motion or "synthetic motion",
        },
        machine=machine(),
        skeleton="",
    )
