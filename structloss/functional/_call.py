"""From a public function's arguments to one call of the operator: the checks and the shape [B, T, J, 3]."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .. import skeletons, units
from ..errors import (
    ArgumentError,
    check_choice,
    check_finite_tensors,
    check_floating,
    check_not_negative,
    check_same_device,
    check_same_shape,
    check_weight,
)
from ..ops import autograd, library
from ..ops.dtypes import compute_dtype
from ..ops.structure import encode_options
from ..terms import TERMS, check_options, check_term
from ._plans import Key, Plan, find, remember

__all__ = [
    "REDUCTIONS",
    "as_constant",
    "check_joint_weight",
    "check_pair",
    "check_poses",
    "check_scale",
    "check_weights",
    "encode",
    "keep_plan",
    "lambdas_of",
    "relative_to",
    "run",
    "run_plan",
    "share_memory",
    "single",
]

REDUCTIONS = ("mean", "sum")


def check_poses(pred: Tensor, minimum_dim: int = 3, expected: str = "[..., T, J, 3]") -> None:
    """Raise unless `pred` is a floating-point tensor of poses (or of rows, with `minimum_dim=1`)."""
    check_floating("pred", pred)
    if pred.dim() < minimum_dim or (minimum_dim == 3 and pred.shape[-1] != 3):
        raise ArgumentError(f"pred has shape {list(pred.shape)}, expected {expected}.")


def check_pair(pred: Tensor, target: Tensor | None, minimum_dim: int = 3, expected: str = "[..., T, J, 3]") -> None:
    """Raise unless `pred` and `target` are poses (or rows) of one shape, on one device."""
    check_poses(pred, minimum_dim, expected)
    check_floating("target", target)
    assert target is not None
    check_same_shape("target", target, "pred", pred)
    check_same_device("target", target, "pred", pred)
    if target.requires_grad:
        raise ArgumentError(
            "target requires grad, expected one that doesn't (target.detach()), since no gradient flows to it."
        )


def relative_to(
    root: int | None, pred: Tensor, target: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Poses relative to a joint; a frame whose root has weight 0 loses all its weight, as in the metrics."""
    if root is None:
        return pred, target, weight
    check_pair(pred, target)
    if isinstance(root, bool) or not isinstance(root, int) or root < 0:
        raise ArgumentError(f"root is {root!r}, expected None or the index of a joint (0 or more).")
    if root >= pred.shape[-2]:
        raise ArgumentError(f"root is {root}, expected a joint below {pred.shape[-2]}.")
    weight = check_weight(weight, pred, pred.shape[:-1])
    at = slice(root, root + 1)
    if weight is not None:
        weight = torch.where(weight[..., at] > 0, weight, 0)
    return pred - pred[..., at, :], target - target[..., at, :], weight


def check_weights(weights: object) -> None:
    """Raise unless `weights` maps names of terms to something."""
    if not isinstance(weights, Mapping):
        raise ArgumentError(f"weights is a {type(weights).__name__}, expected a mapping from term names to numbers.")
    if not weights:
        raise ArgumentError("weights is empty, expected at least one term and its weight.")
    for name in weights:
        check_term(name)


def as_constant(value: object) -> object:
    """An option as a constant of the compiled graph, where torch.compile(dynamic=True) makes numbers symbolic."""
    if not torch.compiler.is_compiling():
        return value
    if isinstance(value, (list, tuple)):
        return tuple(as_constant(x) for x in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        from torch.fx.experimental.symbolic_shapes import guard_scalar

        return guard_scalar(value)
    return value


def _constant_result(function):
    """Mark a function whose result is a constant of a compiled graph.

    torch.compiler.assume_constant_result does the same, but imports the compiler, and Triton with it: a second.
    """
    function._dynamo_marked_constant = True
    return function


@_constant_result
def encode(terms: tuple[str, ...], options: Mapping[str, Mapping[str, object]] | None) -> str:
    """The options of the objective, checked, as text."""
    if options is None:
        return ""
    if not isinstance(options, Mapping):
        raise ArgumentError(f"options is a {type(options).__name__}, expected a mapping from term names to mappings.")
    checked = {}
    for name, given in options.items():
        term = check_term(name)
        if name not in terms:
            raise ArgumentError(
                f"options has the key {name!r}, expected one of the terms in weights: {', '.join(terms)}."
            )
        checked[name] = check_options(term, given, f"options[{name!r}]")
    return encode_options(checked)


@_constant_result
def _encode_single(name: str, keys: tuple[str, ...], values: tuple[object, ...]) -> str:
    return encode_options({name: check_options(TERMS[name], dict(zip(keys, values, strict=True)))})


def _is_default(value: object, default: object) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def check_joint_weight(argument: str, given: Mapping[str, Any], joints: int) -> None:
    """Raise unless the factors among a term's options, if any, are one per joint."""
    # Not part of the constant functions above: the number of joints may be symbolic in a compiled graph.
    factors = given.get("joint_weight")
    if factors is None:
        return
    if isinstance(factors, Tensor) and torch.compiler.is_compiling():
        raise ArgumentError(
            f"{argument} is a Tensor, expected numbers in a compiled function, such as .tolist() of it."
        )
    # What has no length, a 0-d tensor too, is refused by the option's own check.
    counted = hasattr(factors, "__len__") and not isinstance(factors, str) and getattr(factors, "ndim", 1) > 0
    if counted and len(factors) != joints:
        raise ArgumentError(f"{argument} has {len(factors)} numbers, expected {joints}, one per joint.")


def check_scale(name: str, given: Mapping[str, Any], pred: Tensor, depth: int = 5) -> None:
    """Warn where a term that assumes a unit is given poses that plainly have another; of the call at this depth."""
    if name not in _UNITS or torch.compiler.is_compiling():
        return
    metres, remedy = _UNITS[name](given)
    if metres and units.is_due(name):
        size = units.glance(pred)
        units.warn_of_size("pred", size, metres, remedy, small=name == "bone_ratio", depth=depth)


def _of_hinges(given: Mapping[str, Any]) -> tuple[float, str]:
    """Metres per unit that the options say, 0 for any, and what to do about it."""
    if given.get("normalize_bones", False):
        return 0.0, ""
    return float(given.get("scale", 1.0)), "pass scale=1e-3 for millimetres, or normalize_bones=True for any unit"


def _of_ratios(given: Mapping[str, Any]) -> tuple[float, str]:
    return 1e-3 * (given.get("form") == "paper"), "pass millimetres, or form='code' for any unit"


# Terms that are not the same in every unit but for a factor.
_UNITS: Mapping[str, Callable[[Mapping[str, Any]], tuple[float, str]]] = {
    "illegal_angle": _of_hinges,
    "bone_ratio": _of_ratios,
}


def single(
    name: str,
    pred: Tensor,
    target: Tensor | None,
    weight: Tensor | None,
    reduction: str,
    check_finite: bool,
    backend: str | None,
    skeleton: str = "",
    **options: object,
) -> Tensor:
    """One term by itself."""
    key, plan = find(
        "term", (name,), {name: options} if options else None, skeleton, reduction, backend, pred, target, weight
    )
    if plan is not None:
        for _, known in plan.units:
            check_scale(name, known, pred)
        return run_plan(
            plan, (name,), None, [1.0], pred, target, weight, skeleton, reduction, check_finite, backend, False
        )[0]
    given = {key: as_constant(value) for key, value in options.items()}
    given = {key: value for key, value in given.items() if not _is_default(value, TERMS[name].options[key].default)}
    if TERMS[name].needs_target:
        check_pair(pred, target)
    else:
        check_poses(pred)
    check_joint_weight("joint_weight", given, pred.shape[-2])
    text = _encode_single(name, tuple(given), tuple(given.values())) if given else ""
    check_scale(name, given, pred)
    result = run((name,), None, [1.0], pred, target, weight, skeleton, text, reduction, check_finite, backend)[0]
    if key is not None:
        keep_plan(key, (name,), {name: given}, pred, target, weight, skeleton, text, reduction, backend)
    return result


def run(
    terms: tuple[str, ...],
    lam: Tensor | None,
    lambdas: list[float],
    pred: Tensor,
    target: Tensor | None,
    weight: Tensor | None,
    skeleton: str,
    options: str,
    reduction: str,
    check_finite: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """Total (0-d) and detached term values [K] of checked poses."""
    check_choice("reduction", reduction, REDUCTIONS)
    if skeleton:
        _check_skeleton(terms, skeleton, pred)
    weight = check_weight(weight, pred, pred.shape[:-1])
    if check_finite:
        check_finite_tensors(pred=pred, target=target, weight=weight)
    return autograd.objective(*_clips(pred, target, weight), lam, lambdas, terms, skeleton, options, reduction, backend)


def keep_plan(
    key: Key,
    terms: tuple[str, ...],
    given: Mapping[str, Mapping[str, Any]],
    pred: Tensor,
    target: Tensor | None,
    weight: Tensor | None,
    skeleton: str,
    options: str,
    reduction: str,
    backend: str | None,
) -> None:
    """Keep what :func:`run` found out about a call that it has carried out, for calls of the same key."""
    expanded = None if weight is None else weight.expand(pred.shape[:-1])
    clips = _clips(pred, target, expanded)
    launch = None
    if share_memory(clips, (pred, target, expanded)):
        launch = library.plan_objective(*clips, terms, skeleton, options, reduction, backend)
    units = tuple((name, dict(given.get(name, {}))) for name in terms if name in _UNITS)
    expands = expanded is not None and weight is not None and expanded.shape != weight.shape
    remember(key, Plan(launch, options, units, pred.shape[:-1] if expands else None))


def share_memory(views: Sequence[Tensor | None], tensors: Sequence[Tensor | None]) -> bool:
    """Whether tensors in another shape are views; the layout of a copy is not the one that a key is about."""
    pairs = zip(views, tensors, strict=True)
    return all(x is None or view is None or view.data_ptr() == x.data_ptr() for view, x in pairs)


def run_plan(
    plan: Plan,
    terms: tuple[str, ...],
    lam: Tensor | None,
    lambdas: list[float],
    pred: Tensor,
    target: Tensor | None,
    weight: Tensor | None,
    skeleton: str,
    reduction: str,
    check_finite: bool,
    backend: str | None,
    need_values: bool = True,
) -> tuple[Tensor, Sequence[Tensor]]:
    """As :func:`run`, of a call for which there is a plan; the values are 0-d each."""
    if weight is not None:
        check_not_negative(weight)
        if plan.weight_shape is not None:
            weight = weight.expand(plan.weight_shape)
    if check_finite:
        check_finite_tensors(pred=pred, target=target, weight=weight)
    if plan.launch is not None and (lam is None or library.values_in_memory(lam)):
        return autograd.planned(plan.launch, pred, target, weight, lam, lambdas, need_values)
    total, values = autograd.objective(
        *_clips(pred, target, weight), lam, lambdas, terms, skeleton, plan.options, reduction, backend
    )
    return total, values.unbind(0) if need_values else ()


def _clips(pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """[..., T, J, 3] -> [B, T, J, 3], and the weights accordingly."""
    return (
        _clip_view(pred, 3),
        None if target is None else _clip_view(target, 3),
        None if weight is None else _clip_view(weight, 2),
    )


def _check_skeleton(terms: tuple[str, ...], skeleton: str, pred: Tensor) -> None:
    joints = skeletons.get(skeleton).num_joints
    if pred.shape[-2] == joints:
        return
    for name in terms:
        if TERMS[name].needs_skeleton:
            raise ArgumentError(
                f"pred has shape {list(pred.shape)}, expected {joints} joints, those of the skeleton {skeleton!r}, "
                f"for the term {name!r}."
            )


def _clip_view(x: Tensor, keep: int) -> Tensor:
    """[..., *last `keep` sizes] -> [B, ...], a view where the strides allow one."""
    if x.dim() == keep + 1:
        return x
    if x.dim() == keep:
        return x.unsqueeze(0)
    # A zero size leaves -1 undetermined, and an empty batch has no clips to keep apart.
    return x.flatten(0, -keep - 1)


def _are_numbers(weights: Mapping[str, float | Tensor]) -> bool:
    """Whether all weights are finite floats >= 0, as they nearly always are."""
    for value in weights.values():  # noqa: SIM110, a generator takes twice as long
        if type(value) is not float or not 0.0 <= value <= sys.float_info.max:
            return False
    return True


def lambdas_of(weights: Mapping[str, float | Tensor], pred: Tensor) -> tuple[Tensor | None, list[float]]:
    """The weights as a tensor [K] if any of them is one, else as numbers."""
    if not torch.compiler.is_compiling() and _are_numbers(weights):
        return None, [*weights.values()]  # type: ignore[list-item]
    dtype = compute_dtype(pred.dtype)
    numbers: list[float] = []
    tensors: list[Tensor | None] = []
    for name, value in weights.items():
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ArgumentError(f"weights[{name!r}] has shape {list(value.shape)}, expected a 0-d tensor.")
            check_floating(f"weights[{name!r}]", value)
            check_same_device(f"weights[{name!r}]", value, "pred", pred)
            tensors.append(value.reshape(()).to(dtype))
        elif isinstance(value, (int, float, Real)):
            if not 0 <= value <= sys.float_info.max:
                raise ArgumentError(f"weights[{name!r}] is {value}, expected a finite number >= 0.")
            numbers.append(float(value))
            tensors.append(None)
        else:
            raise ArgumentError(f"weights[{name!r}] is a {type(value).__name__}, expected a number or a 0-d tensor.")
    if len(numbers) == len(tensors):
        return None, numbers
    rest = iter(numbers)
    stacked = [
        torch.full((), next(rest), dtype=dtype, device=pred.device) if value is None else value for value in tensors
    ]
    return torch.stack(stacked), [0.0] * len(tensors)
