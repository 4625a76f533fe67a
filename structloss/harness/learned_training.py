"""Training with a learned loss: the loss network takes its step before the backbone does, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor

from ..backbones import Backbone, Supervision
from ..data import MotionDataModule
from ..errors import ArgumentError, CheckpointError, check_choice
from ..learned import LearnedLoss, LossNet
from ..learned.learned_loss import PREDICTION
from ..progress import track
from ..skeletons import Skeleton
from .frames import check_learned_frames
from .loss_nets import endless, metres_per_unit, training_data, with_scale

__all__ = ["LearnedSettings", "LearnedTraining", "Trainee"]

REGIMES = ("dynamic", "static")
PREDICTIONS = ("evaluation", "training")


@dataclass(frozen=True)
class LearnedSettings:
    """What `learned` of the lifting module may hold.

    Attributes:
        enabled: False trains without, whatever else is set.
        net: variant of the loss network (:data:`structloss.learned.VARIANTS`).
        net_options: arguments of the variant to use instead.
        init: loss network to start from: a file of `LossNet.save`, of this or another backbone with the same skeleton.
        regime: `"dynamic"` alternates steps of the loss network and of the backbone; `"static"` trains the loss network
            first, for `pretrain_steps` batches, against corrupted poses and the backbone's first predictions, and then
            no more.
        pretrain_steps: see `regime`; 0 with `init` uses that loss network as it is.
        predictions: which of the backbone's predictions the loss network learns from: those of another pass, in
            `"evaluation"` mode (published), or those of the `"training"` step itself, which cost nothing. A diffusion
            model, whose evaluation samples, always takes the latter.
        warmup: share of all steps over which λ rises from 0.
        schedule: the loss network's learning rate follows the shape of the backbone's schedule; False keeps it
            constant.
        loss: further arguments of :class:`structloss.learned.LearnedLoss`: weight, objective, negatives, frames, lr ...
    """

    enabled: bool = True
    net: str = "graph"
    net_options: dict[str, Any] = field(default_factory=dict)
    init: str | None = None
    regime: str = "dynamic"
    pretrain_steps: int = 0
    predictions: str = "evaluation"
    warmup: float = 0.1
    schedule: bool = True
    loss: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("learned.regime", self.regime, REGIMES)
        check_choice("learned.predictions", self.predictions, PREDICTIONS)
        if self.pretrain_steps < 0:
            raise ArgumentError(f"learned.pretrain_steps is {self.pretrain_steps}, expected at least 0.")
        if not 0 <= self.warmup <= 1:
            raise ArgumentError(f"learned.warmup is {self.warmup}, expected a share from 0 to 1.")
        if self.regime == "static" and not (self.pretrain_steps or self.init):
            raise ArgumentError("learned.pretrain_steps is 0, expected some in the static regime without learned.init.")

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> LearnedSettings | None:
        """From the module's argument, where the loss's own arguments stand beside the others; None without any."""
        if given is None:
            return None
        own = {key: value for key, value in given.items() if key in cls.__dataclass_fields__ and key != "loss"}
        found = cls(**own, loss={key: value for key, value in given.items() if key not in own})
        return found if found.enabled else None


class Trainee(Protocol):
    """What a learned loss needs of the module whose backbone it helps to train."""

    @property
    def model(self) -> Backbone: ...

    @property
    def hparams(self) -> Mapping[str, Any]:
        """With "backbone", "seed", "target" and "squared_objective"."""
        ...

    @property
    def trainer(self) -> L.Trainer: ...

    @property
    def device(self) -> torch.device: ...

    def matched(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with those frames and joints alone that the backbone predicts."""
        ...


class LearnedTraining:
    """A learned loss beside the module that trains the backbone, a :class:`Trainee`.

    It is made when training begins and is no submodule: neither validation, test nor prediction knows of it, nor does
    the module's state dict. Checkpoints carry it beside that.

    Args:
        settings: what to train with.
        skeleton: of the poses.
        joints: numbers of the joints that the backbone predicts, where it doesn't predict all.

    Raises:
        ArgumentError, UnknownNameError: impossible settings.
        MissingFileError, CheckpointError: `init` can't be used.
    """

    def __init__(self, settings: LearnedSettings, skeleton: Skeleton, joints: Sequence[int] | None = None) -> None:
        self.settings, self.skeleton, self.joints = settings, skeleton, joints
        self.loss: LearnedLoss | None = None
        self._restored: Mapping[str, Any] | None = None
        self._make(0)  # what can't be made is refused before training begins

    def _make(self, warmup: int) -> LearnedLoss:
        chosen = self.settings
        if chosen.init is None:
            net = LossNet(self.skeleton.name, chosen.net, **chosen.net_options)
        else:
            net = LossNet.load(chosen.init)
            if net.skeleton != self.skeleton:
                raise CheckpointError(
                    f"{chosen.init} is a loss network for {net.skeleton.name!r}, expected {self.skeleton.name!r}."
                )
        try:
            return LearnedLoss(net, joints=self.joints, warmup=warmup, **chosen.loss)
        except TypeError as error:
            raise ArgumentError(f"learned has settings that can't be used: {error}.") from error

    # Begin, save, restore
    def begin(self, module: Trainee) -> None:
        """Make the loss, restore its state from a checkpoint if there is one, and in the static regime train the loss
        network first."""
        if self.loss is not None and self._restored is None:
            return
        with torch.random.fork_rng(devices=[]):  # the backbone sees the same random numbers as without
            torch.manual_seed(int(module.hparams["seed"]))
            steps = int(module.trainer.estimated_stepping_batches)
            self.loss = self._make(int(self.settings.warmup * steps)).to(module.device)
            if isinstance(data := training_data(module.trainer), MotionDataModule):
                drawn = self.settings.loss.get("frames")
                check_learned_frames(self.loss, drawn, module.model, module.hparams["backbone"], data)
            if self._restored is not None:
                self.loss.load_state_dict(self._restored)
                self._restored = None
            elif self.settings.regime == "static":
                self._pretrain(module)

    def _pretrain(self, module: Trainee) -> None:
        assert self.loss is not None
        steps = self.settings.pretrain_steps
        batches = endless(training_data(module.trainer))
        for _ in track(range(steps), "loss network", steps > 0 and module.trainer.is_global_zero):
            self.update(module, {key: value.to(module.device) for key, value in next(batches).items()}, None)
        self.loss.freeze()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the loss network's description, all weights and the optimizer."""
        if self.loss is None:
            return {}
        return {"description": self.loss.net.description(), "state": self.loss.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Keep a checkpoint's state, which is restored when training begins."""
        if state:
            self._restored = state["state"]

    # A batch
    def step(
        self, module: Trainee, batch: dict[str, Tensor], predictions: Sequence[Supervision], total: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Let the loss network learn from a batch, then judge the prediction that the backbone is trained on.

        Returns:
            λ · mean energy, and what is logged.
        """
        assert self.loss is not None
        prediction = next(one.prediction for one in reversed(predictions) if one.pose)
        seen = self.update(module, batch, prediction)
        scene = module.matched(with_scale(batch))
        x = module.model.match(batch["input"])
        term = self.loss(
            x, prediction, total, weight=scene["weight"], unit=metres_per_unit(scene, module.hparams["target"])
        )
        force = self.loss.force
        if module.hparams["squared_objective"] and force.share is None:
            # Published: the backward pass of the sum starts with its value, which scales the energy's gradient too.
            term = term * (2 * total.detach()).sqrt()
        seen |= {"energy_prediction": self.loss.energy, "lambda": force.value.clone(), "force": force.ratio.clone()}
        return term, {name.replace("/", "_"): value for name, value in seen.items()}

    def update(self, module: Trainee, batch: dict[str, Tensor], prediction: Tensor | None) -> dict[str, Tensor]:
        """A step of the loss network; `prediction` is the backbone's of the training step, if there is one."""
        assert self.loss is not None
        if self.loss.frozen:
            return {}
        if PREDICTION not in self.loss.negatives:
            prediction = None
        elif not module.model.samples and (prediction is None or self.settings.predictions == "evaluation"):
            prediction = _evaluated(module, batch["input"])
        scene = module.matched(with_scale(batch))
        return self.loss.update(
            module.model.match(batch["input"]),
            scene["target"],
            prediction,
            weight=scene["weight"],
            unit=metres_per_unit(scene, module.hparams["target"]),
            lr_factor=_lr_factor(module) if self.settings.schedule else 1.0,
        )


@torch.no_grad()
def _evaluated(module: Trainee, keypoints: Tensor) -> Tensor:
    """The backbone's prediction in evaluation mode."""
    was_training = module.model.training
    module.model.eval()
    try:
        return module.model(keypoints)
    finally:
        module.model.train(was_training)


def _lr_factor(module: Trainee) -> float:
    """Where the backbone's learning-rate schedule is, as a share of the rate at its start."""
    optimizers = module.trainer.optimizers
    if not optimizers:  # before training
        return 1.0
    group = optimizers[0].param_groups[0]
    return group["lr"] / group["initial_lr"]
