"""`structloss ablate shape-template`: the changes of Yoo and Russakovsky one after the other, on rendered people."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import needs_extra
from ._ablate_flags import refuse_flags_of_lifting
from ._imports import import_torchmetrics

if TYPE_CHECKING:
    from ..harness.template_ladder import TemplateGrid

__all__ = ["NAME", "template_grid"]

#: what is typed in place of a grid
NAME = "shape-template"


def template_grid(arguments: argparse.Namespace) -> TemplateGrid:
    """The grid, with what the command line changes of it: `--data` is the motion that people do.

    Raises:
        ArgumentError: a flag that it has no use for.
    """
    refuse_flags_of_lifting(arguments, NAME)
    with needs_extra("harness"):
        import_torchmetrics()
        from ..harness.template_ladder import LadderSettings, TemplateGrid

    settings: dict[str, Any] = {}
    if arguments.data is not None:
        settings["data"] = {"motion": arguments.data}
    if arguments.steps:
        settings["steps"] = arguments.steps
    seeds = {"seeds": tuple(arguments.seeds)} if arguments.seeds else {}
    return TemplateGrid(settings=LadderSettings(**settings), **seeds)
