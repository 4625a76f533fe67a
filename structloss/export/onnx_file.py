"""ONNX: written by torch's exporter, read by onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import onnxscript  # noqa: F401  # of torch's exporter, which would tell that it is missing in many lines
import torch
from torch import Tensor

from ..errors import ArgumentError, BackendError
from .ports import Case

__all__ = ["OPSET", "OnnxFile"]

OPSET = 18
"""Version of ONNX's operators: what torch's exporter writes without converting, and all runtimes since 2023 read."""

_MOST = 2**31 - 1  # bytes of one protocol buffer


class OnnxFile:
    """A case in ONNX's form.

    Args:
        case: the network.
        name: for messages.

    Attributes:
        facts: what else the file says.
        shortest: least number of frames.

    Raises:
        ArgumentError: a free number of frames, of a network that is unrolled.
        BackendError: ONNX lacks an operator, or the exporter fails in another way.
    """

    def __init__(self, case: Case, name: str) -> None:
        if case.unrolled and case.any_length:
            raise ArgumentError(
                f"frames is None, expected a number: ONNX has {name} frame by frame, and can't leave their number free."
            )
        self.facts: dict[str, Any] = {"format": "onnx", "opset": OPSET}
        self.shortest = 1
        length = case.frames if case.frames is not None else case.shortest + 11
        if case.longest is not None:
            length = min(length, case.longest)
        shapes = {port.name: _free_axes(port.shape, case) for port in case.inputs}
        try:
            with _quiet():
                program = torch.onnx.export(
                    case.module,
                    kwargs=case.make(3, length),
                    dynamic_shapes=shapes,
                    output_names=[port.name for port in case.outputs],
                    opset_version=OPSET,
                    external_data=False,
                    dynamo=True,
                    verbose=False,
                )
        except (RuntimeError, torch.onnx.OnnxExporterError) as error:
            raise BackendError(_told(name, error)) from error
        assert program is not None
        self.model: Any = program.model_proto
        self.name = name

    def content(self, facts: Mapping[str, str]) -> bytes:
        """The bytes of the file.

        Raises:
            BackendError: they are too many for one file.
        """
        _forget_sources(self.model.graph)
        onnx.helper.set_model_props(self.model, dict(facts))
        if self.model.ByteSize() > _MOST:
            raise BackendError(f"{self.name} takes more than 2 GB, expected a network that one file of ONNX can hold.")
        return self.model.SerializeToString(deterministic=True)

    def loaded(self, path: Path) -> Callable[[Mapping[str, Tensor]], list[Tensor]]:
        """The file, to be called with inputs by name."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # it is told here
        try:
            session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own, which derive from Exception alone
            raise BackendError(
                f"{self.name} is written, but onnxruntime can't read it: {_first_line(error)}."
            ) from error

        def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
            try:
                found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
            except Exception as error:
                raise BackendError(f"{self.name} is written, but does not run: {_first_line(error)}.") from error
            return [torch.from_numpy(value) for value in found]

        return run


def _free_axes(shape: tuple[int | str, ...], case: Case) -> dict[int, Any]:
    """Axis -> dimension, for those that have no number. Of the shortest clip torch would make a program of its own, for
    one pose instead of several; what is made for longer ones serves it in ONNX, which the comparison shows."""
    bounds = {"batch": (1, None), "frames": (case.shortest + 1, case.longest)}
    return {
        axis: torch.export.Dim(length, min=bounds[length][0], max=bounds[length][1])
        for axis, length in enumerate(shape)
        if isinstance(length, str)
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter prints of its own."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _told(name: str, error: BaseException) -> str:
    """The sentence for an exporter that failed."""
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and len(chain) < 10:
        chain.append(step)
        step = step.__cause__ or step.__context__
    text = "\n".join(map(str, chain))
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", text)
    if found:
        return (
            f"{name} can't be written as ONNX, which has no operator for {found[1]}, expected format "
            "'torch-export' of such a network."
        )
    return f"{name} can't be written as ONNX: {_first_line(chain[-1])}."


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\s+", " ", lines[0]).rstrip(".:")[:200]


def _forget_sources(graph: Any) -> None:
    """Take out where in whose files each node was traced: paths of this machine, half of a small file."""
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
