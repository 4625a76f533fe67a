"""JSON of detectors and annotators: reading it, and saying in a few words what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError, shown
from ...reading import parse_json, read_text
from .._words import some

__all__ = ["described", "first_of", "load_json", "told"]

_TOLD = {
    "width": ("width", "image_width", "img_width", "video_width", "frame_width", "canvas_width", "w"),
    "height": ("height", "image_height", "img_height", "video_height", "frame_height", "canvas_height", "h"),
    "fps": ("fps", "frame_rate", "framerate", "frameRate", "video_fps"),
}
_BOTH = ("image_size", "resolution", "size", "frame_size", "video_size")  # width, height
_ABOUT = ("metadata", "meta", "video_info", "video", "info", "meta_info", "image")


def load_json(path: Path) -> Any:
    """The content of a JSON file; a list, of a file with an object in each line.

    Raises:
        MissingFileError, DataError: as :func:`~structloss.reading.read_json`.
    """
    text = read_text(path, "JSON")
    try:
        return parse_json(text, str(path))
    except DataError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or not all(line.lstrip().startswith("{") for line in lines):
            raise
        return [parse_json(line, f"line {n} of {path}") for n, line in enumerate(lines, start=1)]


def described(content: Any) -> str:
    """What some JSON is, in a few words."""
    if isinstance(content, Mapping):
        return f"an object with {some(list(content)[:5]) or 'nothing'}"
    return f"a {type(content).__name__} of {len(content)}" if isinstance(content, (list, str)) else shown(content)


def first_of(content: Mapping[str, Any], *keys: str) -> Any:
    """The value of the first of these keys that an object has; None if it has none."""
    return next((content[key] for key in keys if content.get(key) is not None), None)


def told(content: Any) -> dict[str, Any]:
    """What an object says of its video, itself or in an object about it: "width", "height", "fps", as they stand."""
    out: dict[str, Any] = {}
    if not isinstance(content, Mapping):
        return out
    for about in [content, *(content.get(key) for key in _ABOUT)]:
        if isinstance(about, Mapping):
            both = first_of(about, *_BOTH)
            if isinstance(both, list) and len(both) == 2:
                out = {"width": both[0], "height": both[1]} | out
            found = {name: first_of(about, *keys) for name, keys in _TOLD.items()}
            out = {name: value for name, value in found.items() if value is not None} | out
    return out
