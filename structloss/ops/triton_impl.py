"""The fused objective as Triton kernels: GPU tensors, or CPU tensors in Triton's interpreter.

Two kernels do the work: `row_kernel` ranks the frames of each joint, `joint_kernel` computes every other term and the
gradient. Before them come a tiny kernel with the terms' scales and, only for the terms or weights that ask for it,
statistics of frames, bones or angles; after them one that adds up the values. Nothing is read back to the host,
everything is added in a fixed order, and half types are loaded as they are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..kernels.triton_frames import angle_kernel, frame_kernel, limb_kernel
from ..kernels.triton_joints import joint_kernel
from ..kernels.triton_math import packed
from ..kernels.triton_rows import row_kernel
from ..kernels.triton_sums import PLACES, multiply_kernel, scale_kernel, value_kernel
from ..terms import TERMS, Denominator
from .denominators import count
from .devices import device_guard
from .dtypes import compute_dtype
from .structure import Structure
from .torch_terms.ranking import ranking_gradient
from .triton_tables import Tables, tables_of

__all__ = ["TAKES_HALF_TYPES", "objective", "ranking_hinge", "scale_"]

# Half types are converted on load.
TAKES_HALF_TYPES = True

# Rows over time that a program sorts in registers; longer ones, and float64, go through torch.sort.
LONGEST_SORTED_ROW = 1024
# Memory that torch.sort's path may take, and what it takes per element: indices, ranks and weights in 64 bits.
_SORT_BYTES = 256 * 2**20
_SORT_BYTES_AN_ELEMENT = 200
# Elements that a program of row_kernel sorts at once, and the programs that share the work: their scratch memory (4
# bytes per element of a row, with weights 12) should stay in the second-level cache.
_ROW_ELEMENTS = 512
_ROW_PROGRAMS = 2048
# Lanes per program, for 4 warps but in joint_kernel, whose lanes need many registers.
_JOINT_BLOCK = 512
_JOINT_WARPS = 8
_FRAME_ELEMENTS = 1024
_ANGLE_BLOCK = 256
_TIME_BLOCK = 1024
_SUM_BLOCK = 1024
_MULTIPLY_BLOCK = 4096

# No contraction to fused multiply-adds, as in the other backends: what is exactly zero there must be so here.
_OPTIONS = {"enable_fp_fusion": False}

# The kernels' numbers of terms and denominators.
_NUMBERS = {name: number for number, name in enumerate(TERMS)}
_KINDS = {kind: number for number, kind in enumerate(Denominator)}
# What a kind is counted as, and what frame_kernel does not count.
_COUNTED_AS = {Denominator.STEP_COORDINATES: Denominator.STEPS}
_COUNTED_ELSEWHERE = {Denominator.JOINTS, Denominator.FRAME_PAIRS, Denominator.VARYING_BONES}


def _bits(x: float) -> int:
    """A float64 as an integer argument: Triton passes floats in float32."""
    return struct.unpack("<q", struct.pack("<d", x))[0]


def _is_wide(*tensors: Tensor | None) -> bool:
    """Whether offsets need 64 bits."""
    spans = (sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) for x in tensors if x is not None)
    return max(spans) + 8 * _FRAME_ELEMENTS >= 2**31


def _rank_rows(
    pred: Tensor,  # [B, T, J, channels]
    target: Tensor,  # [B, T, J, channels]
    weight: Tensor | None,  # [B, T, J]
    strides: tuple[int, ...],
    wide: bool,
    channel: int,
) -> Tensor:
    """Unscaled gradient [B, J, T] of the ranking of frames."""
    B, T, J, _ = pred.shape
    # Half-integers up to 1023.5 are exact in float16; with weights, digits cancel in float32.
    dtype = torch.float64 if weight is not None else torch.float16 if T <= 1024 else torch.float32
    ranks = torch.empty((B, J, T), dtype=dtype, device=pred.device)
    if pred.dtype == torch.float64 or T > LONGEST_SORTED_ROW:
        _rank_rows_by_torch(pred[..., channel], target[..., channel], weight, ranks)
        return ranks
    n = max(2, triton.next_power_of_2(T))
    at_once = min(max(1, _ROW_ELEMENTS // n), triton.next_power_of_2(B * J))
    programs = min(triton.cdiv(B * J, at_once), _ROW_PROGRAMS)
    scratch = torch.empty(programs * at_once * n, dtype=torch.int32, device=pred.device)
    weight_scratch = scratch
    if weight is not None:
        weight_scratch = torch.empty(programs * at_once * n, dtype=torch.float64, device=pred.device)
    row_kernel[(programs,)](
        pred,
        target,
        pred if weight is None else weight,
        ranks,
        scratch,
        weight_scratch,
        B * J,
        T,
        J,
        *strides,
        WEIGHTED=weight is not None,
        WIDE=wide,
        ROWS=at_once,
        N=n,
        LOG=n.bit_length() - 1,
        num_warps=4 if n <= 512 else 8,
        **_OPTIONS,
    )
    return ranks


def _rank_rows_by_torch(pred: Tensor, target: Tensor, weight: Tensor | None, ranks: Tensor) -> None:
    """The same for depths [B, T, J] with torch.sort, as many rows at a time as memory allows."""
    B, T, J = pred.shape
    dtype = compute_dtype(pred.dtype)
    at_once = max(1, _SORT_BYTES // (_SORT_BYTES_AN_ELEMENT * T))
    joints, clips = min(J, at_once), max(1, at_once // J)
    for b in range(0, B, clips):
        for j in range(0, J, joints):
            part = slice(b, b + clips), slice(None), slice(j, j + joints)
            p, d = (x[part].transpose(1, 2).to(dtype) for x in (pred, target))
            w, present = None, None
            if weight is not None:
                w = weight[part].transpose(1, 2).double()
                present = w > 0
                p, d = torch.where(present, p, 0), torch.where(present, d, 0)
            invalid = (p.isnan() | d.isnan()).any(-1, keepdim=True)
            if present is not None:
                invalid = invalid & present
            ranks[b : b + clips, j : j + joints] = torch.where(invalid, math.nan, ranking_gradient(p, d, w))


def objective(
    pred: Tensor,  # [B, T, J, 3]
    target: Tensor | None,  # [B, T, J, 3]
    weight: Tensor | None,  # [B, T, J]
    lambdas: Sequence[float] | Tensor,
    terms: tuple[str, ...],
    skeleton: str,
    options: str,
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Total, values [K] of the terms and, if asked for, the gradient of the total, contiguous.

    Poses and weights may be of any floating-point dtypes, mixed, and of any strides. Results are float64 if `pred` is,
    otherwise float32.
    """
    with device_guard(pred.device):
        return _objective(pred, target, weight, lambdas, terms, skeleton, options, reduction, need_grad, 2)


def ranking_hinge(
    pred: Tensor,  # [R, N]
    target: Tensor,  # [R, N]
    weight: Tensor | None,  # [R, N]
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Scalar hinge over the rows and, if asked for, its gradient [R, N]."""
    # Rows are clips of one joint with nothing but depths.
    depths, true_depths = pred[..., None, None], target[..., None, None]
    weights = None if weight is None else weight[..., None]
    with device_guard(pred.device):
        term = ("depth_ranking_frames",)
        total, _, grad = _objective(depths, true_depths, weights, (1.0,), term, "", "", reduction, need_grad, 0)
    return total, grad.view(pred.shape) if need_grad else grad


@dataclass(frozen=True)
class _Call:
    """What the kernels of one call share.

    Attributes:
        poses: prediction, target and weight; the prediction stands for one that is absent, and is not read there.
        strides: of prediction, target and weight, 4 + 4 + 3; 0 for one that is absent.
        shape: clips, frames, joints.
        depth: channel of the depth; 0 if there is no other one.
        wide: whether offsets need 64 bits.
        weighted: whether there are weights.
        mean: whether sums are divided.
        order: numbers of the terms, in the order of the call.
        tables: of the skeleton and the options, for terms that have them.
    """

    poses: tuple[Tensor, Tensor, Tensor]
    strides: tuple[int, ...]
    shape: tuple[int, int, int]
    depth: int
    wide: bool
    weighted: bool
    mean: bool
    terms: tuple[str, ...]
    tables: Tables | None

    @property
    def frames(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def structure(self) -> Structure:
        return self.tables.structure if self.tables else Structure()

    @property
    def n_angles(self) -> int:
        """Angles of either of the two terms."""
        return (
            len(self.tables.angles) if self.tables and (self.structure.angles or self.structure.angles_velocity) else 0
        )

    @property
    def order(self) -> list[int]:
        """Numbers of the terms."""
        return [_NUMBERS[term] for term in self.terms]

    @property
    def mask(self) -> int:
        """The terms, a bit each."""
        return sum(1 << number for number in self.order)

    @property
    def denominators(self) -> list[Denominator]:
        """What each term's mean divides by."""
        return [TERMS[term].denominator for term in self.terms]

    @property
    def weighed(self) -> set[Denominator]:
        """The denominators that are sums of weights."""
        return set(self.denominators) if self.weighted and self.mean else set()

    def workspace(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float64, device=self.poses[0].device)


def _call_of(
    pred: Tensor,
    target: Tensor | None,
    weight: Tensor | None,
    terms: tuple[str, ...],
    skeleton: str,
    options: str,
    reduction: str,
    depth: int,
) -> _Call:
    B, T, J, _ = pred.shape
    if not any(TERMS[term].needs_target for term in terms):
        target = None
    tables = None
    if any(TERMS[term].needs_skeleton or TERMS[term].options for term in terms):
        tables = tables_of(terms, skeleton, options, J, pred.device)
    # The channel of the depth is the third, or there is one channel, which any stride reaches.
    strides = [*pred.stride()[:3], pred.stride(3) if depth else 0]
    strides += [*target.stride()[:3], target.stride(3) if depth else 0] if target is not None else (0, 0, 0, 0)
    strides += weight.stride() if weight is not None else (0, 0, 0)
    columns = max(3 * J, len(tables.angles) if tables else 0)
    return _Call(
        poses=(pred, pred if target is None else target, pred if weight is None else weight),
        strides=tuple(strides),
        shape=(B, T, J),
        depth=depth,
        wide=_is_wide(pred, target, weight) or B * T * columns + 8 * _FRAME_ELEMENTS >= 2**31,
        weighted=weight is not None,
        mean=reduction == "mean",
        terms=terms,
        tables=tables,
    )


@dataclass(frozen=True)
class _Statistics:
    """What the main kernel and the scales need to know beforehand; what no active term reads is the prediction.

    Attributes:
        frame_scales: [2, frames] of n_mpjpe.
        counts: [denominators, blocks] sums of weights.
        blocks: blocks of frames that have been counted.
        limbs: [2, clips, bones] of limb_variance.
        angles: [1 or 2, frames, angles].
        ranks: [clips, joints, frames] gradient of the ranking of frames.
        row_weights: [clips, joints] sums of weights over time.
    """

    frame_scales: Tensor
    counts: Tensor
    blocks: int
    limbs: Tensor
    angles: Tensor
    ranks: Tensor
    row_weights: Tensor


def _statistics(call: _Call) -> _Statistics:
    pred, target, weight = call.poses
    frame_scales, counts, blocks = _frame_statistics(call)
    needs_ranks = "depth_ranking_frames" in call.terms
    return _Statistics(
        frame_scales=frame_scales,
        counts=counts,
        blocks=blocks,
        limbs=_limb_means(call) if "limb_variance" in call.terms else pred,
        angles=_angles(call) if call.n_angles else pred,
        ranks=_rank_rows(pred, target, weight if call.weighted else None, call.strides, call.wide, call.depth)
        if needs_ranks
        else pred,
        row_weights=torch.sum(weight, 1, dtype=torch.float64) if Denominator.FRAME_PAIRS in call.weighed else pred,
    )


def _frame_statistics(call: _Call) -> tuple[Tensor, Tensor, int]:
    """Frames' scales of n_mpjpe, sums of weights, and blocks of frames."""
    nothing = call.poses[0]
    scaled = "n_mpjpe" in call.terms
    counted = {_COUNTED_AS.get(kind, kind) for kind in call.weighed} - _COUNTED_ELSEWHERE
    if not scaled and not counted:
        return nothing, nothing, 0
    _, T, J = call.shape
    n_bones = len(call.structure.bones)
    at_once = max(1, _FRAME_ELEMENTS // triton.next_power_of_2(max(J, n_bones, call.n_angles)))
    blocks = triton.cdiv(call.frames, at_once)
    frame_scales = call.workspace(2, call.frames) if scaled else nothing
    counts = call.workspace(len(Denominator), blocks) if counted else nothing
    frame_kernel[(blocks,)](
        *call.poses,
        frame_scales,
        counts,
        call.tables.bones if call.tables else nothing,
        call.tables.angles if call.tables else nothing,
        call.frames,
        T,
        blocks,
        *call.strides,
        J=J,
        J_PADDED=triton.next_power_of_2(J),
        N_BONES=n_bones,
        BONES_PADDED=triton.next_power_of_2(max(1, n_bones)),
        N_ANGLES=call.n_angles,
        ANGLES_PADDED=triton.next_power_of_2(max(1, call.n_angles)),
        SCALED=scaled,
        COUNTED=sum(1 << _KINDS[kind] for kind in counted),
        WEIGHTED=call.weighted,
        WIDE=call.wide,
        BLOCK=at_once,
        **_OPTIONS,
    )
    return frame_scales, counts, blocks


def _limb_means(call: _Call) -> Tensor:
    """Mean length of each clip's bones, and 1 / degrees of freedom of its variance [2, clips, bones]."""
    assert call.tables is not None
    B, T, _ = call.shape
    n_bones = len(call.structure.bones)
    limbs = call.workspace(2, B, n_bones)
    limb_kernel[(B * n_bones,)](
        call.poses[0],
        call.poses[2],
        limbs,
        call.tables.bones,
        B,
        T,
        *call.strides[:4],
        *call.strides[8:],
        N_BONES=n_bones,
        WEIGHTED=call.weighted,
        WIDE=call.wide,
        BLOCK=min(_TIME_BLOCK, triton.next_power_of_2(T)),
        **_OPTIONS,
    )
    return limbs


def _angles(call: _Call) -> Tensor:
    """Predicted minus target angles [1, frames, angles], and with weights also theirs."""
    assert call.tables is not None
    angles = call.workspace(2 if call.weighted else 1, call.frames, call.n_angles)
    angle_kernel[(triton.cdiv(call.frames * call.n_angles, _ANGLE_BLOCK),)](
        *call.poses,
        angles,
        call.tables.angles,
        call.frames,
        call.shape[1],
        *call.strides,
        N_ANGLES=call.n_angles,
        WEIGHTED=call.weighted,
        WIDE=call.wide,
        BLOCK=_ANGLE_BLOCK,
        **_OPTIONS,
    )
    return angles


def _scales(call: _Call, statistics: _Statistics, lambdas: Sequence[float] | Tensor) -> Tensor:
    """[3, terms]: weight over count, 1 over count, weight of each term, by the terms' numbers."""
    B, _, J = call.shape
    K = len(call.terms)
    given = isinstance(lambdas, Tensor)
    scales = call.workspace(3, len(_NUMBERS))
    device_lambdas = lambdas.contiguous() if isinstance(lambdas, Tensor) else call.poses[0]
    known = [count(kind, call.shape, call.structure) if call.mean else 1.0 for kind in call.denominators]
    pairs = list(zip((0.0,) * K if isinstance(lambdas, Tensor) else lambdas, known, strict=True))
    order, kinds = packed(call.order), packed(_KINDS[kind] for kind in call.denominators)
    for first in range(0, K, PLACES):
        places = [*pairs[first : first + PLACES], *[(0.0, 0.0)] * (first + PLACES - K)][:PLACES]
        scale_kernel[(1,)](
            scales,
            device_lambdas,
            statistics.counts,
            statistics.row_weights,
            statistics.limbs,
            statistics.blocks,
            B * J,
            B * len(call.structure.bones),
            *(_bits(number) for pair in places for number in pair),
            FIRST=first,
            ORDER=order,
            KINDS=kinds,
            K=K,
            TERMS=len(_NUMBERS),
            WEIGHTED=bool(call.weighed),
            GIVEN=given,
            BLOCK=_SUM_BLOCK,
            **_OPTIONS,
        )
    return scales


def _joints(call: _Call, statistics: _Statistics, scales: Tensor, grad: Tensor, need_grad: bool) -> Tensor:
    """The gradient, and sums of the blocks [terms, blocks] of each term."""
    pred, tables = call.poses[0], call.tables
    dtype = compute_dtype(pred.dtype)
    blocks = triton.cdiv(call.frames * call.shape[2], _JOINT_BLOCK)
    partials = call.workspace(len(_NUMBERS), blocks)
    n_mirrored, n_hinges, n_ratios, n_limbs, n_turns = tables.rows if tables else (0,) * 5
    joint_kernel[(blocks,)](
        *call.poses,
        grad,
        statistics.ranks,
        statistics.frame_scales,
        statistics.limbs,
        statistics.angles,
        tables.entries if tables else pred,
        tables.mirrored if tables else pred,
        tables.hinges if tables else pred,
        tables.groups if tables else pred,
        tables.bones if tables else pred,
        tables.angles if tables else pred,
        tables.factors if tables else pred,
        scales,
        partials,
        call.frames,
        call.shape[1],
        blocks,
        *call.strides,
        J=call.shape[2],
        TERMS=call.mask,
        WEIGHTED=call.weighted,
        NEED_GRAD=need_grad,
        DEPTH_ONLY=call.depth == 0,
        WIDE=call.wide,
        DTYPE=tl.float64 if dtype == torch.float64 else tl.float32,
        N_MIRRORED=n_mirrored,
        N_HINGES=n_hinges,
        N_RATIOS=n_ratios,
        N_BONES=n_limbs,
        N_ANGLES=n_turns,
        GROUP=tables.group if tables else 1,
        BONES=len(call.structure.bones),
        ANGLES=call.n_angles,
        SQUARED=call.structure.symmetric_squared,
        UNIT_BONES=call.structure.hinge_unit_bones,
        BLOCK=_JOINT_BLOCK,
        num_warps=_JOINT_WARPS,
        **_OPTIONS,
    )
    return partials


def _objective(
    pred: Tensor,  # [B, T, J, channels]
    target: Tensor | None,  # [B, T, J, channels]
    weight: Tensor | None,  # [B, T, J]
    lambdas: Sequence[float] | Tensor,
    terms: tuple[str, ...],
    skeleton: str,
    options: str,
    reduction: str,
    need_grad: bool,
    depth: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """`objective`, for poses whose depth is channel `depth`; if that is 0, there is no other channel."""
    K = len(terms)
    dtype, device = compute_dtype(pred.dtype), pred.device
    total = torch.empty((), dtype=dtype, device=device)
    values = torch.empty(K, dtype=dtype, device=device)
    grad = torch.empty(pred.shape if need_grad else (0,), dtype=dtype, device=device)
    if pred.shape[:3].numel() == 0:
        return total.zero_(), values.zero_(), grad
    call = _call_of(pred, target, weight, terms, skeleton, options, reduction, depth)
    statistics = _statistics(call)
    scales = _scales(call, statistics, lambdas)
    partials = _joints(call, statistics, scales, grad, need_grad)
    padded = triton.next_power_of_2(K)
    value_kernel[(1,)](
        total,
        values,
        partials,
        scales,
        partials.shape[1],
        ORDER=packed(call.order),
        K=K,
        K_PADDED=padded,
        TERMS=len(_NUMBERS),
        BLOCK=min(1024, 8192 // padded),
        num_warps=8,
        **_OPTIONS,
    )
    return total, values, grad


def scale_(grad: Tensor, by: Tensor) -> Tensor:
    """grad *= by in place and without asking for the value of `by` (0-d): a factor of 1 costs nothing."""
    if grad.numel():
        with device_guard(grad.device):
            blocks = triton.cdiv(grad.numel(), _MULTIPLY_BLOCK)
            multiply_kernel[(blocks,)](grad, by, grad.numel(), BLOCK=_MULTIPLY_BLOCK, **_OPTIONS)
    return grad
