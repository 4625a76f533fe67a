"""Losses over time need several frames in a row to train on; where there is one, they would be 0 without a word."""

from __future__ import annotations

from collections.abc import Mapping

from ..backbones import Backbone
from ..data import MotionDataModule
from ..errors import ArgumentError
from ..learned import CORRUPTIONS, LearnedLoss
from ..terms import TERMS

__all__ = ["check_learned_frames", "check_term_frames", "check_window", "predicted_frames"]

_MORE = 27  # frames in a row that messages suggest


def predicted_frames(model: Backbone, window: int) -> int:
    """How many frames in a row of a window of so many the network predicts."""
    return window - model.frames + 1 if model.kind == "centre" else window


def check_window(model: Backbone, name: str, data: MotionDataModule) -> None:
    """Raise for windows of another length than the network takes.

    Args:
        model, name, data: as for :func:`check_term_frames`.

    Raises:
        ArgumentError: so it is.
    """
    least, most = model.shortest, model.longest
    if data.window < least or (most is not None and data.window > most):
        expected = f"at least {least}" if most is None else f"{least}" if least == most else f"{least} to {most}"
        raise ArgumentError(f"window is {data.window}, expected {expected} frames for {name}.")


def check_term_frames(objective: Mapping[str, object], model: Backbone, name: str, data: MotionDataModule) -> None:
    """Raise for a term over time where windows give one frame to train on.

    Args:
        objective: term -> lambda; those of lambda 0 don't matter, nor do names that are no term's.
        model: the network.
        name: its name.
        data: what it is trained on.

    Raises:
        ArgumentError: so it is.
    """
    # Networks of the centre that train by a way of their own compare all frames with the truth, too (P-STMO).
    own_way = model.kind == "centre" and type(model).supervise is not Backbone.supervise
    frames = data.window if own_way else predicted_frames(model, data.window)
    over_time = [term for term, weight in objective.items() if weight and term in TERMS and TERMS[term].needs_frames]
    if over_time and frames < 2:
        raise ArgumentError(
            f"objective has {over_time}, 0 on one frame, expected terms of single frames: "
            f"{_found(model, name, data, frames)}."
        )


def check_learned_frames(
    loss: LearnedLoss, drawn: int | None, model: Backbone, name: str, data: MotionDataModule
) -> None:
    """Raise for what a learned loss compares over more frames in a row than windows give.

    Args:
        loss: the learned loss.
        drawn: how many frames of a clip it is shown; None is all.
        model, name, data: as for :func:`check_term_frames`.

    Raises:
        ArgumentError: so it is.
    """
    frames = predicted_frames(model, data.window)
    over_time = [negative for negative in loss.negatives if negative in CORRUPTIONS and CORRUPTIONS[negative].temporal]
    if over_time and drawn == 1:
        raise ArgumentError(f"learned.frames is 1, expected more with {over_time[0]!r} among the negatives.")
    if over_time and frames < 2:
        raise ArgumentError(
            f"learned.negatives has {over_time}, which need frames in a row, expected faults of single frames: "
            f"{_found(model, name, data, frames)}."
        )
    if loss.pair_weight and frames <= loss.pair_window:
        raise ArgumentError(
            f"learned.pair_weight is {loss.pair_weight}, expected 0 with less than {loss.pair_window + 1} frames in a "
            f"row, one more than learned.pair_window: {_found(model, name, data, frames)}."
        )


def _found(model: Backbone, name: str, data: MotionDataModule, frames: int) -> str:
    """How many frames in a row there are, and what would give more, where something would."""
    found = f"{name} predicts {frames} of a window of {data.window} frames"
    if model.kind == "centre" and model.longest is not None:
        return found
    if not data.train_dataset.store.temporal:
        return f"{found}, and the data has single poses"
    if model.kind != "centre":
        return f"{found}; set window to {_MORE} and set sampling to 'windows' for more"
    half = model.frames // 2
    context = f", set context to {half}" if model.centre == half else ""
    return f"{found}; set window to {model.frames + _MORE - 1}{context} and set sampling to 'windows' for {_MORE}"
