"""structloss: fused structural losses for 3D human pose, lifting backbones and a training harness.

Importing it compiles nothing, touches no GPU, loads no native library and does not import torch: everything loads when
first used. Only the operators are registered with torch (`torch.ops.structloss`) as soon as torch is there, whichever
of the two is imported first, so that exported programs find them.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import TYPE_CHECKING

from ._lazy import lazy, once_imported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from . import (
        backbones,
        data,
        errors,
        functional,
        harness,
        images,
        learned,
        metrics,
        nn,
        refine,
        reports,
        samples,
        skeletons,
    )
    from .functional import (
        Objective,
        ObjectiveResult,
        bone_angle,
        bone_angle_velocity,
        bone_ratio,
        bone_symmetry,
        depth_ranking,
        illegal_angle,
        limb_length,
        limb_variance,
        mpjpe,
        n_mpjpe,
        objective,
        ranking_hinge,
        render_parts,
        temporal_consistency,
        velocity,
        weighted_mpjpe,
    )
    from .ops.backend import backends, use_backend
    from .terms import TERMS

__version__ = "0.1.0"

__all__ = [
    # operators
    "Objective",
    "ObjectiveResult",
    "bone_angle",
    "bone_angle_velocity",
    "bone_ratio",
    "bone_symmetry",
    "depth_ranking",
    "illegal_angle",
    "limb_length",
    "limb_variance",
    "mpjpe",
    "n_mpjpe",
    "objective",
    "ranking_hinge",
    "render_parts",
    "temporal_consistency",
    "velocity",
    "weighted_mpjpe",
    # term table and backends
    "TERMS",
    "backends",
    "use_backend",
    # modules
    "backbones",
    "data",
    "errors",
    "functional",
    "harness",
    "images",
    "learned",
    "metrics",
    "nn",
    "refine",
    "reports",
    "samples",
    "skeletons",
]

_HOMES: dict[str, Sequence[str]] = {
    "functional": __all__[: __all__.index("TERMS")],
    "terms": ("TERMS",),
    "ops.backend": ("backends", "use_backend"),
    # modules that are used by their own names
    **dict.fromkeys(("backbones", "data", "errors", "export", "harness", "learned", "metrics", "nn", "ops"), ()),
    **dict.fromkeys(("images", "refine", "reports", "samples", "skeletons"), ()),
}
__getattr__, __dir__ = lazy(__name__, _HOMES)


def _register_operators() -> None:
    # What is missing here (numpy, say) is told by the first use of structloss; it must not make `import torch` fail.
    with suppress(ImportError):
        importlib.import_module(f"{__name__}.functional")


once_imported("torch", _register_operators)
