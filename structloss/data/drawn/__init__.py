"""Training windows drawn anew in every epoch: cameras, bodies, frame rates and what a detector makes of them.

Nothing is stored: a window of an epoch follows from the seed, the epoch and its number, so a resumed run, or one on
more processes, sees the same. Everything is numpy on whole batches.
"""

from ..coco import to_coco
from .bodies import reshape_bodies
from .cameras import RandomViews
from .keypoints import RandomKeypoints
from .windows import Drawing, DrawnWindows

__all__ = ["Drawing", "DrawnWindows", "RandomKeypoints", "RandomViews", "reshape_bodies", "to_coco"]
