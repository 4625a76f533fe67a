"""Pictures of shape templates at work: the frame, the moved parts, the reconstruction, the joints."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .. import images
from ..images.overlay import draw_pose
from ..images.template_body import TEMPLATE_BODY
from ..images.template_samples import TemplateSamples
from ..shape_templates import PARTS

__all__ = ["coloured_parts", "template_columns"]

# Golden ratio of the circle of hues, so that neighbours in the order of the parts differ.
_COLOURS = torch.tensor([colorsys.hsv_to_rgb((0.618034 * part) % 1, 0.75, 1.0) for part in range(len(PARTS))])


def coloured_parts(template: Tensor) -> np.ndarray:
    """The moved parts `[18, S, S]`, each in a colour of its own on black, as uint8 RGB `[S, S, 3]`; where parts lie on
    each other colours add up."""
    colours = _COLOURS.to(template)
    picture = (template[:, None] * colours[:, :, None, None]).sum(0).clamp(0, 1)
    return _bytes(picture)


@torch.no_grad()
def template_columns(
    models: Mapping[str, images.ShapeTemplateNet], samples: TemplateSamples, *, count: int = 6, tile: int = 192
) -> dict[str, list[np.ndarray]]:
    """Title of a column -> its pictures, uint8 RGB `[tile, tile, 3]`, one for each sample, as on the poster: the frame,
    and of each model the template T*, the reconstruction and the skeleton.

    Args:
        models: name -> network in evaluation mode; titles say nothing of an empty name.
        samples: of frames, of which those drawn are evenly spaced.
        count: samples at most.
        tile: width and height of a picture, pixels.
    """
    count = min(count, len(samples))
    found = [samples[(2 * place + 1) * len(samples) // (2 * count)] for place in range(count)]
    frame, reference = (torch.stack([sample[name] for sample in found]) for name in ("frame", "reference"))
    columns = {"frame": [_enlarged(picture, tile) for picture in frame]}
    for name, model in models.items():
        of = f", {name}" if name else ""
        device = next(model.parameters()).device
        out = model(frame.to(device), reference.to(device))
        assert out.reconstruction is not None  # there is a reference
        scale = tile / model.input_size
        joints = ((out.joints + 0.5) * scale - 0.5).cpu().numpy()
        parts = [torch.from_numpy(coloured_parts(one)).permute(2, 0, 1) / 255 for one in out.template.float().cpu()]
        columns[f"T*{of}"] = [_enlarged(picture, tile) for picture in parts]
        again = model.picture(out.reconstruction.float()).cpu()
        columns[f"reconstruction{of}"] = [_enlarged(picture, tile) for picture in again]
        columns[f"skeleton{of}"] = [
            draw_pose(_enlarged(picture, tile), points, skeleton=TEMPLATE_BODY)
            for picture, points in zip(frame, joints, strict=True)
        ]
    return columns


def _enlarged(picture: Tensor, tile: int) -> np.ndarray:
    large = torch.nn.functional.interpolate(picture[None], size=(tile, tile), mode="bilinear", align_corners=False)
    return _bytes(large[0])


def _bytes(picture: Tensor) -> np.ndarray:
    return (picture.permute(1, 2, 0) * 255).round().clamp(0, 255).byte().cpu().numpy()
