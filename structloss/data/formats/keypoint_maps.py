"""Keypoint layouts of 2D detectors and annotations, and their way to the 17 joints of Human3.6M.

Detectors don't agree with Human3.6M on the joints of trunk and head, which have to be made. There are two conventions,
a few centimetres apart at spine, thorax, neck and head, and a network must be fed the one that it was trained with:

- `"motionbert"`: midpoints, the pelvis between the hips, the thorax between the shoulders, or the detector's own.
- `"demo"`: that of the MHFormer and MotionAGFormer demos.

Where a layout has joints that the other convention does without (Halpe-26), "demo" uses its COCO part only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ... import skeletons
from ...errors import ArgumentError, check_name

__all__ = ["LAYOUTS", "Layout", "keypoints_to_h36m", "layout_of_size"]

_Row = int | tuple[int, ...]  # a joint to copy, or joints with equal weights; a joint may stand twice


@dataclass(frozen=True)
class Layout:
    """An order of keypoints.

    Attributes:
        name: as in :data:`LAYOUTS`.
        size: number of keypoints.
        skeleton: the registered skeleton that the first keypoints are, where there is one.
        picks: of the keypoints, those that make the skeleton `skeleton`; None is all, in order.
        recipes: variant -> how each of the 17 joints is made, for variants that don't go through `skeleton`.
    """

    name: str
    size: int
    skeleton: str | None = None
    picks: tuple[int, ...] | None = None
    recipes: tuple[tuple[str, tuple[_Row, ...]], ...] = ()

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the conventions that this layout can follow, the default first."""
        through = () if self.skeleton is None else skeletons.conversions().get((self.skeleton, "h36m"), ("exact",))
        return tuple(dict.fromkeys([*(name for name, _ in self.recipes), *through]))

    @property
    def mirror(self) -> tuple[int, ...]:
        """Each keypoint's partner on the other side; itself in the middle, and where it makes none of our joints."""
        swap = list(range(self.size))
        inner = skeletons.get(self.skeleton or "coco").mirror
        picks = self.picks or tuple(range(len(inner)))
        for j, partner in enumerate(inner):
            swap[picks[j]] = picks[partner]
        if self.name == "posetrack":  # head bottom and head top in place of the eyes
            swap[1], swap[2] = 1, 2
        return tuple(swap)


def _recipe(hip: _Row, spine: _Row, thorax: _Row, nose: _Row, head: _Row) -> tuple[_Row, ...]:
    """The 17 rows for a layout whose limbs are where COCO's are."""
    return (hip, 12, 14, 16, 11, 13, 15, spine, thorax, nose, head, 5, 7, 9, 6, 8, 10)


# BODY_25: nose, neck, right arm 2-4, left arm 5-7, mid hip, right leg 9-11, left leg 12-14, eyes (R, L), ears (R, L),
# feet. All of COCO's points are among them.
_BODY25_TO_COCO = (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11)

_LAYOUTS = (
    Layout("h36m", 17, "h36m"),
    Layout("coco", 17, "coco"),
    Layout("mpii", 16, "mpii"),
    Layout("mpi_inf_3dhp", 17, "mpi_inf_3dhp"),
    Layout("h3wb", 133, "h3wb"),
    Layout("body25", 25, "coco", _BODY25_TO_COCO),
    # COCO's points, then head top, neck and hip centre, and the feet.
    Layout("halpe26", 26, "coco", tuple(range(17)), (("motionbert", _recipe(19, (18, 19), 18, 0, 17)),)),
    # COCO with head bottom and head top in place of the eyes; the spine is halfway from the hips' midpoint to 1.
    Layout("posetrack", 17, None, None, (("motionbert", _recipe((11, 12), (1, 1, 11, 12), 1, 0, 2)),)),
)

#: name -> layout
LAYOUTS = {entry.name: entry for entry in _LAYOUTS}


def layout_of_size(size: int) -> str | None:
    """The layout of `size` keypoints, where there is only one that detectors use; None for 17 and unknown sizes."""
    found = [entry.name for entry in _LAYOUTS if entry.size == size]
    return found[0] if len(found) == 1 else None


def keypoints_to_h36m(keypoints: np.ndarray, layout: str, variant: str | None = None) -> np.ndarray:
    """Detected keypoints to the 17 joints of Human3.6M. A made joint's confidence is the least of those it is made of.

    Args:
        keypoints: float `[..., J, 3]`: x right, y down in pixels, and confidence.
        layout: one of :data:`LAYOUTS`.
        variant: "motionbert" or "demo", see the module; None is the layout's default.

    Returns:
        `[..., 17, 3]` of the same dtype.

    Raises:
        UnknownNameError: unknown layout.
        ArgumentError: another number of keypoints, or a convention that the layout cannot follow.
    """
    entry = LAYOUTS[check_name("layout", layout, LAYOUTS)]
    if keypoints.ndim < 2 or keypoints.shape[-2:] != (entry.size, 3):
        raise ArgumentError(
            f"keypoints has shape {list(keypoints.shape)}, expected [..., {entry.size}, 3] (x, y, confidence) for the "
            f"layout {layout!r}."
        )
    if variant is not None and variant not in entry.variants and len(entry.variants) > 1:
        raise ArgumentError(
            f"variant is {variant!r}, expected {' or '.join(map(repr, entry.variants))} for {layout!r}."
        )
    if variant not in entry.variants:  # a layout that can follow one convention only
        variant = entry.variants[0]
    rows = dict(entry.recipes).get(variant)
    if rows is None:
        assert entry.skeleton is not None
        if entry.picks is not None:
            keypoints = keypoints[..., list(entry.picks), :]
        exact = variant not in skeletons.conversions().get((entry.skeleton, "h36m"), ())
        return skeletons.convert(keypoints, entry.skeleton, "h36m", variant=None if exact else variant, confidence=True)
    made = []
    for row in rows:
        parents = keypoints[..., [row] if isinstance(row, int) else list(row), :]
        made.append(np.concatenate([parents[..., :2].mean(-2), parents[..., 2:].min(-2)], axis=-1))
    return np.stack(made, axis=-2)
