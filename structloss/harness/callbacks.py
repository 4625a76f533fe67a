"""Callbacks: what a run remembers, how long its steps take, and what is printed of it, on a terminal and elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from ..errors import DataError
from ..metrics.measures import MEASURES

__all__ = [
    "FiniteLoss",
    "History",
    "PlainProgress",
    "StepTimer",
    "TerminalProgress",
    "best_checkpoint",
    "figure_table",
    "progress_callback",
    "shown_figures",
]


class History(Callback):
    """Keeps the curves of a run: training losses at every step, validation metrics whenever they are computed.

    Attributes:
        curves: "step" and "train_<term>" of equal length, "val_step" and "val_<metric>" of equal length.
    """

    def __init__(self) -> None:
        self.curves: dict[str, list[float]] = {"step": [], "val_step": []}

    def state_dict(self) -> dict[str, Any]:
        """The curves so far, for a checkpoint: a run that resumes has those of the run before it."""
        return {"curves": {name: [*values] for name, values in self.curves.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curves = {name: [*values] for name, values in state_dict["curves"].items()}

    def _append(self, key: str, value: float) -> None:
        curve = self.curves.setdefault(key, [])
        if key not in ("step", "val_step"):  # a term may begin late
            steps = self.curves["step" if key.startswith("train_") else "val_step"]
            curve += [math.nan] * (len(steps) - 1 - len(curve))
        curve.append(float(value))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == (self.curves["step"][-1] if self.curves["step"] else 0):
            return  # accumulating gradients: no step yet
        self._append("step", trainer.global_step)
        for name, value in trainer.callback_metrics.items():
            if name.startswith("train/") and not name.endswith("_epoch"):
                self._append(name.replace("train/", "train_").removesuffix("_step"), float(value))

    # Not at the end of the epoch, when a module that logs its figures then has not done so.
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._append("val_step", trainer.global_step)
        for name, value in trainer.callback_metrics.items():
            if name.startswith("val/"):
                self._append(name.replace("val/", "val_"), float(value))


@runtime_checkable
class TimedModule(Protocol):
    """A module that counts the seconds of its loss's forward pass."""

    loss_seconds: float
    time_loss: bool

    def synchronise(self) -> None:
        """Wait for a GPU, if `time_loss` asks for it."""
        ...


class StepTimer(Callback):
    """Clips per second and the loss's share of the training step (data loading and validation left out).

    Args:
        warm_up: steps left out at the beginning.
    """

    def __init__(self, warm_up: int = 3) -> None:
        self.warm_up = warm_up
        self.seconds = self.loss_seconds = 0.0
        self.clips = self.steps = 0
        self._started = self._loss_before = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, TimedModule):
            pl_module.time_loss = True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._loss_before = pl_module.loss_seconds if isinstance(pl_module, TimedModule) else math.nan
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        timed = pl_module if isinstance(pl_module, TimedModule) else None
        if timed is not None:
            timed.synchronise()
        self.steps += 1
        if self.steps > self.warm_up:
            self.seconds += time.perf_counter() - self._started
            self.loss_seconds += math.nan if timed is None else timed.loss_seconds - self._loss_before
            self.clips += len(next(iter(batch.values())))

    @property
    def clips_per_second(self) -> float:
        return self.clips / self.seconds if self.seconds else math.nan

    @property
    def loss_share(self) -> float:
        return self.loss_seconds / self.seconds if self.seconds else math.nan


class FiniteLoss(Callback):
    """Stops a run whose loss is NaN or infinite, before it is saved over the last good checkpoint."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None and not math.isfinite(loss):
            raise DataError(
                f"the loss is {float(loss)} at step {trainer.global_step}, expected a finite number; "
                "try a lower lr, or look for NaN in the data."
            )


#: validation figures that fit on a line
_SHOWN = ("mpjpe", "pa_mpjpe", "depth_order_joints", "depth_order_frames", "reconstruction", "normalized_l2")
#: of figures that are no measures: P1, P2 and P3 of published evaluations
_UNITS = {"p1": "mm", "p2": "mm", "p3": "mm"}
#: seconds after which a line is due without a validation
_QUIET = 30.0


def shown_figures(figures: Mapping[str, float], prefix: str = "") -> list[str]:
    """Figures with their units, as in "MPJPE 45.3 mm", in the order of the table of measures.

    Args:
        figures: key of a measure -> value as stored.
        prefix: to name them by their keys, as in "val/mpjpe 45.3 mm", instead of their titles.
    """
    lines = []
    for key, value in sorted(figures.items(), key=lambda item: _place(item[0])):
        row = MEASURES.get(key)
        if row is None:
            lines.append(f"{prefix}{key} {value:.4g}")
        else:
            decimals = max(1, (row.decimals or 1) - 1)  # one less than in tables
            lines.append(f"{prefix + key if prefix else row.title} {row.factor * value:.{decimals}f} {row.unit}")
    return lines


def _place(key: str) -> int:
    """Where a measure stands in their table; what is none comes last."""
    return next((place for place, known in enumerate(MEASURES) if known == key), len(MEASURES))


def figure_table(figures: Mapping[str, float]) -> list[str]:
    """A line for each figure, "test/mpjpe, mm  45.31", by the keys that files have for them.

    Args:
        figures: "test/" or "val/" and the key of a measure -> value as stored.
    """
    rows = []
    for name in sorted(figures, key=lambda name: _place(name.partition("/")[2])):
        key = name.partition("/")[2]
        row = MEASURES.get(key)
        unit, factor = (_UNITS.get(key, ""), 1.0) if row is None else (row.unit, row.factor)
        rows.append((f"{name}, {unit}" if unit else name, factor * figures[name]))
    width = max((len(head) for head, _ in rows), default=0)
    return [f"{head:{width}}  {value:10.4f}" for head, value in rows]


def total_steps(trainer: L.Trainer) -> int | None:
    """Optimizer steps of a training; None where it has no end."""
    steps = trainer.estimated_stepping_batches
    return int(steps) if 0 < steps < math.inf else None


class _Progress(Callback):
    """What a line of progress says.

    Args:
        label: put in front of every line.
    """

    def __init__(self, label: str = "") -> None:
        self._label = f"{label}: " if label else ""
        self._started = self._said_at = time.perf_counter()
        self._said_step = 0
        self._total: int | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = self._said_at = time.perf_counter()
        self._total, self._said_step = total_steps(trainer), trainer.global_step

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._say(trainer, pl_module, validated=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.perf_counter() - self._said_at >= _QUIET:
            self._say(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step != self._said_step and not trainer.num_val_batches:  # no validation says it
            self._say(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step != self._said_step:
            self._say(trainer, pl_module)

    def _say(self, trainer: L.Trainer, pl_module: L.LightningModule, validated: bool = False) -> None:
        if not trainer.is_global_zero:
            return
        self._said_at, self._said_step = time.perf_counter(), trainer.global_step
        parts = [f"{self._label}step {trainer.global_step}" + (f"/{self._total}" if self._total else "")]
        if (loss := trainer.callback_metrics.get("train/loss")) is not None:
            parts.append(f"train/loss {float(loss):.4g}{_loss_unit(pl_module)}")
        if validated:
            found = {key.removeprefix("val/"): float(v) for key, v in trainer.callback_metrics.items() if "val/" in key}
            parts += shown_figures({key: found[key] for key in (*_SHOWN, "loss") if key in found}, "val/")
        parts.append(f"{self._said_at - self._started:.0f} s")
        self._print(", ".join(parts))

    def _print(self, line: str) -> None:
        print(line, flush=True)


def _loss_unit(module: L.LightningModule) -> str:
    """What the sum of losses is measured in, which is not millimetres."""
    target = str(module.hparams.get("target", ""))
    return {"camera": " (metres)", "global": " (image units)", "root_relative": " (image units)"}.get(target, "")


class PlainProgress(_Progress):
    """One line per validation instead of a bar, for logs and pipes; without validations one per epoch or half minute.

    Args:
        label: put in front of every line.
    """


class TerminalProgress(_Progress):
    """A bar that counts the optimizer steps, or the batches of a test, with the same lines above it as they come.

    Args:
        label: put in front of every line, and of the bar.
    """

    def __init__(self, label: str = "") -> None:
        super().__init__(label)
        self._name = label
        self._bar: Any = None
        self._task: Any = None
        self._training: Any = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not trainer.is_global_zero or self._bar is not None:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            Remaining(),
        )
        self._bar = Progress(*columns, transient=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._begin("training, steps", self._total, trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._training = self._task
        self._begin("validation, batches", _batches(trainer.num_val_batches), 0)

    def on_validation_batch_end(self, *_: Any) -> None:
        self._advance()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if self._bar is not None and trainer.state.fn == "fit":  # in the middle of training, whose bar stays
            self._bar.remove_task(self._task)
            self._task = self._training

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin("test, batches", _batches(trainer.num_test_batches), 0)

    def on_test_batch_end(self, *_: Any) -> None:
        self._advance()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "")

    def _begin(self, what: str, total: int | None, done: int) -> None:
        if self._bar is not None:
            self._task = self._bar.add_task(f"{self._label}{what}", total=total, completed=done)
            self._bar.start()

    def _advance(self) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)

    def _print(self, line: str) -> None:
        if self._bar is None:
            super()._print(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _batches(numbers: Any) -> int | None:
    """Batches of all loaders; None where one has no end."""
    total = sum(numbers) if isinstance(numbers, list) else numbers
    return int(total) if total < math.inf else None


def progress_callback(label: str = "") -> Callback:
    """A progress bar on a terminal, plain lines elsewhere."""
    return TerminalProgress(label) if sys.stdout.isatty() else PlainProgress(label)


def best_checkpoint(monitor: str) -> ModelCheckpoint:
    """Keeps the weights of the epoch at which `monitor` was least."""
    return ModelCheckpoint(monitor=monitor, filename="best-{epoch}", enable_version_counter=False)
