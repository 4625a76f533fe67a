"""Optimizers and learning-rate schedules of the published recipes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn

from ..errors import ArgumentError, check_choice

__all__ = ["OPTIMIZERS", "SCHEDULES", "OptimizerSettings", "averaging", "check_ema"]

OPTIMIZERS = ("adamw", "adam", "amsgrad", "rmsprop")
"""`"amsgrad"` is Adam with AMSGrad (VideoPose3D, MHFormer, P-STMO, STCFormer); `"rmsprop"` has α = 0.99 (SAP-Net)."""

SCHEDULES = ("exponential", "steps", "cosine", "one_cycle")
"""- `"exponential"`: times `lr_decay` after every epoch, but times `drop` after every `drop_every`-th (MHFormer).
- `"steps"`: times `lr_decay` after every `drop_every` optimizer steps (SimpleBaseline, SemGCN).
- `"cosine"`: half a cosine to 0 over all steps (Jointformer).
- `"one_cycle"`: a line up over the first tenth of the steps, then half a cosine down (ours)."""


def check_ema(ema: float | None) -> None:
    """Raise :class:`ArgumentError` for a decay that averages nothing."""
    if ema is not None and not 0 < ema < 1:
        raise ArgumentError(f"ema is {ema}, expected None or a decay between 0 and 1.")


def averaging(ema: float | None) -> list[Callback]:
    """The callback that keeps an exponential moving average of the weights; none without a decay."""
    return [] if ema is None else [EMAWeightAveraging(decay=ema)]


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer and its schedule.

    Attributes:
        optimizer: one of :data:`OPTIMIZERS`.
        lr: learning rate at the start (its peak under "one_cycle").
        weight_decay: on every parameter; but for "adamw" coupled, as PyTorch has it.
        schedule: one of :data:`SCHEDULES`.
        lr_decay, drop_every, drop: see :data:`SCHEDULES`; `drop_every=0` is never.

    Raises:
        ArgumentError: an impossible value.
    """

    optimizer: str = "adamw"
    lr: float = 5e-4
    weight_decay: float = 0.01
    schedule: str = "exponential"
    lr_decay: float = 0.99
    drop_every: int = 0
    drop: float = 0.5

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        for name, value in {"lr": self.lr, "lr_decay": self.lr_decay, "drop": self.drop}.items():
            if not 0 < value < math.inf:
                raise ArgumentError(f"{name} is {value}, expected a number > 0.")
        if not 0 <= self.weight_decay < math.inf:
            raise ArgumentError(f"weight_decay is {self.weight_decay}, expected a number >= 0.")
        if self.drop_every < 0 or (self.schedule == "steps" and self.drop_every == 0):
            expected = "at least 1 with schedule 'steps'" if self.schedule == "steps" else "at least 0"
            raise ArgumentError(f"drop_every is {self.drop_every}, expected {expected}.")

    def build(
        self, parameters: Iterable[nn.Parameter], total_steps: int, undecayed: Iterable[nn.Parameter] = ()
    ) -> OptimizerLRSchedulerConfig:
        """What Lightning's `configure_optimizers` returns; parameters without gradient are left out, `undecayed` ones
        have no weight decay."""
        trained: list[Any] = [{"params": [p for p in parameters if p.requires_grad]}]
        if others := [p for p in undecayed if p.requires_grad]:
            trained.append({"params": others, "weight_decay": 0.0})
        if self.optimizer == "adamw":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=self.weight_decay)
        elif self.optimizer == "rmsprop":
            optimizer = torch.optim.RMSprop(trained, lr=self.lr, alpha=0.99, eps=1e-8, weight_decay=self.weight_decay)
        else:
            optimizer = torch.optim.Adam(
                trained, lr=self.lr, weight_decay=self.weight_decay, amsgrad=self.optimizer == "amsgrad"
            )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor(total_steps))
        interval = "epoch" if self.schedule == "exponential" else "step"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": interval}}

    def factor(self, total_steps: int) -> Callable[[int], float]:
        """The schedule: what the rate at the start is multiplied by, at each epoch ("exponential") or step.

        It knows nothing of the steps before, so that a resumed run may be given more of them.
        """
        return functools.partial(_FACTORS[self.schedule], settings=self, total=max(2, total_steps))


def _exponential(epoch: int, settings: OptimizerSettings, total: int) -> float:
    drops = epoch // settings.drop_every if settings.drop_every else 0
    return settings.lr_decay ** (epoch - drops) * settings.drop**drops


def _steps(step: int, settings: OptimizerSettings, total: int) -> float:
    return settings.lr_decay ** (step // settings.drop_every)


def _cosine(step: int, settings: OptimizerSettings, total: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


def _one_cycle(step: int, settings: OptimizerSettings, total: int) -> float:
    rise = max(1, total // 10)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))


_FACTORS = {"exponential": _exponential, "steps": _steps, "cosine": _cosine, "one_cycle": _one_cycle}
