"""Programs of `torch.export`: read by torch alone, `torch.export.load`, in Python or C++."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendError
from .ports import Case

__all__ = ["FACTS", "TorchFile"]

FACTS = "structloss.json"
"""Name of the extra file that says what `structloss.export.Exported.facts` says."""


class TorchFile:
    """A case as a program of `torch.export`.

    Args:
        case: the network.
        name: for messages.

    Attributes:
        facts: what else the file says.
        shortest: least number of frames. Where their number is free, most networks need one more than otherwise: torch
            makes a program for one pose, or one for several.

    Raises:
        BackendError: torch can't trace it.
    """

    def __init__(self, case: Case, name: str) -> None:
        self.facts: dict[str, Any] = {"format": "torch-export"}
        self.shortest = case.shortest
        try:
            try:
                self.program = _traced(case, self.shortest)
            except Exception:
                if not case.any_length:
                    raise
                self.shortest += 1
                self.program = _traced(case, self.shortest)
                self.facts["least_frames"] = self.shortest
        except Exception as error:  # torch's own are of many kinds
            text = re.sub(r"\s+", " ", str(error)).strip()[:200]
            raise BackendError(f"{name} can't be traced by torch.export: {text}.") from error
        for node in self.program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine

    def content(self, facts: Mapping[str, str]) -> bytes:
        """The bytes of the file."""
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(self.program, buffer, extra_files={FACTS: json.dumps(dict(facts), ensure_ascii=False)})
        return buffer.getvalue()

    def loaded(self, path: Path) -> Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]:
        """The file, to be called with inputs by name."""
        module = torch.export.load(io.BytesIO(path.read_bytes())).module()

        def run(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
            found = module(**inputs)
            return found if isinstance(found, tuple) else (found,)

        return run


def _traced(case: Case, shortest: int) -> torch.export.ExportedProgram:
    length = case.frames if case.frames is not None else shortest + 11
    if case.longest is not None:
        length = min(length, case.longest)
    bounds = {"batch": (1, None), "frames": (shortest, case.longest)}
    shapes = {
        port.name: {
            axis: torch.export.Dim(free, min=bounds[free][0], max=bounds[free][1])
            for axis, free in enumerate(port.shape)
            if isinstance(free, str)
        }
        for port in case.inputs
    }
    return torch.export.export(case.module, (), case.make(3, length), dynamic_shapes=shapes)
