"""The report as one HTML file that needs nothing else: no network, no other files, no libraries."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .. import skeletons
from ..errors import ArgumentError, MissingFileError
from . import _style
from .files import write_text
from .results import ArmResult, PoseSamples, RunSummary
from .tables import COLUMNS, Cell, cells, check_arms, difference_label, mark

__all__ = ["write_html"]

_HERE = Path(__file__).parent
_PNG = b"\x89PNG\r\n\x1a\n"
# Nothing may be fetched: images are data inside the file, style and script are inline.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_html(
    summary: RunSummary,
    figures: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
    samples: PoseSamples | None = None,
    *,
    captions: Mapping[str, str] | None = None,
) -> Path:
    """Write the report as one self-contained HTML file, atomically; returns the path.

    It holds what was compared, the table, the figures, MPJPE per joint (chart) and per action (table) where the arms
    have them, the 3D viewer where `samples` is given, settings, data, versions, and `summary.settings["command"]` as
    the way to repeat the run. It follows the reader's light or dark setting and prints without the viewer. All text is
    escaped.

    Args:
        summary: at least one arm.
        figures: title -> PNG file, in order.
        path: HTML file to write.
        samples: poses for the viewer. Every frame goes into the file, about 25 bytes a joint and arm.
        captions: title -> text under the figure of that title.

    Raises:
        ArgumentError: no arms, a figure is not a PNG file, a caption belongs to no figure, or `per_joint_mpjpe` does
            not fit the skeleton.
        MissingFileError: a figure does not exist.
        UnknownNameError: `summary.skeleton` is not registered, and there are values per joint.
        OSError: the file can't be written there.
    """
    arms = check_arms(summary)
    captions = captions or {}
    for title in captions:
        if title not in figures:
            raise ArgumentError(f"captions has {title!r}, expected only titles of figures.")
    parts = [
        _header(summary, arms),
        _section("Results", _table(arms)),
        *(_figure(title, file, captions.get(title, "")) for title, file in figures.items()),
        _viewer(samples) if samples is not None else "",
        _section("MPJPE of each joint", _joints(summary, arms)),
        _section("MPJPE of each action", _actions(arms)),
        _reproduce(summary),
    ]
    script = _script("viewer.js") if samples is not None else ""
    body = "\n".join(part for part in parts if part)
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(summary.title)}</title>\n<style>\n{_file('page.css')}{_colours(arms, samples)}</style>\n"
        f"</head>\n<body>\n{body}\n{script}</body>\n</html>\n"
    )
    return write_text(path, text)


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    return f"<script>\n{_file(name)}</script>\n"


def _colours(arms: list[ArmResult], samples: PoseSamples | None) -> str:
    """`--arm0`, `--arm1`, ... for light, dark and print."""
    count = max(len(arms), len(samples.predictions) if samples is not None else 0)
    rules = []
    for before, palette, after in (
        ("", _style.LIGHT, ""),
        ("@media (prefers-color-scheme: dark) { ", _style.DARK, " }"),
        ("@media print { ", _style.LIGHT, " }"),
    ):
        values = " ".join(f"--arm{k}: {palette[k % len(palette)]};" for k in range(count))
        rules.append(f"{before}:root {{ {values} }}{after}\n")
    return "".join(rules)


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def _chip(index: int) -> str:
    return f'<span class="chip" style="background: var(--arm{index})"></span>'


def _number(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else "–"


def _header(summary: RunSummary, arms: list[ArmResult]) -> str:
    rows = []
    for k, arm in enumerate(arms):
        terms = ", ".join(f"{_number(weight)} × {escape(term)}" for term, weight in arm.objective.items()) or "–"
        rows.append(f"<tr><td>{_chip(k)}{escape(arm.name)}</td><td style='text-align: left'>{terms}</td></tr>")
    lead = _lead(arms)
    return (
        f"<header>\n<h1>{escape(summary.title)}</h1>\n"
        + (f'<p class="lead">{lead}</p>\n' if lead else "")
        + '<table>\n<thead><tr><th>Arm</th><th style="text-align: left">Objective (weight × term)</th></tr></thead>\n'
        + f"<tbody>{''.join(rows)}</tbody>\n</table>\n</header>"
    )


def _lead(arms: list[ArmResult]) -> str:
    """One sentence of numbers on the last arm against the first; empty where there is nothing to compare."""
    if len(arms) < 2:
        return ""
    facts = []
    for column in (COLUMNS[0], COLUMNS[3], COLUMNS[4], COLUMNS[5], COLUMNS[6]):
        values, change = cells(column, arms)
        if change is None or not any(c.isdigit() for c in change.text):
            continue
        unit = "points" if column.unit == "%" else column.unit
        percent = " %" if column.unit == "%" else ""
        name = column.title if column.title.startswith("MP") else column.title.replace(",", " of").lower()
        facts.append(f"{name} {change.text} {unit} ({values[0].text} → {values[-1].text}{percent})")
    if not facts:
        return ""
    return f"<b>{escape(arms[-1].name)}</b> against <b>{escape(arms[0].name)}</b>: {escape('; '.join(facts))}."


def _row(cells_of_row: list[Cell]) -> str:
    return "".join(f"<td{' class=best' if cell.good else ''}>{escape(cell.text)}</td>" for cell in cells_of_row)


def _changes(row: list[Cell]) -> str:
    classes = {True: " class=better", False: " class=worse", None: ""}
    return "".join(f"<td{classes[cell.good]}>{escape(cell.text)}</td>" for cell in row)


def _table(arms: list[ArmResult]) -> str:
    columns = [cells(column, arms) for column in COLUMNS]
    heads = "".join(
        f"<th>{'<br>'.join(escape(h) for h in c.head if h)}<small>{escape(c.measure)}</small></th>" for c in COLUMNS
    )
    body = "".join(
        f"<tr><td>{_chip(k)}{escape(arm.name)}</td>{_row([values[k] for values, _ in columns])}</tr>\n"
        for k, arm in enumerate(arms)
    )
    if len(arms) > 1:
        changes = _changes([change for _, change in columns if change is not None])
        body += f"<tr class=difference><td>{escape(difference_label(arms))}</td>{changes}</tr>\n"
    note = (
        "★ marks the best value of a column; ↓ lower is better, ↑ higher is better. MPJPE: mean distance to the true "
        "joint; PA after the best rotation, scale and shift; N after the best scale; MPJVE: error of the velocity. "
        "Depth order: share of pairs whose order in depth is right. Loss share: share of a training step spent on it."
    )
    return (
        '<div class="scroll"><table class="wide">\n'
        f"<thead><tr><th>Objective</th>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
        f'<p class="note">{note}</p>'
    )


def _figure(title: str, file: str | os.PathLike[str], caption: str) -> str:
    try:
        content = Path(file).read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"no file {str(file)!r}, expected the PNG of figure {title!r}.") from error
    if not content.startswith(_PNG):
        raise ArgumentError(f"figures[{title!r}] is {str(file)!r}, which is no PNG file.")
    source = base64.b64encode(content).decode("ascii")
    under = f"<figcaption>{escape(caption)}</figcaption>\n" if caption else ""
    image = f'<img alt="{escape(title)}" src="data:image/png;base64,{source}">'
    return _section(title, f"<figure>\n{image}\n{under}</figure>")


def _joints(summary: RunSummary, arms: list[ArmResult]) -> str:
    """Horizontal bars, one group a joint and one bar an arm, as inline SVG; joints in the order of the skeleton."""
    shown = [(k, arm) for k, arm in enumerate(arms) if len(arm.per_joint_mpjpe)]
    if not shown:
        return ""
    names = skeletons.get(summary.skeleton).joint_names
    for _, arm in shown:
        if len(arm.per_joint_mpjpe) != len(names):
            raise ArgumentError(
                f"per_joint_mpjpe of arm {arm.name!r} has {len(arm.per_joint_mpjpe)} values, expected {len(names)} for "
                f"skeleton {summary.skeleton!r}."
            )
    largest = max((v for _, arm in shown for v in arm.per_joint_mpjpe if math.isfinite(v)), default=0.0) or 1.0
    step = next(s for m in range(-3, 9) for s in (10.0**m, 2 * 10.0**m, 5 * 10.0**m) if largest / s <= 6)
    bar, pad, left, right, width, top = 11, 8, 120, 50, 800, 22
    group = bar * len(shown) + pad
    height = top + group * len(names) + 6
    scale = (width - left - right) / largest
    lines = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="MPJPE of each joint in mm">']
    for tick in range(int(largest / step + 1e-9) + 1):
        x = left + tick * step * scale
        unit = " mm" if tick == 0 else ""
        lines.append(f'<line class="axis" x1="{x:.1f}" y1="{top - 4}" x2="{x:.1f}" y2="{height}"/>')
        lines.append(f'<text class="small" x="{x:.1f}" y="12" text-anchor="middle">{tick * step:g}{unit}</text>')
    for j, name in enumerate(names):
        y = top + j * group
        middle = y + (group - pad) / 2 + 4
        lines.append(f'<text x="{left - 8}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>')
        for row, (k, arm) in enumerate(shown):
            value = arm.per_joint_mpjpe[j]
            if not math.isfinite(value):
                continue
            top_of_bar, length = y + row * bar, max(value * scale, 0.0)
            lines.append(
                f'<rect x="{left}" y="{top_of_bar}" width="{length:.1f}" height="{bar - 2}" '
                f'style="fill: var(--arm{k})"><title>{escape(f"{name}, {arm.name}: {value:.1f} mm")}</title></rect>'
                f'<text class="small" x="{left + length + 4:.1f}" y="{top_of_bar + 8.5}">{value:.1f}</text>'
            )
    legend = " &nbsp; ".join(f"{_chip(k)}{escape(arm.name)}" for k, arm in shown)
    return f"<p>{legend}</p>\n" + "\n".join(lines) + "\n</svg>"


def _actions(arms: list[ArmResult]) -> str:
    actions = list(dict.fromkeys(action for arm in arms for action in arm.per_action))
    if not actions:
        return ""
    body = ""
    for action in actions:
        values, change = mark([float(arm.per_action.get(action, math.nan)) for arm in arms], 1, False)
        body += f"<tr><td>{escape(action)}</td>{_row(values)}{_changes([change] if change else [])}</tr>\n"
    heads = "".join(f"<th>{_chip(k)}{escape(arm.name)}<small>↓ mm</small></th>" for k, arm in enumerate(arms))
    if len(arms) > 1:
        heads += f"<th>{escape(difference_label(arms))}<small>mm</small></th>"
    return (
        f'<div class="scroll"><table>\n<thead><tr><th>Action</th>{heads}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>"
    )


def _viewer(samples: PoseSamples) -> str:
    """The viewer's controls and its data: bones with side, and per pose a name, a colour and whole millimetres."""
    skeleton = skeletons.get(samples.skeleton)
    letters = {"left": "L", "right": "R", "centre": ""}
    poses = [{"name": "true pose", "colour": "--target", "frames": _whole(samples.target), "errors": []}]
    for k, (name, pose) in enumerate(samples.predictions.items()):
        errors = [None if not known.any() else round(float(row[known].mean()), 1)
                  for row in samples.errors(name) for known in (np.isfinite(row),)]  # fmt: skip
        poses.append({"name": name, "colour": f"--arm{k}", "frames": _whole(pose), "errors": errors})
    data = {
        "bones": [[c, p, letters[_style.side(skeleton, c, p)]] for c, p in skeleton.bones],
        "dot": 3 if skeleton.num_joints <= 40 else 1.5,
        "labels": samples.labels,
        "poses": poses,
    }
    # "<" never appears in the text, so nothing in it can end the element.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    toggles = "".join(
        f'<label><input type="checkbox" data-pose="{k}" checked> <span class="chip" '
        f'style="background: var({pose["colour"]})"></span>{escape(str(pose["name"]))}</label>\n'
        for k, pose in enumerate(poses)
    )
    buttons = "".join(
        f'<button type="button" data-view="{view}">{title}</button>\n'
        for view, title in (("front", "Camera"), ("side", "Side"), ("top", "Top"), ("oblique", "Oblique"))
    )
    return _section(
        "Poses in 3D",
        '<div class="viewer screen">\n<canvas id="pose-canvas" tabindex="0" role="img" '
        'aria-label="Poses in 3D; drag or use the arrow keys to rotate"></canvas>\n'
        f'<div class="controls">{toggles}</div>\n'
        f'<div class="controls"><label for="pose-frame">Frame</label><input id="pose-frame" type="range" min="0" '
        f'max="{len(samples.labels) - 1}" value="0" step="1"><button type="button" id="pose-play">Play</button>\n'
        f'{buttons}</div>\n<p class="note" id="pose-label"></p>\n</div>\n'
        '<p class="note screen">Drag rotates; once clicked, the wheel zooms. Right limbs are solid, left limbs dashed. '
        "Poses are relative to the pelvis; the grid is the height of the lowest joint, a square 250 mm.</p>\n"
        f'<script type="application/json" id="pose-data">{text}</script>',
    )


def _whole(poses: np.ndarray) -> list[Any]:
    """[F, J, 3] as nested lists of whole millimetres, None where a coordinate is not finite."""
    return [[[round(v) if math.isfinite(v) else None for v in p] for p in pose] for pose in poses.tolist()]


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) of every entry; nested mappings as "outer / inner"."""
    rows = []
    for key, value in facts.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{key} / ")
        elif isinstance(value, list | tuple | set | frozenset):
            rows.append((f"{prefix}{key}", ", ".join(map(str, value)) or "–"))
        else:
            rows.append((f"{prefix}{key}", "–" if value is None or value == {} else str(value)))
    return rows


def _facts(title: str, facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>\n" for key, value in _flat(facts))
    return _section(title, f'<table class="facts"><tbody>\n{rows}</tbody></table>') if rows else ""


def _reproduce(summary: RunSummary) -> str:
    settings = {key.replace("_", " "): value for key, value in summary.settings.items() if key != "command"}
    blocks = [
        _facts("Settings", {**settings, "skeleton": summary.skeleton}),
        _facts("Data", summary.data),
        _facts("Machine and versions", summary.machine),
    ]
    command = summary.settings.get("command")
    if command:
        text = command if isinstance(command, str) else " ".join(map(str, command))
        again = _section("Run it again", f"<pre><code>{escape(text)}</code></pre>")
    else:
        again = ""
    return f'<div class="columns">\n{"".join(blocks)}\n</div>\n{again}'
