"""Ways to compute the losses: L_S + L_T, RePOSE's with MPJPE, and the seven-term objective; MPJPE alone for scale."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import structloss

from .inputs import Shape, skeleton_of

__all__ = [
    "MODES",
    "OBJECTIVE",
    "OPS",
    "PROVIDERS",
    "RANKING",
    "Op",
    "Provider",
    "algorithm12",
    "bind",
    "eager_mpjpe",
    "eager_objective",
]

Loss = Callable[[Tensor, Tensor], Tensor]

RANKING = ("depth_ranking_joints", "depth_ranking_frames")
OBJECTIVE = ("mpjpe", "velocity", *RANKING, "bone_symmetry", "illegal_angle", "bone_ratio")
MODES = ("forward+backward", "forward")
GPU_SHAPE = Shape(256, 243, 17)  # few clips leave a GPU idle


@dataclass(frozen=True)
class Provider:
    """One way to compute a loss.

    Attributes:
        name: in tables and on the command line.
        summary: what it is, for the table.
        terms: the loss it computes: names of structloss.TERMS, each with weight 1.
        build: device type and joints -> the loss as a function of pred and target [B, T, J, 3]; run once a shape, may
            raise.
        problem: device type -> why it can't run here, or "".
        pair_tensors: upper estimates of the memory it takes forward + backward and forward, in tensors of one element a
            pair.
        quadratic: whether its time grows with the pairs of frames rather than with the frames.
        ties: whether it is right where depths are equal; otherwise it is compared on input without ties alone.
    """

    name: str
    summary: str
    terms: tuple[str, ...]
    build: Callable[[str, int], Loss]
    problem: Callable[[str], str] = lambda device: ""
    pair_tensors: tuple[float, float] = (0.0, 0.0)
    quadratic: bool = False
    ties: bool = True

    @property
    def op(self) -> str:
        """Name of the computed loss in the CSV."""
        if self.terms == OBJECTIVE:
            return "objective"
        ranking = ["depth_ranking"] if set(RANKING) <= set(self.terms) else []
        return "+".join([term for term in self.terms if term not in RANKING] + ranking)

    def why_not(self, device: str, joints: int) -> str:
        """Why it can't run here on clips with so many joints, or ""."""
        if any(structloss.TERMS[term].needs_skeleton for term in self.terms) and skeleton_of(joints) is None:
            return f"no skeleton that it is benchmarked on has {joints} joints."
        return self.problem(device)

    def memory_estimate(self, shape: Shape, mode: str, itemsize: int) -> int:
        """Bytes beyond input and gradient, rounded up; only the quadratic part counts."""
        return int(self.pair_tensors[MODES.index(mode)] * shape.pairs * itemsize)


@dataclass(frozen=True)
class Op:
    """What is compared in one table.

    Attributes:
        title: the loss, for headings.
        default_shape: measured if no shape is asked for.
        baseline: the provider that ratios are taken to.
        baseline_title: it, in "× faster than ...".
        providers: names, in the table's order.
        tests: files under tests/ that must pass first.
    """

    title: str
    default_shape: Shape
    baseline: str
    baseline_title: str
    providers: tuple[str, ...]
    tests: tuple[str, ...]

    def shape(self, device: str) -> Shape:
        """Measured if no shape is asked for."""
        return GPU_SHAPE if device == "cuda" else self.default_shape

    def tests_on(self, device: str) -> tuple[str, ...]:
        """Files under tests/ that must pass before anything is timed on the device."""
        return ("test_gpu.py",) if device == "cuda" else self.tests


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


def _hinge_by_argsort(p: Tensor, d: Tensor) -> Tensor:
    """The hinge as a difference of ranks, as one writes it who knows that and has no equal depths.

    The gradient is rank of p - rank of d, and the loss its product with p. It is a constant to autograd, which then
    finds the gradient without passing through a sort. A row's first p is subtracted: ranks sum to the same, so that it
    changes nothing but the rounding.
    """
    p, d = p.contiguous(), d.contiguous()
    place = torch.arange(p.shape[-1], dtype=p.dtype, device=p.device).expand_as(p)
    with torch.no_grad():
        rank_p, rank_d = (torch.empty_like(x).scatter_(-1, x.argsort(-1), place) for x in (p, d))
        gradient = (rank_p - rank_d) / (p.numel() * p.shape[-1])
        first = p[..., :1]
    return ((p - first) * gradient).sum()


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


def eager_objective(device: str, joints: int, ranking: Loss = algorithm12) -> Loss:
    """MPJPE, velocity error, L_S, L_T, symmetry, illegal angles and bone ratio as one writes them in PyTorch."""
    skeleton = skeleton_of(joints)
    if skeleton is None:
        raise ValueError(f"there is no skeleton of {joints} joints here.")

    def constant(values: object, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    limbs = [pair for group, pairs in skeleton.symmetric_groups if group == "limbs" for pair in pairs]
    left, right = (constant([pair[side] for pair in limbs]).T for side in (0, 1))  # children, parents
    chains = constant([hinge.joints for hinge in skeleton.hinges]).T
    legal = constant([hinge.legal_sign for hinge in skeleton.hinges])
    groups = [
        (constant(bones).T, constant([lengths[0] / length for length in lengths], torch.float64))
        for (_, bones), lengths in zip(skeleton.bone_groups, skeleton.bone_group_lengths, strict=True)
    ]

    def loss(pred: Tensor, target: Tensor) -> Tensor:
        def length(bones: Tensor) -> Tensor:  # [B, T, bones]
            return torch.linalg.vector_norm(pred[:, :, bones[0]] - pred[:, :, bones[1]], dim=-1)

        total = eager_mpjpe(pred, target) + ranking(pred, target)
        total = total + eager_mpjpe(pred[:, 1:] - pred[:, :-1], target[:, 1:] - target[:, :-1])
        total = total + (length(right) - length(left)).abs().sum(-1).mean()
        c, s, e, w = (pred[:, :, joint] for joint in chains)
        bend = (torch.linalg.cross(s - c, e - s) * (w - e)).sum(-1)
        illegal = torch.relu(-legal.to(bend) * bend)
        total = total + (illegal * illegal.exp()).sum(-1).mean()
        for bones, factors in groups:
            total = total + (length(bones) * factors.to(pred)).var(-1, unbiased=False).mean()
        return total

    return loss


def _compiled(device: str, joints: int) -> Loss:
    # Graphs of one shape only: sizes known to the compiler are its best case.
    torch.compiler.reset()
    return torch.compile(broadcast, fullgraph=True, dynamic=False)


def _repose(ranking: Loss) -> Loss:
    return lambda pred, target: eager_mpjpe(pred, target) + ranking(pred, target)


def _compiled_repose(device: str, joints: int) -> Loss:
    torch.compiler.reset()
    return torch.compile(_repose(broadcast), fullgraph=True, dynamic=False)


def _compiled_objective(device: str, joints: int) -> Loss:
    torch.compiler.reset()
    return torch.compile(eager_objective(device, joints, broadcast), fullgraph=True, dynamic=False)


def _structloss(backend: str, *terms: str) -> Callable[[str, int], Loss]:
    weights = dict.fromkeys(terms, 1.0)

    def build(device: str, joints: int) -> Loss:
        # Everything fused: the fastest the device has; on a CPU that must be the native kernels, not a fallback.
        name = ("cpp" if device == "cpu" else "auto") if backend == "fused" else backend
        body = skeleton_of(joints)
        skeleton = body.name if body else "h36m"  # not used by terms without a skeleton
        return lambda pred, target: structloss.objective(pred, target, weights, skeleton=skeleton, backend=name).total

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
        with contextlib.redirect_stdout(io.StringIO()):  # it writes about itself to stdout, where the tables go
            import pykeops.torch
        pykeops.set_verbose(False)
    except Exception as error:  # anything: it compiles C++ when imported
        return f"pykeops can't be imported: {error}"
    return ""


BACKENDS = ("torch", "cpp", "triton", "cuda")

PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        # Measured for broadcast: 5.6 tensors forward + backward, 4 forward. Rounded up: an allocator keeps some.
        Provider(
            "algorithm12",
            "Algorithms 1 and 2, eager PyTorch",
            RANKING,
            lambda device, joints: algorithm12,
            pair_tensors=(10, 7),
            quadratic=True,
        ),
        Provider(
            "broadcast",
            "the same, tuned by hand",
            RANKING,
            lambda device, joints: broadcast,
            pair_tensors=(8, 5),
            quadratic=True,
        ),
        Provider(
            "compiled", "torch.compile of the tuned form", RANKING, _compiled, pair_tensors=(3, 1), quadratic=True
        ),
        Provider(
            "keops",
            "KeOps, symbolic pairs",
            RANKING,
            lambda device, joints: _both(_keops_hinge),
            _keops_problem,
            quadratic=True,
        ),
        Provider(
            "argsort",
            "argsort, ties ignored, eager PyTorch",
            RANKING,
            lambda device, joints: _both(_hinge_by_argsort),
            ties=False,
        ),
        *(
            Provider(
                name, f'structloss, backend="{name}"', RANKING, _structloss(name, *RANKING), _backend_problem(name)
            )
            for name in BACKENDS
        ),
        Provider("mpjpe-eager", "MPJPE alone, eager PyTorch", ("mpjpe",), lambda device, joints: eager_mpjpe),
        Provider(
            "repose-eager",
            "MPJPE + Algorithms 1 and 2, eager PyTorch",
            ("mpjpe", *RANKING),
            lambda device, joints: _repose(algorithm12),
            pair_tensors=(10, 7),
            quadratic=True,
        ),
        Provider(
            "repose-compiled",
            "torch.compile of MPJPE + the tuned form",
            ("mpjpe", *RANKING),
            _compiled_repose,
            pair_tensors=(3, 1),
            quadratic=True,
        ),
        Provider(
            "repose-fused",
            "structloss, MPJPE + L_S + L_T fused",
            ("mpjpe", *RANKING),
            _structloss("fused", "mpjpe", *RANKING),
            _backend_problem("fused"),
        ),
        *(
            Provider(
                f"repose-{name}",
                f'MPJPE + L_S + L_T, structloss, backend="{name}"',
                ("mpjpe", *RANKING),
                _structloss(name, "mpjpe", *RANKING),
                _backend_problem(name),
            )
            for name in BACKENDS
        ),
        Provider(
            "objective-eager",
            "seven terms, eager PyTorch with Algorithms 1 and 2",
            OBJECTIVE,
            eager_objective,
            pair_tensors=(10, 7),
            quadratic=True,
        ),
        Provider(
            "objective-compiled",
            "torch.compile of the seven terms, tuned",
            OBJECTIVE,
            _compiled_objective,
            pair_tensors=(3, 1),
            quadratic=True,
        ),
        Provider(
            "objective-fused",
            "structloss, seven terms fused",
            OBJECTIVE,
            _structloss("fused", *OBJECTIVE),
            _backend_problem("fused"),
        ),
        *(
            Provider(
                f"objective-{name}",
                f'seven terms, structloss, backend="{name}"',
                OBJECTIVE,
                _structloss(name, *OBJECTIVE),
                _backend_problem(name),
            )
            for name in BACKENDS
        ),
    )
}

OPS = {
    "depth_ranking": Op(
        title="L_S + L_T",
        default_shape=Shape(8, 243, 17),
        baseline="algorithm12",
        baseline_title="Algorithms 1 + 2",
        providers=(
            "algorithm12",
            "broadcast",
            "compiled",
            "keops",
            "argsort",
            *BACKENDS,
            "mpjpe-eager",
            "repose-fused",
        ),
        tests=("test_objective.py",),
    ),
    "repose": Op(
        title="MPJPE + L_S + L_T",
        default_shape=Shape(8, 243, 17),
        baseline="repose-eager",
        baseline_title="Algorithms 1 + 2",
        providers=("repose-eager", "repose-compiled", *(f"repose-{name}" for name in BACKENDS), "mpjpe-eager"),
        tests=("test_objective.py",),
    ),
    "objective": Op(
        title="MPJPE + velocity + L_S + L_T + symmetry + illegal angle + bone ratio",
        default_shape=Shape(32, 243, 17),
        baseline="mpjpe-eager",
        baseline_title="MPJPE alone, eager",
        providers=("mpjpe-eager", "objective-eager", "objective-compiled", *(f"objective-{name}" for name in BACKENDS)),
        tests=("test_objective.py", "test_terms.py", "test_golden_losses.py"),
    ),
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
