"""Atomic writes: a file appears whole under its name, or not at all; and what strict JSON can hold."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ArgumentError

__all__ = ["plain", "write_bytes", "write_json", "write_text"]


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to `path` under a temporary name beside it, then rename; a file already there is replaced.

    Missing parent folders are made. When anything fails, the temporary file is removed and what was at `path` stays.

    Returns:
        The path written.

    Raises:
        ArgumentError: `path` is a folder.
        OSError: the file can't be written there.
    """
    path = Path(path)
    if path.is_dir():
        raise ArgumentError(f"path is {str(path)!r}, a folder, expected the name of a file to write.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Like :func:`write_bytes`, for text; written as UTF-8 with the line ends that `text` has."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Like :func:`write_text`, for anything that :func:`plain` takes, as strict JSON."""
    return write_text(path, json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """`value` with nothing but what strict JSON knows: NaN and infinities become None, arrays lists, others text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors, numpy scalars
        return plain(value.tolist())
    return str(value)
