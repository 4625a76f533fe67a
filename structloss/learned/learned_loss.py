"""The learned loss: a loss network with its own training, used as one more term of anybody's objective."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, DataError, check_choice, check_floating, check_name
from ._frames import weighted_mean
from .distributed import averaged, several
from .inputs import LossNetInputs
from .loss_net import LossNet
from .negatives import CORRUPTIONS, corrupt
from .objectives import (
    DISTANCES,
    OBJECTIVES,
    loss_net_objective,
    pair_starts,
    pairwise_temporal,
    per_batch,
    structured_distance,
)
from .weighting import EnergyWeight, surrogate

__all__ = ["PREDICTION", "LearnedLoss"]

#: The negative that the pose network's own output is.
PREDICTION = "prediction"
_WATCH_EVERY = 50  # updates between checks that wait for the device
_COLLAPSED = 0.55  # share of negatives above the truth; 0.5 is chance
_BOUND = 1e4  # energies beyond it grow without bound: poses are metres apart, margins as well


class LearnedLoss(nn.Module):
    """A loss function that is trained while it is used: `update` teaches it, calling it gives λ · mean E(x, ŷ).

    The loss network learns to give a true pose less energy than a wrong one: the pose network's own prediction, and
    corrupted truths. The pose network then lowers the energy of its predictions. Only the prediction receives the
    gradient of the call, only the loss network that of `update`. After training nothing needs the loss network.

    Args:
        net: the loss network, or the name of a variant (:data:`~structloss.learned.VARIANTS`) for `skeleton`.
        skeleton: name of the skeleton, where `net` is a name.
        joints: numbers of the joints that the poses have, for networks that leave out some of the skeleton's: those are
            put halfway between their neighbours, in truths and predictions alike. x may have either.
        weight: λ, a number taken as it is, or `"auto:SHARE"`: λ follows the gradients, so that the energy pulls on the
            predictions with SHARE of the force of the other losses.
        warmup: calls over which λ rises from 0.
        objective: of the loss network, one of :data:`~structloss.learned.objectives.OBJECTIVES`.
        negatives: `"prediction"` and names of :data:`~structloss.learned.negatives.CORRUPTIONS`.
        distance: how far a negative is from the truth, one of :data:`~structloss.learned.objectives.DISTANCES`.
        delta: `"sample"`, or `"batch"`: one distance for all frames (the published code).
        margin: factor of the distance in the margin; below 0 the margin's hinge and bound go.
        temperature: of the NCE objectives.
        density: standard deviation in mm of the normal density around the prediction that `"nce_ranking"` weighs
            truth and negatives with; None weighs none.
        pair_weight: of the pairwise temporal term (published: 1e-3); 0 leaves it out. It needs `"prediction"` among the
            negatives, and all frames; a pair with a frame that is left out counts 0.
        pair_window, pair_kappa: see :func:`~structloss.learned.objectives.pairwise_temporal`.
        penalty: weight of mean E(x, y)² of the truth: it bounds energies, and makes those of different poses
            comparable, which margins and NCE leave open.
        frames: score this many frames of a clip, drawn anew each time, instead of all: neighbouring frames have much
            the same energy. A temporal loss network takes a run of them.
        lr: learning rate of the loss network's AdamW (betas 0.9 and 0.99).
        weight_decay: of the same.
        clip: its gradients are clipped to this norm; 0 for never.

    Shape:
        x `[..., T, J, 2 or 3]`, poses `[..., T, J, 3]` with at least one leading dimension, weights `[..., T, J]`.

    Source: SCoTL-pose / SEAL-pose (Kim et al., arXiv 2602.20051) with its first author's code; SEAL (Lee et al.,
    NeurIPS 2022). `"auto"`, corruptions and defaults are ours.

    Example:
        >>> import torch, structloss
        >>> from structloss.learned import LearnedLoss
        >>> pose_net = torch.nn.Linear(2, 3)
        >>> learned = LearnedLoss(skeleton="h36m", weight="auto:0.05")
        >>> x, y = torch.randn(4, 9, 17, 2), torch.randn(4, 9, 17, 3)
        >>> seen = learned.update(x, y, pose_net(x).detach())
        >>> pred = pose_net(x)
        >>> loss = structloss.mpjpe(pred, y)
        >>> (loss + learned(x, pred, loss)).backward()
    """

    def __init__(
        self,
        net: LossNet | str = "graph",
        *,
        skeleton: str = "h36m",
        joints: Sequence[int] | None = None,
        weight: float | str = "auto:0.05",
        warmup: int = 0,
        objective: str = "margin",
        negatives: Sequence[str] = (PREDICTION, "bone_rotation"),
        distance: str = "mpjpe",
        delta: str = "sample",
        margin: float = 1.0,
        temperature: float = 1.0,
        density: float | None = None,
        pair_weight: float = 0.0,
        pair_window: int = 3,
        pair_kappa: float = 1.0,
        penalty: float = 0.0,
        frames: int | None = None,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        clip: float = 1.0,
    ) -> None:
        super().__init__()
        self.net = net if isinstance(net, LossNet) else LossNet(skeleton, net)
        self.objective = check_choice("objective", objective, tuple(OBJECTIVES))
        self.negatives = tuple(negatives)
        if not self.negatives:
            raise ArgumentError("negatives is empty, expected at least one.")
        for name in self.negatives:
            check_name("negative", name, (PREDICTION, *CORRUPTIONS))
            if name != PREDICTION and CORRUPTIONS[name].temporal and not self.net.temporal:
                raise ArgumentError(f"negatives has {name!r}, expected a temporal loss network with it.")
        self.distance = check_choice("distance", distance, DISTANCES)
        self.delta = check_choice("delta", delta, ("sample", "batch"))
        for name, value, least in (
            ("temperature", temperature, 0.0),
            ("lr", lr, 0.0),
            ("density", 1.0 if density is None else density, 0.0),
        ):
            if not value > least:
                raise ArgumentError(f"{name} is {value!r}, expected a number > 0.")
        for name, number in (("pair_weight", pair_weight), ("penalty", penalty), ("clip", clip)):
            if not number >= 0:
                raise ArgumentError(f"{name} is {number!r}, expected a number >= 0.")
        if density is not None and objective != "nce_ranking":
            raise ArgumentError(f"density is {density!r}, expected None with the objective {objective!r}.")
        if pair_weight and (frames is not None or PREDICTION not in self.negatives):
            raise ArgumentError(
                f"pair_weight is {pair_weight!r}, expected 0 unless all frames of predictions are scored (frames None)."
            )
        self.margin, self.temperature, self.density = margin, temperature, density
        self.pair_weight, self.pair_window, self.pair_kappa = pair_weight, pair_window, pair_kappa
        self.penalty, self.clip = penalty, clip
        self.inputs = LossNetInputs(self.net.skeleton, joints, frames, in_a_row=self.net.temporal)
        self.force = EnergyWeight(weight, warmup)  # checkpoints keep it as "force"
        self.optimizer = torch.optim.AdamW(
            [p for p in self.net.parameters() if p.requires_grad], lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay
        )
        self.lr = lr
        self.frozen = False
        self._warned = False
        self._updates = 0
        # Moving averages: share of negatives that score above the truth, size of the energies.
        self.register_buffer("rank", torch.tensor(1.0))
        self.register_buffer("level", torch.tensor(0.0))

    rank: Tensor
    level: Tensor

    def freeze(self) -> None:
        """Train no more: `update` does nothing from now on (the static regime)."""
        self.frozen = True

    # The loss network
    def update(
        self,
        x: Tensor,
        target: Tensor,
        prediction: Tensor | None = None,
        *,
        weight: Tensor | None = None,
        unit: float | Tensor = 1.0,
        lr_factor: float = 1.0,
    ) -> dict[str, Tensor]:
        """One step of the loss network. Under DDP, gradients are averaged over the processes.

        Args:
            x: `[..., T, J, 2 or 3]`.
            target: true poses `[..., T, J, 3]`.
            prediction: the pose network's poses, if `"prediction"` is one of the negatives.
            weight: `[..., T, J]`: frames with a joint of weight 0 are left out.
            unit: metres per unit of the poses, a number or `[..., T]`.
            lr_factor: of the learning rate, for a schedule.

        Returns:
            What there is to watch, detached: "loss"; "energy" of the truth; for each negative "gap/NAME", how far its
            energy is above the truth's, and "rank/NAME", the share of frames where it is at all; "active", the share of
            margins that are not reached yet (objective "margin"). Empty once frozen.

        Raises:
            ArgumentError: wrong shapes, or no prediction where one is needed.
            DtypeError: a tensor that is not floating point.
            DataError: the loss network's loss or energies are not finite.
        """
        if self.frozen:
            return {}
        if prediction is None and (PREDICTION in self.negatives or self.density is not None):
            raise ArgumentError(f"prediction is None, expected poses like target's {list(target.shape)}.")
        x, truth, predicted, counted = self.inputs(x, target, prediction, weight, unit)
        with torch.no_grad():
            negatives = [self._negative(name, truth, predicted) for name in self.negatives]
            deltas = [structured_distance(pose, truth, self.distance) for pose in negatives]
            if self.delta == "batch":
                deltas = [per_batch(delta, counted) for delta in deltas]
        self.net.train()
        with torch.enable_grad(), _no_float16(x.device):
            energies = self._energies(x, [truth, *negatives])
            loss = self._objective(energies, deltas, truth, negatives, predicted, counted)
            parameters = self.optimizer.param_groups[0]["params"]
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        self.net.eval()
        self._step(parameters, gradients, lr_factor)
        return self._seen(loss.detach(), energies.detach(), deltas, counted)

    def _objective(
        self,
        energies: Tensor,
        deltas: Sequence[Tensor],
        truth: Tensor,
        negatives: Sequence[Tensor],
        predicted: Tensor | None,
        counted: Tensor | None,
    ) -> Tensor:
        true, others = energies[0], energies[1:]
        log_q = None
        if self.density is not None:
            assert predicted is not None  # as update has checked
            poses = torch.stack([truth, *negatives])
            squares = (poses - predicted).square().sum((-2, -1))
            log_q = -(squares / (2 * (self.density / 1000) ** 2)).movedim(0, -1)
        loss = loss_net_objective(
            self.objective,
            true,
            list(zip(others.unbind(), deltas, strict=True)),
            margin=self.margin,
            temperature=self.temperature,
            weight=counted,
            log_q=log_q,
        )
        if self.penalty:
            loss = loss + self.penalty * weighted_mean(true.square(), counted)
        if self.pair_weight:
            energy = others[self.negatives.index(PREDICTION)].reshape(-1, truth.shape[-3])
            clips = truth.reshape(-1, *truth.shape[-3:])
            first, second = pair_starts(clips.shape[1], self.pair_window, len(clips), device=truth.device)
            if counted is not None and clips.shape[1] > self.pair_window:
                # A window with a frame that is left out gives way to the other one: the pair is 0 then.
                whole = counted.reshape(energy.shape).unfold(1, self.pair_window, 1).amin(-1) > 0
                both = whole.gather(1, first[:, None]) & whole.gather(1, second[:, None])
                second = torch.where(both[:, 0], second, first)
            pair = pairwise_temporal(energy, clips, first, second, window=self.pair_window, kappa=self.pair_kappa)
            loss = loss + self.pair_weight * pair
        return loss

    def _negative(self, name: str, truth: Tensor, predicted: Tensor | None) -> Tensor:
        if name == PREDICTION:
            assert predicted is not None
            return predicted
        return corrupt(name, truth, self.net.skeleton, shared_frames=self.net.temporal).to(truth.dtype)

    def _energies(self, x: Tensor, poses: Sequence[Tensor]) -> Tensor:
        """`[K, ..., T]`, all in one batch: a network with batch statistics is the same function for all."""
        return self.net(x.expand(len(poses), *x.shape), torch.stack(list(poses)))

    def _step(self, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None], lr_factor: float) -> None:
        found = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        if several():
            flat = averaged(torch.cat([g.reshape(-1) for g in found]))
            found = [part.view_as(g) for part, g in zip(flat.split([g.numel() for g in found]), found, strict=True)]
        for parameter, gradient in zip(parameters, found, strict=True):
            parameter.grad = gradient
        if self.clip:
            nn.utils.clip_grad_norm_(parameters, self.clip)
        self.optimizer.param_groups[0]["lr"] = self.lr * lr_factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _seen(
        self, loss: Tensor, energies: Tensor, deltas: Sequence[Tensor], counted: Tensor | None
    ) -> dict[str, Tensor]:
        true, others = energies[0], energies[1:]
        seen = {"loss": loss, "energy": weighted_mean(true, counted)}
        ranks, active = [], []
        for name, energy, delta in zip(self.negatives, others, deltas, strict=True):
            ranks.append(weighted_mean((energy > true).to(true.dtype), counted))
            active.append(weighted_mean((self.margin * delta + true > energy).to(true.dtype), counted))
            seen |= {f"gap/{name}": weighted_mean(energy - true, counted), f"rank/{name}": ranks[-1]}
        if self.objective == "margin" and self.margin > 0:
            seen["active"] = torch.stack(active).mean()
        rank, level = torch.stack(ranks).mean(), energies.abs().mean()
        if not true.numel():  # no frames say nothing
            rank, level = self.rank, self.level
        elif counted is not None:
            rank = torch.where(counted.any(), rank, self.rank.to(rank))
        self._watch(rank, level)
        return seen

    def _watch(self, rank: Tensor, level: Tensor) -> None:
        """Warn where the loss network no longer tells truth from negatives or its energies grow without bound; raise
        where they are not finite."""
        self._updates += 1
        self.rank.lerp_(rank.to(self.rank), 0.02)
        self.level.lerp_(level.to(self.level), 0.02)
        if self._updates % _WATCH_EVERY:
            return
        # All processes stop together, or none: one that waits for another's gradients would wait forever.
        found, size = averaged(torch.stack([self.rank, self.level])).tolist()
        if not size < float("inf"):
            raise DataError(
                f"the loss network's energies are {size} after {self._updates} updates, expected finite numbers; try a "
                "lower lr of the learned loss, or look for NaN in the data."
            )
        trouble = None
        if found < _COLLAPSED:
            trouble = f"ranks only {found:.0%} of the negatives above the truth (chance: 50%): it has collapsed"
        elif size > _BOUND:
            trouble = f"gives energies of {size:.3g} in the mean: they grow without bound"
        if trouble and not self._warned:
            warnings.warn(
                f"the loss network {trouble}, and its gradient improves no pose. Try another lr, other negatives "
                f"(now {', '.join(self.negatives)}), or penalty > 0.",
                stacklevel=5,  # the caller of update: no_grad around _seen counts as well
            )
        self._warned = trouble is not None

    # The pose network
    def forward(
        self,
        x: Tensor,
        prediction: Tensor,
        position_loss: Tensor | None = None,
        *,
        weight: Tensor | None = None,
        unit: float | Tensor = 1.0,
    ) -> Tensor:
        """λ · mean E(x, prediction), a scalar whose gradient reaches `prediction` only.

        Args:
            x: `[..., T, J, 2 or 3]`.
            prediction: `[..., T, J, 3]`.
            position_loss: the other losses of the prediction, which λ follows if it is "auto"; its graph is kept.
            weight, unit: as for :meth:`update`.

        Raises:
            ArgumentError: wrong shapes, or no `position_loss` where λ is "auto".
            DtypeError: a tensor that is not floating point.
        """
        if self.force.share is not None:
            if position_loss is None:
                raise ArgumentError("position_loss is None, expected the other losses, by which weight 'auto' goes.")
            check_floating("position_loss", position_loss)
        check_floating("prediction", prediction)
        if prediction.dim() < 3:
            raise ArgumentError(f"prediction has shape {list(prediction.shape)}, expected [..., T, J, 3].")
        # Gradients of a mean over many frames are small numbers: float16 would lose them before a scaler sees them.
        pose = prediction.detach().to(torch.promote_types(prediction.dtype, torch.float32)).requires_grad_()
        with torch.enable_grad(), _no_float16(x.device):
            planar, seen, _, counted = self.inputs(x, pose, None, weight, unit, keep=True)
            energy = weighted_mean(self.net.eval()(planar, seen), counted)
            (gradient,) = torch.autograd.grad(energy, pose)
        factor = self.force(gradient, prediction, position_loss)
        #: mean energy of the last predictions
        self.energy = energy.detach()
        return surrogate(prediction, factor * self.energy, factor * gradient)

    # What a resumed run restores beside the weights
    def get_extra_state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "updates": self._updates,
            "warned": self._warned,
            "frozen": self.frozen,
        }

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self._updates, self._warned, self.frozen = int(state["updates"]), bool(state["warned"]), bool(state["frozen"])


@contextmanager
def _no_float16(device: torch.device) -> Iterator[None]:
    """The loss network's gradients are not scaled as a GradScaler does for float16: under it, compute in float32."""
    if torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) is torch.float16:
        with torch.autocast(device.type, enabled=False):
            yield
    else:
        yield
