"""Images of the parts of a shape template."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import shape_templates
from ..errors import ArgumentError, check_floating, check_same_device, shown
from ..ops.autograd import check_not_transformed
from ..ops.library import values_in_memory
from ..ops.parts import library

__all__ = ["render_parts"]

#: The largest image, pixels: more would not be told apart in float32 to a thousandth.
MOST_PIXELS = 8192
_EXPECTED = "one of the templates " + ", ".join(map(repr, shape_templates.names())) + " or parameters [P, 6]"


def render_parts(
    matrices: Tensor,
    template: str | Tensor = "natural",
    size: int = 256,
    backend: str | None = None,
) -> Tensor:
    """Every part of a shape template, moved by its matrix, as an image: a Gaussian evaluated at A⁻¹q for each pixel q.

    Where the published code draws a part and samples the drawing through a grid, this evaluates the part where it is:
    no [..., P, size, size, 2] exists, neither forward nor backward, and a kernel visits only the pixels a part covers.
    Two steps compose: render the matrix products A₂A₁.

    Args:
        matrices: [..., P, 2, 3], pixels: A takes (x, y, 1) = (column, row, 1) of the template to (x, y) of the image.
            float64, float32, float16 or bfloat16 (half types are computed in float32).
        template: a name of :data:`structloss.shape_templates`, whose centres and scales are multiplied by size / 256
            [ours], or parameters [P, 6] as they are: centre row, centre column, scale across rows, scale across
            columns (pixels, > 0), angle (radians), peak. No gradient flows to them.
        size: height and width of the images, pixels.
        backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        [..., P, size, size] in the compute dtype. Pixel centres are 0 ... size - 1. A part is 0 beyond 5.3 scales
        (float64: 8.7), where it is below 1e-6 (1e-16) of its peak [ours]. A singular matrix covers no pixel: its part
        is 0, and so is its gradient. Where a matrix holds a NaN or an infinity, its part and its gradient are NaN.
        Differentiable in `matrices`, once. One operator under torch.compile(fullgraph=True) and torch.export; not
        inside torch.func's transforms.

    Raises:
        ArgumentError: a wrong shape, device or size, a template that requires grad, or parameters that are not finite
            or scales that are not positive (looked at on the CPU).
        DtypeError: not floating point.
        UnknownNameError: no such template or backend.
        BackendError: the backend can't serve the call.

    Source: Schmidtke et al., "Unsupervised Human Pose Estimation through Transforming Shape Templates", CVPR 2021: the
        parts and their matrices. Evaluating instead of sampling is ours; it differs by what sampling interpolates, up
        to 0.008 of the peak, and by what it cuts off at the border of the drawing.

    Example:
        >>> import torch, structloss
        >>> identity = torch.eye(2, 3).expand(4, 18, 2, 3)
        >>> structloss.render_parts(identity, "original", size=64).shape
        torch.Size([4, 18, 64, 64])
    """
    check_floating("matrices", matrices)
    if matrices.dim() < 3 or matrices.shape[-2:] != (2, 3):
        raise ArgumentError(f"matrices has shape {list(matrices.shape)}, expected [..., P, 2, 3].")
    _check_size(size)
    name = ""
    if isinstance(template, Tensor):
        _check_parameters(template, matrices)
        parameters, parts = template, template.shape[0]
    elif isinstance(template, str):
        name, parameters, parts = template, None, len(shape_templates.get(template).parameters)
    else:
        raise ArgumentError(f"template is {shown(template)}, expected {_EXPECTED}.")
    if matrices.shape[-3] != parts:
        raise ArgumentError(
            f"matrices has shape {list(matrices.shape)}, expected [..., {parts}, 2, 3], one for each part of template."
        )
    check_not_transformed("matrices")
    if not torch.compiler.is_compiling():  # else the shape function, which does not look at the backend, comes first
        library.resolve(backend, matrices.device, matrices.dtype)  # shape functions do not look at the backend
    leading = matrices.shape[:-3]
    flat = matrices.unsqueeze(0) if not leading else matrices if len(leading) == 1 else matrices.flatten(0, -4)
    images = torch.ops.structloss.render_parts(flat, parameters, name, size, backend)
    return images if len(leading) == 1 else images.reshape(*leading, parts, size, size)


def _check_size(size: object) -> None:
    whole = isinstance(size, (int, torch.SymInt)) and not isinstance(size, bool)
    if not whole or not 1 <= size <= MOST_PIXELS:  # type: ignore[operator]
        raise ArgumentError(f"size is {shown(size)}, expected a whole number of pixels from 1 to {MOST_PIXELS}.")


def _check_parameters(template: Tensor, matrices: Tensor) -> None:
    check_floating("template", template)
    if template.dim() != 2 or template.shape[1] != 6:
        raise ArgumentError(f"template has shape {list(template.shape)}, expected [P, 6].")
    check_same_device("template", template, "matrices", matrices)
    if template.requires_grad:
        raise ArgumentError(
            "template requires grad, expected one that doesn't (template.detach()), since no gradient flows to it."
        )
    if torch.compiler.is_compiling() or not template.is_cpu or not values_in_memory(template):
        return
    if not bool(template.isfinite().all()):
        raise ArgumentError("template has NaN or infinite values, expected finite ones.")
    if not bool((template[:, 2:4] > 0).all()):
        raise ArgumentError(f"template has the scale {float(template[:, 2:4].min()):g}, expected scales > 0.")
