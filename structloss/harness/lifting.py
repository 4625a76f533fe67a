"""The Lightning module that trains any backbone with any weighted subset of the losses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torchmetrics import MetricCollection

from .. import backbones, skeletons
from ..backbones.base import SecondStage, StartsFromFirstStage, TakesStatistics
from ..backbones.pretrained import weights_called
from ..backbones.videopose3d import VideoPose3D
from ..data import MotionDataModule, flip, flip_batch, to_millimetres
from ..data.augment import chance
from ..data.image_space import TARGETS
from ..data.loading import windows_of
from ..errors import ArgumentError, CheckpointError, check_choice
from ..terms import check_term
from .callbacks import best_checkpoint
from .checkpoint_checks import check_finite, check_same_network, seed_step
from .frames import check_term_frames, check_window
from .learned_training import LearnedSettings, LearnedTraining
from .loss_nets import training_data
from .objective import SQUARED_ERROR, TrainingLoss
from .optimizers import OptimizerSettings, averaging, check_ema
from .roots import check_published_root, measured_poses
from .scores import Compared, Evaluation, Scores, compared, depths_of, frames_of_videos, scoring, validation_metrics
from .semi_supervised import (
    SemiSupervised,
    SemiSupervisedSettings,
    TrajectoryError,
    start_trajectory,
    trajectory_network,
)
from .structure_aware import StructureAware, StructureAwareSettings
from .videos import VideoOrder, VideoSteps, repeats_frames

__all__ = ["REPOSE_OBJECTIVE", "LiftingModule", "describe"]

#: RePOSE, Equation 4. The paper's lambdas are not published; 1 with mean reduction is our choice.
REPOSE_OBJECTIVE = {"mpjpe": 1.0, "depth_ranking_joints": 1.0, "depth_ranking_frames": 1.0}


_PER_FRAME = ("target", "weight", "camera_pose", "root_depth", "factor")


class LiftingModule(L.LightningModule):
    """Train a 2D-to-3D lifting backbone.

    Batches are those of :class:`structloss.data.PoseWindows`. The loss acts on the backbone's output in the space of
    the target; metrics are in millimetres and root-relative (of the depth order, see
    :class:`~structloss.harness.scores.Compared`). A network that predicts the centre of its receptive field is trained
    and scored on the centre of each window.

    Args:
        backbone: name in `structloss.backbones`.
        backbone_args: constructor arguments to use instead of the variant's.
        refine: name of a second stage to train behind the backbone, which is then frozen (Jointformer).
        objective: loss term -> lambda, and "mse" for the plain squared error; None is RePOSE's MPJPE + L_S + L_T with
            all lambdas 1.
        objective_options: loss term -> keywords of its function, such as `joint_weight`.
        squared_objective: minimise half of the objective's square (MixSTE's published training).
        learn_weights: learn the lambdas with the model, starting from those of `objective`.
        learned: train a loss network beside the backbone and add its energy to the objective (SCoTL-pose / SEAL-pose):
            settings of :class:`~structloss.harness.learned_training.LearnedSettings` and, beside them, arguments of
            :class:`structloss.learned.LearnedLoss`; {} for the defaults, None for none.
        semi_supervised: train on clips without 3D poses too, and a second network for the trajectory of the root
            (VideoPose3D): settings of :class:`~structloss.harness.semi_supervised.SemiSupervisedSettings`; {} for the
            defaults, None for none.
        structure_aware: train on clips of which only 2D is known too, as many in a batch as labelled ones, by what is
            known of bodies (Dabral et al.): settings of
            :class:`~structloss.harness.structure_aware.StructureAwareSettings`; {} for the defaults, None for none.
        target: "global", "root_relative" or "camera", as in the data module (the command line links the two).
        skeleton: name of the skeleton of input and output.
        optimizer: "adamw", "adam" or "amsgrad".
        lr: learning rate at the start (its peak under "one_cycle").
        weight_decay: on every parameter.
        schedule: "exponential" multiplies the rate by `lr_decay` after each epoch (MotionBERT, RePOSE, most others),
            and by `drop` instead after every `drop_every`-th; "steps" by `lr_decay` after every `drop_every` steps;
            "cosine" falls to 0 along half a cosine; "one_cycle" rises over the first tenth of the steps first.
        lr_decay: see `schedule`.
        drop_every: see `schedule`; 0 is never.
        drop: see `schedule`.
        batch_norm_momentum: momentum of batch normalisation at the end of training, reached from 0.1 along an
            exponential, epoch by epoch (VideoPose3D: 0.001); None leaves it alone.
        standardise: give the backbone mean and standard deviation of the training data's coordinates (SimpleBaseline).
        ema: decay of an exponential moving average of the weights, such as 0.999, which is what is validated and saved;
            None trains without.
        compile: run the backbone under torch.compile; checkpoints are the same.
        flip_probability: share of training clips that are mirrored.
        flip_test: average the prediction with that of the mirrored input in validation and test.
        seed: of the mirroring; the same seed mirrors the same clips at the same step.
        init_from: published checkpoint or .safetensors file to start from: of the backbone, or of the stage before it
            (P-STMO's pre-training); or the name of a backbone whose weights come with the package, such as "lift-27".
        root: what the measures of a test that are published (P1, P2, P3, MPJVE) make of the predicted root: "kept",
            "zeroed" or "subtracted", see :data:`structloss.harness.roots.ROOTS`; None is what the backbone's published
            evaluation does.

    Raises:
        UnknownNameError: an unknown backbone, term or skeleton.
        ArgumentError: an impossible value.
        CheckpointError: `init_from` is unreadable or belongs to another model.
    """

    def __init__(
        self,
        backbone: str = "repose-tiny",
        backbone_args: dict[str, Any] | None = None,
        refine: str | None = None,
        objective: dict[str, float] | None = None,
        objective_options: dict[str, dict[str, Any]] | None = None,
        squared_objective: bool = False,
        learn_weights: bool = False,
        learned: dict[str, Any] | None = None,
        semi_supervised: dict[str, Any] | None = None,
        structure_aware: dict[str, Any] | None = None,
        target: str = "global",
        skeleton: str = "h36m",
        optimizer: str = "adamw",
        lr: float = 5e-4,
        weight_decay: float = 0.01,
        schedule: str = "exponential",
        lr_decay: float = 0.99,
        drop_every: int = 0,
        drop: float = 0.5,
        batch_norm_momentum: float | None = None,
        standardise: bool = False,
        ema: float | None = None,
        compile: bool = False,
        flip_probability: float = 0.5,
        flip_test: bool = True,
        seed: int = 0,
        init_from: str | None = None,
        root: str | None = None,
    ) -> None:
        super().__init__()
        check_choice("target", target, TARGETS)
        if not 0 <= flip_probability <= 1:
            raise ArgumentError(f"flip_probability is {flip_probability}, expected a number from 0 to 1.")
        check_ema(ema)
        self.optimization = OptimizerSettings(optimizer, lr, weight_decay, schedule, lr_decay, drop_every, drop)
        self.save_hyperparameters()
        self.skeleton = skeletons.get(skeleton)
        self.model = backbones.create(backbone, **(backbone_args or {}))
        self._check_fit(backbone, target, standardise)
        #: what published measures make of the predicted root
        self.root = check_published_root(root, backbone, target, self.skeleton)
        #: whether they lay windows end to end
        self.repeats = repeats_frames(backbone)
        #: the network for the root's place in front of the camera, in semi-supervised training
        self.trajectory: VideoPose3D | None = None
        self.semi_supervised: SemiSupervised | None = None
        if (semi := SemiSupervisedSettings.of(semi_supervised)) is not None:
            self._check_semi_supervised()
            self.trajectory = trajectory_network(self.model, backbone, backbone_args)
            self.semi_supervised = SemiSupervised(semi)
        if init_from is not None:
            self._start_from(init_from)
        if refine is not None:
            second = backbones.create(refine)
            if not isinstance(second, SecondStage):
                raise ArgumentError(f"refine is {refine!r}, expected a second stage that trains by itself.")
            self.model = second.after(self.model)
        if compile:
            self.model.compile()  # in place: the names of the weights stay
        self.loss = TrainingLoss(
            objective or REPOSE_OBJECTIVE, skeleton, objective_options, squared_objective, learn_weights
        )
        settings = LearnedSettings.of(learned)
        self._check_learned(backbone, settings, standardise)
        joints = self._predicted_joints()
        self.structure_aware: StructureAware | None = None
        if (structure := StructureAwareSettings.of(structure_aware)) is not None:
            self._check_structure_aware(backbone)
            assert joints is not None  # pre-training is refused
            self.structure_aware = StructureAware(structure, self.skeleton, joints)
        self.learned = None if settings is None else LearnedTraining(settings, self.skeleton, joints)
        self.val_metrics, self.val_order = validation_metrics(skeleton, "val/")
        self.test_metrics, self.test_order = validation_metrics(skeleton, "test/")
        #: of a validation, put together by video
        self.steps, self.order = VideoSteps(1), VideoOrder(1)
        #: what the last `test` came to
        self.evaluation: Evaluation | None = None
        self._scores: Scores | None = None
        #: seconds spent in the loss's forward pass, where its gradient is computed too; see callbacks.StepTimer
        self.loss_seconds = 0.0
        #: whether they are counted on a GPU too, which then has to be waited for
        self.time_loss = False

    def forward(self, keypoints: Tensor) -> Tensor:
        """`[B, T, J, C]` (x, y, confidence) -> `[B, T, J, 3]` in normalised image space."""
        return self.model(keypoints)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._fade_batch_norm_momentum()
        seed_step(self, batch_idx)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        batch = self._augment(batch)
        further: Tensor | None = None
        parts: dict[str, Tensor] = {}
        if (beside := self.semi_supervised or self.structure_aware) is not None:
            predictions, further, parts = beside.step(self, batch, batch_idx)
        else:
            predictions = self.model.supervise(batch["input"], batch["target"], batch["weight"])
        self.synchronise()
        started = time.perf_counter()
        total, terms = self.loss(predictions)
        self.synchronise()
        self.loss_seconds += time.perf_counter() - started
        if further is not None:
            total = total + further
        terms |= {name: value.detach() for name, value in parts.items()}
        if self.learned is not None:
            energy, seen = self.learned.step(self, batch, predictions, total)
            terms |= {f"learned_{name}": value for name, value in seen.items()}
            total = total + energy
        size = len(batch["input"])
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=size, sync_dist=True)
        self.log_dict({f"train/{name}": value for name, value in terms.items()}, batch_size=size, sync_dist=True)
        lambdas = {f"lambda/{name}": value for name, value in self.loss.current_lambdas().items()}
        self.log_dict(lambdas, batch_size=size, sync_dist=False)
        return total

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._score(batch, self.val_metrics, self.val_order, self.trainer.val_dataloaders)

    def on_test_start(self) -> None:
        data = getattr(self.trainer, "datamodule", None)
        self._scores = None
        if data is not None and self.model.kind != "pretrain":
            if isinstance(data, MotionDataModule):
                check_window(self.model, self.hparams["backbone"], data)
            temporal = data.test_dataset.store.temporal
            told = self.root, temporal, self.repeats, data.test_set
            self._scores = Scores(self.skeleton, data.actions, data.subjects, data.rules, self.device, *told)
            for metrics in (self.test_metrics, self.test_order):
                metrics.reset()

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        if self._scores is None:
            self._score(batch, self.test_metrics, self.test_order, self.trainer.test_dataloaders)
        else:
            with self._compared(batch) as pair:
                pair.update(self.test_metrics, self.test_order)
                self._scores.update(self, pair, batch)

    def on_test_epoch_end(self) -> None:
        if self._scores is None:
            return
        with scoring():
            means = {k: v for metrics in (self.test_metrics, self.test_order) for k, v in metrics.compute().items()}
            self.evaluation = self._scores.compute({k.removeprefix("test/"): float(v) for k, v in means.items()})
        # A key that both have is the metric's, of all frames pooled, as it is everywhere but in the protocol's table.
        found = self.evaluation.protocol | self.evaluation.metrics | self.evaluation.structure
        self.log_dict({f"test/{name}": value for name, value in found.items() if "/" not in name})

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Camera-space poses in mm, `[B, T, J, 3]`."""
        return self.to_millimetres(self.predict_image_space(batch["input"]), self.matched(batch))

    def to_millimetres(self, prediction: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Camera-space poses in mm from a prediction in the space of the target, for a batch of the same frames."""
        return to_millimetres(prediction, batch, self.hparams["target"], root=self.skeleton.pelvis)

    def measured(self, prediction: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The same relative to the true root, the predicted root as published measures have it, for a batch of the same
        frames."""
        return measured_poses(prediction, batch, self.root, self.hparams["target"], self.skeleton)

    def matched(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with those frames and joints alone that the network predicts."""
        return {key: self.model.match(value) if key in _PER_FRAME else value for key, value in batch.items()}

    def predict_image_space(self, keypoints: Tensor) -> Tensor:
        """Prediction in normalised image space, averaged with that of the mirrored input if `flip_test` is set."""
        prediction = self.model(keypoints)
        if self.hparams["flip_test"]:
            mirrored = self.model(flip(keypoints, self.skeleton))
            prediction = (prediction + self._flipped(mirrored)) / 2
        return prediction

    def _flipped(self, prediction: Tensor) -> Tensor:
        """Mirrored back, also where the network doesn't predict all joints."""
        joints = self._predicted_joints()
        assert joints is not None  # pre-training predicts no poses
        if len(joints) == self.skeleton.num_joints:
            return flip(prediction, self.skeleton)
        every = prediction.new_zeros(*prediction.shape[:-2], self.skeleton.num_joints, prediction.shape[-1])
        every[..., joints, :] = prediction
        return flip(every, self.skeleton)[..., joints, :]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        steps = int(self.trainer.estimated_stepping_batches)
        trained = [*self.model.parameters(), *(() if self.trajectory is None else self.trajectory.parameters())]
        return self.optimization.build(trained, steps, undecayed=self.loss.parameters())

    def configure_callbacks(self) -> list[Callback]:
        found = averaging(self.hparams["ema"])
        if self.model.kind == "pretrain":
            found.append(best_checkpoint("val/loss"))
        if self.trajectory is not None:
            found.append(TrajectoryError())
        return found

    def on_fit_start(self) -> None:
        if isinstance(data := training_data(self.trainer), MotionDataModule):
            check_window(self.model, self.hparams["backbone"], data)
            objective = self.hparams["objective"] or REPOSE_OBJECTIVE
            check_term_frames(objective, self.model, self.hparams["backbone"], data)
        if (beside := self.semi_supervised or self.structure_aware) is not None:
            beside.begin(self)
        elif getattr(training_data(self.trainer), "unlabelled", None) is not None:
            raise ArgumentError(
                f"unlabelled is {str(training_data(self.trainer).unlabelled)!r}, expected None without structure_aware "
                "or semi_supervised, which train on it."
            )
        if self.hparams["standardise"]:
            assert isinstance(self.model, TakesStatistics)  # as the constructor has checked
            self.model.set_statistics(**training_data(self.trainer).train_dataset.statistics())
        if self.learned is not None:
            self.learned.begin(self)

    def _fade_batch_norm_momentum(self) -> None:
        """Called at every batch, not epoch by epoch: a run that is resumed within an epoch needs it too."""
        last = self.hparams["batch_norm_momentum"]
        if last is None:
            return
        epochs = self.trainer.max_epochs or -1
        if epochs > 0:
            done = self.current_epoch / epochs
        else:  # so many steps, whatever that is in epochs
            done = self.global_step / max(1, int(self.trainer.estimated_stepping_batches))
        momentum = 0.1 * (last / 0.1) ** min(1.0, done)
        for norm in self.modules():
            if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
                norm.momentum = momentum

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_finite(checkpoint, self.global_step)
        if self.hparams["standardise"]:  # the published state dict has no place for them
            names = ("input_mean", "input_std", "output_mean", "output_std")
            checkpoint["statistics"] = {name: getattr(self.model, name) for name in names}
        if self.learned is not None:
            checkpoint["learned"] = self.learned.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name, value in checkpoint.get("statistics", {}).items():
            self.model.register_buffer(name, value, persistent=False)
        if self.learned is not None:
            self.learned.restore(checkpoint.get("learned", {}))
        check_same_network(checkpoint, self.hparams, ("backbone", "backbone_args", "target", "skeleton"))

    def _start_from(self, path: str) -> None:
        path = weights_called(path)
        if self.trajectory is not None:
            start_trajectory(self.trajectory, path)
        try:
            backbones.load_published(self.model, path)
        except CheckpointError:
            if not isinstance(self.model, StartsFromFirstStage):
                raise
            self.model.load_first_stage(path)

    def _check_fit(self, backbone: str, target: str, standardise: bool) -> None:
        """Raise if the backbone can't be trained on what is asked for."""
        kind = self.model.kind
        if kind == "refine":
            raise ArgumentError(
                f"backbone is {backbone!r}, a second stage that takes poses, expected a lifting network."
            )
        if kind == "centre" and target == "global":
            raise ArgumentError(
                f"target is 'global', which refers to a window's first frame, expected 'root_relative' or 'camera' for "
                f"{backbone}, which predicts its centre."
            )
        if self.skeleton.num_joints not in self.model.joints:
            raise ArgumentError(
                f"skeleton is {self.skeleton.name!r} with {self.skeleton.num_joints} joints, expected one with "
                f"{' or '.join(map(str, self.model.joints))} for {backbone}."
            )
        if standardise and not isinstance(self.model, TakesStatistics):
            raise ArgumentError(f"standardise is True, expected False for {backbone}, which takes no statistics.")
        structural = sorted(set(self.hparams["objective"] or REPOSE_OBJECTIVE) - {SQUARED_ERROR, "mpjpe"})
        if standardise and structural:
            raise ArgumentError(
                f"standardise is True, expected False with {structural[0]!r} in the objective: standardised poses "
                "have no depth order and no bones."
            )

    def _check_semi_supervised(self) -> None:
        for name, needed in (("target", "camera"), ("flip_probability", 0), ("learned", None), ("refine", None)):
            unused = name == "learned" and LearnedSettings.of(self.hparams[name]) is None
            if self.hparams[name] != needed and not unused:
                why = ": data.mirrored mirrors poses, trajectories and cameras" if name == "flip_probability" else ""
                raise ArgumentError(f"{name} is {self.hparams[name]!r}, expected {needed!r} with semi_supervised{why}.")

    def _check_structure_aware(self, backbone: str) -> None:
        if self.model.kind == "pretrain":
            raise ArgumentError(f"structure_aware is set, expected None for {backbone}, which predicts no poses.")
        if self.hparams["standardise"]:
            raise ArgumentError(
                "standardise is True, expected False with structure_aware: standardised poses have no bones."
            )
        if self.semi_supervised is not None:
            raise ArgumentError("structure_aware is set, expected None with semi_supervised, which has its own losses.")

    def _check_learned(self, backbone: str, settings: LearnedSettings | None, standardise: bool) -> None:
        if settings is None:
            return
        if self.model.kind == "pretrain":
            raise ArgumentError(f"learned is set, expected None for {backbone}, which predicts no poses.")
        if standardise:
            raise ArgumentError("standardise is True, expected False with learned: standardised poses are no bodies.")

    def _predicted_joints(self) -> list[int] | None:
        """Numbers of the joints that the network predicts, where it takes all of the skeleton's."""
        if self.model.kind == "pretrain":
            return None
        frames = self.model.frames
        every = torch.arange(self.skeleton.num_joints).expand(1, frames, -1)
        return self.model.match(every)[0, 0].tolist()

    def _augment(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.hparams["flip_probability"] == 0:
            return batch
        drawn = chance(self.hparams["seed"], self.current_epoch, batch["index"])
        return flip_batch(batch, drawn < self.hparams["flip_probability"], self.skeleton)

    @contextmanager
    def _compared(self, batch: dict[str, Tensor]) -> Iterator[Compared]:
        """A batch beside its prediction, to add to metrics."""
        prediction = self.predict_image_space(batch["input"])
        with scoring():
            yield compared(self, prediction, batch)

    def _score(
        self, batch: dict[str, Tensor], positions: MetricCollection, order: MetricCollection, batches: object
    ) -> None:
        """Score and log a batch of a loader."""
        size = len(batch["input"])
        if self.model.kind == "pretrain":  # it predicts no poses
            total, _ = self.loss(self.model.supervise(batch["input"], batch["target"], batch["weight"]))
            self.log("val/loss", total, on_epoch=True, batch_size=size)
            return
        prefix = positions.prefix
        found = dict(positions.items()) | dict(order.items())
        windows = windows_of(batches)
        with self._compared(batch) as pair:
            pair.update(positions, order)
            if windows is not None and not windows.moves:
                del found[f"{prefix}depth_order_frames"]  # nothing follows anything
            else:
                poses, target, weight = pair.of_all_joints(self, batch)
                place = {"action": torch.zeros_like(batch["action"]), **frames_of_videos(self, batch)}
                self.steps.update(poses - target, weight, **place)
                found[f"{prefix}mpjve"] = self.steps
                if windows is not None and windows.single:
                    self.order.update((poses - target)[..., :0], weight, depths_of(self, pair, batch), **place)
                    found[f"{prefix}depth_order_frames"] = self.order
        self.log_dict(found, on_step=False, on_epoch=True, batch_size=size)

    def synchronise(self) -> None:
        """Wait for a GPU, to tell the loss's share of the step; its queue is not drained unless `time_loss` is set."""
        if self.time_loss and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def describe(objective: Mapping[str, float]) -> str:
    """A short name of an objective for tables: "MPJPE + L_S + 2 L_T"."""
    parts = [
        (f"{weight:g} " if weight != 1 else "") + ("MSE" if name == SQUARED_ERROR else check_term(name).symbol)
        for name, weight in objective.items()
        if weight
    ]
    return " + ".join(parts)
