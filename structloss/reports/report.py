"""The report of any run: its figures and its page in one call."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .curves import plot_curves
from .page import write_html
from .poses import plot_poses
from .results import PoseSamples, RunSummary

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PredictedClip", "run_report", "samples_of", "stills"]

_STILLS = 4


class PredictedClip(Protocol):
    """Frames of one view and what networks made of them: see :class:`structloss.harness.shown_clips.PredictedClip`."""

    @property
    def motion(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def view(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def frames(self) -> Tensor: ...
    @property
    def input(self) -> Tensor: ...
    @property
    def target(self) -> Tensor: ...
    @property
    def predictions(self) -> Mapping[str, Tensor]: ...


def run_report(
    summary: RunSummary,
    path: str | os.PathLike[str],
    clips: Sequence[PoseSamples] = (),
    *,
    figures: Mapping[str, str | os.PathLike[str]] | None = None,
) -> Path:
    """Write the report of one run, or of several side by side, as one HTML file without any network; returns the path.

    Curves of training and validation, results, structure of the predicted skeletons, tables by action, joint and limb,
    a 3D player of whole clips with the 2D input and the error over time, settings, versions and configurations; as far
    as the summary has them. See :func:`write_html`.

    Args:
        summary: the runs, one arm each.
        path: HTML file to write.
        clips: what the player shows: true poses and predictions, with the arms' names.
        figures: title -> PNG file, to use instead of the curves and the still poses that are drawn otherwise.

    Raises:
        ArgumentError: no arms, or arms, curves or clips that don't fit together.
        MissingDependencyError: matplotlib is not installed, and there are figures to draw.
        OSError: the file can't be written there.
    """
    if figures is not None:
        return write_html(summary, figures, path, clips)
    with tempfile.TemporaryDirectory() as scratch:
        drawn: dict[str, str | os.PathLike[str]] = {}
        if any(arm.curves.get(key) for arm in summary.arms for key in arm.curves if key not in ("step", "val_step")):
            drawn["Training"] = plot_curves(summary, Path(scratch) / "curves.png")
        if (samples := stills(clips)) is not None:
            drawn["Poses"] = plot_poses(samples, Path(scratch) / "poses.png")
        return write_html(summary, drawn, path, clips)


def samples_of(clips: Sequence[PredictedClip], skeleton: str) -> list[PoseSamples]:
    """Clips on the CPU as the player takes them."""
    return [
        PoseSamples(
            input=clip.input[..., :2].numpy(),
            confidence=clip.input[..., 2].numpy(),
            target=clip.target.numpy(),
            predictions={name: pose.numpy() for name, pose in clip.predictions.items()},
            labels=[f"frame {frame}" for frame in clip.frames.tolist()],
            skeleton=skeleton,
            title=", ".join(t for t in (clip.motion, clip.action, f"camera {clip.view + 1}" * (clip.view >= 0)) if t),
            fps=clip.fps,
        )
        for clip in clips
    ]


def stills(clips: Sequence[PoseSamples], count: int = _STILLS) -> PoseSamples | None:
    """The middle frames of the first clips, for a figure; None without clips that all arms predict."""
    names = list(dict.fromkeys(name for clip in clips for name in clip.predictions))
    whole = [clip for clip in clips if len(clip.predictions) == len(names)][:count]
    if not whole or not names:
        return None
    at = [_middle(clip) for clip in whole]

    def pick(arrays: list[np.ndarray]) -> np.ndarray:
        return np.stack([array[frame] for array, frame in zip(arrays, at, strict=True)])

    return PoseSamples(
        input=pick([clip.input for clip in whole]),
        confidence=pick([clip.confidence for clip in whole]),
        target=pick([clip.target for clip in whole]),
        predictions={name: pick([clip.predictions[name] for clip in whole]) for name in names},
        labels=[
            ", ".join(text for text in (clip.title, clip.labels[f]) if text) for clip, f in zip(whole, at, strict=True)
        ],
        skeleton=whole[0].skeleton,
    )


def _middle(clip: PoseSamples) -> int:
    """The frame nearest to the middle in which every pose has a joint that is there."""
    known = np.isfinite(clip.target).all(-1).any(-1)
    for pose in clip.predictions.values():
        known &= np.isfinite(pose).all(-1).any(-1)
    frames = np.flatnonzero(known) if known.any() else np.arange(len(clip.labels))
    return int(frames[np.abs(frames - len(clip.labels) // 2).argmin()])
