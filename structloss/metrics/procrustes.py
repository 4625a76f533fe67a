"""The similarity transform that fits one pose to another (orthogonal Procrustes, no reflections)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import prepare

__all__ = ["align"]


@torch.no_grad()
def align(pred: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """`pred` after the rotation, scaling and translation that bring each frame closest to `target`.

    Closest in the sum of weighted squared distances over the frame's joints; a reflection is never used. The published
    `p_mpjpe` of VideoPose3D, MotionBERT and others, with weights.

    Args:
        pred, target: `[..., T, J, 3]`, floating point, one unit.
        weight: `[..., T, J]` (or expanding to it), >= 0. Joints of weight 0 do not take part in the fit and come back
            as zeros.

    Returns:
        `[..., T, J, 3]`, float64. A pose whose joints all coincide in `pred` has no direction to turn or scale: it
        moves to the mean of `target`. One whose joints all coincide in `target` shrinks the prediction onto that point.
        A frame with a NaN or infinite scored coordinate is NaN throughout.

    Raises:
        ArgumentError, DtypeError: see :func:`structloss.metrics.pa_mpjpe`.

    >>> import torch
    >>> from structloss.metrics.procrustes import align
    >>> target = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    >>> pred = 3 * target[..., [1, 0, 2]] * torch.tensor([-1.0, 1.0, 1.0]) + 5  # turned, larger and elsewhere
    >>> torch.allclose(align(pred, target), target.double())
    True
    """
    return fit(*prepare(pred, target, weight))


def fit(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """:func:`align` for arguments that `prepare` returned."""
    finite = (pred.isfinite() & target.isfinite()).all(-1).all(-1)[..., None, None]
    pred, target = torch.where(finite, pred, 0.0), torch.where(finite, target, 0.0)
    scored = (weight > 0)[..., None]
    w = weight[..., None]
    w = w / w.sum(-2, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)

    _, p, _ = _centre(pred, w, scored)
    mean_g, g, size_g = _centre(target, w, scored)
    u, s, vh = torch.linalg.svd((w * g).mT @ p)
    # The nearest rotation; where the nearest orthogonal matrix is a reflection, turn its weakest axis round.
    handed = (_determinant(u) * _determinant(vh)).sign()
    flip = torch.ones_like(s)
    flip[..., -1] = handed
    rotation = (vh.mT * flip[..., None, :]) @ u.mT
    spread = (w * p * p).sum((-2, -1))
    scale = torch.where(spread > 0, (s * flip).sum(-1) / spread.clamp_min(torch.finfo(s.dtype).tiny), 0.0)

    aligned = scale[..., None, None] * (p @ rotation) * size_g + mean_g
    return torch.where(finite, torch.where(scored, aligned, 0.0), float("nan"))


def _determinant(matrix: Tensor) -> Tensor:
    """Of `[..., 3, 3]`: written out, it takes a fraction of what the factorisation of each matrix does."""
    a, b, c = matrix.unbind(-2)
    return (torch.linalg.cross(a, b) * c).sum(-1)


def _centre(x: Tensor, w: Tensor, scored: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean [..., 1, 3], centred pose of largest coordinate 1 (or all 0), and the factor taken out of it.

    Without that factor the products of very large or small coordinates overflow or vanish.
    """
    mean = (w * x).sum(-2, keepdim=True)
    centred = torch.where(scored, x - mean, 0.0)
    if x.shape[-2] == 0:
        return mean, centred, mean[..., :1]
    size = centred.abs().amax((-2, -1), keepdim=True)
    # Coinciding joints may keep a rounding error of the mean, the same for all: harmless, it correlates with nothing.
    return mean, torch.where(size > 0, centred / size, 0.0), size
