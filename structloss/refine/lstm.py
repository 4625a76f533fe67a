"""TP-Net's rivals: recurrent networks over the past or in both directions (Dabral et al., ECCV 2018, Table 4)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import ArgumentError
from .base import Refiner, check_count

__all__ = ["LSTMRefiner"]


class LSTMRefiner(Refiner):
    """An LSTM that takes poses one after the other and gives each anew.

    The paper names the two networks and their errors, nothing of their sizes: layers and widths are ours. Forwards it
    has seen everything since the clip began ("LSTM"), which takes no window and can stream. In both directions
    ("Bi-LSTM") it reads windows of `past + 1 + future` poses, 4, 10 or 20 in the table, and answers for one of them; or
    whole clips, with `past=None, future=None`.

    Args:
        num_joints: joints of a pose.
        hidden: width of the state, of each direction.
        layers: LSTMs on top of each other.
        bidirectional: read in both directions.
        past: frames before the one that is predicted; None is all. Only with `bidirectional`.
        future: frames after it; None is all. With `bidirectional`, both or neither are None; without, 0.
        residual: add the answer to the frame's pose that came in.
        root: joint that is set to 0 in what comes out; None predicts it like any other.
        border: beyond a clip's ends, "repeat" its first or last pose, or "zero".
        dropout: share of the state that training leaves out, between layers and before the last one.

    Raises:
        ArgumentError: a number out of range, or a window that doesn't go with the direction.

    >>> import torch
    >>> from structloss.refine import LSTMRefiner
    >>> list(LSTMRefiner(hidden=8)(torch.zeros(2, 5, 17, 3)).shape)
    [2, 5, 17, 3]
    """

    def __init__(
        self,
        num_joints: int = 17,
        hidden: int = 512,
        layers: int = 1,
        bidirectional: bool = False,
        past: int | None = None,
        future: int | None = 0,
        residual: bool = False,
        root: int | None = None,
        border: str = "repeat",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_joints, past, future, residual, root, border)
        if bidirectional and (past is None) != (future is None):
            raise ArgumentError(
                f"past is {past} and future {future}, expected numbers, or None for both, with bidirectional."
            )
        if not bidirectional and (past is not None or future != 0):
            raise ArgumentError(
                f"past is {past} and future {future}, expected None and 0 without bidirectional: it has seen all that "
                "came before."
            )
        check_count("hidden", hidden, 1)
        check_count("layers", layers, 1)
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout is {dropout!r}, expected a share, 0 <= dropout < 1.")
        self.hidden, self.bidirectional = hidden, bidirectional
        self.lstm = nn.LSTM(
            num_joints * 3, hidden, layers, batch_first=True, bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,
        )  # fmt: skip
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden * (1 + bidirectional), num_joints * 3)

    def predict(self, windows: Tensor) -> Tensor:
        if self.past is None or self.future is None:
            return self.out(self.dropout(self.lstm(windows)[0]))
        length = self.past + 1 + self.future
        gathered = windows.unfold(1, length, 1).transpose(2, 3)  # [B, M, N, D]
        states = self.lstm(gathered.flatten(0, 1))[0][:, self.past]
        return self.out(self.dropout(states)).unflatten(0, gathered.shape[:2])

    def step(self, window: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.past is None:
            states, state = self.lstm(window[:, -1:], state)
            return self.out(self.dropout(states[:, 0])), state
        assert self.future is not None
        return self.out(self.dropout(self.lstm(window)[0][:, self.past])), None

    def _width(self) -> int:
        length = 1 if self.past is None or self.future is None else self.past + 1 + self.future
        return length * max(4 * self.hidden * (1 + self.bidirectional), self.num_joints * 3)
