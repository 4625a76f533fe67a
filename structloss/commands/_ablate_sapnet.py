"""`structloss ablate sapnet`: Table 3 of Dabral et al. on rendered people."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import needs_extra
from ._ablate_flags import refuse_flags_of_lifting
from ._imports import import_torchmetrics

if TYPE_CHECKING:
    from ..harness.image_ablation import ImageGrid

__all__ = ["NAME", "sapnet_grid"]

#: what is typed in place of a grid
NAME = "sapnet"
#: steps of stages 2 to 4 for one of the first
_SHARES = (1.0, 0.6, 0.6, 0.3)


def sapnet_grid(arguments: argparse.Namespace) -> ImageGrid:
    """The grid, with what the command line changes of it: `--data` is the motion that people do, `--steps` the steps of
    the first stage.

    Raises:
        ArgumentError: a flag that it has no use for.
    """
    refuse_flags_of_lifting(arguments, NAME)
    with needs_extra("harness"):
        import_torchmetrics()
        from ..harness.image_ablation import ImageGrid
        from ..harness.image_stages import Schedule

    changes: dict[str, Any] = {}
    data = {"count": 1500, "val_count": 1, "progress": False, "motion": arguments.data}
    schedule: dict[str, Any] = {"data": data}
    if arguments.steps:
        schedule["steps"] = tuple(max(2, round(share * arguments.steps)) for share in _SHARES)
    if arguments.seeds:
        changes["seeds"] = tuple(arguments.seeds)
    return ImageGrid(schedule=Schedule(**schedule), motion=arguments.data, **changes)
