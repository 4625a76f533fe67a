"""What a loss network has learned: its energy against the size of each corruption, of predictions, and its pull."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef
from torchmetrics.functional.classification import binary_auroc

from ..learned import CORRUPTIONS, LossNet, corrupt
from ..learned.objectives import structured_distance
from ..metrics import bsle, lle, lse, pa_mpjpe
from ..metrics.energy import CorruptionEnergies, EnergyAnalysis
from ..skeletons import relative
from .loss_nets import loss_net_inputs, with_scale

if TYPE_CHECKING:
    from .lifting import LiftingModule

__all__ = ["CorruptionEnergies", "EnergyAnalysis", "analyse"]

_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from truth to prediction
_BINS = 5  # of PA-MPJPE, within which energies are compared with MPJPE


def analyse(
    net: LossNet,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    target: str,
    module: LiftingModule | None = None,
    frames: int = 20_000,
    seed: int = 0,
) -> EnergyAnalysis:
    """Evaluate a loss network's energy on held-out poses.

    Args:
        net: the loss network.
        batches: held-out windows, a validation loader. Windows with a joint of weight 0 are left out.
        target: the space of their targets, as in the data module.
        module: a trained backbone, whose predictions are evaluated too; its target must be the same.
        frames: poses to evaluate, at most.
        seed: of the corruptions.

    Returns:
        The analysis; an energy has no unit, so only the order and differences of energies mean anything.
    """
    net.eval()
    found: dict[str, list[Tensor]] = {"x": [], "y": [], "prediction": []}
    count = 0
    for batch in batches:
        if count >= frames:
            break
        batch = with_scale(dict(batch))
        x, y, weight, unit = loss_net_inputs(batch, target)
        whole = (weight > 0).all(-1).all(-1)
        if module is not None:
            with torch.no_grad():
                prediction = module.predict_image_space(batch["input"])
            seen = {**module.matched(batch), "input": module.model.match(batch["input"])}
            x, y, _, unit = loss_net_inputs(seen, target)
        scale = unit[..., None, None] if isinstance(unit, Tensor) else unit
        found["x"].append(x[whole])
        found["y"].append(relative(y * scale, net.skeleton.pelvis)[whole])
        if module is not None:
            found["prediction"].append(relative(prediction * scale, net.skeleton.pelvis)[whole])
        count += int(whole.sum()) * y.shape[1]
    x, y = torch.cat(found["x"]), torch.cat(found["y"])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        # Neighbours in the data are views and pieces of one motion: another sample's pose must not be nearly the same.
        order = torch.randperm(len(y))
        x, y = x[order], y[order]
        truth = _energies(net, x, y)
        corruptions = {
            name: _corrupted(net, name, x, y, truth)
            for name, kind in CORRUPTIONS.items()
            if net.temporal or not kind.temporal
        }
    result = EnergyAnalysis(
        frames=truth.numel(),
        truth_mean=float(truth.mean()),
        truth_std=float(truth.std()),
        corruptions=corruptions,
    )
    if module is not None:
        _evaluate_predictions(result, net, x, y, torch.cat(found["prediction"])[order], truth)
    return result


def _energies(net: LossNet, x: Tensor, y: Tensor) -> Tensor:
    """`[N, T]`, some clips at a time."""
    return torch.cat([net(*part) for part in zip(x.split(256), y.split(256), strict=True)])


def _auc(truth: Tensor, other: Tensor) -> float:
    labels = torch.cat([torch.zeros(truth.numel()), torch.ones(other.numel())]).int()
    # Ranks, not the energies: torchmetrics would squash numbers beyond [0, 1] by a sigmoid, which runs out of digits.
    ranks = torch.cat([truth.reshape(-1), other.reshape(-1)]).cpu().double().unique(return_inverse=True)[1]
    return float(binary_auroc(ranks.double() / (ranks.max() + 1), labels))


def _corrupted(net: LossNet, name: str, x: Tensor, y: Tensor, truth: Tensor) -> CorruptionEnergies:
    kind = CORRUPTIONS[name]
    energy, auc, above, distance = [float(truth.mean())], [math.nan], [math.nan], [0.0]
    for size in kind.sweep:
        wrong = corrupt(name, y, net.skeleton, size=size, shared_frames=net.temporal)
        energies = _energies(net, x, wrong)
        energy.append(float(energies.mean()))
        auc.append(_auc(truth, energies))
        above.append(float((energies > truth).cpu().double().mean()))
        distance.append(1000 * float(structured_distance(wrong, y).mean()))
    usual = corrupt(name, y, net.skeleton, shared_frames=net.temporal)
    return CorruptionEnergies(
        sizes=[0.0, *kind.sweep],
        unit=kind.unit,
        label=kind.label,
        energy=energy,
        auc=auc,
        above=above,
        default=kind.default,
        default_auc=_auc(truth, _energies(net, x, usual)),
        default_distance=1000 * float(structured_distance(usual, y).mean()),
        distance=distance,
    )


def _evaluate_predictions(
    result: EnergyAnalysis, net: LossNet, x: Tensor, y: Tensor, predicted: Tensor, truth: Tensor
) -> None:
    pose = predicted.clone().requires_grad_()
    parts = []
    with torch.enable_grad():
        for planar, clip in zip(x.split(256), pose.split(256), strict=True):
            parts.append(net(planar, clip))
        energy = torch.cat(parts)
        (gradient,) = torch.autograd.grad(energy.sum(), pose)
    energy = energy.detach()
    if len(net.skeleton.pelvis) == 1:  # it stays where it is: what would move it moves all others
        gradient[..., net.skeleton.pelvis[0], :] = 0
    result.prediction_auc = _auc(truth, energy)
    away = y - predicted
    result.cosine = float(torch.cosine_similarity(-gradient.flatten(-2), away.flatten(-2), dim=-1).mean())
    result.pull = gradient.norm(dim=-1).flatten(0, -2).mean(0).tolist()
    with torch.no_grad():
        result.path_steps = list(_STEPS)
        result.path = [float(_energies(net, x, y + share * (predicted - y)).mean()) for share in _STEPS]
    name = net.skeleton.name
    errors = {
        "mpjpe": 1000 * structured_distance(predicted, y),
        "pa_mpjpe": 1000 * pa_mpjpe(predicted, y, reduction="none"),
        "lse": 1000 * lse(predicted, skeleton=name, reduction="none"),
        "bsle": 1000 * bsle(predicted, y, skeleton=name, reduction="none"),
        "lle": 1000 * lle(predicted, y, skeleton=name, reduction="none"),
    }
    flat = {key: value.reshape(-1).cpu().double() for key, value in errors.items()}
    ranked = energy.reshape(-1).cpu().double()
    result.correlation = {key: float(spearman_corrcoef(ranked, value)) for key, value in flat.items()}
    within = [
        float(spearman_corrcoef(ranked[part], flat["mpjpe"][part]))
        for part in flat["pa_mpjpe"].argsort().chunk(_BINS)
        if len(part) > 2
    ]
    result.correlation["mpjpe at equal pa_mpjpe"] = sum(within) / max(1, len(within))
    step = max(1, ranked.numel() // 3000)
    result.scatter = list(zip(flat["mpjpe"][::step].tolist(), ranked[::step].tolist(), strict=True))
