"""The check: a provider's loss and gradient against the float64 definition, before it may be timed.

The definitions are those of the operators' tests, every pair spelled out, in tests/reference. Compared are random poses
of the measured shape, and small ones with and without many equal depths, where implementations of the hinge differ;
without only, for a provider that ignores ties.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .inputs import Shape, distinct, make_input, skeleton_of

__all__ = [
    "KINKED",
    "WrongError",
    "check",
    "checked_shape",
    "compare",
    "hinge_rows",
    "left_out",
    "reference",
    "shortened",
    "term",
]

REFERENCE = Path(__file__).resolve().parents[1] / "tests" / "reference"
SMALL_SHAPE = Shape(2, 27, 17)
# More pairs than this take minutes in the float64 definition; the check then shortens the clip.
MAX_PAIRS = 300_000_000
# Pairs the literal definition holds in memory at once; longer rows go block by block.
PAIRS_AT_ONCE = 4_000_000
# A gradient in bfloat16 is rounded to 8 bits, the loss is not: it is float32.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10, torch.bfloat16: 4e-3}
# A GPU takes more pairs in the same time; there it is the making of the input that the number of clips limits.
MAX_GPU_PAIRS, MAX_GPU_ELEMENTS = 3_000_000_000, 400_000
#: Terms whose gradient jumps where two lengths are equal or a limb is straight. Rounding may put a joint on the other
#: side than in float64, and so one joint in KINK_SHARE is left out of the comparison of gradients.
KINKED = ("bone_symmetry", "illegal_angle", "limb_length", "bone_angle", "bone_angle_velocity")
KINK_SHARE = 10_000


class WrongError(Exception):
    """A provider's loss or gradient differs from the definition."""


@functools.cache
def reference(name: str) -> ModuleType:
    """A module of the definitions. They are no part of this package, and belong to no other: the tests are none."""
    if not (REFERENCE / f"{name}.py").exists():
        raise FileNotFoundError(f"{REFERENCE}/{name}.py is missing, and nothing is timed that wasn't compared.")
    package = f"{__package__}.reference"
    sys.modules.setdefault(package, ModuleType(package)).__path__ = [str(REFERENCE)]
    return importlib.import_module(f"{package}.{name}")


def hinge_rows(p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Unreduced hinge of rows [R, N] and its gradient."""
    pairwise = reference("pairwise")
    total, gradient = torch.zeros((), dtype=torch.float64, device=p.device), torch.empty_like(p)
    at_once = PAIRS_AT_ONCE // p.shape[-1] ** 2
    for start in range(0, len(p), max(at_once, 1)):
        rows = slice(start, start + max(at_once, 1))
        if at_once:
            leaf = p[rows].clone().requires_grad_()
            value = pairwise.ranking_hinge_rows(leaf, d[rows]).sum()
            (gradient[rows],) = torch.autograd.grad(value, leaf)
        else:
            value, gradient[start] = pairwise.ranking_hinge_by_blocks(p[start], d[start])
        total += value.detach()
    return total, gradient


def term(name: str, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient of one term of structloss.TERMS in float64; computed where the poses are, long rows by blocks.

    Returned on the CPU.
    """
    with torch.device(pred.device):  # the definitions make constants
        value, gradient = _term(name, pred.detach().double(), target.double())
    return value.cpu(), gradient.cpu()


def _term(name: str, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if not name.startswith("depth_ranking_"):
        leaf = pred.clone().requires_grad_()
        value = reference("terms").term(name, leaf, target, body=_body(pred.shape[-2]))
        return value.detach(), torch.autograd.grad(value, leaf)[0]
    over_frames = name == "depth_ranking_frames"
    p, d = ((x[..., 2].transpose(1, 2) if over_frames else x[..., 2]) for x in (pred, target))
    total, g = hinge_rows(p.flatten(0, 1), d.flatten(0, 1))
    pairs = p.numel() * p.shape[-1]
    g = g.unflatten(0, p.shape[:2]) / pairs
    gradient = torch.zeros_like(pred)
    gradient[..., 2] = g.transpose(1, 2) if over_frames else g
    return total / pairs, gradient


@functools.cache
def _body(joints: int) -> object:
    """The body of the reference's skeleton terms."""
    terms, skeleton = reference("terms"), skeleton_of(joints)
    if skeleton is None or skeleton.name == "h36m":
        return terms.H36M  # written out there; terms without a skeleton don't use it
    pairs = {
        "four": [pair for group, pairs in skeleton.symmetric_groups if group == "limbs" for pair in pairs],
        "all": skeleton.symmetric_bones,
    }
    return terms.Body(
        bones=tuple((parent, child) for child, parent in skeleton.bones),
        angles={"published": skeleton.angle_pairs, "all": skeleton.angle_pairs},
        symmetric={name: tuple((right, left) for left, right in found) for name, found in pairs.items()},
        hinges=tuple((*hinge.joints, -hinge.legal_sign) for hinge in skeleton.hinges),
        groups=tuple(
            tuple(zip(bones, lengths, strict=True))
            for (_, bones), lengths in zip(skeleton.bone_groups, skeleton.bone_group_lengths, strict=True)
        ),
    )


def shortened(shape: Shape, pairs: int) -> Shape:
    """`shape`, its clips halved until it has no more than so many pairs."""
    while shape.pairs > pairs and shape.frames > 1:
        shape = shape._replace(frames=shape.frames // 2)
    return shape


def checked_shape(shape: Shape, device: str) -> Shape:
    """The largest part of `shape` that a check takes seconds for: on a GPU fewer clips, otherwise shorter ones."""
    if device != "cuda":
        return shortened(shape, MAX_PAIRS)
    clips = max(MAX_GPU_ELEMENTS // (shape.frames * shape.joints), 1)
    return shortened(shape._replace(batch=min(shape.batch, clips)), MAX_GPU_PAIRS)


@functools.lru_cache(maxsize=64)  # providers share terms, and long clips are all shortened to one length
def _cached_term(name: str, *of_input: Any) -> tuple[Tensor, Tensor]:
    return term(name, *_checked_input(*of_input))


def _checked_input(shape: Shape, dtype: torch.dtype, device: str, ties: bool, apart: bool) -> tuple[Tensor, Tensor]:
    """Predicted and true poses; `apart`: without the equal depths that rounding brings."""
    pred, target = make_input(shape, dtype, device, ties, seed=1)
    return (distinct(pred), distinct(target)) if apart else (pred, target)


def check(
    loss: Callable[[Tensor, Tensor], Tensor],
    terms: tuple[str, ...],
    shape: Shape,
    dtype: torch.dtype,
    device: str,
    with_ties: bool = True,
) -> dict[str, float]:
    """Compare the sum of `terms` and its gradient; raise WrongError unless they agree.

    Float errors of a right answer are far below the tolerance, a wrong convention at ties far above it.

    Returns:
        mode -> largest relative error: of the loss for "forward", of loss and gradient for "forward+backward". Vectors
        are compared by their Euclidean norm.
    """
    worst = {"forward": 0.0, "forward+backward": 0.0}
    small = Shape(*map(min, shape, SMALL_SHAPE))
    if skeleton_of(shape.joints):
        small = small._replace(joints=shape.joints)
    cases = ((small, False), *([(small, True)] if with_ties else []), (checked_shape(shape, device), False))
    for sizes, ties in dict.fromkeys(cases):
        label = f"{sizes}{' with ties' if ties else ''}"
        of_input = sizes, dtype, device, ties, not with_ties
        pred, target = _checked_input(*of_input)
        found = [_cached_term(name, *of_input) for name in terms]
        expected, expected_gradient = (sum(parts) for parts in zip(*found, strict=True))
        leaf = pred.clone().requires_grad_()
        value = loss(leaf, target)
        (gradient,) = torch.autograd.grad(value, leaf)
        with torch.no_grad():
            without_gradient = loss(pred, target)
        apart = left_out(terms, sizes)
        of_loss = max(
            compare("loss", label, value, expected), compare("loss under no_grad", label, without_gradient, expected)
        )
        of_gradient = compare("gradient", label, gradient, expected_gradient, apart)
        worst["forward"] = max(worst["forward"], of_loss)
        worst["forward+backward"] = max(worst["forward+backward"], of_loss, of_gradient)
    return worst


def left_out(terms: tuple[str, ...], shape: Shape) -> int:
    """Joints whose gradient may be off, where terms have kinks."""
    return shape.elements // KINK_SHARE if set(terms) & set(KINKED) else 0


def compare(what: str, label: str, got: Tensor, expected: Tensor, left_out: int = 0) -> float:
    """The relative error of `got`; raise WrongError unless it is `expected`, up to the rounding of its dtype.

    Args:
        what, label: for the message.
        got, expected: tensors of one shape, `expected` in float64.
        left_out: this many joints (vectors of the last axis) that differ most don't count.
    """
    allowed = TOLERANCE[got.dtype]
    off = got.detach().to(expected.device, torch.float64) - expected
    if left_out:
        by_joint = torch.linalg.vector_norm(off, dim=-1).flatten()
        off = by_joint.sort().values[: len(by_joint) - left_out]  # NaN sorts last: it must not be left out
        off = torch.cat([off, by_joint[by_joint.isnan()]])
    error = float(torch.linalg.vector_norm(off) / torch.linalg.vector_norm(expected).clamp(min=1e-30))
    if not error <= allowed:  # also catches NaN
        raise WrongError(f"{what} at {label} is off by a relative {error:.1e}, allowed {allowed:.0e}")
    return error
