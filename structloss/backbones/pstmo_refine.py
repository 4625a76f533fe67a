"""The refinement head of P-STMO, and the poses that it mixes with predicted ones.

Source: Shan, Liu, Zhang, Wang, Ma, Gao, "P-STMO: Pre-trained Spatial Temporal Many-to-One Model for 3D Human Pose
Estimation", ECCV 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, check_floating, check_same_device, check_same_shape
from .base import Backbone, Supervision
from .blocks import check_clip, check_rate, check_sizes
from .pstmo_parts import PAPER
from .registry import family

__all__ = ["RefinementHead", "back_project"]


@family(
    "pstmo",
    {
        "refine": {
            "params": 140_322,
            "macs": 139_264,
            "published": {"h36m_mpjpe_mm_cpn": 42.1},
            "note": "The figure is that of P-STMO with 243 frames before it; it needs the true depth of the root.",
            "arguments": {"hidden": 1024},
        }
    },
    flagship="243",
    paper=PAPER,
    kind="refine",
    frames=1,
    channels=("x", "y", "z"),
    recipe="",
    file_entry="",
)
class RefinementHead(Backbone):
    """Mixes x and y of a predicted pose with those that follow from the keypoints at the predicted depth.

    Source: Shan et al., P-STMO, ECCV 2022. It is trained together with the network before it, on the refined poses
    alone.

    Args:
        hidden: width between the two layers.
        drop_rate: dropout between them.
        num_joints: joints J.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(self, *, hidden: int = 1024, drop_rate: float = 0.5, num_joints: int = 17) -> None:
        check_sizes(hidden=hidden, num_joints=num_joints)
        check_rate("drop_rate", drop_rate)
        super().__init__(kind="refine", frames=1, joints=(num_joints,), channels=3, shortest=1)
        self.post_refine = nn.Sequential(
            nn.Linear(6 * num_joints, hidden), nn.ReLU(), nn.Dropout(drop_rate), nn.Linear(hidden, 2 * num_joints)
        )

    def forward(self, x: Tensor, reprojected: Tensor) -> Tensor:
        """Refine poses, each by itself.

        Args:
            x: `[B, T, J, 3]` predicted poses, relative to the root.
            reprojected: `[B, T, J, 3]`, :func:`back_project` of the same poses.

        Returns:
            `[B, T, J, 3]`: x and y between those of both poses, z of `x`.

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        check_clip(x, self._any_weight(), joints=self.joints, channels=(3,), shortest=1)
        check_floating("reprojected", reprojected)
        check_same_shape("reprojected", reprojected, "x", x)
        check_same_device("reprojected", reprojected, "x", x)
        score = torch.sigmoid(self.post_refine(torch.cat((x, reprojected), dim=-1).flatten(2)))
        score = score.unflatten(-1, (x.shape[2], 2)).to(x.dtype)
        return torch.cat((torch.lerp(reprojected[..., :2].to(x.dtype), x[..., :2], score), x[..., 2:]), dim=-1)

    def supervise(  # type: ignore[override]  # it needs a second input, which no other network has
        self, x: Tensor, target: Tensor, weight: Tensor | None = None, *, reprojected: Tensor
    ) -> list[Supervision]:
        """The refined poses against their targets."""
        return [Supervision(self(x, reprojected), target, weight)]


def back_project(keypoints: Tensor, pose: Tensor, root_depth: Tensor, intrinsics: Tensor, root: int = 0) -> Tensor:
    """The pose whose joints lie on the camera rays of the keypoints, at the depths of a predicted pose.

    z is the root's depth plus the predicted z, x = (u - c_x)·z / f_x and y = (v - c_y)·z / f_y, then the root joint is
    subtracted. Source: Shan et al., P-STMO, ECCV 2022.

    Args:
        keypoints: `[B, T, J, 2]`, (u, v) on the normalised screen.
        pose: `[B, T, J, 3]`, relative to the root; only z is used, and the root's is taken to be 0.
        root_depth: `[B, T]`, z of the root in the camera frame, in the unit of `pose`.
        intrinsics: `[4]` or `[B, 4]`, (f_x, f_y, c_x, c_y) in units of the normalised screen.
        root: index of the root joint.

    Returns:
        `[B, T, J, 3]`, relative to the root, in the unit of `pose`.

    Raises:
        ArgumentError: shapes that don't fit.
    """
    if pose.dim() != 4 or pose.shape[-1] != 3:
        raise ArgumentError(f"pose has shape {list(pose.shape)}, expected [B, T, J, 3].")
    batch, frames, joints, _ = pose.shape
    for argument, found, expected in (
        ("keypoints", keypoints, [[batch, frames, joints, 2]]),
        ("root_depth", root_depth, [[batch, frames]]),
        ("intrinsics", intrinsics, [[4], [batch, 4]]),
    ):
        if list(found.shape) not in expected:
            raise ArgumentError(
                f"{argument} has shape {list(found.shape)}, expected {' or '.join(map(str, expected))} for a pose of "
                f"shape {list(pose.shape)}."
            )
    if not 0 <= root < joints:
        raise ArgumentError(f"root is {root}, expected a joint index from 0 to {joints - 1}.")
    others = torch.arange(joints, device=pose.device) != root
    z = (torch.where(others, pose[..., 2], 0.0) + root_depth[..., None])[..., None]
    focal, centre = intrinsics.view(-1, 1, 1, 4).chunk(2, dim=-1)
    camera = torch.cat(((keypoints - centre) / focal * z, z), dim=-1)
    return camera - camera[:, :, root : root + 1]
