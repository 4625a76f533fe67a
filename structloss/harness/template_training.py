"""The Lightning module that trains shape templates: where a person's parts are, learned without labels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from .. import images
from ..errors import ArgumentError, check_choice
from ..images.perceptual import KINDS, NoLoss, perceptual_loss
from ..images.template_losses import WEIGHTS, TemplateTerms
from .checkpoint_checks import check_finite, check_same_network, seed_step
from .optimizers import OptimizerSettings, averaging, check_ema
from .scores import Evaluation
from .template_scores import TemplateScores, without_labels

__all__ = ["TemplateModule", "weights_of_terms"]


def weights_of_terms(model: Mapping[str, Any]) -> dict[str, float]:
    """Term -> its weight above 0, of the arguments of a :class:`TemplateModule`; those that are absent have their
    defaults."""
    given = model.get("loss_weights")
    return {name: float(weight) for name, weight in (WEIGHTS if given is None else given).items() if weight}


class TemplateModule(L.LightningModule):
    """Train shape templates on pairs of frames of one person before one background.

    Batches are those of :class:`structloss.images.template_module.TemplatesDataModule`. A network moves the parts of a
    template over the frame, another reconstructs the frame from them and the second image of the pair; nothing is
    learned from joints, which are there to score alone.

    Args:
        shape_network: name in `structloss.images`, of the shape templates.
        shape_network_args: constructor arguments to use instead of the variant's: `template`, `motion`, `constraint`,
            `render`, ...
        loss_weights: term -> weight of `perceptual`, `mse`, `anchor`, `boundary`; one that is absent or 0 is not
            computed. None: 1, 1, 0.5 and 1 (Yoo and Russakovsky); Schmidtke et al. have no `mse`.
        perceptual: one of :data:`structloss.images.perceptual.KINDS`; None is "vgg19" if a file of its weights is
            given, and otherwise "laplacian", which a warning tells.
        vgg19: file with weights of VGG-19, see :func:`structloss.images.perceptual_loss`; nothing is downloaded.
        boundary: "all" anchors stay inside the image, or those of the "core", as in Schmidtke et al.
        optimizer: "adam" (published), "adamw", "amsgrad" or "rmsprop".
        lr: learning rate at the start (its peak under "one_cycle").
        weight_decay: on every parameter.
        schedule: as for :class:`~structloss.harness.lifting.LiftingModule`; with `lr_decay` 1 the rate is constant, as
            published.
        lr_decay, drop_every, drop: likewise.
        ema: decay of an exponential moving average of the weights, which is what is validated and saved; None trains
            without.
        compile: run the network under torch.compile; checkpoints are the same.
        seed: of what is random in training.
        init_from: checkpoint or .safetensors file to start from, or a published state dict.

    Raises:
        UnknownNameError: an unknown network.
        ArgumentError: an impossible value, or a network of another system.
        CheckpointError: `init_from` is unreadable or belongs to another network.

    Sources: Schmidtke et al., "Unsupervised Human Pose Estimation through Transforming Shape Templates", CVPR 2021; Yoo
    and Russakovsky, "Efficient, Self-Supervised Human Pose Estimation with Inductive Prior Tuning", ICCV 2023 workshop.
    """

    def __init__(
        self,
        shape_network: str = "shape-template",
        shape_network_args: dict[str, Any] | None = None,
        loss_weights: dict[str, float] | None = None,
        perceptual: str | None = None,
        vgg19: str | None = None,
        boundary: str = "all",
        optimizer: str = "adam",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: str = "exponential",
        lr_decay: float = 1.0,
        drop_every: int = 0,
        drop: float = 0.5,
        ema: float | None = None,
        compile: bool = False,
        seed: int = 0,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        if perceptual is not None:
            check_choice("perceptual", perceptual, KINDS)
        check_ema(ema)
        self.weights = _weights(loss_weights, boundary)
        given = {"perceptual": None if perceptual == "none" else perceptual, "vgg19": vgg19}
        for name, value in given.items():
            if value is not None and "perceptual" not in self.weights:
                raise ArgumentError(
                    f"{name} is {value!r}, expected it with a weight of the perceptual term above 0 in loss_weights."
                )
        self.optimization = OptimizerSettings(optimizer, lr, weight_decay, schedule, lr_decay, drop_every, drop)
        self.save_hyperparameters()
        model = images.create(shape_network, **(shape_network_args or {}))
        if not isinstance(model, images.ShapeTemplateNet):
            raise ArgumentError(
                f"shape_network is {shape_network!r}, expected one that reconstructs: shape-template or "
                "shape-template-tiny."
            )
        self.model = model
        if init_from is not None:
            images.load_published(self.model, init_from)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on CPUs
        if compile:
            self.model.compile()  # in place: the names of the weights stay
        self.terms: TemplateTerms | None = None
        self._terms_at = torch.device("cpu")
        self.scores = TemplateScores(self.model.input_size)
        #: what the last `test` came to
        self.evaluation: Evaluation | None = None

    def forward(self, frame: Tensor, reference: Tensor | None = None) -> images.TemplateOutput:
        """`[B, 3, S, S]` in 0 to 1, of which the second is another image of the same person, or None for the pose
        alone."""
        return self.model(_fast(frame), None if reference is None else _fast(reference))

    def losses(self, out: images.TemplateOutput, frame: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its terms without their weights, detached.

        Args:
            out: of the network, for `frame`.
            frame: `[B, 3, S, S]`, as it was given to the network.
        """
        reconstruction = None if out.reconstruction is None else out.reconstruction.float()
        terms = self._terms(frame.device)(
            self.model.step_anchors(out.matrices), self.model.input_size, reconstruction, self.model.normalized(frame)
        )
        total = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return total, {name: value.detach() for name, value in terms.items()}

    def _terms(self, device: torch.device) -> TemplateTerms:
        """The terms, made when they are first needed: who only tests or predicts needs no weights of VGG-19. They are
        no child of this module: their weights are no part of checkpoints."""
        if self.terms is None:
            features = None
            if "perceptual" in self.weights:
                features = perceptual_loss(self.hparams["perceptual"], vgg19=self.hparams["vgg19"])
            self.terms = TemplateTerms(self.weights, boundary=self.hparams["boundary"], perceptual=features)
        if isinstance(self.terms.perceptual, torch.nn.Module) and device != self._terms_at:
            self.terms.perceptual.to(device)
            self._terms_at = device
        return self.terms

    @property
    def _reconstructs(self) -> bool:
        return bool({"perceptual", "mse"} & self.weights.keys())

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        seed_step(self, batch_idx)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        out = self(batch["frame"], batch["reference"] if self._reconstructs else None)
        total, terms = self.losses(out, batch["frame"])
        size = len(batch["frame"])
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=size, sync_dist=True)
        self.log_dict({f"train/{name}": value for name, value in terms.items()}, batch_size=size, sync_dist=True)
        return total

    @torch.no_grad()
    def scored(self, batch: Mapping[str, Tensor], scores: TemplateScores, loss: bool = False) -> None:
        """Add a batch to scores, with its loss or without."""
        out = self(batch["frame"], batch["reference"])
        total = self.losses(out, batch["frame"])[0] if loss else None
        scores.update(out, self.model.normalized(batch["frame"]), batch, total)

    def on_validation_start(self) -> None:
        self.scores = TemplateScores(self.model.input_size, self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.scored(batch, self.scores, loss=True)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": value for name, value in self.scores.means().items()})

    def on_test_start(self) -> None:
        self.scores = TemplateScores(self.model.input_size, self.device)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.scored(batch, self.scores)

    def on_test_epoch_end(self) -> None:
        self.evaluation = found = self.scores.evaluation()
        if missing := without_labels(found):
            warnings.warn(missing, stacklevel=1)  # of this module: what Lightning warns of is not shown
        self.log_dict({f"test/{name}": value for name, value in self.scores.means().items()})

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Joints in pixels of the frame, `[B, 15, 2]`."""
        return self(batch["frame"]).joints

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return self.optimization.build(self.model.parameters(), int(self.trainer.estimated_stepping_batches))

    def configure_callbacks(self) -> list[Callback]:
        return averaging(self.hparams["ema"])

    def setup(self, stage: str) -> None:
        size = getattr(getattr(self.trainer, "datamodule", None), "size", self.model.input_size)
        if size != self.model.input_size:
            raise ArgumentError(
                f"size is {size}, expected {self.model.input_size}, that of {self.hparams['shape_network']}."
            )
        if stage in ("fit", "validate"):
            self._terms(self.device)  # what is wrong with its files is told before the first step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_finite(checkpoint, self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_same_network(checkpoint, self.hparams, ("shape_network", "shape_network_args"))


def _fast(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=torch.channels_last)


def _weights(weights: Mapping[str, float] | None, boundary: str) -> dict[str, float]:
    """The weights that are not 0.

    Raises:
        ArgumentError: an unknown term, a weight that is no number of at least 0, or none above 0.
    """
    given = WEIGHTS if weights is None else weights
    for name, weight in given.items():
        if name not in WEIGHTS:
            raise ArgumentError(f"loss_weights has {name!r}, expected some of {', '.join(WEIGHTS)}.")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ArgumentError(f"loss_weights has {name} {weight!r}, expected a number of at least 0.")
    found = TemplateTerms(given, boundary=boundary, perceptual=NoLoss()).weights
    if not found:
        raise ArgumentError(f"loss_weights is {dict(given)}, expected a weight above 0 for some term.")
    return found
