"""The fused objective as Triton kernels: GPU tensors, or CPU tensors in Triton's interpreter.

Two kernels do the work: `row_kernel` ranks the frames of each joint, `joint_kernel` computes every other term and the
gradient. Before them come a tiny kernel with the terms' scales and, only for the terms or weights that ask for it,
statistics of frames, bones or angles; after them one that adds up the values. Nothing is read back to the host,
everything is added in a fixed order, and half types are loaded as they are.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..kernels.triton_frames import angle_kernel, frame_kernel, limb_kernel
from ..kernels.triton_joints import joint_kernel
from ..kernels.triton_math import TERM_NAMES
from ..kernels.triton_rows import row_kernel
from ..kernels.triton_sums import multiply_kernel, scale_kernel, value_kernel
from ..terms import TERMS
from .dtypes import compute_dtype
from .structure import Structure
from .torch_terms.ranking import ranking_gradient
from .triton_tables import tables_of

__all__ = ["TAKES_HALF_TYPES", "objective", "ranking_hinge", "scale_"]

# Half types are converted on load.
TAKES_HALF_TYPES = True

# Rows over time that a program sorts in registers; longer ones, and float64, go through torch.sort.
LONGEST_SORTED_ROW = 1024
# Memory that torch.sort's path may take, and what it takes an element: indices, ranks and weights in 64 bits.
_SORT_BYTES = 256 * 2**20
_SORT_BYTES_AN_ELEMENT = 200
# Elements a program of row_kernel sorts at once, and the programs that share the work: their scratch memory (a row's
# length in 4 bytes, with weights 12) should stay in the second-level cache.
_ROW_ELEMENTS = 512
_ROW_PROGRAMS = 2048
# Lanes a program, for 4 warps but in joint_kernel, whose lanes need many registers.
_JOINT_BLOCK = 512
_JOINT_WARPS = 8
_FRAME_ELEMENTS = 1024
_ANGLE_BLOCK = 256
_TIME_BLOCK = 1024
_SUM_BLOCK = 1024
_MULTIPLY_BLOCK = 4096

# No contraction to fused multiply-adds, as in the other backends: what is exactly zero there must be so here.
_OPTIONS = {"enable_fp_fusion": False}

_NUMBERS = {name: number for number, name in enumerate(TERM_NAMES)}


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


def _guard(device: torch.device) -> contextlib.AbstractContextManager:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


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
    with _guard(pred.device):
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
    poses = [x[..., None, None] for x in (pred, target)]
    weights = None if weight is None else weight[..., None]
    with _guard(pred.device):
        term = ("depth_ranking_frames",)
        total, _, grad = _objective(*poses, weights, (1.0,), term, "", "", reduction, need_grad, 0)
    return total, grad.view(pred.shape) if need_grad else grad


def _objective(pred, target, weight, lambdas, terms, skeleton, options, reduction, need_grad, depth):
    """`objective`, for poses whose depth is channel `depth`; if that is 0, there is no other channel."""
    B, T, J, _ = pred.shape
    K = len(terms)
    device = pred.device
    dtype = compute_dtype(pred.dtype)
    total = torch.empty((), dtype=dtype, device=device)
    values = torch.empty(K, dtype=dtype, device=device)
    grad = torch.empty(pred.shape if need_grad else (0,), dtype=dtype, device=device)
    if B * T * J == 0:
        return total.zero_(), values.zero_(), grad

    numbers = [_NUMBERS[term] for term in terms]
    mask = sum(1 << number for number in numbers)
    if not any(TERMS[term].needs_target for term in terms):
        target = None
    weighted, mean = weight is not None, reduction == "mean"
    tables = None
    if any(TERMS[term].needs_skeleton or TERMS[term].options for term in terms):
        tables = tables_of(terms, skeleton, options, J, device)
    s = tables.structure if tables else Structure()
    n_bones = len(s.bones)
    n_angles = len(tables.angles) if tables and (s.angles or s.angles_velocity) else 0
    frames = B * T
    wide = _is_wide(pred, target, weight) or frames * max(3 * J, n_angles) + 8 * _FRAME_ELEMENTS >= 2**31
    # The channel of the depth is the third, or there is one channel, which any stride reaches.
    strides = [*pred.stride()[:3], pred.stride(3) if depth else 0]
    strides += [*target.stride()[:3], target.stride(3) if depth else 0] if target is not None else (0, 0, 0, 0)
    strides += weight.stride() if weighted else (0, 0, 0)
    poses = (pred, pred if target is None else target, pred if weight is None else weight)

    def workspace(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float64, device=device)

    # What an inactive term would read is never looked at.
    nothing = pred
    frame_scales = frame_counts = limbs = angles = row_weights = ranks = nothing
    frame_blocks = 0
    if "n_mpjpe" in terms or (weighted and mean):
        columns = max(J, n_bones, n_angles)
        at_once = max(1, _FRAME_ELEMENTS // triton.next_power_of_2(columns))
        frame_blocks = triton.cdiv(frames, at_once)
        frame_scales = workspace(2, frames) if "n_mpjpe" in terms else nothing
        frame_counts = workspace(7, frame_blocks)
        frame_kernel[(frame_blocks,)](
            *poses,
            frame_scales,
            frame_counts,
            tables.bones if tables else nothing,
            tables.angles if tables else nothing,
            frames,
            T,
            frame_blocks,
            *strides,
            J=J,
            J_PADDED=triton.next_power_of_2(J),
            BONES=n_bones,
            BONES_PADDED=triton.next_power_of_2(max(1, n_bones)),
            ANGLES=n_angles,
            ANGLES_PADDED=triton.next_power_of_2(max(1, n_angles)),
            TERMS=mask,
            WEIGHTED=weighted,
            COUNT=weighted and mean,
            WIDE=wide,
            FRAMES=at_once,
            **_OPTIONS,
        )
    if "limb_variance" in terms:
        limbs = workspace(2, B, n_bones)
        limb_kernel[(B * n_bones,)](
            pred,
            poses[2],
            limbs,
            tables.bones,
            B,
            T,
            *strides[:4],
            *strides[8:],
            BONES=n_bones,
            WEIGHTED=weighted,
            WIDE=wide,
            BLOCK=min(_TIME_BLOCK, triton.next_power_of_2(T)),
            **_OPTIONS,
        )
    if n_angles:
        angles = workspace(2 if weighted else 1, frames, n_angles)
        angle_kernel[(triton.cdiv(frames * n_angles, _ANGLE_BLOCK),)](
            *poses,
            angles,
            tables.angles,
            frames,
            T,
            *strides,
            ANGLES=n_angles,
            WEIGHTED=weighted,
            WIDE=wide,
            BLOCK=_ANGLE_BLOCK,
            **_OPTIONS,
        )
    if "depth_ranking_frames" in terms:
        ranks = _rank_rows(pred, target, weight, tuple(strides), wide, depth)
        if weighted and mean:
            row_weights = torch.sum(weight, 1, dtype=torch.float64)

    scales = workspace(3, 16)
    given = isinstance(lambdas, Tensor)
    bits = [0] * len(_NUMBERS)
    if given:
        lambdas = lambdas.contiguous()
    else:
        for number, lam in zip(numbers, lambdas, strict=True):
            bits[number] = _bits(lam)
    scale_kernel[(1,)](
        scales,
        lambdas if given else nothing,
        frame_counts,
        row_weights,
        limbs,
        *bits,
        sum(k << 4 * number for k, number in enumerate(numbers)),
        B,
        T,
        J,
        n_bones,
        len(s.angles),
        len(s.angles_velocity),
        frame_blocks,
        TERMS=mask,
        WEIGHTED=weighted,
        MEAN=mean,
        GIVEN=given,
        BLOCK=_SUM_BLOCK,
        **_OPTIONS,
    )

    blocks = triton.cdiv(frames * J, _JOINT_BLOCK)
    partials = workspace(len(_NUMBERS), blocks)
    n_mirrored, n_hinges, n_ratios, n_limbs, n_turns = tables.rows if tables else (0,) * 5
    joint_kernel[(blocks,)](
        *poses,
        grad,
        ranks,
        frame_scales,
        limbs,
        angles,
        tables.entries if tables else nothing,
        tables.mirrored if tables else nothing,
        tables.hinges if tables else nothing,
        tables.groups if tables else nothing,
        tables.bones if tables else nothing,
        tables.angles if tables else nothing,
        tables.factors if tables else nothing,
        scales,
        partials,
        frames,
        T,
        blocks,
        *strides,
        J=J,
        TERMS=mask,
        WEIGHTED=weighted,
        NEED_GRAD=need_grad,
        DEPTH_ONLY=depth == 0,
        WIDE=wide,
        DTYPE=tl.float64 if dtype == torch.float64 else tl.float32,
        N_MIRRORED=n_mirrored,
        N_HINGES=n_hinges,
        N_RATIOS=n_ratios,
        N_BONES=n_limbs,
        N_ANGLES=n_turns,
        GROUP=tables.group if tables else 1,
        BONES=n_bones,
        ANGLES=n_angles,
        SQUARED=s.symmetric_squared,
        UNIT_BONES=s.hinge_unit_bones,
        BLOCK=_JOINT_BLOCK,
        num_warps=_JOINT_WARPS,
        **_OPTIONS,
    )
    padded = triton.next_power_of_2(K)
    value_kernel[(1,)](
        total,
        values,
        partials,
        scales,
        sum(number << 4 * k for k, number in enumerate(numbers)),
        blocks,
        K=K,
        K_PADDED=padded,
        BLOCK=min(1024, 8192 // padded),
        num_warps=8,
        **_OPTIONS,
    )
    return total, values, grad


def scale_(grad: Tensor, by: Tensor) -> Tensor:
    """grad *= by in place and without asking for the value of `by` (0-d): a factor of 1 costs nothing."""
    if grad.numel():
        with _guard(grad.device):
            blocks = triton.cdiv(grad.numel(), _MULTIPLY_BLOCK)
            multiply_kernel[(blocks,)](grad, by, grad.numel(), BLOCK=_MULTIPLY_BLOCK, **_OPTIONS)
    return grad
