"""Pairs of depths too close to call: targets for the ranking terms in which they are ties, before any kernel.

A target d becomes floor((d + u) / resolution), with one offset u a row, uniform in [0, resolution). A pair of the row
stays apart with probability min(1, |d_i - d_j| / resolution) and is a tie otherwise, and a tie in the target passes no
gradient: the expected loss, and the expected gradient, are those of the hinge with these probabilities for weights of
its pairs, a ramp without edges. What the mean divides by stays as it is.

Depths are divided in float64 (on Apple's GPUs in float32), so that a root far away costs no digits beyond those that it
took from the depths. The quotients are whole numbers, exact in float32 up to 2**24: a resolution of a tenth of a
millimetre reaches 1.6 km. NaN stays NaN, and infinite depths stay the first and the last of their row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..ops.dtypes import compute_dtype
from ..ops.torch_terms.common import accumulation_dtype
from ..terms import TERMS
from ._call import as_constant, run

__all__: list[str] = []

# What a row of each ranking term lies along, counted from the end of the depths [..., T, J].
_ROWS = {"depth_ranking_joints": -1, "depth_ranking_frames": -2}


def as_resolution(value: object) -> float:
    """The keyword `resolution` of a function, checked; 0 for off."""
    if type(value) is float and value == 0.0:
        return 0.0
    checked = TERMS["depth_ranking_frames"].options["resolution"].check("resolution", as_constant(value))
    assert isinstance(checked, float)
    return checked


def resolutions_of(options: Mapping[str, Mapping[str, Any]] | None) -> dict[str, float]:
    """Term -> resolution > 0, of checked options of the objective; empty where all are off."""
    given = {name: of_term.get("resolution", 0.0) for name, of_term in (options or {}).items()}
    return {name: float(resolution) for name, resolution in given.items() if resolution}


def coarse(
    target: Tensor, resolution: float, dim: int, dtype: torch.dtype, training: bool, generator: torch.Generator | None
) -> Tensor:
    """Depths as whole numbers of `resolution`, in the compute dtype of `dtype`.

    Args:
        target: depths, rows along `dim`.
        resolution: > 0, in the unit of the depths.
        training: draw the offset of each row; otherwise it is half of the resolution.
        generator: draws it, of the device of `target`; None for torch's own.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ArgumentError(f"generator is a {type(generator).__name__}, expected a torch.Generator or None.")
    if not isinstance(training, bool):
        raise ArgumentError(f"training is a {type(training).__name__}, expected True or False.")
    wide = accumulation_dtype(target.device)
    depths = target.detach().to(wide)
    if training:
        shape = list(depths.shape)
        shape[dim] = 1
        # Not generator=None: torch's form with a generator takes no symbolic shapes.
        drawn_by: dict[str, Any] = {} if generator is None else {"generator": generator}
        offset: Tensor | float = resolution * torch.rand(shape, **drawn_by, dtype=wide, device=depths.device)
    else:
        offset = 0.5 * resolution
    return ((depths + offset) / resolution).floor().to(compute_dtype(dtype))


def coarse_poses(
    term: str,
    pred: Tensor,
    target: Tensor,
    resolution: float,
    training: bool,
    generator: torch.Generator | None,
) -> Tensor:
    """A target [..., T, J, 3] for one ranking term; the depth is in every channel of it, in the same memory."""
    depths = coarse(target[..., 2], resolution, _ROWS[term], pred.dtype, training, generator)
    return depths.unsqueeze(-1).expand(target.shape)


def run_apart(
    resolutions: Mapping[str, float],
    training: bool,
    generator: torch.Generator | None,
    terms: tuple[str, ...],
    lam: Tensor | None,
    lambdas: list[float],
    pred: Tensor,
    target: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    """What `run` gives, each term that has a resolution in a call of its own, with its own target.

    Args:
        resolutions: term -> resolution, of some of `terms`.
        training, generator: of :func:`coarse`.
        terms, lam, lambdas, pred, target, rest: as of :func:`structloss.functional._call.run`.
    """
    plain = tuple(name for name in terms if name not in resolutions)
    calls = [(plain, target)] if plain else []
    assert target is not None, "ranking terms need one, and it was checked"
    for name in terms:
        if name in resolutions:
            calls.append(((name,), coarse_poses(name, pred, target, resolutions[name], training, generator)))
    totals: list[Tensor] = []
    values: dict[str, Tensor] = {}
    for names, aim in calls:
        places = [terms.index(name) for name in names]
        of_call = None if lam is None else torch.stack([lam[k] for k in places])
        total, found = run(names, of_call, [lambdas[k] for k in places], pred, aim, *rest)
        totals.append(total)
        values.update(zip(names, found.unbind(0), strict=True))
    # The sum of the totals in the order of the calls; one total for one term, without another kernel.
    total = totals[0]
    for more in totals[1:]:
        total = total + more
    return total, torch.stack([values[name] for name in terms])
