"""The report as one HTML file that needs nothing else: no network, no other files, no libraries."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, MissingFileError
from ..files import write_text
from ..metrics.measures import measure
from . import _style
from .page_tables import actions, chip, found_joints, joints, lead, limbs, results, structure
from .page_viewer import viewer
from .results import ArmResult, PoseSamples, RunSummary
from .tables import check_arms

__all__ = ["write_html"]

_HERE = Path(__file__).parent
_PNG = b"\x89PNG\r\n\x1a\n"
# Nothing may be fetched: images are data inside the file, style and script are inline.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_html(
    summary: RunSummary,
    figures: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
    samples: PoseSamples | Sequence[PoseSamples] | None = None,
    *,
    captions: Mapping[str, str] | None = None,
) -> Path:
    """Write the report as one self-contained HTML file, atomically; returns the path.

    It holds what was compared, the table, the figures, structural metrics, MPJPE per joint (chart) and per action
    (table) where the arms have them, the 3D player where `samples` is given, settings, data, versions, configurations,
    and `summary.settings["command"]` as the way to repeat the run. It follows the reader's light or dark setting and
    prints without the player. All text is escaped.

    Args:
        summary: at least one arm.
        figures: title -> PNG file, in order; the player comes after the first.
        path: HTML file to write.
        samples: poses for the player; several are offered as clips to choose from. Every frame goes into the file,
            about 8 bytes per joint and arm.
        captions: title -> text under the figure of that title.

    Raises:
        ArgumentError: no arms, a figure is not a PNG file, a caption belongs to no figure, clips of different
            skeletons, or `per_joint_mpjpe` does not fit the skeleton.
        MissingFileError: a figure does not exist.
        UnknownNameError: `summary.skeleton` is not registered, and there are values per joint.
        OSError: the file can't be written there.
    """
    arms = check_arms(summary)
    captions = captions or {}
    clips = [samples] if isinstance(samples, PoseSamples) else list(samples or ())
    for title in captions:
        if title not in figures:
            raise ArgumentError(f"captions has {title!r}, expected only titles of figures.")
    drawn = [_figure(title, file, captions.get(title, "")) for title, file in figures.items()]
    parts = [
        _header(summary, arms),
        _section("Results", results(arms)),
        _section("Structure of the predicted skeletons", structure(arms)),
        *drawn[:1],
        _section("Poses in 3D", viewer(clips, [arm.name for arm in arms])),
        *drawn[1:],
        _section(f"{measure('mpjpe').title} per joint", joints(summary, arms)),
        _section("Per action", actions(arms)),
        _section("Per limb", limbs(arms)),
        _section("Joint by joint", found_joints(arms)),
        _reproduce(summary, arms),
    ]
    script = _script("viewer.js") if clips else ""
    body = "\n".join(part for part in parts if part)
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(summary.title)}</title>\n<style>\n{_file('page.css')}{_colours(arms, clips)}</style>\n"
        f"</head>\n<body>\n{body}\n{script}</body>\n</html>\n"
    )
    return write_text(path, text)


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    return f"<script>\n{_file(name)}</script>\n"


def _colours(arms: list[ArmResult], clips: list[PoseSamples]) -> str:
    """`--arm0`, `--arm1`, ... for light, dark and print."""
    count = len(arms) + max((len(clip.predictions) for clip in clips), default=0)
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


def _header(summary: RunSummary, arms: list[ArmResult]) -> str:
    rows = []
    for k, arm in enumerate(arms):
        terms = ", ".join(
            f"{weight:g} × {escape(term)}" if math.isfinite(weight) else f"– × {escape(term)}"
            for term, weight in arm.objective.items()
        )
        rows.append(f"<tr><td>{chip(k)}{escape(arm.name)}</td><td style='text-align: left'>{terms or '–'}</td></tr>")
    sentence = lead(arms)
    return (
        f"<header>\n<h1>{escape(summary.title)}</h1>\n"
        + (f'<p class="lead">{sentence}</p>\n' if sentence else "")
        + "".join(f'<p class="caution">{escape(note)}</p>\n' for note in summary.notes)
        + '<table>\n<thead><tr><th>Arm</th><th style="text-align: left">Objective (weight × term)</th></tr></thead>\n'
        + f"<tbody>{''.join(rows)}</tbody>\n</table>\n</header>"
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
    return _section(title, f'<figure>\n<div class="scroll">{image}</div>\n{under}</figure>')


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


def _reproduce(summary: RunSummary, arms: list[ArmResult]) -> str:
    settings = {key.replace("_", " "): value for key, value in summary.settings.items() if key != "command"}
    blocks = [
        _facts("Settings", settings | ({"skeleton": summary.skeleton} if summary.skeleton else {})),
        *(_facts(arm.name, arm.settings) for arm in arms),
        _facts("Data", summary.data),
        _facts("Machine and versions", summary.machine),
    ]
    configurations = "".join(
        f"<details><summary>{chip(k)}{escape(arm.name)}</summary>\n"
        f"<pre><code>{escape(arm.config.strip())}</code></pre></details>\n"
        for k, arm in enumerate(arms)
        if arm.config
    )
    command = summary.settings.get("command")
    text = command if isinstance(command, str) else " ".join(map(str, command or ()))
    return (
        f'<div class="columns">\n{"".join(blocks)}\n</div>\n'
        + _section("Configuration", configurations)
        + (_section("Run it again", f"<pre><code>{escape(text)}</code></pre>") if text else "")
    )
