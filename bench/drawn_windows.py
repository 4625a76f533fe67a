"""A picture of what training sees where windows are drawn anew: one moment, over and over.

    python -m bench.drawn_windows motion.npz --out docs/drawn_windows.png

Every panel is the same frame of the same clip as a camera, a body and a detector show it that were drawn for it: bones
between what was found, the frame of the image, and in grey where the joints truly are. Missing joints are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from structloss.data import observe
from structloss.data.drawn import Drawing, DrawnWindows, RandomKeypoints, RandomViews
from structloss.data.opening import open_motion
from structloss.files import write_bytes
from structloss.reports import _style
from structloss.reports.poses import draw_limbs
from structloss.skeletons import get

__all__ = ["main"]

_ROWS, _COLUMNS = 2, 6


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.drawn_windows", description=__doc__.splitlines()[0])
    parser.add_argument("data", help="clips in the world, of any format")
    parser.add_argument("--clip", default="", help="subject/name of the clip (default: the first)")
    parser.add_argument("--out", default="docs/drawn_windows.png")
    given = parser.parse_args(arguments)
    clips = open_motion(given.data)
    chosen = [clip for clip in clips if given.clip in ("", clip.key)][:1]
    keypoints = RandomKeypoints(exact=0.0, complete=0.3)
    drawing = Drawing(RandomViews(), 0.12, (20.0, 60.0), keypoints, 0.4)
    windows = DrawnWindows(observe(chosen, views=1, detections="exact"), drawing, window=27, target="camera")
    batch = windows.batch([(epoch, len(windows) // 2) for epoch in range(_ROWS * _COLUMNS)])
    found = batch["input"][:, 13].numpy()
    pose, k = batch["camera_pose"][:, 13].numpy(), batch["intrinsics"].numpy()
    true = pose[..., :2] / pose[..., 2:] * k[:, None, :2]
    figure = _style.new_figure(1.9 * _COLUMNS, 1.9 * _ROWS)
    axes = figure.subplots(_ROWS, _COLUMNS, gridspec_kw={"wspace": 0.06, "hspace": 0.06})
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.01)
    body = get("h36m")
    for one, seen, truth in zip(axes.flat, found, true, strict=True):
        draw_limbs(one, body, truth, "#b8b8b8", 1.0)
        draw_limbs(one, body, seen[:, :2], "#0b6e99", 1.6, np.where(seen[:, 2] > 0, 0.35 + 0.65 * seen[:, 2], 0.0))
        high = max(1.0, 1.05 * np.abs(truth[:, 1]).max())
        one.set(xlim=(-1, 1), ylim=(high, -high), aspect="equal", xticks=[], yticks=[])
    write_bytes(given.out, _style.png(figure, 110))


if __name__ == "__main__":
    main()
