"""The loss network: how plausible a 3D pose is for its 2D input, as one number per frame."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .. import skeletons, units
from ..backbones.checkpoints import LoadReport, load_published, save_checkpoint
from ..errors import ArgumentError, CheckpointError, MissingFileError, check_floating, check_name
from .networks import GraphEnergy, LinearEnergy

__all__ = ["VARIANTS", "LossNet"]

VARIANTS: dict[str, dict[str, Any]] = {
    "graph": {"offsets": True, "scale": 5.0},
    "graph-small": {"dim": 64, "heads": 4, "depth": 2, "offsets": True, "scale": 5.0},
    "graph-temporal": {"temporal_depth": 2, "offsets": True, "scale": 5.0},
    "graph4": {"dim": 256, "heads": 8, "depth": 4, "ratio": 2, "dropout": 0.1, "edge_types": False},
    "graph6": {"dim": 256, "heads": 8, "depth": 6, "ratio": 1, "edge_types": False},
    "linear": {},
    "linear-small": {"width": 256, "dropout": 0.0, "batch_norm": False, "offsets": True, "scale": 5.0},
}
"""Named loss networks. `graph4` (with MixSTE), `graph6` (with PoseFormerV2) and `linear` (single-frame networks) are
the first author's. Ours see each joint's offset from its parent too: `graph`, of half their width and with weights for
kinds of links, `graph-small` and `linear-small` for CPUs, and `graph-temporal`, which attends over frames too."""


class LossNet(nn.Module):
    """E(x, y): the energy of a 3D pose y for its 2D pose x, low where they belong together.

    A graph transformer over the joints, whose attention knows the skeleton's hop distances, degrees, links and mirrored
    pairs, or a perceptron. Poses are moved to their pelvis first, so that where a person stands says nothing.

    Args:
        skeleton: name of the skeleton, J joints.
        variant: one of :data:`VARIANTS`.
        confidence: read x's third channel; otherwise it is dropped.
        offsets: give the network the offset of each joint from its parent in the skeleton's tree as well, in 2D and 3D,
            and its length in 3D (ours): bones of a wrong length or direction are then seen in one joint.
        scale: factor of all coordinates (ours): of metres and of the screen's half width, most are small beside the
            embeddings of the joints, and a loss network is slow to learn from them.
        options: arguments of :class:`~structloss.learned.networks.GraphEnergy` or
            :class:`~structloss.learned.networks.LinearEnergy` instead of the variant's.

    Shape:
        x `[..., J, 2 or 3]` screen-normalised, y `[..., J, 3]` in metres (see `unit`), of equal leading dimensions;
        energies `[...]`. The last leading dimension is time for a loss network with `temporal_depth`, and means nothing
        to the others. Energies are float32, or float64 if the loss network's weights are.

    Raises:
        UnknownNameError: an unknown skeleton or variant.
        ArgumentError: an option that the variant doesn't have, or of an impossible value; in `forward` another shape.
        DtypeError: in `forward`, x or y is not floating point.

    Source: SCoTL-pose / SEAL-pose (Kim et al., arXiv 2602.20051) and its first author's code.

    Example:
        >>> import torch
        >>> from structloss.learned import LossNet
        >>> net = LossNet("h36m")
        >>> net(torch.randn(2, 27, 17, 2), torch.randn(2, 27, 17, 3)).shape
        torch.Size([2, 27])
    """

    parents: Tensor

    def __init__(
        self,
        skeleton: str = "h36m",
        variant: str = "graph",
        *,
        confidence: bool = False,
        offsets: bool | None = None,
        scale: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.skeleton = skeletons.get(skeleton)
        self.variant = check_name("loss network", variant, VARIANTS)
        arguments = {**VARIANTS[variant], **options}
        usual = arguments.pop("offsets", False), arguments.pop("scale", 1.0)
        self.confidence, self.options = confidence, options
        self.offsets = usual[0] if offsets is None else offsets
        self.scale = float(usual[1] if scale is None else scale)
        if not 0 < self.scale < math.inf:
            raise ArgumentError(f"scale is {scale!r}, expected a finite number > 0.")
        parents = [max(parent, joint * (parent < 0)) for joint, parent in enumerate(self.skeleton.parents)]
        self.register_buffer("parents", torch.tensor(parents), persistent=False)  # the root is its own
        kind = LinearEnergy if variant.startswith("linear") else GraphEnergy
        channels = 5 + confidence + 6 * self.offsets
        try:
            self.body = kind(self.skeleton, channels, **arguments)
        except TypeError as error:
            raise ArgumentError(f"loss network {variant!r} takes no such options: {error}.") from error

    @property
    def temporal(self) -> bool:
        """Whether a frame's energy depends on its neighbours."""
        return self.body.temporal

    def forward(self, x: Tensor, y: Tensor, unit: float | Tensor = 1.0) -> Tensor:
        """Energies `[...]`.

        Args:
            x: `[..., J, 2 or 3]`.
            y: `[..., J, 3]`; the gradient reaches it.
            unit: metres per unit of y, a number or `[...]`, as for poses in image space.
        """
        self._check(x, y)
        check_unit(unit, y)
        pose = skeletons.relative(y, self.skeleton.pelvis)
        if isinstance(unit, Tensor):
            pose = pose * unit[..., None, None].to(pose.dtype)
        elif unit != 1.0:
            pose = pose * unit
        planar = x[..., :2]
        if self.confidence:
            planar = x if x.shape[-1] == 3 else torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
        weight = self.body.in_proj.weight if isinstance(self.body, GraphEnergy) else self.body.input_proj.weight
        parts = [part.to(weight.dtype) * self.scale for part in (planar, pose)]
        if self.offsets:
            flat, bone = (part - part[..., self.parents, :] for part in (parts[0][..., :2], parts[1]))
            # The root's own offset is 0, where a norm has no gradient; a bone of no length gets none either.
            parts[1:] = [flat, bone, (bone.square().sum(-1, keepdim=True) + 1e-8).sqrt(), parts[1]]
        features = torch.cat(parts, dim=-1)
        lead = features.shape[:-2]
        frames = lead[-1] if lead else 1
        rows = math.prod(lead[:-1])  # spelled out: -1 in a view would fail on an empty batch
        energies = self.body(features.reshape(rows, frames, *features.shape[-2:])).reshape(lead)
        return energies.to(torch.promote_types(energies.dtype, torch.float32))

    def _check(self, x: Tensor, y: Tensor) -> None:
        check_floating("x", x)
        check_floating("y", y)
        joints = self.skeleton.num_joints
        if y.dim() < 2 or tuple(y.shape[-2:]) != (joints, 3):
            raise ArgumentError(f"y has shape {list(y.shape)}, expected [..., {joints}, 3] for {self.skeleton.name!r}.")
        if x.dim() != y.dim() or x.shape[:-1] != y.shape[:-1] or x.shape[-1] not in (2, 3):
            raise ArgumentError(f"x has shape {list(x.shape)}, expected {list(y.shape[:-1])} and 2 or 3 channels.")

    def extra_repr(self) -> str:
        return f"{self.skeleton.name!r}, {self.variant!r}"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write weights and description as safetensors, to a temporary name first.

        Raises:
            ArgumentError: the name doesn't end in .safetensors.
            MissingFileError: the directory does not exist.
        """
        return save_checkpoint(self.body, path, {"loss_net": json.dumps(self.description())})

    def description(self) -> dict[str, Any]:
        """What it takes to make a loss network of the same shape."""
        return {
            "skeleton": self.skeleton.name,
            "variant": self.variant,
            "confidence": self.confidence,
            "offsets": self.offsets,
            "scale": self.scale,
            "options": self.options,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LossNet:
        """The loss network that :meth:`save` wrote.

        Raises:
            MissingFileError: no such file.
            CheckpointError: unreadable, or no loss network.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFileError(f"{path} does not exist, expected a loss network written by LossNet.save.")
        try:
            with safe_open(path, framework="pt") as file:
                written = (file.metadata() or {}).get("loss_net")
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {error}.") from error
        if written is None:
            raise CheckpointError(f"{path} holds no loss network, expected a file written by LossNet.save.")
        try:
            description = json.loads(written)
        except ValueError as error:
            raise CheckpointError(f"{path} describes no loss network that can be made: {error}.") from error
        net = cls.from_description(description, str(path))
        load_published(net.body, path)
        return net

    @classmethod
    def from_description(cls, description: Mapping[str, Any], source: str = "description") -> LossNet:
        """A new loss network of a :meth:`description`."""
        try:
            return cls(
                description["skeleton"],
                description["variant"],
                confidence=bool(description["confidence"]),
                offsets=bool(description["offsets"]),
                scale=float(description["scale"]),
                **description["options"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{source} describes no loss network that can be made: {error}.") from error

    def load_published(self, path: str | os.PathLike[str] | Mapping[str, Any]) -> LoadReport:
        """Copy weights of the first author's checkpoints (`model_loss` or `loss_net` in them) into this loss network,
        whose variant must be theirs; see :func:`structloss.backbones.load_published`."""
        return load_published(self.body, path)


def check_unit(unit: float | Tensor, pose: Tensor) -> None:
    """Raise unless a tensor of units has one for each pose of `[..., J, 3]`; warn, on the CPU, of poses that are too
    large for the unit."""
    if isinstance(unit, Tensor) and unit.shape != pose.shape[:-2]:
        raise ArgumentError(f"unit has shape {list(unit.shape)}, expected {list(pose.shape[:-2])} or a number.")
    if not isinstance(unit, Tensor) and units.is_due("loss_net"):
        units.warn_of_size("a pose", units.glance(pose), unit, "say unit=, 1e-3 for millimetres", small=False, depth=4)
