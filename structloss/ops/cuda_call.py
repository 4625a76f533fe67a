"""The requests of the GPU library (csrc/cuda/request.h) as ctypes, and how tensors and skeletons go into them."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from ..terms import TERMS
from .structure import Structure, structure_of

__all__ = ["ObjectiveRequest", "RankingRequest", "describe", "MOST_TERMS", "tables_of"]

# A call's terms at most; `cuda_impl.Library` refuses a library that was compiled for another number.
MOST_TERMS = len(TERMS)
_DTYPES = {torch.float32: 0, torch.float64: 1}
_INPUT_TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_pointer, _int, _long, _double = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_double


class TensorRequest(ctypes.Structure):
    """A tensor, or nothing."""

    _fields_ = [("data", _pointer), ("stride", _long * 4), ("type", _int), ("packed", _int)]


class TablesRequest(ctypes.Structure):
    """Tables of the skeleton and its options."""

    _fields_ = [
        ("data", _pointer),
        ("bytes", _long),
        *((name, _int) for name in ("bones", "angles", "angles_velocity", "symmetric", "hinges", "ratio_bones")),
        *((name, _int) for name in ("group_end", "weighted_mpjpe_joints", "temporal_consistency_joints")),
        *((name, _int) for name in ("n_bones", "n_angles", "n_angles_velocity", "n_symmetric", "n_hinges", "n_groups")),
        *((name, _int) for name in ("symmetric_squared", "hinge_unit_bones", "unused")),
        ("hinge_scale", _double),
        ("hinge_tolerance", _double),
    ]


class ObjectiveRequest(ctypes.Structure):
    """One call of the objective."""

    _fields_ = [
        ("stream", _pointer),
        ("device", _int),
        ("dtype", _int),
        *((name, TensorRequest) for name in ("pred", "target", "weight")),
        *((name, _pointer) for name in ("grad", "total", "values", "workspace")),
        *((name, _long) for name in ("B", "T", "J")),
        ("lambdas", _pointer),
        ("lambda_", _double * MOST_TERMS),
        ("term", _int * MOST_TERMS),
        ("n_terms", _int),
        ("reduction", _int),
        ("tables", TablesRequest),
    ]


class RankingRequest(ctypes.Structure):
    """One call of the hinge of rows."""

    _fields_ = [
        ("stream", _pointer),
        ("device", _int),
        ("dtype", _int),
        *((name, TensorRequest) for name in ("pred", "target", "weight")),
        *((name, _pointer) for name in ("grad", "value", "workspace")),
        *((name, _long) for name in ("R", "N", "reduction")),
    ]


def dtype_number(dtype: torch.dtype) -> int:
    """The library's number of a compute dtype."""
    return _DTYPES[dtype]


def describe(x: Tensor | None) -> TensorRequest:
    """A tensor of up to four dimensions as the library takes it."""
    if x is None:
        return TensorRequest(None, (_long * 4)(), 0, 0)
    address = x.data_ptr()
    packed = x.is_contiguous() and address % 16 == 0
    return TensorRequest(address, (_long * 4)(*x.stride()), _INPUT_TYPES[x.dtype], packed)


@functools.lru_cache(maxsize=256)
def tables_of(terms: tuple[str, ...], skeleton: str, options: str) -> tuple[TablesRequest, bytes]:
    """Tables of these terms, and the memory they lie in, which has to live as long as they are used."""
    return _pack(structure_of(terms, skeleton, options))


def _pack(s: Structure) -> tuple[TablesRequest, bytes]:
    tables, memory = TablesRequest(), bytearray()

    def put(name: str, layout: str, rows: Sequence[Sequence[float]]) -> None:
        memory.extend(bytes(-len(memory) % 8))
        setattr(tables, name, len(memory))
        for row in rows:
            memory.extend(struct.pack(f"={layout}", *row))

    put("bones", "2i", s.bones)
    put("angles", "5i", [s.angle_joints(pair) for pair in s.angles])
    put("angles_velocity", "5i", [s.angle_joints(pair) for pair in s.angles_velocity])
    put("symmetric", "4i", [(*right, *left) for right, left in s.symmetric])
    put("hinges", "4id", [(*joints, sign) for joints, sign in s.hinges])
    put("ratio_bones", "2id", [(*bone, factor) for group in s.groups for bone, factor in group])
    ends = [sum(len(group) for group in s.groups[: k + 1]) for k in range(len(s.groups))]
    put("group_end", "i", [(end,) for end in ends])
    for name in ("weighted_mpjpe_joints", "temporal_consistency_joints"):
        factors = getattr(s, name)
        put(name, "d", [(x,) for x in factors])
        if not factors:
            setattr(tables, name, -1)
    for name in ("bones", "angles", "angles_velocity", "symmetric", "hinges", "groups"):
        setattr(tables, f"n_{name}", len(getattr(s, name)))
    tables.symmetric_squared, tables.hinge_unit_bones = s.symmetric_squared, s.hinge_unit_bones
    tables.hinge_scale, tables.hinge_tolerance = s.hinge_scale, s.hinge_tolerance
    data = bytes(memory)
    tables.data = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
    tables.bytes = len(data)
    return tables, data
