"""Pictures of people with the joints that a network finds in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .. import images
from ..files import write_bytes
from ..images.overlay import draw_pose, encode_png
from ..images.samples import ImageSamples
from .image_prediction import found_in

__all__ = ["draw_found", "found_picture"]


def found_picture(
    model: images.SAPNet, samples: ImageSamples, indices: Sequence[int], *, columns: int = 6, tile: int = 256
) -> np.ndarray:
    """People as a network sees them, with the skeletons that it finds: joints whose heatmap is low are hollow.

    Args:
        model: in evaluation mode.
        samples: who they are.
        indices: numbers of those to draw.
        columns: of the picture.
        tile: width and height of each, pixels.

    Returns:
        uint8 RGB `[H, W, 3]`.
    """
    tiles = []
    for index in indices:
        image = samples[index]["image"]
        out = found_in(model, image[None].to(next(model.parameters()).device))
        heatmaps, depth = out.heatmaps[-1].cpu(), out.depth.cpu()
        joints = images.decode(heatmaps, depth, unit="pixels", input_size=model.input_size)[0, :, :2].numpy()
        certain = images.confidence(heatmaps)[0].numpy() > 0.2
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        large = _enlarged(pixels, tile)
        scale = tile / model.input_size
        tiles.append(draw_pose(large, (joints + 0.5) * scale - 0.5, visible=certain))
    while len(tiles) % columns:
        tiles.append(np.full((tile, tile, 3), 255, np.uint8))
    rows = [np.concatenate(tiles[first : first + columns], axis=1) for first in range(0, len(tiles), columns)]
    return np.concatenate(rows, axis=0)


def draw_found(
    model: images.SAPNet, samples: ImageSamples, indices: Sequence[int], path: str | os.PathLike[str]
) -> Path:
    """:func:`found_picture` as a PNG file, written atomically; returns the path."""
    return write_bytes(path, encode_png(found_picture(model, samples, indices)))


def _enlarged(pixels: np.ndarray, tile: int) -> np.ndarray:
    size = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    large = torch.nn.functional.interpolate(size, size=(tile, tile), mode="bilinear", align_corners=False)
    return large[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
