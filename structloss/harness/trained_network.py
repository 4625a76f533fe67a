"""A trained network of any kind by its name and its file: one of `structloss fit`, a published one, or one that comes
with the package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from .. import backbones, images
from ..backbones.checkpoints import read_checkpoint
from ..backbones.conversion import load_backbone
from ..errors import ArgumentError, CheckpointError, check_name, needs_extra
from .predict import published_target
from .systems import IMAGES, LIFTING, REFINE, TEMPLATES, System

__all__ = ["REFINER_NAMES", "TrainedNetwork", "trained_network"]

REFINER_NAMES = ("tpnet", "lstm")
"""Names of refiners, which no registry has."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network and what its numbers mean.

    Attributes:
        model: with its weights.
        name: full name.
        target: the space that a backbone answers in.
        skeleton: joint order; None is that of the registry.
        colours: order of the channels that a network from images was trained on.
        source: the file of its weights.
        packaged: whether it comes with the package.
    """

    model: nn.Module
    name: str
    target: str = "camera"
    skeleton: str | None = None
    colours: str = "rgb"
    source: str = ""
    packaged: bool = False


def trained_network(
    name: str,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    backbone_args: Mapping[str, Any] | None = None,
    target: str | None = None,
    colours: str | None = None,
) -> TrainedNetwork:
    """The network of this name with the weights of a file. Nothing in it is executed.

    Args:
        name: of a backbone, a network from images, or one of :data:`REFINER_NAMES`.
        checkpoint: of `structloss fit`, published, or safetensors; None is what comes with the package.
        backbone_args: constructor arguments of a network of another size, where the file doesn't tell them.
        target: the space that a backbone answers in; None is the checkpoint's, or that of its recipe.
        colours: "bgr" or "rgb", that published weights of SAP-Net were trained on; None is "bgr", as the authors' are.

    Raises:
        UnknownNameError: an unknown name.
        ArgumentError: no checkpoint of a network that no weights come with; arguments that contradict the file, or that
            the network has no use for.
        MissingFileError, CheckpointError: no such file, unreadable, or of another network.
        MissingDependencyError: a checkpoint of `structloss fit` without the `harness` extra.
    """
    known = [*backbones.names(), *images.names(), *REFINER_NAMES]
    if name not in REFINER_NAMES and name not in images.names():
        try:
            name = backbones.info(name).name  # or the flagship of a family
        except KeyError:
            check_name("network", name, known)
            raise
    kept = name in backbones.pretrained_names()
    if checkpoint is None and not kept:
        raise ArgumentError(
            f"checkpoint is not given, expected a file of weights of {name}; those of "
            f"{' and '.join(backbones.pretrained_names())} come with the package."
        )
    path = backbones.pretrained_file(name) if checkpoint is None else Path(checkpoint)
    of_run = path.suffix != ".safetensors" and _of_run(path)
    if name in REFINER_NAMES:
        _without("a refiner", backbone_args=backbone_args, target=target, colours=colours)
        return _refiner(name, path)
    if name in images.names():
        _without("a network from images", target=target)
        return _from_images(name, path, of_run, backbone_args, colours)
    _without("a lifting network", colours=colours)
    if of_run:
        return _lifting(name, path, backbone_args, target)
    model = load_backbone(path, name, backbone_args=backbone_args)
    found = target or published_target(backbones.info(name).recipe)
    return TrainedNetwork(model, name, found, source=path.name, packaged=checkpoint is None)


def _of_run(path: Path) -> bool:
    """Whether a file is a training checkpoint."""
    content = read_checkpoint(path)
    return isinstance(content, Mapping) and isinstance(content.get("hyper_parameters"), Mapping)


def _without(what: str, **given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(f"{name} is {value!r}, expected none with {what}.")


def _module(path: Path, system: System) -> Any:
    with needs_extra("harness"):
        from .load import load_module
    return load_module(path, system)[0]


def _check_is(name: str, found: str, path: Path) -> None:
    if found != name:
        raise CheckpointError(f"{path} is of {found}, expected a checkpoint of {name}.")


def _lifting(name: str, path: Path, backbone_args: Mapping[str, Any] | None, target: str | None) -> TrainedNetwork:
    module = _module(path, LIFTING)
    trained = module.hparams
    _check_is(name, backbones.info(trained["backbone"]).name, path)
    if backbone_args is not None:
        raise ArgumentError(f"backbone_args is {dict(backbone_args)}, expected none: {path} has its own.")
    found = target or trained["target"]
    return TrainedNetwork(module.model, name, found, trained["skeleton"], source=path.name)


def _refiner(name: str, path: Path) -> TrainedNetwork:
    module = _module(path, REFINE)
    _check_is(name, str(module.hparams["refiner"]), path)
    return TrainedNetwork(module.model, name, skeleton=str(module.hparams["skeleton"]), source=path.name)


def _from_images(
    name: str, path: Path, of_run: bool, arguments: Mapping[str, Any] | None, colours: str | None
) -> TrainedNetwork:
    about = images.info(name)
    fits_template = about.family.startswith("shape-template")
    if of_run:
        for key, value in (("backbone_args", arguments), ("colours", colours)):
            if value is not None:
                raise ArgumentError(f"{key} is {value!r}, expected none: {path} is a checkpoint of structloss fit.")
        system = TEMPLATES if fits_template else IMAGES
        module = _module(path, system)
        _check_is(name, images.info(str(module.hparams[system.network])).name, path)
        return TrainedNetwork(module.model, name, source=path.name)
    model = images.create(name, **dict(arguments or {}))
    images.load_published(model, path)
    seen = colours or ("rgb" if fits_template else "bgr")
    return TrainedNetwork(cast(nn.Module, model), name, colours=seen, source=path.name)
