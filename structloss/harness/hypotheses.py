"""The published test of a network that samples (D3DP): several hypotheses of every clip, and four errors of them.

Source: Shan et al., "Diffusion-Based 3D Human Pose Estimation with Multi-Hypothesis Aggregation" (D3DP), ICCV 2023.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ..backbones.diffusion import hypothesis_errors, j_agg, j_best, p_agg, p_best
from ..data.image_space import relative
from ..data.protocols import PROTOCOLS
from ..errors import ArgumentError
from ..metrics._precision import Sums, sums, wide
from .screen_cameras import cameras_of

if TYPE_CHECKING:
    from ..data import MotionDataModule
    from .lifting import LiftingModule

__all__ = ["HypothesisScore", "HypothesisTest", "cameras_of", "hypothesis_tests"]

KEYS = ("j_best", "p_best", "p_agg", "j_agg")
_TARGET = "camera"  # the space of the published network


class HypothesisScore(Sums):
    """J-Best, P-Best, P-Agg and J-Agg over a data set, in the poses' unit.

    Args:
        actions: how many there are.
        by_action: average over actions, each the mean over its frames (Human3.6M); otherwise over all frames.
        kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, actions: int, by_action: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.by_action = by_action
        self.add_state("total", sums(actions, len(KEYS)), dist_reduce_fx="sum")
        self.add_state("count", sums(actions, 1), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(
        self,
        poses: Tensor,
        target: Tensor,
        weight: Tensor,
        *,
        action: Tensor,
        view: Tensor,
        keypoints: Tensor,
        trajectory: Tensor,
        camera: Tensor,
    ) -> None:
        """Add a batch.

        Args:
            poses: `[B, H, T, J, 3]`, H hypotheses of each clip, relative to the root.
            target: `[B, T, J, 3]`, likewise.
            weight: `[B, T, J]`, >= 0.
            action: `[B]`, number of each clip's action.
            view: `[B]`, number of each clip's view. P-Best chooses one hypothesis for all clips of a view in a batch,
                as published, so it depends on the batch size.
            keypoints: `[B, T, J, 2]`, the 2D input, in the unit of the camera.
            trajectory: `[B, T, 3]`, the root in the camera's frame, in the unit of the poses.
            camera: `[B, 9]`, see :func:`structloss.backbones.diffusion.project`; NaN where it is not known: then J-Agg
                is NaN.
        """
        for number in view.unique():
            of = view == number
            w, pose, truth = weight[of], poses[of][:, None], target[of]  # as one iteration of the sampler
            share = wide(w).sum()
            if not share > 0:  # frames that an earlier window has scored
                continue
            errors = hypothesis_errors(pose, truth)
            best = j_best(errors, w), p_best(errors, w), p_agg(pose, truth, w)
            aggregated = pose.new_full((1,), math.nan)
            if camera[of].isfinite().all():
                aggregated = j_agg(pose, truth, keypoints[of], trajectory[of], camera[of], w)
            row = action[of][:1]
            self.total = self.total.index_add(0, row, share * wide(torch.stack([*best, aggregated], -1)))
            self.count = self.count.index_add(0, row, share.reshape(1, 1))

    def compute(self) -> dict[str, Tensor]:
        """The four errors, scalars, float64 where the device has it; NaN where nothing was scored."""
        if self.by_action:
            seen = self.count[:, 0] > 0
            values = (self.total / self.count)[seen].mean(0)
        else:
            values = self.total.sum(0) / self.count.sum()
        return dict(zip(KEYS, values, strict=True))


class HypothesisTest(Callback):
    """Draws hypotheses of every test clip and adds the four errors of the last iteration to what the test finds, mm.

    Mirrored input is averaged at every step, as published. The noise of a batch depends on the module's seed and the
    batch's first sample alone.

    Args:
        hypotheses: H of each clip.
        iterations: K of the sampler. The published test of Human3.6M takes 5 hypotheses in 5 iterations, the paper's
            tables 20 in 10.
        at_once: hypotheses that the network takes at a time, which bounds memory.

    Raises:
        ArgumentError: fewer than one of them.
    """

    def __init__(self, hypotheses: int = 5, iterations: int = 5, at_once: int = 5) -> None:
        for name, value in (("hypotheses", hypotheses), ("iterations", iterations), ("at_once", at_once)):
            if value < 1:
                raise ArgumentError(f"{name} is {value}, expected at least 1.")
        self.hypotheses, self.iterations, self.at_once = hypotheses, iterations, at_once
        self.score: HypothesisScore | None = None
        self.cameras: dict[tuple[int, int], tuple[float, ...]] = {}
        self.found: dict[str, float] = {}

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module, data = cast("LiftingModule", pl_module), _data(trainer)
        if not hasattr(module.model, "sample"):
            name = module.hparams["backbone"]
            raise ArgumentError(f"hypotheses is {self.hypotheses}, expected 0 for {name}, which draws no samples.")
        if module.hparams["target"] != _TARGET:
            target = module.hparams["target"]
            raise ArgumentError(f"hypotheses is {self.hypotheses}, expected 0 for target {target!r}, or {_TARGET!r}.")
        by_action = PROTOCOLS[data.rules].score.startswith("h36m")
        self.score = HypothesisScore(len(data.actions), by_action).to(module.device)
        self.cameras = cameras_of(data.test_dataset)
        if trainer.is_global_zero:
            print(f"drawing {self.hypotheses} hypotheses of each clip in {self.iterations} iterations", flush=True)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        module = cast("LiftingModule", pl_module)
        assert self.score is not None
        pelvis = list(module.skeleton.pelvis)
        known = (batch["weight"][..., pelvis] > 0).all(-1, keepdim=True)
        numbers = zip(batch["clip"].tolist(), batch["view"].tolist(), strict=True)
        camera = torch.tensor([self.cameras[number] for number in numbers], device=module.device)
        self.score.update(
            1000 * self.draw(module, batch),
            relative(batch["camera_pose"], pelvis),
            torch.where(known, batch["weight"], 0.0),
            action=batch["action"],
            view=batch["clip"] * 1000 + batch["view"],
            keypoints=batch["input"][..., :2],
            trajectory=batch["camera_pose"][..., pelvis, :].mean(-2),
            camera=camera,
        )

    @torch.no_grad()
    def draw(self, module: LiftingModule, batch: dict[str, Tensor]) -> Tensor:
        """Hypotheses `[B, H, T, J, 3]` after the last iteration, metres relative to the root, float32."""
        model: Any = module.model
        first = int(batch["index"][0])
        seed = np.random.SeedSequence([int(module.hparams["seed"]), first]).generate_state(1, np.uint64)[0]
        generator = torch.Generator(module.device).manual_seed(int(seed) // 2)
        x = batch["input"].to(next(model.parameters()).dtype)
        options = {"generator": generator, "at_once": self.at_once}
        return model.sample(x, self.hypotheses, self.iterations, **options)[:, -1].float()

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self.score is not None
        self.found = {key: float(value) for key, value in self.score.compute().items()}
        pl_module.log_dict({f"test/{key}": value for key, value in self.found.items() if math.isfinite(value)})

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module = cast("LiftingModule", pl_module)
        if module.evaluation is not None:
            module.evaluation.metrics |= self.found


def hypothesis_tests(
    module: LiftingModule, hypotheses: int | None = None, iterations: int | None = None
) -> list[HypothesisTest]:
    """What a test of a module needs besides: a :class:`HypothesisTest` for a network that samples, otherwise nothing.

    Args:
        module: to be tested.
        hypotheses: None for the published number; 0 for no such test.
        iterations: None for the published number.
    """
    given = {"hypotheses": hypotheses, "iterations": iterations}
    chosen = {name: value for name, value in given.items() if value is not None}
    samples = module.model.samples and module.hparams["target"] == _TARGET
    return [HypothesisTest(**chosen)] if hypotheses != 0 and (chosen or samples) else []


def _data(trainer: L.Trainer) -> MotionDataModule:
    return cast("MotionDataModule", getattr(trainer, "datamodule", None))
