"""Weights that come with the package: a safetensors file and a model card for each backbone that has them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ..errors import ArgumentError

__all__ = ["pretrained_file", "pretrained_names", "weights_called"]

_FOLDER = Path(str(files(__package__))) / "weights"


def pretrained_names() -> tuple[str, ...]:
    """Names of the backbones that weights come with, sorted."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.safetensors")))


def weights_called(name_or_path: str) -> str:
    """The file of weights that somebody names: that of a backbone in the package by its name, any other by its path."""
    if name_or_path in pretrained_names() and not Path(name_or_path).exists():
        return str(pretrained_file(name_or_path))
    return name_or_path


def pretrained_file(name: str) -> Path:
    """The safetensors file of a backbone. Its model card lies beside it, with the ending .md.

    Args:
        name: full name of a variant, such as "lift-27".

    Raises:
        ArgumentError: no weights come with it.
    """
    if name not in pretrained_names():
        raise ArgumentError(
            f"{name} has no weights in the package, expected {' or '.join(pretrained_names())}, or a file of weights."
        )
    return _FOLDER / f"{name}.safetensors"
