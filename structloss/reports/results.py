"""What training produced: results of each arm, the comparison they belong to, and poses to show."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import skeletons
from ..errors import ArgumentError, DataError, MissingFileError
from ..files import plain, write_text
from ..metrics.evaluation import Evaluation

__all__ = ["ArmResult", "PoseSamples", "RunSummary", "read_json", "write_json"]

_FORMAT = "structloss.run_summary"
_VERSION = 1


def _number(value: Any) -> float:
    """A number read from JSON; null is NaN."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(key): _number(value) for key, value in values.items()}


def _fields(kind: str, content: Any) -> dict[str, Any]:
    """`content`, a dict or its JSON text, as a dict."""
    if isinstance(content, str | bytes):
        try:
            content = json.loads(content)
        except ValueError as error:
            raise DataError(f"{kind} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{kind} is a {type(content).__name__} in JSON, expected an object.")
    return content


@dataclass
class ArmResult:
    """What training with one objective gave.

    Attributes:
        name: what tables and legends call it, for example "MPJPE + L_S + L_T".
        objective: weight lambda of each term.
        metrics: held-out results by the keys of :data:`structloss.metrics.measures.MEASURES`: `mpjpe` (mm), ...,
            `depth_order_joints` (share 0..1). A missing key or NaN shows as a dash.
        clips_per_second: training clips per second.
        loss_share: share of a training step spent in the loss, forward and backward, 0..1.
        curves: `step` is the x-axis (optimiser steps) of every `train_...` list (`train_loss`, `train_mpjpe` in
            the target's unit, ...), `val_step` that of every `val_...` list (`val_mpjpe` in mm,
            `val_depth_order_joints`, ...). Lists of one axis have its length; NaN leaves a gap.
        per_joint_mpjpe: [J], mm, in the order of the skeleton's joints; may be empty.
        per_action: MPJPE of each action, mm; may be empty.
        per_action_pa: PA-MPJPE of each action, mm; may be empty.
        structure: what the predicted skeletons are like: `lse`, ... (mm), `illegal_angle_rate` (share 0..1), and part
            by part `symmetry/LIMB`, `illegal/HINGE`, ...; see :class:`structloss.metrics.evaluation.Evaluation`. May be
            empty.
        truth: the same of the true poses, as far as it needs no target.
        clips: key of a measure -> test clip -> its value there, as `metrics` and `structure` store it: what a
            difference between arms is weighed against. May be empty; then no difference is called an improvement.
        pairs: what the names in `clips` are of: "clips", or "seeds" where the numbers are means over trainings.
        config: the resolved configuration, YAML; may be empty.
        settings: facts about this arm alone: checkpoint, epoch, ...
    """

    name: str
    objective: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    clips_per_second: float = math.nan
    loss_share: float = math.nan
    curves: dict[str, list[float]] = field(default_factory=dict)
    per_joint_mpjpe: list[float] = field(default_factory=list)
    per_action: dict[str, float] = field(default_factory=dict)
    per_action_pa: dict[str, float] = field(default_factory=dict)
    structure: dict[str, float] = field(default_factory=dict)
    truth: dict[str, float] = field(default_factory=dict)
    clips: dict[str, dict[str, float]] = field(default_factory=dict)
    config: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    pairs: str = "clips"

    def take(self, evaluation: Evaluation) -> None:
        """Fill in what an evaluation found."""
        self.metrics, self.structure, self.truth = evaluation.metrics, evaluation.structure, evaluation.truth
        self.per_joint_mpjpe = evaluation.per_joint
        self.per_action, self.per_action_pa = evaluation.per_action, evaluation.per_action_pa

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict that strict JSON can hold; NaN and infinities become None."""
        return {key: plain(value) for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any] | str | bytes) -> ArmResult:
        """The inverse of :meth:`to_json`; takes its dict or the JSON text. None becomes NaN.

        Raises:
            DataError: a field is missing or has the wrong type.
        """
        content = _fields("arm", content)
        try:
            return cls(
                name=str(content["name"]),
                objective=_numbers(content.get("objective", {})),
                metrics=_numbers(content.get("metrics", {})),
                clips_per_second=_number(content.get("clips_per_second")),
                loss_share=_number(content.get("loss_share")),
                curves={str(k): [_number(v) for v in values] for k, values in content.get("curves", {}).items()},
                per_joint_mpjpe=[_number(v) for v in content.get("per_joint_mpjpe", [])],
                per_action=_numbers(content.get("per_action", {})),
                per_action_pa=_numbers(content.get("per_action_pa", {})),
                structure=_numbers(content.get("structure", {})),
                truth=_numbers(content.get("truth", {})),
                clips={str(key): _numbers(values) for key, values in content.get("clips", {}).items()},
                config=str(content.get("config", "")),
                settings=dict(content.get("settings", {})),
                pairs="seeds" if content.get("pairs") == "seeds" else "clips",
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"arm {content.get('name')!r} can't be read: {type(error).__name__}: {error}.") from error

    def series(self, key: str) -> tuple[np.ndarray, np.ndarray] | None:
        """(x, y) of the curve `key`, both [N] float64; None where the arm has no such curve or it is empty.

        Raises:
            ArgumentError: the curve and its axis differ in length, or the axis is missing.
        """
        values = self.curves.get(key)
        if values is None or len(values) == 0:
            return None
        axis = "val_step" if key.startswith("val_") else "step"
        steps = self.curves.get(axis, [])
        if len(steps) != len(values):
            raise ArgumentError(
                f"curves[{key!r}] of arm {self.name!r} has {len(values)} values, expected {len(steps)}, the length of "
                f"curves[{axis!r}]."
            )
        return np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)


@dataclass
class RunSummary:
    """One training run, or a comparison of several: an arm each.

    Attributes:
        title: heading of the report.
        arms: results, the baseline first; differences are last minus first.
        notes: sentences that stand at the top, such as what makes arms hard to compare.
        settings: backbone, steps, seed, window, batch size, ...; `command`, where given, is the command line that
            repeats the run.
        data: what it was trained and tested on.
        machine: device, threads, versions.
        skeleton: registry name of the joints' order; empty where it has none.
    """

    title: str
    arms: list[ArmResult]
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    skeleton: str = "h36m"
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The summary as a dict that strict JSON can hold; NaN becomes None, unknown objects their text."""
        content = {key: plain(value) for key, value in vars(self).items() if key != "arms"}
        return {"format": _FORMAT, "version": _VERSION, **content, "arms": [arm.to_json() for arm in self.arms]}

    @classmethod
    def from_json(cls, content: dict[str, Any] | str | bytes) -> RunSummary:
        """The inverse of :meth:`to_json`; takes its dict or the JSON text.

        Raises:
            DataError: not such a summary, of a newer version, or a field is missing or has the wrong type.
        """
        content = _fields("summary", content)
        if content.get("format") != _FORMAT:
            raise DataError(f"summary has format {content.get('format')!r}, expected {_FORMAT!r}.")
        if content.get("version") != _VERSION:
            raise DataError(f"summary has version {content.get('version')!r}, expected {_VERSION}.")
        try:
            return cls(
                title=str(content["title"]),
                arms=[ArmResult.from_json(arm) for arm in content["arms"]],
                settings=dict(content.get("settings", {})),
                data=dict(content.get("data", {})),
                machine=dict(content.get("machine", {})),
                skeleton=str(content.get("skeleton", "h36m")),
                notes=[str(note) for note in content.get("notes", [])],
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"summary can't be read: {type(error).__name__}: {error}.") from error


@dataclass
class PoseSamples:
    """A few frames or a clip: the 2D input, the true pose and what each arm made of it.

    Poses are in the camera frame (x right, y down, z forward), root-relative, in mm. Tensors and lists are taken too
    and become float32 arrays.

    Attributes:
        input: [F, J, 2] 2D joints in normalised image coordinates, y down.
        confidence: [F, J], 0..1.
        target: [F, J, 3], mm.
        predictions: arm name -> [F, J, 3], mm.
        labels: one per frame.
        skeleton: registry name.
        title: of the clip; the viewer lists clips by it.
        fps: frames per second of a clip; NaN for frames that don't follow each other.

    Raises:
        ArgumentError: a shape or the number of labels does not fit.
        UnknownNameError: the skeleton is not registered.
    """

    input: np.ndarray
    confidence: np.ndarray
    target: np.ndarray
    predictions: dict[str, np.ndarray]
    labels: list[str]
    skeleton: str = "h36m"
    title: str = ""
    fps: float = math.nan

    def __post_init__(self) -> None:
        joints = skeletons.get(self.skeleton).num_joints
        self.input, self.confidence, self.target = map(_array, (self.input, self.confidence, self.target))
        self.predictions = {str(name): _array(pose) for name, pose in self.predictions.items()}
        self.labels = [str(label) for label in self.labels]
        if self.target.ndim != 3 or self.target.shape[0] == 0:
            raise ArgumentError(f"target has shape {list(self.target.shape)}, expected [F, {joints}, 3] with F >= 1.")
        frames = self.target.shape[0]
        shapes = {
            "input": (self.input, 2),
            "confidence": (self.confidence, None),
            "target": (self.target, 3),
            **{f"predictions[{name!r}]": (pose, 3) for name, pose in self.predictions.items()},
        }
        for name, (array, channels) in shapes.items():
            expected = (frames, joints) + (() if channels is None else (channels,))
            if array.shape != expected:
                raise ArgumentError(
                    f"{name} has shape {list(array.shape)}, expected {list(expected)} for skeleton {self.skeleton!r}."
                )
        if len(self.labels) != frames:
            raise ArgumentError(f"labels has {len(self.labels)} entries, expected {frames}, one per frame.")

    def errors(self, arm: str) -> np.ndarray:
        """[F, J] distance of each joint of one arm to its target, mm, without any alignment."""
        return np.linalg.norm(self.predictions[arm] - self.target, axis=-1)

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict that strict JSON can hold, numbers rounded to 4 (2D) or 1 (mm) decimals."""
        return {
            "input": plain(_rounded(self.input, 4)),
            "confidence": plain(_rounded(self.confidence, 3)),
            "target": plain(_rounded(self.target, 1)),
            "predictions": {name: plain(_rounded(pose, 1)) for name, pose in self.predictions.items()},
            "labels": list(self.labels),
            "skeleton": self.skeleton,
            "title": self.title,
            "fps": plain(self.fps),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any] | str | bytes) -> PoseSamples:
        """The inverse of :meth:`to_json`, but for the rounding.

        Raises:
            DataError: a field is missing or is no array of numbers.
        """
        content = _fields("samples", content)
        try:
            return cls(
                input=content["input"],
                confidence=content["confidence"],
                target=content["target"],
                predictions=content["predictions"],
                labels=content["labels"],
                skeleton=content["skeleton"],
                title=str(content.get("title", "")),
                fps=_number(content.get("fps")),
            )
        except ArgumentError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"samples can't be read: {type(error).__name__}: {error}.") from error


def _array(values: Any) -> np.ndarray:
    """A float32 array of an array, tensor or nested list; None inside a list becomes NaN."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().float().numpy()
    return np.asarray(values, dtype=np.float32)


def _rounded(values: np.ndarray, decimals: int) -> np.ndarray:
    return np.round(values.astype(np.float64), decimals)


def write_json(summary: RunSummary, path: str | os.PathLike[str]) -> Path:
    """Write a summary as strict JSON (NaN as null), atomically; returns the path.

    Raises:
        ArgumentError: `path` is a folder.
        OSError: the file can't be written there.
    """
    return write_text(path, json.dumps(summary.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> RunSummary:
    """Read a summary that :func:`write_json` wrote; null becomes NaN where a number belongs.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is something else.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"no file {str(path)!r}, expected a summary written by write_json.") from error
    try:
        return RunSummary.from_json(content.decode("utf-8"))
    except (DataError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} can't be read: {error}") from error
