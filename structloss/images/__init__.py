"""The networks that start from pixels, and the images that they are trained on.

Everything is imported when first used; reading and warping images needs the `images` extra, videos the `video` extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .augment import Augmentation
    from .camera import record_camera
    from .crops import crop_matrix, invert, transform, warp
    from .detection import FoundKeypoints, find_keypoints
    from .detector import DETECTORS, Detector, load_detector
    from .footage import Footage, open_footage
    from .frames.arms import arms_down, arms_out
    from .frames.folders import Frame, FrameFolders
    from .frames.opening import open_frames
    from .frames.pairs import scored_pairs, trained_pairs
    from .heatmaps import confidence, decode, heatmap_loss, heatmap_targets
    from .inspection import ImagesReport, inspect_images
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
    from .module import ImagesDataModule
    from .networks.sapnet import SAPNet, SAPOutput
    from .networks.shape_template import LegacyShapeTemplateNet, ShapeTemplateNet
    from .networks.template_base import TemplateNetwork, TemplateOutput
    from .opening import open_images, require_joints, require_labelled
    from .overlay import draw_pose, encode_png
    from .overlays import overlay_footage, overlay_frames, overlay_pictures, write_picture
    from .people import People, Person
    from .perceptual import FeatureLoss, perceptual_loss
    from .registry import ImageNetworkInfo, LoadReport, create, info, load_published, names, save_checkpoint
    from .rendered.folders import RenderedFolders
    from .rendered.people import RenderedPeople, render_clip
    from .rendered.sheet import contact_sheet
    from .samples import ImageSamples, collate, sample_of
    from .template_losses import anchor_loss, boundary_loss
    from .template_module import TemplatesDataModule
    from .template_samples import TemplateSamples
    from .video import VideoPeople, video_frames

__all__ = [
    # networks
    "ImageNetworkInfo",
    "LegacyShapeTemplateNet",
    "LoadReport",
    "SAPNet",
    "SAPOutput",
    "ShapeTemplateNet",
    "TemplateNetwork",
    "TemplateOutput",
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
    # losses of shape templates
    "FeatureLoss",
    "anchor_loss",
    "boundary_loss",
    "perceptual_loss",
    # keypoints in frames, by a detector
    "DETECTORS",
    "Detector",
    "Footage",
    "FoundKeypoints",
    "find_keypoints",
    "load_detector",
    "open_footage",
    "record_camera",
    # people in images
    "People",
    "Person",
    "VideoPeople",
    "ImagesReport",
    "inspect_images",
    "open_images",
    "require_joints",
    "require_labelled",
    "video_frames",
    # training data
    "Augmentation",
    "ImageSamples",
    "ImagesDataModule",
    "collate",
    "crop_matrix",
    "invert",
    "sample_of",
    "transform",
    "warp",
    # pairs of frames, for shape templates
    "Frame",
    "FrameFolders",
    "TemplateSamples",
    "TemplatesDataModule",
    "arms_down",
    "arms_out",
    "open_frames",
    "scored_pairs",
    "trained_pairs",
    # people that are rendered
    "RenderedFolders",
    "RenderedPeople",
    "render_clip",
    # drawing
    "contact_sheet",
    "draw_pose",
    "encode_png",
    "overlay_footage",
    "overlay_frames",
    "overlay_pictures",
    "write_picture",
]

_HOMES = {
    "augment": ("Augmentation",),
    "camera": ("record_camera",),
    "crops": ("crop_matrix", "invert", "transform", "warp"),
    "detection": ("FoundKeypoints", "find_keypoints"),
    "detector": ("DETECTORS", "Detector", "load_detector"),
    "footage": ("Footage", "open_footage"),
    "frames.arms": ("arms_down", "arms_out"),
    "frames.folders": ("Frame", "FrameFolders"),
    "frames.opening": ("open_frames",),
    "frames.pairs": ("scored_pairs", "trained_pairs"),
    "heatmaps": ("confidence", "decode", "heatmap_loss", "heatmap_targets"),
    "joints": (
        *("depth_millimetres", "depth_scale", "depth_target", "flip_joints"),
        *("from_h36m", "from_image_units", "to_h36m", "to_image_units"),
    ),
    "inspection": ("ImagesReport", "inspect_images"),
    "module": ("ImagesDataModule",),
    "networks.sapnet": ("SAPNet", "SAPOutput"),
    "networks.shape_template": ("LegacyShapeTemplateNet", "ShapeTemplateNet"),
    "networks.template_base": ("TemplateNetwork", "TemplateOutput"),
    "opening": ("open_images", "require_joints", "require_labelled"),
    "people": ("People", "Person"),
    "perceptual": ("FeatureLoss", "perceptual_loss"),
    "registry": ("ImageNetworkInfo", "LoadReport", "create", "info", "load_published", "names", "save_checkpoint"),
    "overlay": ("draw_pose", "encode_png"),
    "overlays": ("overlay_footage", "overlay_frames", "overlay_pictures", "write_picture"),
    "rendered.folders": ("RenderedFolders",),
    "rendered.people": ("RenderedPeople", "render_clip"),
    "rendered.sheet": ("contact_sheet",),
    "samples": ("ImageSamples", "collate", "sample_of"),
    "template_losses": ("anchor_loss", "boundary_loss"),
    "template_module": ("TemplatesDataModule",),
    "template_samples": ("TemplateSamples",),
    "video": ("VideoPeople", "video_frames"),
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
