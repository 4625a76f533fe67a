"""Loss networks by themselves: trained on true poses and corruptions of them, without a backbone; or out of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor

from .. import skeletons
from ..data import MotionDataModule
from ..data.augment import flip_batch
from ..errors import ArgumentError, CheckpointError, DataError
from ..learned import CORRUPTIONS, LearnedLoss, LossNet
from ..progress import track
from .checkpoint_io import SafeCheckpointIO
from .optimizers import OptimizerSettings

__all__ = [
    "endless",
    "load_loss_net",
    "loss_net_inputs",
    "metres_per_unit",
    "train_loss_net",
    "training_data",
    "with_scale",
]


def load_loss_net(path: str | os.PathLike[str]) -> LossNet:
    """The loss network in a file of `LossNet.save`, or in a training checkpoint of `structloss fit --loss learned`.

    Raises:
        MissingFileError, CheckpointError: no such file, unreadable, or no loss network in it.
    """
    if str(path).endswith(".safetensors"):
        return LossNet.load(path)
    found = SafeCheckpointIO().load_checkpoint(path).get("learned")
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(f"{path} holds no loss network, expected a checkpoint of structloss fit --loss learned.")
    net = LossNet.from_description(found["description"], str(path))
    weights = {key.removeprefix("net."): value for key, value in found["state"].items() if key.startswith("net.")}
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} doesn't fit its own description of the loss network: {error}.") from error
    return net


def loss_net_inputs(batch: Mapping[str, Tensor], target: str) -> tuple[Tensor, Tensor, Tensor, float | Tensor]:
    """2D `[B, T, J, 2 or 3]`, true poses `[B, T, J, 3]` in the space of the `target`, weights `[B, T, J]`, and metres
    per unit of the poses."""
    return batch["input"], batch["target"], batch["weight"], metres_per_unit(batch, target)


def metres_per_unit(batch: Mapping[str, Tensor], target: str) -> float | Tensor:
    """Metres per unit of poses in the space of the `target`, a number or `[B, T]`."""
    return 1.0 if target == "camera" else batch["factor"] / 1000


def with_scale(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with a `factor` in every frame. MotionBERT's pickle publishes none for the training subjects: there the
    limbs of the true pose have together their canonical length. All joints must still be there."""
    if "factor" not in batch or "root_depth" in batch:
        return batch
    body = skeletons.get("h36m")  # of all published targets
    child, parent = torch.tensor([bone for _, group in body.bone_groups for bone in group]).T
    canonical = sum(map(sum, body.bone_group_lengths))
    bones = batch["target"][..., child, :] - batch["target"][..., parent, :]
    nominal = canonical / torch.linalg.vector_norm(bones, dim=-1).sum(-1).clamp_min(1e-6)
    return batch | {"factor": torch.where(batch["factor"].isfinite(), batch["factor"], nominal)}


def train_loss_net(
    data: MotionDataModule,
    *,
    steps: int,
    net: LossNet | str = "graph",
    seed: int = 0,
    lr: float = 1e-3,
    progress: bool = False,
    device: torch.device | str = "cpu",
    **options: Any,
) -> tuple[LearnedLoss, dict[str, list[float]]]:
    """Train a loss network to tell true poses from corrupted ones (SEAL's static regime).

    Args:
        data: its training subjects are used; mirrored half of the time.
        steps: of the optimizer; the rate rises over the first tenth, then falls along half a cosine.
        net: the loss network or a variant's name.
        seed: of weights and corruptions.
        lr: peak learning rate.
        progress: show a bar on a terminal.
        device: where to train.
        options: of :class:`structloss.learned.LearnedLoss`; `negatives` are all corruptions of single frames unless
            given.

    Returns:
        The loss, frozen, and curves: "step" and what `LearnedLoss.update` returns.

    Raises:
        ArgumentError: an impossible option, such as predictions as negatives.
        DataError: there are no training windows.
    """
    if steps < 1:
        raise ArgumentError(f"steps is {steps}, expected at least 1.")
    kinds = tuple(name for name, kind in CORRUPTIONS.items() if not kind.temporal)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        skeleton = data.skeleton.name if isinstance(net, str) else net.skeleton.name
        loss = LearnedLoss(net, skeleton=skeleton, lr=lr, **{"negatives": kinds, **options}).to(device)
        factor = OptimizerSettings(schedule="one_cycle").factor(steps)
        curves: dict[str, list[float]] = {"step": []}
        batches = endless(data)
        for step in track(range(steps), "loss network", progress):
            batch = {key: value.to(device) for key, value in next(batches).items()}
            batch = flip_batch(batch, torch.rand(len(batch["input"]), device=device) < 0.5, loss.net.skeleton)
            x, y, weight, unit = loss_net_inputs(with_scale(batch), data.target)
            seen = loss.update(x, y, weight=weight, unit=unit, lr_factor=factor(step))
            curves["step"].append(step + 1)
            for name, value in seen.items():
                curves.setdefault(name, []).append(float(value))
    loss.freeze()
    return loss, curves


def training_data(trainer: L.Trainer) -> MotionDataModule:
    """The data module that the trainer fits; Lightning's types don't tell of it."""
    return cast(MotionDataModule, trainer.datamodule)  # type: ignore[attr-defined]  # set by Trainer.fit


def endless(data: MotionDataModule) -> Iterator[dict[str, Tensor]]:
    """Training batches, epoch after epoch."""
    epoch = 0
    while True:
        loader = data.train_dataloader()
        if not len(loader):
            raise DataError("there are no training windows, expected at least one batch.")
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(epoch)
        yield from loader
        epoch += 1
