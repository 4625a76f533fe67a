"""Settings of Lightning's trainer that it takes without a word, or refuses in words that name no flag."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator

from ..errors import ArgumentError, shown

__all__ = ["check_trainer"]

#: setting -> the least that it can be, and what that means
_LEAST = {
    "max_epochs": (-1, "at least 1, or -1 for no end"),
    "max_steps": (-1, "at least 1, or -1 for no end"),
    "min_epochs": (0, "at least 0"),
    "min_steps": (0, "at least 0"),
    "num_nodes": (1, "at least 1"),
    "accumulate_grad_batches": (1, "at least 1"),
    "check_val_every_n_epoch": (1, "at least 1"),
    "log_every_n_steps": (0, "at least 0"),
    "num_sanity_val_steps": (-1, "at least 0, or -1 for all batches"),
    "reload_dataloaders_every_n_epochs": (0, "at least 0"),
    "gradient_clip_val": (0, "at least 0"),
    "fast_dev_run": (0, "true, false or a number of batches"),
}
_NEEDED = {
    "fit": ("max_epochs", "max_steps", "limit_train_batches"),
    "validate": ("limit_val_batches",),
    "test": ("limit_test_batches",),
}
_PARTS = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches")
_ACCELERATORS: dict[str, Callable[[], bool]] = {
    "auto": lambda: True,
    "cpu": lambda: True,
    "gpu": lambda: CUDAAccelerator.is_available() or MPSAccelerator.is_available(),
    "cuda": CUDAAccelerator.is_available,
    "mps": MPSAccelerator.is_available,
    "tpu": XLAAccelerator.is_available,
}


def check_trainer(trainer: Mapping[str, Any], subcommand: str) -> None:
    """Raise for settings that no trainer can use here.

    Args:
        trainer: settings of :class:`lightning.Trainer` by name.
        subcommand: "fit", "validate" or "test", none of which is done with 0 steps or batches.

    Raises:
        ArgumentError: names the flag, what was found and what was expected.
    """
    for name, (least, expected) in _LEAST.items():
        value = trainer.get(name)
        if isinstance(value, (int, float)) and not value >= least:
            raise _wrong(name, value, expected)
    for name in _PARTS:
        value = trainer.get(name)
        if isinstance(value, (int, float)) and not (0 <= value <= 1 or (value > 1 and value == int(value))):
            raise _wrong(name, value, "a share from 0.0 to 1.0, or a whole number of batches")
    for name in _NEEDED[subcommand]:
        if trainer.get(name) == 0:
            raise _wrong(name, trainer[name], f"something to {subcommand}")
    value = trainer.get("val_check_interval")
    if isinstance(value, (int, float)) and not (0 < value <= 1 or (value > 1 and value == int(value))):
        raise _wrong("val_check_interval", value, "a share of an epoch above 0.0, up to 1.0, or a number of batches")
    strategy = trainer.get("strategy")
    if isinstance(strategy, str) and re.search("spawn|fork|notebook", strategy):
        raise _wrong("strategy", strategy, "one whose processes run the command themselves, such as 'ddp'")
    _check_devices(trainer.get("accelerator", "auto"), trainer.get("devices", "auto"))
    _check_folder(trainer.get("default_root_dir"))


def _check_devices(accelerator: Any, devices: Any) -> None:
    if isinstance(accelerator, str):
        usable = [name for name, there in _ACCELERATORS.items() if there()]
        if accelerator.lower() not in usable:
            raise _wrong("accelerator", accelerator, f"one that this machine has: {', '.join(usable)}")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not _ACCELERATORS["gpu"]())
    number = int(devices) if isinstance(devices, str) and devices.lstrip("-").isdigit() else devices
    if on_cpu:
        if number != "auto" and not (isinstance(number, int) and number >= 1):
            raise _wrong("devices", devices, "a number of processes, at least 1, as this machine has no GPU to choose")
        return
    if isinstance(number, int) and accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        there = torch.cuda.device_count()
        if number < -1 or number == 0 or number > there:
            raise _wrong("devices", devices, f"a number of GPUs from 1 to {there}, or -1 for all")
    elif isinstance(number, str) and number != "auto" and not number.replace(",", "").replace(" ", "").isdigit():
        raise _wrong("devices", devices, "a number of devices, numbers of some as in '0,1', or 'auto'")


def _check_folder(folder: Any) -> None:
    """Raise where runs can't be written."""
    if folder is None:
        place, name = Path.cwd(), f"the working directory is {str(Path.cwd())!r}"
    else:
        place, name = Path(folder), f"--trainer.default_root_dir is {str(folder)!r}"
    nearest = next((path for path in (place, *place.absolute().parents) if path.exists()), place)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ArgumentError(f"{name}, expected a folder that can be written.")


def _wrong(name: str, value: Any, expected: str) -> ArgumentError:
    return ArgumentError(f"--trainer.{name} is {shown(value)}, expected {expected}.")
