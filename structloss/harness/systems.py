"""What `structloss fit`, `validate` and `test` can train: pairs of a module and the data that it takes.

A recipe, a run's configuration and a checkpoint tell theirs by the argument that names the network, which every pair
calls by another name: nothing has to say it twice.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError

if TYPE_CHECKING:
    import lightning as L

__all__ = ["IMAGES", "LIFTING", "REFINE", "SYSTEMS", "TEMPLATES", "System", "system_of"]


@dataclass(frozen=True, kw_only=True)
class System:
    """A Lightning module and its data module.

    Attributes:
        name: what it is called.
        says: what it trains, for messages: "a lifting network".
        network: argument of the module that names the network.
        module, data: dotted names of the two classes, imported when they are asked for.
        registry: dotted name of the package whose `info(name).name` is a network's full name; empty where networks have
            one name each.
        decides: arguments that decide which weights there are and what they mean -> the section of the command line
            that they stand in.
        windows: arguments of the data module that follow the network's size.
        cut: arguments of the data module that say how any data is cut and batched; the others say which data.
        links: setting -> the one that it follows.
        monitor: figure whose least value marks the best checkpoint.
    """

    name: str
    says: str
    network: str
    module: str
    data: str
    registry: str = ""
    decides: Mapping[str, str] = field(hash=False)
    windows: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    links: Mapping[str, str] = field(hash=False)
    monitor: str = "val/mpjpe"

    def classes(self) -> tuple[type[L.LightningModule], type[L.LightningDataModule]]:
        """The module and the data module."""
        return _imported(self.module), _imported(self.data)

    def full_name(self, network: str) -> str:
        """The name of a network in its registry: a bare family stands for its flagship.

        Raises:
            UnknownNameError: it is not registered.
        """
        return importlib.import_module(self.registry).info(network).name if self.registry else network

    @property
    def linked(self) -> tuple[str, ...]:
        """Arguments of the module that are set elsewhere."""
        return tuple(name.removeprefix("model.") for name in self.links if name.startswith("model."))

    @property
    def shared(self) -> tuple[str, ...]:
        """Those of them that are arguments of the data module under the same name."""
        return tuple(name for name in self.linked if self.links[f"model.{name}"] == f"data.{name}")


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


_SEEDS = {"data.seed": "seed_everything", "model.seed": "seed_everything"}
_WINDOWS = ("window", "stride", "sampling", "context", "frame_step")

LIFTING = System(
    name="lifting",
    says="a lifting network",
    network="backbone",
    module="structloss.harness.lifting.LiftingModule",
    data="structloss.data.module.MotionDataModule",
    registry="structloss.backbones",
    decides=MappingProxyType(
        {
            "backbone": "model",
            "backbone_args": "model",
            "refine": "model",
            "standardise": "model",
            "learn_weights": "model",
            "semi_supervised": "model",
            "target": "data",
            "skeleton": "data",
        }
    ),
    windows=_WINDOWS,
    cut=(*_WINDOWS, "mirrored", "short_clips", "batch_size", "eval_batch_size", "target", "skeleton"),
    links=MappingProxyType({"model.target": "data.target", "model.skeleton": "data.skeleton", **_SEEDS}),
)

IMAGES = System(
    name="images",
    says="a network from images",
    network="network",
    module="structloss.harness.image_training.ImageModule",
    data="structloss.images.module.ImagesDataModule",
    registry="structloss.images",
    decides=MappingProxyType({"network": "model", "network_args": "model"}),
    windows=("input_size",),
    cut=("input_size", "batch_size", "eval_batch_size", "batch"),
    links=MappingProxyType(_SEEDS),
)

REFINE = System(
    name="refine",
    says="a refiner of 3D poses",
    network="refiner",
    module="structloss.harness.refining.RefineModule",
    data="structloss.refine.module.PredictionsDataModule",
    decides=MappingProxyType(
        {
            "refiner": "model",
            "refiner_args": "model",
            "past": "data",
            "future": "data",
            "border": "data",
            "skeleton": "data",
        }
    ),
    windows=("past", "future", "frames", "stride"),
    cut=("past", "future", "frames", "stride", "frame_step", "border", "skeleton", "batch_size"),
    links=MappingProxyType(
        {**{f"model.{name}": f"data.{name}" for name in ("past", "future", "border", "skeleton")}, **_SEEDS}
    ),
)

# The best checkpoint is that of the least loss on folders that were not trained on: training needs no labels, and
# neither may the choice between its checkpoints.
TEMPLATES = System(
    name="templates",
    says="a network of shape templates",
    network="shape_network",
    module="structloss.harness.template_training.TemplateModule",
    data="structloss.images.template_module.TemplatesDataModule",
    registry="structloss.images",
    decides=MappingProxyType({"shape_network": "model", "shape_network_args": "model"}),
    windows=("size",),
    cut=("size", "batch_size", "eval_batch_size", "flip", "shuffle_frames"),
    links=MappingProxyType(_SEEDS),
    monitor="val/loss",
)

SYSTEMS: tuple[System, ...] = (LIFTING, IMAGES, TEMPLATES, REFINE)
"""All of them, the usual one first."""


def system_of(*models: object) -> System:
    """The system of arguments of a module, in the order of precedence; the first of :data:`SYSTEMS` if none tells.

    Args:
        models: the `model` section of recipes, or the arguments in a checkpoint; what is no mapping tells nothing.

    Raises:
        ArgumentError: one has the networks of two systems.
    """
    for model in models:
        if not isinstance(model, Mapping):
            continue
        found = [system for system in SYSTEMS if model.get(system.network) is not None]
        if len(found) > 1:
            names = " and ".join(f"{system.network} ({system.says})" for system in found)
            raise ArgumentError(f"model has {names}, expected one of them.")
        if found:
            return found[0]
    return SYSTEMS[0]
