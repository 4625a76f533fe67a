"""Networks from images as they are exported: an image in, heatmaps and depths or the joints of a template out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import images, shape_templates, skeletons
from ..errors import ArgumentError, check_choice
from ..images import SAPNet, TemplateNetwork
from .ports import Case, Port

__all__ = ["COLOURS", "image_case"]

COLOURS = ("rgb", "bgr")
"""Orders of the channels that weights were trained on; a file takes RGB in any case."""

_DECODED = 16  # joints, of MPII


class _Finds(nn.Module):
    """Heatmaps of the last stack, depths, and the poses that they decode to."""

    def __init__(self, network: SAPNet, flipped: bool) -> None:
        super().__init__()
        self.network, self.flipped = network, flipped

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.network(image.flip(1) if self.flipped else image)
        heatmaps, depth = found.heatmaps[-1], found.depth
        if found.depth.shape[-1] != _DECODED:  # other joints have no canonical lengths
            return heatmaps, depth
        return heatmaps, depth, images.decode(heatmaps, depth, unit="pixels"), images.decode(heatmaps, depth)


class _FitsTemplate(nn.Module):
    """Joints and anchors: what is drawn of the template is of use in training alone, and has no operator in ONNX."""

    def __init__(self, network: TemplateNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network(image)
        return found.joints, found.anchors


def image_case(network: SAPNet | TemplateNetwork, name: str, *, colours: str) -> Case:
    """A network that starts from pixels.

    Args:
        network: in evaluation mode.
        name: in `structloss.images`.
        colours: one of :data:`COLOURS`, which SAP-Net's weights were trained on.

    Raises:
        UnknownNameError: no such network.
        ArgumentError: other colours, or "bgr" with a network that has its own `channel_order`.
    """
    about, size = images.info(name), network.input_size
    check_choice("colours", colours, COLOURS)
    if about.family.startswith("shape-template") != isinstance(network, TemplateNetwork):
        raise ArgumentError(f"model is a {type(network).__name__}, expected what {name} is.")
    facts: dict[str, object] = {"network": about.name, "family": about.family, "paper": about.paper, "kind": about.kind}
    facts |= {"normalisation": "RGB, 0 to 1: bytes / 255", "skeleton": about.skeleton}
    means = f"a person in a square of {size} pixels, red, green, blue, 0 to 1"
    image = Port("image", ("batch", 3, size, size), means)
    outputs: list[Port]
    module: nn.Module
    if isinstance(network, TemplateNetwork):
        if colours != "rgb":
            raise ArgumentError(f"colours is {colours!r}, expected 'rgb': {name} has a channel_order of its own.")
        joints = list(shape_templates.JOINTS)
        units = "pixels of the image, x right and y down, the centre of the first one at (0, 0)"
        outputs = [
            Port("joints", ("batch", len(joints), 2), f"joints in {units}"),
            Port("anchors", ("batch", network.anchors.shape[0], 2), f"ends of the template's parts in {units}"),
        ]
        module = _FitsTemplate(network)
        if not network.normalize:
            facts["normalisation"] = "RGB, less ImageNet's mean and divided by its deviation"
    else:
        joints = list(skeletons.get(about.skeleton or "mpii").joint_names)
        units = "millimetres of a person of canonical size, camera's directions, relative to the pelvis"
        shape = (network.joints, network.heatmap_size, network.heatmap_size)
        outputs = [
            Port("heatmaps", ("batch", *shape), "where each joint is, 1 at its place; a cell is 4 by 4 pixels"),
            Port("depth", ("batch", network.joints), "behind the pelvis, in half widths of the image"),
        ]
        if network.joints == _DECODED:
            pixels = "joints: x and y in pixels of the image, depth behind the pelvis in the same unit"
            outputs += [
                Port("joints", ("batch", _DECODED, 3), pixels, jumps=True),
                Port("poses", ("batch", _DECODED, 3), f"joints in {units}", jumps=True),
            ]
        module = _Finds(network, colours == "bgr")
        facts["root"] = "pelvis"
    facts |= {"units": units, "joints_out": joints, "input_size": size}

    def make(batch: int, count: int) -> dict[str, Tensor]:
        return {"image": torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))}

    return Case(module, [image], outputs, make, facts, frames=1)
