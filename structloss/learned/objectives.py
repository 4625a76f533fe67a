"""What a loss network is trained with: objectives that push the energy of the truth below that of its negatives.

A low energy is plausible. Energies, structured distances and weights have one shape, `[..., T]` or any other, with one
value per frame; nothing is broadcast, since a distance of shape `[B, T]` beside energies `[B, T, 1]` would compare
every frame with every other. Each function returns a scalar, the weighted mean over the frames: 0 where there are no
frames or all weights are 0. Entries of weight 0 drop out whatever they hold, NaN included. Gradients flow to energies
only.

All raise :class:`~structloss.errors.ArgumentError` for a wrong shape, device or number, and
:class:`~structloss.errors.DtypeError` for tensors that are not floating point.

Sources: SCoTL-pose / SEAL-pose (Kim et al., arXiv 2602.20051) and its first author's code; SEAL (Lee et al., NeurIPS
2022) for the ranking form with proposal densities, the perceptron term and regression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ArgumentError, check_choice, check_floating, check_name, check_same_device
from ._frames import check_frame_weight, check_like, check_number, check_positive, energy_gap, masked, weighted_mean
from .pair_term import pair_starts, pairwise_temporal

__all__ = [
    "DISTANCES",
    "OBJECTIVES",
    "loss_net_objective",
    "margin",
    "nce",
    "pair_starts",
    "pairwise_temporal",
    "per_batch",
    "ranking_nce",
    "regression",
    "ssvm_perceptron",
    "structured_distance",
]

DISTANCES = ("mpjpe", "mse", "l1")


@torch.no_grad()
def structured_distance(prediction: Tensor, target: Tensor, kind: str = "mpjpe") -> Tensor:
    """How far each frame's pose is from the truth: the margin that a negative deserves. It carries no gradient.

    Args:
        prediction, target: poses `[..., J, 3]` in metres, both relative to their root.
        kind: `"mpjpe"`, mean distance of the joints; `"mse"`, mean square over joints and coordinates (square metres);
            `"l1"`, mean absolute difference over joints and coordinates.

    Returns:
        `[...]`, one distance per frame.
    """
    check_choice("kind", kind, DISTANCES)
    check_floating("prediction", prediction)
    check_like(target, prediction, "target", "prediction")
    if prediction.dim() < 2 or prediction.shape[-1] != 3 or prediction.shape[-2] < 1:
        raise ArgumentError(f"prediction has shape {list(prediction.shape)}, expected [..., J, 3] with J >= 1.")
    off = prediction - target
    if kind == "mpjpe":
        return torch.linalg.vector_norm(off, dim=-1).mean(-1)
    return (off.square() if kind == "mse" else off.abs()).mean((-2, -1))


def per_batch(delta: Tensor, weight: Tensor | None = None) -> Tensor:
    """The batch's weighted mean distance in place of every frame's own, as the first author's code has it.

    Args:
        delta: distances `[..., T]`.
        weight: `[..., T]`, >= 0.

    Returns:
        `[..., T]`, the same number everywhere (a view).
    """
    check_floating("delta", delta)
    weight = check_frame_weight(weight, delta, "delta")
    return weighted_mean(masked(delta, weight), weight).expand(delta.shape)


def margin(
    energy_true: Tensor,
    energy_negative: Tensor,
    delta: Tensor,
    *,
    scale: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Margin-rescaled hinge: max(0, m delta + E(truth) - E(negative)).

    Args:
        energy_true, energy_negative: energies `[..., T]`.
        delta: structured distance of the negative, `[..., T]`.
        scale: m, energy per unit of distance. Below 0 there is neither margin nor hinge: the bare difference
            E(truth) - E(negative), which has no lower bound.
        weight: `[..., T]`, >= 0.
    """
    scale = check_number("scale", scale, "a finite number", lambda x: True)
    gap, weight, delta = energy_gap(energy_true, energy_negative, weight, delta)
    return weighted_mean(gap if scale < 0 else F.relu(scale * delta + gap), weight)


def nce(
    energy_true: Tensor, energy_negative: Tensor, *, temperature: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Contrast with one negative: minus the log-probability of the truth, softplus((E(truth) - E(negative)) / tau).

    Args:
        energy_true, energy_negative: energies `[..., T]`.
        temperature: tau, above 0.
        weight: `[..., T]`, >= 0.
    """
    temperature = check_positive("temperature", temperature)
    gap, weight, _ = energy_gap(energy_true, energy_negative, weight)
    # The softplus without torch's cut-off at 20, which costs nine digits there.
    return weighted_mean(-F.logsigmoid(-gap / temperature), weight)


def ranking_nce(
    energy_true: Tensor,
    energies_negative: Tensor,
    *,
    log_q: Tensor | None = None,
    temperature: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Contrast with K negatives at once: minus the log of [e^(-E_0 / tau) / q_0] / sum_k [e^(-E_k / tau) / q_k].

    Args:
        energy_true: energies of the truth, `[..., T]`.
        energies_negative: `[..., T, K]`, K >= 1.
        log_q: logarithm of the density that each pose was drawn with, `[..., T, K + 1]`, the truth first; a constant
            that all share cancels out. None takes all as equally dense.
        temperature: tau, above 0.
        weight: `[..., T]`, >= 0.
    """
    temperature = check_positive("temperature", temperature)
    check_floating("energy_true", energy_true)
    check_floating("energies_negative", energies_negative)
    check_same_device("energies_negative", energies_negative, "energy_true", energy_true)
    shape = energy_true.shape
    if energies_negative.shape[:-1] != shape or energies_negative.dim() == 0 or energies_negative.shape[-1] < 1:
        raise ArgumentError(
            f"energies_negative has shape {list(energies_negative.shape)}, expected {[*shape, 'K']} with K >= 1: the "
            "shape of energy_true and one more dimension."
        )
    weight = check_frame_weight(weight, energy_true, "energy_true")
    energies = torch.cat([energy_true[..., None], energies_negative], dim=-1)
    scores = -masked(energies, weight) / temperature
    if log_q is not None:
        check_floating("log_q", log_q)
        check_same_device("log_q", log_q, "energy_true", energy_true)
        if log_q.shape != energies.shape:
            raise ArgumentError(
                f"log_q has shape {list(log_q.shape)}, expected {list(energies.shape)}: the truth and each negative."
            )
        scores = scores - masked(log_q.detach(), weight)
    return weighted_mean(scores.logsumexp(-1) - scores[..., 0], weight)


def ssvm_perceptron(
    energy_true: Tensor,
    energy_negative: Tensor,
    delta: Tensor,
    *,
    scale: float = 1.0,
    perceptron: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Structured hinge and perceptron: max(0, delta / w + E(truth) - E(negative)) + w_p max(0, E(truth) - E(negative)).

    Args:
        energy_true, energy_negative: energies `[..., T]`.
        delta: structured distance of the negative, `[..., T]`.
        scale: w, distance per unit of energy, above 0.
        perceptron: w_p, at least 0.
        weight: `[..., T]`, >= 0.
    """
    scale = check_positive("scale", scale)
    perceptron = check_number("perceptron", perceptron, "a finite number >= 0", lambda x: x >= 0)
    gap, weight, delta = energy_gap(energy_true, energy_negative, weight, delta)
    return weighted_mean(F.relu(delta / scale + gap) + perceptron * F.relu(gap), weight)


def regression(energies: Tensor, delta: Tensor, *, scale: float = 0.05, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of sigma(-E) with the oracle exp(-delta / scale), 1 for the truth: a deep value network.

    Args:
        energies: energies of any poses, the truth among them, `[..., T]`.
        delta: their structured distance, 0 for the truth, `[..., T]`.
        scale: the distance at which the oracle is 1/e, above 0; 50 mm is ours.
        weight: `[..., T]`, >= 0.
    """
    scale = check_positive("scale", scale)
    check_floating("energies", energies)
    check_like(delta, energies, "delta", "energies")
    weight = check_frame_weight(weight, energies, "energies")
    oracle = torch.exp(-masked(delta.detach(), weight) / scale).to(energies.dtype)
    return weighted_mean(
        F.binary_cross_entropy_with_logits(-masked(energies, weight), oracle, reduction="none"), weight
    )


OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    "margin": margin,
    "nce": nce,
    "nce_ranking": ranking_nce,
    "ssvm": ssvm_perceptron,
    "regression": regression,
}
"""Names that :func:`loss_net_objective` takes."""


def loss_net_objective(
    name: str,
    energy_true: Tensor,
    negatives: Sequence[tuple[Tensor, Tensor]],
    *,
    margin: float = 1.0,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    log_q: Tensor | None = None,
) -> Tensor:
    """One objective over all negatives of a batch, whichever its form.

    `"margin"`, `"nce"` and `"ssvm"` compare the truth with one negative after the other and add up the means.
    `"nce_ranking"` compares with all at once. `"regression"` adds the truth's mean, at distance 0, to the negatives'.

    Args:
        name: one of :data:`OBJECTIVES`.
        energy_true: energies of the truth, `[..., T]`.
        negatives: (energy, structured distance) of each negative, `[..., T]` both; at least one.
        margin: m of `"margin"`; `"ssvm"` takes its inverse as w, so it needs m > 0.
        temperature: tau of `"nce"` and `"nce_ranking"`, above 0.
        weight: `[..., T]`, >= 0.
        log_q: `[..., T, K + 1]`, for `"nce_ranking"` only.

    Raises:
        UnknownNameError: an unknown name.
        ArgumentError: no negatives, or an argument that the objective can't take.
    """
    objective = OBJECTIVES[check_name("objective", name, OBJECTIVES)]
    if not negatives:
        raise ArgumentError("negatives is empty, expected at least one (energy, distance).")
    check_floating("energy_true", energy_true)
    for k, (energy, delta) in enumerate(negatives):
        check_like(energy, energy_true, f"the energy of negatives[{k}]", "energy_true")
        check_like(delta, energy_true, f"the distance of negatives[{k}]", "energy_true")
    if name == "nce_ranking":
        energies = torch.stack([energy for energy, _ in negatives], dim=-1)
        return objective(energy_true, energies, log_q=log_q, temperature=temperature, weight=weight)
    if log_q is not None:
        raise ArgumentError(f"log_q is given for {name!r}, expected it for 'nce_ranking' only.")
    if name == "nce":
        terms = [objective(energy_true, energy, temperature=temperature, weight=weight) for energy, _ in negatives]
    elif name == "regression":
        posed = [(energy_true, torch.zeros_like(energy_true)), *negatives]
        terms = [objective(energy, delta, weight=weight) for energy, delta in posed]
    else:
        scale = margin if name == "margin" else 1 / check_positive("margin", margin)
        terms = [objective(energy_true, energy, delta, scale=scale, weight=weight) for energy, delta in negatives]
    return torch.stack(terms).sum()
