"""What a network takes and gives, said so that somebody who has nothing but the file can use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

__all__ = ["Case", "Port"]


@dataclass(frozen=True)
class Port:
    """One tensor that goes in or comes out.

    Attributes:
        name: as it is called in the file.
        shape: of every axis its length, or for a free one its name or the sum that it follows: "batch", "frames",
            "frames - 26".
        means: what it holds, with the unit.
        dtype: "float32" or "int64".
        jumps: whether it is not continuous in the inputs: a choice was made, which rounding may turn.
    """

    name: str
    shape: tuple[int | str, ...]
    means: str
    dtype: str = "float32"
    jumps: bool = False


@dataclass(frozen=True)
class Case:
    """A network as it is exported.

    Attributes:
        module: takes the inputs by their names, and gives a tensor or a tuple of them.
        inputs, outputs: in order.
        make: the inputs for so many clips of so many frames, from fixed random numbers.
        facts: what else is written into the file: key -> text, number, or list of texts.
        frames: the number of frames that it takes, of a network that takes clips of one length only; None is any, from
            `shortest` to `longest`.
        shortest, longest: see `frames`; a `longest` of None is no limit.
        unrolled: whether ONNX has it frame by frame, so that the number of frames can't be free there.
    """

    module: nn.Module
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    make: Callable[[int, int], dict[str, Tensor]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    frames: int | None = None
    shortest: int = 1
    longest: int | None = None
    unrolled: bool = False

    @property
    def any_length(self) -> bool:
        """Whether the number of frames is free."""
        return self.frames is None
