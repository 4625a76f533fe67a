"""The networks that start from pixels, and the images that they are trained on.

Everything is imported when first used; reading and warping images needs the `images` extra, videos the `video` extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .heatmaps import confidence, decode, heatmap_loss, heatmap_targets
    from .joints import (
        depth_millimetres,
        depth_scale,
        depth_target,
        flip_joints,
        from_h36m,
        from_image_units,
        to_h36m,
        to_image_units,
    )
    from .networks.sapnet import SAPNet, SAPOutput
    from .overlay import draw_pose
    from .people import People, Person
    from .registry import ImageNetworkInfo, LoadReport, create, info, load_published, names, save_checkpoint
    from .rendered.people import RenderedPeople, render_clip
    from .rendered.sheet import contact_sheet

__all__ = [
    # networks
    "ImageNetworkInfo",
    "LoadReport",
    "SAPNet",
    "SAPOutput",
    "create",
    "info",
    "load_published",
    "names",
    "save_checkpoint",
    # heatmaps and joints
    "confidence",
    "decode",
    "depth_millimetres",
    "depth_scale",
    "depth_target",
    "flip_joints",
    "from_h36m",
    "from_image_units",
    "heatmap_loss",
    "heatmap_targets",
    "to_h36m",
    "to_image_units",
    # people in images
    "People",
    "Person",
    # people that are rendered
    "RenderedPeople",
    "render_clip",
    # drawing
    "contact_sheet",
    "draw_pose",
]

_HOMES = {
    "heatmaps": ("confidence", "decode", "heatmap_loss", "heatmap_targets"),
    "joints": (
        *("depth_millimetres", "depth_scale", "depth_target", "flip_joints"),
        *("from_h36m", "from_image_units", "to_h36m", "to_image_units"),
    ),
    "networks.sapnet": ("SAPNet", "SAPOutput"),
    "people": ("People", "Person"),
    "registry": ("ImageNetworkInfo", "LoadReport", "create", "info", "load_published", "names", "save_checkpoint"),
    "overlay": ("draw_pose",),
    "rendered.people": ("RenderedPeople", "render_clip"),
    "rendered.sheet": ("contact_sheet",),
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
