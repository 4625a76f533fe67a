"""Checkpoints that are never half-written and never execute code."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ..errors import CheckpointError, MissingFileError
from ..files import new_file
from ..reading import compressed_member, not_regular

__all__ = ["SafeCheckpointIO", "verify_checkpoint"]


class SafeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written to a temporary name and renamed, and read with `weights_only=True`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        path = Path(path)
        try:
            with new_file(path) as file:
                torch.save(checkpoint, file)
        except OSError as error:
            # What torch's writer said, where it was that one.
            told = error.__cause__ if isinstance(error.__cause__, RuntimeError) else error
            raise CheckpointError(
                f"checkpoint {path} can't be written, the disk may be full: {_first_line(told)} "
                "Earlier checkpoints are as they were."
            ) from error

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """As Lightning's, but weights alone are read whatever `weights_only` says.

        Raises:
            MissingFileError, CheckpointError: no such file, unreadable, or no training checkpoint.
        """
        path = Path(path)
        if not path.exists():
            raise MissingFileError(f"checkpoint {path} does not exist.")
        if path.is_dir() or not_regular(path):
            raise CheckpointError(f"checkpoint {path} is not a regular file, expected one written by structloss fit.")
        if (member := compressed_member(path)) is not None:
            raise CheckpointError(
                f"checkpoint {path} has {member!r} in it compressed, expected one written by structloss fit."
            )
        try:
            checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"checkpoint {path} can't be read, expected one written by structloss fit: {_first_line(error)}"
            ) from error
        if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
            raise CheckpointError(
                f"{path} is no training checkpoint, expected one written by structloss fit; weights alone are given as "
                "--model.init_from."
            )
        return checkpoint


def verify_checkpoint(path: Path) -> None:
    """Read a checkpoint to its end and compare the checksums of its parts.

    Raises:
        CheckpointError: it is truncated or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"checkpoint {path} is truncated or damaged: {_first_line(error)}") from error
    if damaged is not None:
        raise CheckpointError(f"checkpoint {path} is damaged: the checksum of {damaged!r} is wrong.")


def _first_line(error: BaseException) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
    if isinstance(error, KeyError) or text.isdigit():  # an opcode that the unpickler doesn't know
        text = "it is no PyTorch file"
    return text if text.endswith(".") else f"{text}."
