"""Weights from one form of file to another: published ones to safetensors, ours to what the authors' code loads."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import ArgumentError, CheckpointError, MissingFileError, check_choice
from ..files import check_apart, new_file
from .base import Backbone, SecondStage
from .checkpoints import LoadReport, load_published, read_checkpoint, save_checkpoint
from .jointformer import JointformerCascade
from .official import to_official
from .registry import BackboneInfo, create, info
from .videopose3d import VideoPose3D

__all__ = ["FORMS", "convert", "load_backbone", "save_published"]

#: what :func:`convert` writes
FORMS = ("safetensors", "published")

#: the pose network in a file of Jointformer's second stage
_FIRST_STAGE = "jt_state_dict"
#: the trajectory network in a file of VideoPose3D's semi-supervised training
_TRAJECTORY = "model_traj"


@dataclass(frozen=True)
class _Origin:
    """What a file says about the network that its weights are of.

    Attributes:
        name: of the backbone; None where the file doesn't say.
        arguments: its constructor arguments instead of the variant's.
        refine: name of the second stage behind it, or None.
        epochs: that it was trained for, as far as the file says.
        standardised: whether the network's output is in standard deviations.
        trajectory: whether it has VideoPose3D's trajectory network beside it.
    """

    name: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    refine: str | None = None
    epochs: int = 0
    standardised: bool = False
    trajectory: bool = False


@dataclass(frozen=True)
class _Reading:
    """A backbone from a file."""

    name: str
    arguments: dict[str, Any]
    model: Backbone
    report: LoadReport
    origin: _Origin


def load_backbone(
    source: str | os.PathLike[str], name: str | None = None, *, backbone_args: Mapping[str, Any] | None = None
) -> Backbone:
    """The network of a file of weights, in training mode.

    Args:
        source: a published checkpoint, a checkpoint of `structloss fit`, or a file that :func:`convert` has written.
        name, backbone_args: as for :func:`convert`.

    Raises:
        UnknownNameError, ArgumentError, MissingFileError, CheckpointError: as :func:`convert`.
    """
    return _read(Path(source), name, backbone_args).model


def _read(source: Path, name: str | None, backbone_args: Mapping[str, Any] | None) -> _Reading:
    if name is not None:
        info(name)  # an unknown name is told before a large file is read
    found = _origin(source)
    name, arguments = _agreed(source, found, name, backbone_args)
    model: Backbone = create(name, **arguments)
    if found.refine is not None:
        second = create(found.refine)
        if not isinstance(second, SecondStage):
            raise CheckpointError(f"{source} refines by {found.refine!r}, which is no second stage that trains alone.")
        model = second.after(model)
    return _Reading(name, arguments, model, load_published(model, source), found)


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    name: str | None = None,
    *,
    backbone_args: Mapping[str, Any] | None = None,
    to: str | None = None,
) -> LoadReport:
    """Read a backbone's weights from any file, and write them as safetensors or as the authors' code has them.

    Args:
        source: a published checkpoint, a checkpoint of `structloss fit`, or a file that this function has written.
        out: file to write, in an existing directory; its name ends in .safetensors for safetensors only.
        name: of the backbone; None is what `source` says, as all files but published ones do.
        backbone_args: constructor arguments of a network that is not the variant's; None is what `source` says.
        to: one of :data:`FORMS`; None is safetensors. "published" is what :func:`save_published` writes.

    Returns:
        What was read.

    Raises:
        UnknownNameError: no such backbone or form.
        ArgumentError: `name` or `backbone_args` is missing, or contradicts the file; `out` has the wrong suffix.
        MissingFileError, CheckpointError: as `load_published`.
    """
    to = "safetensors" if to is None else to
    check_choice("to", to, FORMS)
    source, out = Path(source), Path(out)
    _check_out(out, to)
    check_apart(out, input=source)
    read = _read(source, name, backbone_args)
    name, arguments, model, report, found = read.name, read.arguments, read.model, read.report, read.origin
    beside = None
    if found.trajectory and isinstance(model, VideoPose3D):
        beside = create(name, **{**arguments, "joints_out": 1})
        also = load_published(beside, source)
        report = replace(
            report, loaded=report.loaded + also.loaded, ignored=max(0, report.ignored - also.loaded),
            prefix=" and ".join(dict.fromkeys(filter(None, (report.prefix, also.prefix)))),
        )  # fmt: skip
    if to == "published":
        if found.standardised:
            warnings.warn(
                f"{source} has means and deviations that its poses are standardised by, for which {out.name} has no "
                "place: the authors' code computes them from its training data.",
                stacklevel=2,
            )
        _write_published(model, out, info(name), found, beside)
        return report
    metadata: dict[str, object] = {
        "backbone": name,
        "backbone_args": json.dumps(dict(arguments)),
        "epochs": found.epochs,
    }
    if found.refine is not None:
        metadata["refine"] = found.refine
    written: nn.Module = model
    if beside is not None:
        metadata["trajectory"] = True
        written = nn.ModuleDict({"model": model, "trajectory": beside})  # as in the state dict of a run
    save_checkpoint(written, out, {**metadata, "source": source.name, "format": "pt"})
    return report


def save_published(model: Backbone, path: str | os.PathLike[str], name: str, *, epochs: int = 0) -> Path:
    """Write weights as the authors' code saves and loads them: their keys, in their dictionary, with their prefix.

    The file has the weights, the constants that the authors keep among them, and the number of epochs; no optimizer
    and no random state, without which their code tests and fine-tunes but does not resume. It is written to a temporary
    name first.

    Args:
        model: a backbone.
        path: file to write, in an existing directory; an existing one is replaced.
        name: of the backbone, whose family's files are followed.
        epochs: of training.

    Returns:
        The path.

    Raises:
        UnknownNameError: no such backbone.
        ArgumentError: a name that ends in .safetensors, or two stages that the authors keep in two files.
        MissingFileError: the directory does not exist.
    """
    path = Path(path)
    _check_out(path, "published")
    _write_published(model, path, info(name), _Origin(epochs=epochs))
    return path


def _write_published(
    model: Backbone, path: Path, facts: BackboneInfo, origin: _Origin, trajectory: Backbone | None = None
) -> None:
    content: dict[str, Any] = {}
    if isinstance(model, JointformerCascade):
        if not facts.file_entry:
            raise ArgumentError(
                f"to is 'published', expected 'safetensors' for both stages of {facts.name}, which the authors keep in "
                "two files."
            )
        content[_FIRST_STAGE] = _entries(model.pose, facts)
        model = model.refinement
    if trajectory is not None:
        content[_TRAJECTORY] = _entries(trajectory, facts)
    weights = _entries(model, facts)
    content |= {"epoch": origin.epochs, facts.file_entry: weights} if facts.file_entry else weights
    with new_file(path) as file:
        torch.save(content, file)


def _entries(model: Backbone, facts: BackboneInfo) -> dict[str, torch.Tensor]:
    """Weights and constants under their keys in a published file."""
    entries = to_official(model) | model.constants()
    return {facts.file_prefix + key: value.detach().cpu().contiguous().clone() for key, value in entries.items()}


def _check_out(out: Path, to: str) -> None:
    named = out.suffix == ".safetensors"
    if named != (to == "safetensors"):
        expected = (
            "a name that ends in .safetensors, or to='published'" if not named else "a name such as weights.pth or .bin"
        )
        raise ArgumentError(f"out is {str(out)!r}, expected {expected}.")
    if not out.parent.is_dir():
        raise MissingFileError(f"{out.parent} does not exist, expected the directory to write {out.name} to.")


def _origin(source: Path) -> _Origin:
    """What a file says of its network.

    Raises:
        MissingFileError, CheckpointError: as `load_published`.
    """
    if source.suffix == ".safetensors" and source.is_file():
        try:
            with safe_open(source, "pt") as file:
                said = file.metadata() or {}
            arguments = json.loads(said.get("backbone_args", "{}"))
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{source} is not a readable safetensors file: {error}.") from error
        epochs = said.get("epochs", "0")
        return _Origin(
            said.get("backbone"),
            arguments if isinstance(arguments, dict) else {},
            said.get("refine"),
            int(epochs) if epochs.isdecimal() else 0,
            trajectory="trajectory" in said,
        )
    content = read_checkpoint(source)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{source} holds a {type(content).__name__}, expected a dictionary of weights.")
    epochs = content.get("epoch", 0)
    epochs = epochs if isinstance(epochs, int) else 0
    said = content.get("hyper_parameters")
    if not isinstance(said, Mapping) or not isinstance(said.get("backbone"), str):
        return _Origin(epochs=epochs, trajectory=isinstance(content.get(_TRAJECTORY), Mapping))
    return _Origin(
        said["backbone"],
        said.get("backbone_args") or {},
        said.get("refine"),
        epochs + 1,  # a checkpoint names the epoch that it was saved in
        "statistics" in content,
        said.get("semi_supervised") is not None,
    )


def _agreed(
    source: Path, found: _Origin, name: str | None, arguments: Mapping[str, Any] | None
) -> tuple[str, dict[str, Any]]:
    """Name and constructor arguments: those of the file, or those that are given, which must not differ."""
    if name is None:
        if found.name is None:
            raise ArgumentError(f"name is not given, expected that of a backbone: {source} doesn't say which it is of.")
        name = found.name
    elif found.name is not None and info(name).name != info(found.name).name:
        raise ArgumentError(f"name is {name!r}, expected {found.name!r}, which {source} is of.")
    if arguments is None:
        return name, dict(found.arguments)
    if not isinstance(arguments, Mapping):
        raise ArgumentError(f"backbone_args is {arguments!r}, expected a mapping of arguments.")
    if found.name is not None and _plain(arguments) != _plain(found.arguments):
        raise ArgumentError(
            f"backbone_args is {dict(arguments)}, expected {dict(found.arguments)}, as {source} has it."
        )
    return name, dict(arguments)


def _plain(value: Any) -> Any:
    """A value in the form that JSON and YAML give it back, to compare: tuples are lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
