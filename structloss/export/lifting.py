"""Lifting networks as they are exported: keypoints in, poses out, and the second stages, which take poses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import backbones, skeletons
from ..backbones import Backbone
from ..backbones.d3dp import D3DP
from ..backbones.jointformer import JointformerCascade, JointformerRefinement
from ..backbones.motionagformer import MotionAGFormer
from ..backbones.pstmo_refine import RefinementHead
from ..backbones.simplebaseline import SimpleBaseline
from ..errors import ArgumentError, check_choice
from .ports import Case, Port

__all__ = ["MOST_FRAMES", "TARGETS", "joint_names", "lifting_case"]

MOST_FRAMES = 10_000
"""Of a fixed number of frames, with which a file is traced and compared."""

TARGETS = {
    "camera": "metres in the camera's frame (x right, y down, z forward), relative to {root}",
    "root_relative": "image space, relative to {root} of the frame: x and y in units of the normalised screen, z "
    "forward in the same unit by the scale of the image at the root",
    "global": "image space: x and y on the normalised screen, z forward in the same unit by the scale of the image at "
    "{root}, whose depth in the first frame is 0",
}
"""The spaces that networks answer in -> what the numbers of a pose are, with a place for the root."""

_SCREEN = "the normalised screen: x' = 2 x / width - 1, y' = (2 y - height) / width, of pixels x right and y down"
_CONFIDENCE = "; the confidence of each, 0 to 1"
_UNSEEN = ", 0 for a joint that was not found, whose place is not looked at"


class _Around(nn.Module):
    """A network whose inputs have the names of the file's: those of the arguments of `forward`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


class _Lifts(_Around):
    def forward(self, keypoints: Tensor) -> Tensor:
        return self.network(keypoints)


class _Denoises(_Around):
    def forward(self, keypoints: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
        return self.network(keypoints, noisy, timestep)


class _RefinesFeatures(_Around):
    def forward(self, features: Tensor) -> Tensor:
        return self.network(features)


class _Blends(_Around):
    def forward(self, poses: Tensor, reprojected: Tensor) -> Tensor:
        return self.network(poses, reprojected)


def joint_names(skeleton: str, count: int) -> list[str]:
    """Names of the joints in their order; Human3.6M's without neck/nose where there are 16; none of a skeleton that is
    not registered."""
    if not skeleton:
        return []
    names = list(skeletons.get(skeleton).joint_names)
    if skeleton == "h36m" and count == len(names) - 1:
        del names[9]
    return names if len(names) == count else []


def lifting_case(network: Backbone, name: str, *, frames: int | None, target: str, skeleton: str | None) -> Case:
    """A lifting network, or the second stage of one, with keypoints of any number of clips.

    Args:
        network: in evaluation mode.
        name: of the backbone, for what is known about it.
        frames: a fixed number of frames; None is any, where the network allows it.
        target: one of :data:`TARGETS`.
        skeleton: joint order; None is that of the backbone.

    Raises:
        UnknownNameError: no such backbone, skeleton.
        ArgumentError: a network that gives no poses, or that is not of this name; a number of frames that it does not
            take, an unknown target.
    """
    about = backbones.info(name)
    if network.kind == "pretrain":
        raise ArgumentError(f"model is {about.name}, for pre-training, expected one that gives poses.")
    with torch.device("meta"):  # without memory for its weights
        named = type(backbones.create(name))
    first = network.pose if isinstance(network, JointformerCascade) else network
    if not isinstance(first, named):
        raise ArgumentError(f"model is a {type(network).__name__}, expected a {named.__name__}, which {name} is.")
    check_choice("target", target, tuple(TARGETS))
    skeleton = about.skeleton if skeleton is None else skeleton
    length, shortest, longest = _length(network, frames)
    joints = network.joints[0]
    with torch.no_grad():
        made = network(**_inputs(network, 1, length or shortest))
    out = int(made.shape[2])
    centred = network.kind == "centre"
    lost = network.frames - 1 if centred else 0
    axis: int | str = length or "frames"
    after: int | str = (length or 0) - lost if length else (f"frames - {lost}" if lost else "frames")
    facts: dict[str, object] = {
        "network": about.name,
        "family": about.family,
        "paper": about.paper,
        "kind": network.kind,
        "receptive_field": network.frames,
        "frame_step": network.frame_step,
        "keeps": network.keeps,
        "normalisation": _SCREEN,
        "target": target,
        "units": _units(network, target).format(root=_root(skeleton)),
        "skeleton": skeleton,
        "joints_in": joint_names(skeleton, joints),
        "joints_out": joint_names(skeleton, out),
    }
    if centred:
        facts["centre"] = network.centre
    begins = f"; the first one is of frame {network.centre}" if centred else ""
    means = f"joints in {facts['units']}{begins}"
    gives = "refined" if isinstance(network, RefinementHead) else "poses"  # "poses" is what it takes
    poses = Port(gives, ("batch", after, out, 3), means, jumps=isinstance(network, MotionAGFormer))
    module, ports = _ports(network, axis, joints)

    def make(batch: int, count: int) -> dict[str, Tensor]:
        values = _inputs(network, batch, count, seed=batch).values()
        return {port.name: value for port, value in zip(ports, values, strict=True)}

    return Case(module, ports, [poses], make, facts, length, shortest, longest)


def _length(network: Backbone, frames: int | None) -> tuple[int | None, int, int | None]:
    """The fixed number of frames or None, the least and the most."""
    shortest, longest = network.shortest, network.longest
    if frames is None:
        return (shortest if shortest == longest else None), shortest, longest
    most = MOST_FRAMES if longest is None else longest
    if not isinstance(frames, int) or not shortest <= frames <= most:
        expected = f"{shortest}" if shortest == longest else f"{shortest} to {most}"
        raise ArgumentError(f"frames is {frames!r}, expected {expected} for this network.")
    return frames, frames, frames


def _units(network: Backbone, target: str) -> str:
    if isinstance(network, SimpleBaseline) and network.neck and network.output_mean is None:
        return "standard deviations of the poses that it was trained on, relative to {root}"
    return TARGETS[target]


def _root(skeleton: str) -> str:
    """What poses are relative to."""
    if not skeleton:
        return "the root"
    body = skeletons.get(skeleton)
    names = [body.joint_names[joint] for joint in body.pelvis]
    return f"the joint {names[0]}" if len(names) == 1 else f"the middle of {' and '.join(names)}"


def _inputs(network: Backbone, batch: int, frames: int, seed: int = 0) -> dict[str, Tensor]:
    """Arguments of the network's `forward`: random, the same for a seed."""
    random = torch.Generator().manual_seed(seed)

    def normal(channels: int) -> Tensor:
        return 0.4 * torch.randn(batch, frames, network.joints[0], channels, generator=random)

    if isinstance(network, JointformerRefinement):
        return {"x": normal(8)}
    if isinstance(network, RefinementHead):
        return {"x": normal(3), "reprojected": normal(3)}
    x = normal(2)
    if network.channels == 3:
        confidence = torch.rand(batch, frames, network.joints[0], 1, generator=random)
        x = torch.cat((x, (confidence - 0.1).clamp(min=0)), dim=-1)  # some are not found
    if isinstance(network, D3DP):
        timestep = torch.randint(0, network.diffusion.steps, (batch,), generator=random)
        return {"x": x, "noisy": normal(3), "timestep": timestep}
    return {"x": x}


def _ports(network: Backbone, frames: int | str, joints: int) -> tuple[nn.Module, Sequence[Port]]:
    """The module that takes inputs by their names in the file, and these in the order of `_inputs`."""
    clip = ("batch", frames, joints)
    if isinstance(network, JointformerRefinement):
        means = (
            f"of every joint x, y on {_SCREEN}; then x, y, z of the pose and x, y, z of its error, as the first stage "
            "gives them"
        )
        return _RefinesFeatures(network), [Port("features", (*clip, 8), means)]
    if isinstance(network, RefinementHead):
        other = "joints on the camera's rays of their keypoints at the depths of those poses, in the same unit"
        ports = [
            Port("poses", (*clip, 3), "joints as the network before it gives them"),
            Port("reprojected", (*clip, 3), other),
        ]
        return _Blends(network), ports
    means = f"joints on {_SCREEN}"
    if isinstance(network, SimpleBaseline) and network.neck and network.input_mean is None:
        means = "joints, standardised by the mean and deviation of the keypoints that it was trained on"
    if network.channels == 3:
        means += _CONFIDENCE + (_UNSEEN if network.skips_missing else "")
    keypoints = Port("keypoints", (*clip, network.channels), means)
    if isinstance(network, D3DP):
        noisy = Port(
            "noisy", (*clip, 3), "noisy poses in metres, relative to the root; standard normal noise to begin with"
        )
        last = network.diffusion.steps - 1
        timestep = Port("timestep", ("batch",), f"level of the noise, 0 to {last}, the most", "int64")
        return _Denoises(network), [keypoints, noisy, timestep]
    return _Lifts(network), [keypoints]
