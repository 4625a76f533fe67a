"""Keypoint layouts of 2D detectors and annotations, and their way to the 17 joints of Human3.6M.

Detectors don't agree with Human3.6M on the joints of trunk and head, which have to be made. There are two conventions,
a few centimetres apart at spine, thorax, neck and head, and a network must be fed the one that it was trained with:

- `"motionbert"`: midpoints, the pelvis between the hips, the thorax between the shoulders, or the detector's own.
- `"demo"`: that of the MHFormer and MotionAGFormer demos.

Where a layout has joints that the other convention does without (Halpe-26), "demo" uses its COCO part only.

A layout may lack what a joint is made of: the joint is left out. It then stands where it is on average, relative to the
others, and has confidence 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ... import skeletons
from ...errors import ArgumentError, check_name

__all__ = ["LAYOUTS", "Layout", "keypoints_to_h36m", "layout_of_size"]

# A joint to copy; joints with equal weights, of which one may stand twice; or (joint, coefficient) pairs.
_Row = int | tuple[int, ...] | tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Layout:
    """An order of keypoints.

    Attributes:
        name: as in :data:`LAYOUTS`.
        size: number of keypoints.
        skeleton: the registered skeleton that the first keypoints are, where there is one.
        picks: of the keypoints, those that make the skeleton `skeleton`; None is all, in order.
        recipes: variant -> how each of the 17 joints is made, for variants that don't go through `skeleton`.
        left_out: of the 17 joints, those that the layout lacks; their confidence is 0.
        sides: (left, right) pairs, where neither `skeleton` nor COCO's order tells them.
        longer: a number of keypoints that a person has, too, of which the first `size` are this layout.
        told_by_size: an array of this many keypoints is of this layout, unless it says otherwise.
    """

    name: str
    size: int
    skeleton: str | None = None
    picks: tuple[int, ...] | None = None
    recipes: tuple[tuple[str, tuple[_Row, ...]], ...] = ()
    left_out: tuple[int, ...] = ()
    sides: tuple[tuple[int, int], ...] = ()
    longer: int | None = None
    told_by_size: bool = True

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of keypoints that a person may have in a file."""
        return (self.size,) if self.longer is None else (self.size, self.longer)

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the conventions that this layout can follow, the default first."""
        through = () if self.skeleton is None else skeletons.conversions().get((self.skeleton, "h36m"), ("exact",))
        return tuple(dict.fromkeys([*(name for name, _ in self.recipes), *through]))

    @property
    def mirror(self) -> tuple[int, ...]:
        """Each keypoint's partner on the other side; itself in the middle, and where it makes none of our joints."""
        swap = list(range(self.size))
        for left, right in self.sides:
            swap[left], swap[right] = right, left
        if self.sides:
            return tuple(swap)
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

# OpenPose's COCO model: nose, neck, right arm 2-4, left arm 5-7, right leg 8-10, left leg 11-13, eyes and ears (R, L).
_OPENPOSE18_TO_COCO = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
# MediaPipe's 33: nose, eyes of three points each, ears, mouth, then left before right: shoulders 11, elbows, wrists,
# three points of each hand, hips 23, knees, ankles, heels, toes.
_MEDIAPIPE_TO_COCO = (0, 2, 5, 7, 8, *range(11, 17), *range(23, 29))
# Limbs alone, in COCO's order: shoulders 0 and 1, elbows, wrists, hips 6 and 7, knees, ankles.
_LIMBS = tuple((left, left + 1) for left in range(0, 12, 2))


def _limbs_recipe(spine: _Row, thorax: _Row, nose: _Row, head: _Row) -> tuple[_Row, ...]:
    return ((6, 7), 7, 9, 11, 6, 8, 10, spine, thorax, nose, head, 0, 2, 4, 1, 3, 5)


def _above_shoulders(trunks: float) -> tuple[tuple[int, float], ...]:
    """A place in line with hips and shoulders of "limbs", above the shoulders by a share of their distance."""
    return ((0, (1 + trunks) / 2), (1, (1 + trunks) / 2), (6, -trunks / 2), (7, -trunks / 2))


_LAYOUTS = (
    Layout("h36m", 17, "h36m"),
    Layout("coco", 17, "coco"),
    Layout("mpii", 16, "mpii"),
    Layout("mpi_inf_3dhp", 17, "mpi_inf_3dhp"),
    Layout("h3wb", 133, "h3wb"),
    Layout("body25", 25, "coco", _BODY25_TO_COCO),
    # COCO's points, then head top, neck and hip centre, and the feet.
    Layout("halpe26", 26, "coco", tuple(range(17)), (("motionbert", _recipe(19, (18, 19), 18, 0, 17)),), longer=136),
    # COCO with head bottom and head top in place of the eyes; the spine is halfway from the hips' midpoint to 1.
    Layout("posetrack", 17, None, None, (("motionbert", _recipe((11, 12), (1, 1, 11, 12), 1, 0, 2)),)),
    Layout("openpose18", 18, "coco", _OPENPOSE18_TO_COCO),
    Layout("mediapipe", 33, "coco", _MEDIAPIPE_TO_COCO),
    # OpenPose's MPI model: head top, neck, right arm 2-4, left arm 5-7, right leg 8-10, left leg 11-13, middle of the
    # chest. It has no nose.
    Layout(
        "openpose15", 15, None, None,
        (("motionbert", ((8, 11), 8, 9, 10, 11, 12, 13, 14, 1, (0, 1), 0, 5, 6, 7, 2, 3, 4)),),
        left_out=(9,), sides=((5, 2), (6, 3), (7, 4), (11, 8), (12, 9), (13, 10)), told_by_size=False,
    ),
    # CrowdPose: limbs, head top and neck.
    Layout(
        "crowdpose", 14, None, None, (("motionbert", _limbs_recipe((13, 13, 6, 7), 13, (12, 13), 12)),),
        left_out=(9,), sides=_LIMBS, told_by_size=False,
    ),
    # The twelve joints that all have. Neck/nose and head are as high above the shoulders as real people's.
    Layout(
        "limbs", 12, None, None,
        (("motionbert", _limbs_recipe((0, 1, 6, 7), (0, 1), _above_shoulders(0.25), _above_shoulders(0.43))),),
        left_out=(9, 10), sides=_LIMBS, told_by_size=False,
    ),
)  # fmt: skip

#: name -> layout
LAYOUTS = {entry.name: entry for entry in _LAYOUTS}


def layout_of_size(size: int) -> str | None:
    """The layout of `size` keypoints, where there is only one that detectors use; None for 17 and unknown sizes."""
    found = [entry.name for entry in _LAYOUTS if entry.size == size and entry.told_by_size]
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
    made = np.stack([_made(keypoints, row) for row in rows], axis=-2)
    made[..., list(entry.left_out), 2] = 0
    return made


def _made(keypoints: np.ndarray, row: _Row) -> np.ndarray:
    """A joint `[..., 3]` made by a row of a recipe; its confidence is the least of those it is made of."""
    pairs = [(row, 1.0)] if isinstance(row, int) else [p if isinstance(p, tuple) else (p, 1 / len(row)) for p in row]
    parents = keypoints[..., [joint for joint, _ in pairs], :]
    share = np.array([share for _, share in pairs], dtype=keypoints.dtype)
    place = (parents[..., :2] * share[:, None]).sum(-2)
    return np.concatenate([place, parents[..., 2:].min(-2)], axis=-1)
