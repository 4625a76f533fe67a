"""The spaces that networks predict in, and the way back to millimetres.

RePOSE and MotionBERT predict in a 2.5D image space: x and y are the pinhole image (no lens distortion), depth is scaled
to the same pixels by the image scale at the root, and everything is divided by half of the image's width. With
intrinsics in normalised-screen units (f = 2 f_px / w):

    x' = f_x X / Z + c_x        y' = f_y Y / Z + c_y        z'(t, j) = f_x / Z_root(t) * (Z(t, j) - Z_root(0))

That is the target "global" (only the depth of the window's first root is removed). "root_relative" subtracts joint 0
of every frame from all three channels. Sources: RePOSE's and MotionBERT's released code; database builder of LCN.

VideoPose3D and most others predict "camera": camera space in metres, minus the root joint of every frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ArgumentError, check_choice, check_floating
from ..skeletons import Root, relative, root_of

__all__ = ["TARGETS", "relative", "to_image_space", "to_millimetres"]

TARGETS = ("global", "root_relative", "camera")
"""What the target is: "global" keeps the root's image position and its motion in depth, "camera" is in metres."""


def to_image_space(camera_pose: Tensor, intrinsics: Tensor, target: str = "global", *, root: Root = 0) -> Tensor:
    """Camera-space poses to the space of the target.

    Args:
        camera_pose: `[..., T, J, 3]`, metres, absolute, in front of the camera. The first frame is the window's first.
        intrinsics: `[..., 4]`: pinhole f_x, f_y, c_x, c_y in normalised-screen units.
        target: one of :data:`TARGETS`.
        root: index of the root joint, or of several whose mean is the root.

    Returns:
        `[..., T, J, 3]` of the pose's dtype.

    Raises:
        ArgumentError: unknown target or another shape.
    """
    check_choice("target", target, TARGETS)
    _check_pose("camera_pose", camera_pose)
    if target == "camera":
        return relative(camera_pose, root)
    k = _per_frame(intrinsics)
    z = camera_pose[..., 2]
    depth = root_of(camera_pose, root)[..., 2]  # [..., T, 1]
    x = k[..., 0] * camera_pose[..., 0] / z + k[..., 2]
    y = k[..., 1] * camera_pose[..., 1] / z + k[..., 3]
    image = torch.stack([x, y, k[..., 0] / depth * (z - depth[..., :1, :])], dim=-1)
    return relative(image, root) if target == "root_relative" else image


def to_millimetres(
    prediction: Tensor, batch: Mapping[str, Tensor], target: str = "global", *, root: Root = 0
) -> Tensor:
    """Predictions in the space of the target to camera-space poses in millimetres; the exact inverse of the target.

    Depth: `z_mm = z' * factor(t)`, relative to the root of the window's first frame ("global") or to the frame's root
    ("root_relative"). x and y are un-projected by the pinhole at the depth `Z_root(t) + z_mm(t, j) - z_mm(t, 0)`, so an
    exact target gives the exact camera-space pose to float32 precision.

    A batch without `root_depth` has published targets (MotionBERT's pickle): all three channels are multiplied by the
    published factor of the frame, x and y too, and the pose is put where the root of the published truth is. That is
    the published 2.5D protocol.

    Side information that is not predicted: the root's true depth in every frame. That is no more than the published
    2.5D protocol uses, whose per-frame factor (millimetres per pixel, here `factor`) holds the same number. For
    "root_relative", which leaves out where the person is, the root's true image position is used as well. "camera"
    puts the root where it truly is.

    Args:
        prediction: `[..., T, J, 3]`; half types are computed in float32.
        batch: a sample or batch of :class:`~structloss.data.windows.PoseWindows`; uses `root_depth` `[..., T]`
            (metres), `intrinsics` `[..., 4]`, `factor` `[..., T]` (mm per normalised unit), and but for "global" the
            root of `camera_pose` `[..., T, J, 3]` (mm).
        target: the target the model was trained on.
        root: index of the root joint, or of several whose mean is the root.

    Returns:
        `[..., T, J, 3]`, absolute camera-space millimetres, float32 (float64 for a float64 prediction).

    Raises:
        ArgumentError: unknown target, another shape, or side information missing from the batch.
    """
    check_choice("target", target, TARGETS)
    _check_pose("prediction", prediction)
    published = "root_depth" not in batch
    needed: tuple[str, ...] = ("factor", "camera_pose") if published else ("root_depth", "intrinsics", "factor")
    if target != "global" and not published:
        needed += ("camera_pose",)
    missing = [key for key in needed if key not in batch]
    if missing:
        raise ArgumentError(f"batch has no {' and no '.join(map(repr, missing))}, expected {', '.join(needed)}.")
    if batch["factor"].shape != prediction.shape[:-2]:
        raise ArgumentError(
            f"prediction has shape {list(prediction.shape)}, expected {list(batch['factor'].shape)} before the "
            "joints, the shape of the batch's factor."
        )
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    image = prediction.to(dtype)
    if published:
        millimetres = relative(image, root) * batch["factor"].to(dtype)[..., None, None]
        return millimetres + root_of(batch["camera_pose"].to(dtype), root)
    if target == "camera":
        return relative(image, root) * 1000 + root_of(batch["camera_pose"].to(dtype), root)
    k = _per_frame(batch["intrinsics"].to(dtype))
    origin = batch["root_depth"].to(dtype)[..., None] * 1000  # [..., T, 1] mm
    z = image[..., 2] * batch["factor"].to(dtype)[..., None]
    x, y = image[..., 0], image[..., 1]
    depth = origin + z - root_of(z[..., None], root)[..., 0]
    if target == "root_relative":
        # The published protocol sets the predicted root to zero, then puts it where it truly is.
        truth = root_of(batch["camera_pose"].to(dtype), root)
        centre = root_of(image, root)
        x = x - centre[..., 0] + k[..., 0] * truth[..., 0] / truth[..., 2] + k[..., 2]
        y = y - centre[..., 1] + k[..., 1] * truth[..., 1] / truth[..., 2] + k[..., 3]
        out = depth
    else:
        out = z + origin[..., :1, :]
    return torch.stack([(x - k[..., 2]) / k[..., 0] * depth, (y - k[..., 3]) / k[..., 1] * depth, out], dim=-1)


def _per_frame(intrinsics: Tensor) -> Tensor:
    """`[..., 4]` -> `[..., 1, 1, 4]`, to broadcast over frames and joints."""
    if intrinsics.shape[-1:] != (4,):
        raise ArgumentError(f"intrinsics has shape {list(intrinsics.shape)}, expected [..., 4] (f_x, f_y, c_x, c_y).")
    return intrinsics[..., None, None, :]


def _check_pose(argument: str, pose: Tensor) -> None:
    check_floating(argument, pose)
    if pose.dim() < 3 or pose.shape[-1] != 3:
        raise ArgumentError(f"{argument} has shape {list(pose.shape)}, expected [..., T, J, 3].")
