"""The objective: any weighted subset of the terms in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .. import skeletons
from ..errors import ArgumentError
from ..terms import TERMS
from ._call import (
    as_constant,
    check_joint_weight,
    check_pair,
    check_poses,
    check_scale,
    check_weights,
    encode,
    keep_plan,
    lambdas_of,
    run,
    run_plan,
)
from ._plans import find
from .resolution import resolutions_of, run_apart

__all__ = ["Objective", "ObjectiveResult", "objective"]


class ObjectiveResult(NamedTuple):
    """Result of :func:`objective`.

    Attributes:
        total: the weighted sum, 0-d; call backward on this one.
        terms: name -> unweighted value, 0-d and detached, for logging.
    """

    total: Tensor
    terms: dict[str, Tensor]


#: The result's name before `structloss.nn.Objective` was the only objective; kept for code that imports it.
Objective = ObjectiveResult


def objective(
    pred: Tensor,
    target: Tensor | None,
    weights: Mapping[str, float | Tensor],
    *,
    skeleton: str = "h36m",
    weight: Tensor | None = None,
    options: Mapping[str, Mapping[str, object]] | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
    training: bool = True,
    generator: torch.Generator | None = None,
) -> ObjectiveResult:
    """Any weighted subset of the loss terms in one pass over the poses.

    Args:
        pred, target: poses [..., T, J, 3]; `target` may be None if no term needs one.
        weights: term name (see `structloss.TERMS`) -> lambda >= 0, a number or a 0-d tensor; a tensor that requires
            grad receives its gradient, which is the term's value.
        skeleton: name of the skeleton, for terms that need one.
        weight: [..., T, J], >= 0: visibility, confidence or padding, applied in every term.
        options: term name -> the keywords of its own function, e.g. {"illegal_angle": {"tolerance": 0.005}}.
        reduction: "mean" or "sum", as in each term's own function.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.
        training, generator: of ranking terms with a `resolution`, as in :func:`structloss.depth_ranking`; no other term
            looks at them.

    Returns:
        `ObjectiveResult(total, terms)`.

    Source: RePOSE (Sun et al., ECCV 2024), Equation 4.

    Example:
        >>> import torch, structloss
        >>> pred, target = torch.zeros(2, 81, 17, 3, requires_grad=True), torch.randn(2, 81, 17, 3)
        >>> weights = {"mpjpe": 1.0, "depth_ranking_joints": 1.0, "depth_ranking_frames": 1.0, "bone_symmetry": 0.05}
        >>> structloss.objective(pred, target, weights).total.backward()
    """
    key = plan = None
    if type(weights) is dict:  # what else there may be, a list of names for one, the checks look at
        names = tuple(weights)
        key, plan = find("poses", names, options, skeleton, reduction, backend, pred, target, weight)
    if plan is not None:
        for name, given in plan.units:
            check_scale(name, given, pred, depth=4)
        total, values = run_plan(
            plan,
            names,
            *lambdas_of(weights, pred),
            pred,
            target,
            weight,
            skeleton,
            reduction,
            check_finite,
            backend,
        )
        return ObjectiveResult(total, dict(zip(names, values, strict=True)))
    check_weights(weights)
    if target is None:
        for name in weights:
            if TERMS[name].needs_target:
                raise ArgumentError(f"target is None, expected poses, since the term {name!r} compares with them.")
        check_poses(pred)
    else:
        check_pair(pred, target)
    skeletons.get(skeleton)
    names = tuple(weights)
    text = ""
    if options is not None:
        if torch.compiler.is_compiling():
            options = {name: {key: as_constant(x) for key, x in given.items()} for name, given in options.items()}
        text = encode(names, options)
        for name, given in options.items():
            check_joint_weight(f"options[{name!r}]['joint_weight']", given, pred.shape[-2])
    for name in names:
        check_scale(name, (options or {}).get(name, {}), pred, depth=4)
    call = (names, *lambdas_of(weights, pred), pred, target, weight, skeleton, text, reduction, check_finite, backend)
    if resolutions := resolutions_of(options):  # a target of its own in every call: no plan
        total, stacked = run_apart(resolutions, training, generator, *call)
    else:
        total, stacked = run(*call)
        if key is not None:
            keep_plan(key, names, options or {}, pred, target, weight, skeleton, text, reduction, backend)
    return ObjectiveResult(total, dict(zip(weights, stacked.unbind(0), strict=True)))
