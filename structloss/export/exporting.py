"""A network to a file: traced, written, and compared with the network itself before the file gets its name."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..backbones import Backbone
from ..backbones.blocks import RunsLevels
from ..errors import ArgumentError, BackendError, DtypeError, check_choice, needs_extra
from ..files import replacing
from ..images import SAPNet, TemplateNetwork
from ..progress import track
from ..refine import Refiner
from .lifting import lifting_case
from .pictures import image_case
from .ports import Case, Port
from .refiners import refiner_case

__all__ = ["FORMATS", "Exported", "export"]

FORMATS = {"onnx": ".onnx", "torch-export": ".pt2"}
"""Forms of files -> how their names end."""

_CLOSE = 1e-4  # of the largest output
_JUMPS = 0.05  # of what depends on a choice, of neighbours or of the highest cell: rounding may choose another


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        format: one of :data:`FORMATS`.
        inputs, outputs: what the network takes and gives.
        facts: what the file says of it, key -> text, as it stands there.
        error: the largest difference to the network, as a share of its largest output.
    """

    path: Path
    format: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    facts: Mapping[str, str]
    error: float

    def __str__(self) -> str:
        lines = [f"{kind} {port.name} {_axes(port)}: {port.means}" for kind, port in self._ports()]
        return "\n".join([*lines, f"differs from the network by {self.error:.0e} of its largest output"])

    def _ports(self) -> list[tuple[str, Port]]:
        return [*(("in ", port) for port in self.inputs), *(("out", port) for port in self.outputs)]


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    name: str,
    *,
    format: str = "onnx",
    frames: int | None = None,
    target: str = "camera",
    skeleton: str | None = None,
    colours: str = "rgb",
    licence: str = "not told",
    weights: str = "",
    progress: bool = False,
) -> Exported:
    """Write a network as a file that runs without structloss: ONNX for onnxruntime and others, or torch's program.

    The batch is free, and the number of frames where the network allows it. The file is first run with other batches
    and lengths than it was traced with, by onnxruntime or torch; only if it gives what the network gives it appears.

    Args:
        model: a backbone, a network of `structloss.images` or a refiner, float32, with its weights. It is left as it
            is: a copy of it on the CPU and in evaluation mode is exported.
        path: file to write, which ends in .onnx or .pt2.
        name: of the network in its registry (`structloss backbones list`); of a refiner what the file is to call it.
        format: one of :data:`FORMATS`.
        frames: a fixed number of frames. None is any that the network takes, or its own where it takes one only. A
            network that slides computes less where it is fixed to its receptive field.
        target: the space that a backbone answers in, as in its training: "camera", "root_relative" or "global".
        skeleton: joint order; None is that of the backbone, "h36m" of a refiner.
        colours: order of the channels that SAP-Net's weights were trained on, "rgb" or "bgr", as published ones were.
            The file takes RGB in any case.
        licence: of the weights, for the file.
        weights: where they are from, for the file.
        progress: show a bar on a terminal.

    Returns:
        :class:`Exported`.

    Raises:
        ArgumentError: a network that gives no poses, has NaN in its weights or none at all; a path that is a folder or
            ends in another way; another argument that the network does not take.
        DtypeError: weights that are not float32.
        UnknownNameError: an unknown name or skeleton.
        MissingDependencyError: "onnx" without the extra of this name.
        BackendError: an operator that ONNX lacks, a length that can't be left free, or a file that gives something else
            than the network.
        OSError: the file can't be written.
    """
    check_choice("format", format, tuple(FORMATS))
    path = Path(path)
    if path.is_dir():
        raise ArgumentError(f"path is {str(path)!r}, a folder, expected the name of a file to write.")
    if path.suffix != FORMATS[format]:
        raise ArgumentError(f"path is {str(path)!r}, expected a name that ends in {FORMATS[format]} for {format}.")
    with torch.no_grad():
        case = _case(_copied(model), name, frames=frames, target=target, skeleton=skeleton, colours=colours)
    if format == "onnx":
        with needs_extra("onnx"):
            from .onnx_file import OnnxFile as Form
    else:
        from .torch_file import TorchFile as Form  # type: ignore[assignment]
    with replacing(path) as temporary, torch.no_grad():
        stages = iter(track(("tracing", "writing", "comparing"), f"Exporting {name}", progress))
        next(stages)
        form = Form(case, name)
        next(stages)
        facts = _facts(case, {**form.facts, "licence": licence, "weights": weights})
        temporary.write_bytes(form.content(facts))
        next(stages)
        error = _compared(case, form.loaded(temporary), name, form.shortest)
        next(stages, None)
    return Exported(path, format, tuple(case.inputs), tuple(case.outputs), facts, error)


def _copied(network: object) -> nn.Module:
    """A copy on the CPU, in evaluation mode.

    Raises:
        ArgumentError, DtypeError: it can't be exported.
    """
    if not isinstance(network, nn.Module):
        raise ArgumentError(f"model is a {type(network).__name__}, expected one of structloss.backbones or .images.")
    for key, value in network.state_dict().items():
        if value.is_meta:
            raise ArgumentError(f"model has no values in {key}, which is on the device meta, expected weights.")
        if value.is_floating_point() and value.dtype != torch.float32:
            raise DtypeError(f"model has dtype {value.dtype} in {key}, expected torch.float32: model.float().")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ArgumentError(f"model has NaN or infinite values in {key}, expected weights.")
    made = copy.deepcopy(network).to("cpu").eval().requires_grad_(False)
    for module in made.modules():
        if isinstance(module, RunsLevels):
            module.gradient_checkpointing = False
    return made


def _case(
    network: nn.Module, name: str, *, frames: int | None, target: str, skeleton: str | None, colours: str
) -> Case:
    if isinstance(network, SAPNet | TemplateNetwork):
        if frames is not None:
            raise ArgumentError(f"frames is {frames!r}, expected None for a network that takes images.")
        return image_case(network, name, colours=colours)
    if colours != "rgb":
        raise ArgumentError(f"colours is {colours!r}, expected it with networks that take images only.")
    if isinstance(network, Backbone):
        return lifting_case(network, name, frames=frames, target=target, skeleton=skeleton)
    if isinstance(network, Refiner):
        return refiner_case(network, name, frames=frames, skeleton=skeleton or "h36m")
    raise ArgumentError(
        f"model is a {type(network).__name__}, expected a network of structloss.backbones, .images or .refine."
    )


def _facts(case: Case, others: Mapping[str, Any]) -> dict[str, str]:
    """What is written into the file, every value a text: lists and ports as JSON."""
    facts = {**case.facts, **others, "structloss": __version__, "torch": torch.__version__}
    for kind, ports in (("inputs", case.inputs), ("outputs", case.outputs)):
        facts[kind] = [
            {"name": port.name, "shape": list(port.shape), "dtype": port.dtype, "means": port.means} for port in ports
        ]
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in sorted(facts.items())
    }
    # a file's name may hold bytes that are no text
    return {key: text.encode("utf-8", "replace").decode("utf-8") for key, text in texts.items()}


def _compared(case: Case, run: Any, name: str, least: int) -> float:
    """The largest difference of what a file gives, over batches and lengths, as a share of the largest output.

    Raises:
        BackendError: it is too large.
    """
    lengths = [case.frames] if case.frames is not None else [max(case.shortest, least) + 4, max(case.shortest, least)]
    if case.longest is not None:
        lengths = [min(length, case.longest) for length in lengths]
    worst = 0.0
    for batch, length in ((2, lengths[0]), (1, lengths[-1])):
        inputs = case.make(batch, length)
        wanted = case.module(**inputs)
        for port, want, got in zip(case.outputs, _tuple(wanted), run(inputs), strict=True):
            if tuple(got.shape) != tuple(want.shape):
                raise BackendError(
                    f"{name} gives {port.name} of shape {list(got.shape)} from its file, expected {list(want.shape)}."
                )
            largest = float(want.abs().max())
            difference = float((got - want).abs().max()) / max(largest, torch.finfo(torch.float32).tiny)
            worst = max(worst, difference)
            close = _JUMPS if port.jumps else _CLOSE
            if not difference <= close:
                raise BackendError(
                    f"{name} gives {port.name} that differ by {difference:.1e} of the largest from its file, expected "
                    f"at most {close:g}; nothing was written."
                )
    return worst


def _tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def _axes(port: Port) -> str:
    return f"[{', '.join(map(str, port.shape))}]"
