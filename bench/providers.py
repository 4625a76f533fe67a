"""Ways to compute L_S + L_T (and two losses for scale), the inputs, and the check that each way is right.

A provider is checked against the float64 pairwise definition of tests/reference/pairwise.py before it may be timed: on
random walks and on depths with many ties, where implementations of the hinge differ.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

import structloss

__all__ = [
    "MODES",
    "PROVIDERS",
    "RANKING",
    "Provider",
    "Shape",
    "WrongError",
    "algorithm12",
    "bind",
    "check",
    "compare",
    "definition_rows",
    "eager_mpjpe",
    "make_input",
]

Loss = Callable[[Tensor, Tensor], Tensor]

RANKING = ("depth_ranking_joints", "depth_ranking_frames")
MODES = ("forward+backward", "forward")

SMALL_SHAPE = (2, 27, 17)
# More pairs than this take minutes in the float64 definition; the check then shortens the clip.
MAX_REFERENCE_PAIRS = 300_000_000
# Pairs the literal definition holds in memory at once; longer rows go block by block.
LITERAL_PAIRS = 4_000_000
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


class Shape(NamedTuple):
    """Sizes of a batch of clips [B, T, J, 3]."""

    batch: int
    frames: int
    joints: int

    @property
    def pairs(self) -> int:
        """Ordered pairs of frames and of joints: elements of the tensors that Algorithms 1 and 2 build."""
        return self.batch * self.frames * self.joints * (self.frames + self.joints)

    def __str__(self) -> str:
        return f"B = {self.batch}, T = {self.frames}, J = {self.joints}"


class WrongError(Exception):
    """A provider's loss or gradient differs from the definition."""


@dataclass(frozen=True)
class Provider:
    """One way to compute a loss.

    Attributes:
        name: in tables and on the command line.
        summary: what it is, for the table.
        terms: the loss it computes: names of structloss.TERMS, each with weight 1.
        build: device type -> the loss as a function of pred and target [B, T, J, 3]; run once a shape, may raise.
        problem: device type -> why it can't run here, or "".
        pair_tensors: upper estimates of the memory it takes forward + backward and forward, in tensors of one element a
            pair.
    """

    name: str
    summary: str
    terms: tuple[str, ...]
    build: Callable[[str], Loss]
    problem: Callable[[str], str] = lambda device: ""
    pair_tensors: tuple[float, float] = (0.0, 0.0)

    @property
    def op(self) -> str:
        """Name of the computed loss in the CSV."""
        ranking = ["depth_ranking"] if set(RANKING) <= set(self.terms) else []
        return "+".join([term for term in self.terms if term not in RANKING] + ranking)

    def memory_estimate(self, shape: Shape, mode: str, itemsize: int) -> int:
        """Bytes beyond input and gradient, rounded up; only the quadratic part counts."""
        return int(self.pair_tensors[MODES.index(mode)] * shape.pairs * itemsize)


# ---- the losses --------------------------------------------------------------------------------------------------


def _hinge_by_matrices(p: Tensor, d: Tensor) -> Tensor:
    """Step by step: differences C of the predictions, differences of the targets and their indicator D, max(0, C D)."""
    c = p.unsqueeze(-1) - p.unsqueeze(-2)
    d = d.unsqueeze(-1) - d.unsqueeze(-2)
    d = torch.where(d < 0, torch.ones_like(d), torch.zeros_like(d))
    return torch.maximum(c * d, torch.zeros_like(c)).mean()


def _hinge_by_mask(p: Tensor, d: Tensor) -> Tensor:
    """The same as lean as eager PyTorch allows: a comparison for the order of the targets, a 0-d zero."""
    wrong_if_positive = (p.unsqueeze(-1) - p.unsqueeze(-2)) * (d.unsqueeze(-1) < d.unsqueeze(-2)).to(p.dtype)
    return torch.maximum(wrong_if_positive, wrong_if_positive.new_zeros(())).mean()


def _both(hinge: Loss) -> Loss:
    def loss(pred: Tensor, target: Tensor) -> Tensor:
        p, d = pred[..., 2], target[..., 2]  # [B, T, J]
        return hinge(p, d) + hinge(p.transpose(1, 2), d.transpose(1, 2))

    return loss


#: RePOSE's Algorithms 1 and 2, every matrix of pairs spelled out: tensors [B, T, J, J] and [B, J, T, T].
algorithm12 = _both(_hinge_by_matrices)
#: The same pairs with the fewest and smallest tensors that eager PyTorch allows: a tuned baseline.
broadcast = _both(_hinge_by_mask)


def eager_mpjpe(pred: Tensor, target: Tensor) -> Tensor:
    """MPJPE as everybody writes it."""
    return torch.linalg.vector_norm(pred - target, dim=-1).mean()


def _compiled(device: str) -> Loss:
    # Graphs of one shape only: sizes known to the compiler are its best case.
    torch.compiler.reset()
    return torch.compile(broadcast, fullgraph=True, dynamic=False)


def _structloss(backend: str, *terms: str) -> Callable[[str], Loss]:
    weights = dict.fromkeys(terms, 1.0)

    def build(device: str) -> Loss:
        # Everything fused: the fastest the device has; on a CPU that must be the native kernels, not a fallback.
        name = ("cpp" if device == "cpu" else "auto") if backend == "fused" else backend
        return lambda pred, target: structloss.objective(pred, target, weights, backend=name).total

    return build


def _keops_hinge(p: Tensor, d: Tensor) -> Tensor:
    from pykeops.torch import LazyTensor

    def column(x: Tensor) -> LazyTensor:
        return LazyTensor(x[..., :, None, None].contiguous())

    def row(x: Tensor) -> LazyTensor:
        return LazyTensor(x[..., None, :, None].contiguous())

    difference = column(p) - row(p)
    # step(0) is 1, so this is the strict d_i < d_j; |x| has slope 0 at 0, which gives ties half of the gradient.
    hinge = 0.5 * (difference + difference.abs()) * (1 - (column(d) - row(d)).step())
    return hinge.sum(dim=p.dim()).sum() / (p.numel() * p.shape[-1])


def _keops(device: str) -> Loss:
    def loss(pred: Tensor, target: Tensor) -> Tensor:
        p, d = pred[..., 2], target[..., 2]
        return _keops_hinge(p, d) + _keops_hinge(p.transpose(1, 2), d.transpose(1, 2))

    return loss


# ---- what can run here -------------------------------------------------------------------------------------------


def _backend_problem(name: str) -> Callable[[str], str]:
    def problem(device: str) -> str:
        if name in ("cpp", "fused") and device == "cpu":
            status = structloss.backends()["cpp"]
        elif name == "cpp":
            return f"it works on CPU tensors, and these are on {device}."
        elif name in ("triton", "cuda") and device != "cuda":
            return f"it works on GPU tensors, and these are on the {device.upper()}."
        else:
            status = structloss.backends()["auto" if name == "fused" else name]
        return "" if status.available else status.reason

    return problem


@functools.cache
def _keops_problem(device: str) -> str:
    if importlib.util.find_spec("pykeops") is None:
        return "pykeops is not installed."
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it writes about itself to stdout, where the tables go
            import pykeops.torch
        pykeops.set_verbose(False)
    except Exception as error:  # anything: it compiles C++ when imported
        return f"pykeops can't be imported: {error}"
    return ""


PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        # Measured for broadcast: 5.6 tensors forward + backward, 4 forward. Rounded up: an allocator keeps some.
        Provider(
            "algorithm12", "Algorithms 1 and 2, eager PyTorch", RANKING, lambda _: algorithm12, pair_tensors=(10, 7)
        ),
        Provider("broadcast", "the same, tuned by hand", RANKING, lambda _: broadcast, pair_tensors=(8, 5)),
        Provider("compiled", "torch.compile of the tuned form", RANKING, _compiled, pair_tensors=(3, 1)),
        Provider("keops", "KeOps, symbolic pairs", RANKING, _keops, _keops_problem),
        Provider("torch", 'structloss, backend="torch"', RANKING, _structloss("torch", *RANKING)),
        *(
            Provider(
                name, f'structloss, backend="{name}"', RANKING, _structloss(name, *RANKING), _backend_problem(name)
            )
            for name in ("cpp", "triton", "cuda")
        ),
        Provider("mpjpe-eager", "MPJPE alone, eager PyTorch, for scale", ("mpjpe",), lambda _: eager_mpjpe),
        Provider(
            "objective-all",
            "structloss, MPJPE + L_S + L_T fused",
            ("mpjpe", *RANKING),
            _structloss("fused", "mpjpe", *RANKING),
            _backend_problem("fused"),
        ),
    )
}


def bind(loss: Loss, pred: Tensor, target: Tensor, mode: str) -> Callable[[], object]:
    """The call to be timed: the loss, or the loss and its gradient with respect to `pred`."""
    if mode == "forward":

        def call() -> object:
            with torch.no_grad():
                return loss(pred, target)

        return call
    leaf = pred.detach().clone().requires_grad_()
    return lambda: torch.autograd.grad(loss(leaf, target), leaf)


# ---- input -------------------------------------------------------------------------------------------------------


def make_input(
    shape: Shape, dtype: torch.dtype, device: str = "cpu", ties: bool = False, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Predicted and true poses in metres: joints on smooth random walks 4 m from the camera, and errors of 5 cm.

    With `ties`, both are rounded to 25 cm, so that many depths are equal.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    def walk(joints: int, step: float) -> Tensor:  # [B, T, joints, 3]
        velocity = noise(shape.batch, joints * 3, shape.frames + 14)
        smooth = torch.nn.functional.avg_pool1d(velocity, 15, stride=1)
        return step * smooth.cumsum(-1).unflatten(1, (joints, 3)).permute(0, 3, 1, 2)

    body = 0.3 * noise(shape.batch, 1, shape.joints, 3)
    root = torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64)
    target = root + walk(1, 0.04) + body + walk(shape.joints, 0.02)
    pred = target + 0.05 * noise(*target.shape)
    if ties:
        pred, target = (4 * pred).round() / 4, (4 * target).round() / 4
    return pred.to(device, dtype).contiguous(), target.to(device, dtype).contiguous()


# ---- the check ---------------------------------------------------------------------------------------------------


@functools.cache
def _pairwise() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "tests" / "reference" / "pairwise.py"
    spec = importlib.util.spec_from_file_location("bench_pairwise", path)
    if spec is None or spec.loader is None or not path.exists():
        raise FileNotFoundError(f"{path} is missing, and nothing is timed that wasn't compared with it.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def definition(pred: Tensor, target: Tensor, terms: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Loss and gradient by the float64 definition, rows one by one where all at once would not fit."""
    pred, target = pred.detach().cpu().double(), target.cpu().double()
    value, gradient = torch.zeros((), dtype=torch.float64), torch.zeros_like(pred)
    for term in terms:
        if term == "mpjpe":
            leaf = pred.clone().requires_grad_()
            loss = _pairwise().mpjpe(leaf, target)
            value += loss.detach()
            gradient += torch.autograd.grad(loss, leaf)[0]
            continue
        over_frames = term == "depth_ranking_frames"
        p, d = ((x[..., 2].transpose(1, 2) if over_frames else x[..., 2]) for x in (pred, target))
        total, g = definition_rows(p.flatten(0, 1), d.flatten(0, 1))
        pairs = p.numel() * p.shape[-1]
        value += total / pairs
        g = g.unflatten(0, p.shape[:2]) / pairs
        gradient[..., 2] += g.transpose(1, 2) if over_frames else g
    return value, gradient


def definition_rows(p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Unreduced hinge of rows [R, N] and its gradient."""
    total, gradient = torch.zeros((), dtype=torch.float64), torch.empty_like(p)
    at_once = LITERAL_PAIRS // p.shape[-1] ** 2
    for start in range(0, len(p), max(at_once, 1)):
        rows = slice(start, start + max(at_once, 1))
        if at_once:
            leaf = p[rows].clone().requires_grad_()
            value = _pairwise().ranking_hinge_rows(leaf, d[rows]).sum()
            (gradient[rows],) = torch.autograd.grad(value, leaf)
        else:
            value, gradient[start] = _pairwise().ranking_hinge_by_blocks(p[start], d[start])
        total += value.detach()
    return total, gradient


@functools.cache
def _cases(shape: Shape, dtype: torch.dtype, device: str, terms: tuple[str, ...]) -> tuple[tuple[object, ...], ...]:
    return tuple(_generate_cases(shape, dtype, device, terms))


def _generate_cases(
    shape: Shape, dtype: torch.dtype, device: str, terms: tuple[str, ...]
) -> Iterator[tuple[object, ...]]:
    small = Shape(*map(min, shape, SMALL_SHAPE))
    large = shape
    while large.pairs > MAX_REFERENCE_PAIRS and large.frames > 1:
        large = large._replace(frames=large.frames // 2)
    for sizes, ties in ((small, False), (small, True), (large, False)):
        if sizes is large and large == small:
            continue
        pred, target = make_input(sizes, dtype, device, ties, seed=1)
        yield f"{sizes}{' with ties' if ties else ''}", pred, target, *definition(pred, target, terms)


def check(provider: Provider, loss: Loss, shape: Shape, dtype: torch.dtype, device: str) -> None:
    """Raise WrongError unless loss and gradient agree with the definition.

    Compared at a small shape with and without ties, and at `shape` itself (shortened where the definition would take
    minutes). Float errors of a right answer are far below the tolerance, a wrong convention at ties far above it.
    """
    for label, pred, target, expected, expected_gradient in _cases(shape, dtype, device, provider.terms):
        leaf = pred.clone().requires_grad_()
        value = loss(leaf, target)
        (gradient,) = torch.autograd.grad(value, leaf)
        compare("loss", label, value, expected)
        compare("gradient", label, gradient, expected_gradient)
        with torch.no_grad():
            compare("loss under no_grad", label, loss(pred, target), expected)


def compare(what: str, label: str, got: Tensor, expected: Tensor) -> None:
    """Raise WrongError unless `got` is `expected`, up to the rounding of its dtype."""
    allowed = TOLERANCE[got.dtype]
    got = got.detach().cpu().double()
    error = float(torch.linalg.vector_norm(got - expected) / torch.linalg.vector_norm(expected).clamp(min=1e-30))
    if not error <= allowed:  # also catches NaN
        raise WrongError(f"{what} at {label} is off by a relative {error:.1e}, allowed {allowed:.0e}")
