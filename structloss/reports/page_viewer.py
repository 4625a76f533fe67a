"""The 3D player of the page: its controls, and its data as compact arrays inside the file."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from .. import skeletons
from ..errors import ArgumentError
from . import _style
from .results import PoseSamples

__all__ = ["viewer"]

_MISSING = -32768  # a coordinate that is not there
_LARGEST = 32000
_FINEST = 0.1  # mm


def viewer(clips: Sequence[PoseSamples], arms: Sequence[str]) -> str:
    """Controls and data; empty without clips. Predictions have the colours of the arms of their names.

    Raises:
        ArgumentError: clips of different skeletons.
    """
    if not clips:
        return ""
    body = skeletons.get(clips[0].skeleton)
    for clip in clips:
        if clip.skeleton != body.name:
            raise ArgumentError(f"samples has clips of {body.name!r} and {clip.skeleton!r}, expected one skeleton.")
    names = list(dict.fromkeys(name for clip in clips for name in clip.predictions))
    others = [name for name in names if name not in arms]
    colours = {name: f"--arm{k}" for k, name in enumerate([*arms, *others])}
    letters = {"left": "L", "right": "R", "centre": ""}
    data = {
        "bones": [[c, p, letters[_style.side(body, c, p)]] for c, p in body.bones],
        "joints": body.num_joints,
        "dot": 3 if body.num_joints <= 40 else 1.5,
        "names": ["true pose", *names],
        "colours": ["--target", *(colours[name] for name in names)],
        "clips": [_clip(clip, number, names) for number, clip in enumerate(clips)],
    }
    # "<" never appears in the text, so nothing in it can end the element.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'{_controls(data)}\n<script type="application/json" id="pose-data">{text}</script>'


def _clip(clip: PoseSamples, number: int, names: Sequence[str]) -> dict[str, Any]:
    poses = [clip.target, *(clip.predictions.get(name) for name in names)]
    largest = max(float(np.nanmax(np.abs(pose), initial=0.0)) for pose in poses if pose is not None)
    unit = max(_FINEST, largest / _LARGEST if math.isfinite(largest) else 1.0)
    errors: list[list[float | None] | None] = [None]
    for name in names:
        errors.append(_mean_errors(clip, name) if name in clip.predictions else None)
    return {
        "title": clip.title or f"clip {number + 1}",
        "fps": clip.fps if math.isfinite(clip.fps) and clip.fps > 0 else None,
        "labels": clip.labels,
        "unit": unit,
        "poses": [None if pose is None else _packed(pose, unit) for pose in poses],
        "errors": errors,
        "input": _packed(clip.input, 1 / 8192),
        "confidence": _encoded(np.clip(np.nan_to_num(clip.confidence) * 255, 0, 255).round(), np.uint8),
    }


def _mean_errors(clip: PoseSamples, name: str) -> list[float | None]:
    """Mean error of each frame over the joints that are there."""
    found: list[float | None] = []
    for row in clip.errors(name):
        known = np.isfinite(row)
        found.append(round(float(row[known].mean()), 1) if known.any() else None)
    return found


def _packed(values: np.ndarray, unit: float) -> str:
    """Numbers as whole multiples of `unit`, 16 bits each."""
    known = np.isfinite(values)
    steps = np.where(known, np.clip(np.where(known, values, 0) / unit, -_LARGEST, _LARGEST).round(), _MISSING)
    return _encoded(steps, np.dtype("<i2"))


def _encoded(values: np.ndarray, dtype: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(values.astype(dtype)).tobytes()).decode("ascii")


def _controls(data: dict[str, Any]) -> str:
    clips = data["clips"]
    toggles = "".join(
        f'<label><input type="checkbox" data-pose="{k}" checked> <span class="chip" '
        f'style="background: var({colour})"></span>{escape(str(name))}</label>\n'
        for k, (name, colour) in enumerate(zip(data["names"], data["colours"], strict=True))
    )
    buttons = "".join(
        f'<button type="button" data-view="{view}">{title}</button>\n'
        for view, title in (("front", "Camera"), ("side", "Side"), ("top", "Top"), ("oblique", "Oblique"))
    )
    options = "".join(f'<option value="{i}">{escape(str(clip["title"]))}</option>' for i, clip in enumerate(clips))
    speeds = "".join(
        f'<option value="{speed}"{" selected" if speed == 1 else ""}>{text}×</option>'
        for speed, text in ((0.1, "0.1"), (0.25, "¼"), (0.5, "½"), (1, "1"), (2, "2"))
    )
    choose = f'<label>Clip <select id="pose-clip">{options}</select></label>\n'
    if len(clips) == 1:
        choose = choose.replace("<label>", "<label hidden>")
    return (
        '<div class="viewer screen">\n'
        f'<div class="controls">{choose}{toggles}</div>\n'
        '<div class="stage"><canvas id="pose-canvas" tabindex="0" role="img" '
        'aria-label="Poses in 3D; drag or use the arrow keys to rotate"></canvas>\n'
        '<figure><canvas id="pose-input" role="img" aria-label="2D input"></canvas>'
        "<figcaption>2D input; faint where its confidence is low</figcaption></figure></div>\n"
        '<canvas id="pose-errors" role="img" aria-label="Mean joint error over time"></canvas>\n'
        f'<div class="controls"><button type="button" id="pose-play">Play</button>'
        f'<input id="pose-frame" type="range" min="0" max="{len(clips[0]["labels"]) - 1}" value="0" step="1" '
        'aria-label="Frame">'
        f'<label>Speed <select id="pose-speed">{speeds}</select></label></div>\n'
        f'<div class="controls">{buttons}<span class="note" id="pose-label" aria-live="off"></span></div>\n</div>\n'
        '<p class="note screen">Drag rotates; once clicked, the wheel zooms. Right limbs are solid, left limbs dashed. '
        "Poses are relative to the pelvis; the grid is at the height of the lowest joint, a square is 250 mm. The "
        "strip shows the mean joint error over time: click it to go there.</p>"
    )
