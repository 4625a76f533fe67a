"""Refiners as they are exported: 3D poses of any number of frames in, steadier ones out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..refine import LSTMRefiner, Refiner
from .lifting import MOST_FRAMES, joint_names
from .ports import Case, Port

__all__ = ["refiner_case"]


class _Refines(nn.Module):
    def __init__(self, network: Refiner) -> None:
        super().__init__()
        self.network = network

    def forward(self, poses: Tensor) -> Tensor:
        return self.network(poses)


def refiner_case(network: Refiner, name: str, *, frames: int | None, skeleton: str) -> Case:
    """A refiner of 3D poses, of whole clips.

    Args:
        network: in evaluation mode.
        name: what the file calls it.
        frames: a fixed number of frames; None is any.
        skeleton: joint order.

    Raises:
        ArgumentError: no number of frames.
        UnknownNameError: no such skeleton.
    """
    if frames is not None and (not isinstance(frames, int) or not 1 <= frames <= MOST_FRAMES):
        raise ArgumentError(f"frames is {frames!r}, expected 1 to {MOST_FRAMES} for this network.")
    joints = network.num_joints
    units = "metres, relative to the pelvis"
    shape: tuple[int | str, ...] = ("batch", frames or "frames", joints, 3)
    names = joint_names(skeleton, joints)
    facts: dict[str, object] = {"network": name, "family": "refine", "kind": "poses", "skeleton": skeleton}
    facts |= {"units": units, "joints_in": names, "joints_out": names}
    facts |= {"past": network.past, "future": network.future}
    poses = Port("poses", shape, f"joints in {units}, of the frames of a clip")
    refined = Port("refined", shape, f"joints in {units}, of the same frames")

    def make(batch: int, count: int) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(batch)
        return {"poses": torch.randn(batch, count, joints, 3, generator=random) / 3}

    unrolled = isinstance(network, LSTMRefiner) and network.past is None
    return Case(_Refines(network), [poses], [refined], make, facts, frames, unrolled=unrolled)
