"""What may follow a prediction: a refiner over time, and a person's own bone lengths."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import skeletons
from ..errors import ArgumentError, CheckpointError, DataError, shown
from ..reading import read_json
from ..refine import bone_lengths, fit_skeleton, refine_every
from .predict import Prediction
from .refining import LoadedRefiner

__all__ = ["fitted", "read_lengths", "refined"]

_UNITS = {"mm": 1e-3, "cm": 1e-2, "m": 1.0}


@torch.no_grad()
def refined(prediction: Prediction, refiner: LoadedRefiner, *, device: str | torch.device = "cpu") -> Prediction:
    """A prediction's poses as a refiner gives them.

    The network sees frames at the rate that it was trained on, as nearly as every n-th frame comes to it: of a video of
    50 frames per second, a network that was trained on 25 refines every frame by every second frame around it.

    Raises:
        ArgumentError: the refiner has another skeleton.
        CheckpointError: it answers with NaN or infinite values.
    """
    if refiner.skeleton != prediction.skeleton:
        raise ArgumentError(
            f"{refiner.source} refines poses of skeleton {refiner.skeleton!r}, expected one for "
            f"{prediction.skeleton!r}, in which the network answers."
        )
    step, note = refiner.frame_step(prediction.fps), refiner.note(prediction.fps)
    model = refiner.model.to(device)
    poses = torch.from_numpy(np.asarray(prediction.positions, np.float32))[None].to(device)
    found = refine_every(model, poses, step)[0].cpu().numpy()
    if not np.isfinite(found).all():
        raise CheckpointError(f"{refiner.name} with {refiner.source} gives NaN or infinite values, expected poses.")
    told = {"refiner": refiner.name, "refiner_weights": Path(refiner.source).name, "refiner_frame_step": step}
    notes = prediction.notes if note is None else (*prediction.notes, note)
    return replace(prediction, positions=found, meta={**prediction.meta, **told}, notes=notes)


def fitted(prediction: Prediction, lengths: np.ndarray | None = None) -> Prediction:
    """A prediction's poses with bones of constant length, in metres, in the order of
    :func:`structloss.refine.bone_lengths`; None is the median of the prediction's own, both sides alike.

    Raises:
        ArgumentError: a skeleton without a pelvis, or lengths of another number of bones.
    """
    poses = np.asarray(prediction.positions, np.float64)
    own = lengths is None
    lengths = bone_lengths(poses, prediction.skeleton) if lengths is None else lengths
    found = fit_skeleton(poses, lengths, prediction.skeleton).astype(np.float32)
    body = skeletons.get(prediction.skeleton)
    names = [body.joint_names[child] for child, _ in body.tree_bones]
    told: dict[str, Any] = {
        "bone_lengths": dict(zip(names, np.round(lengths, 6).tolist(), strict=True)),
        "bone_lengths_from": "the median of this prediction" if own else "given",
    }
    return replace(prediction, positions=found, meta={**prediction.meta, **told})


def read_lengths(path: str | os.PathLike[str], skeleton: str = "h36m") -> np.ndarray:
    """Bone lengths in metres `[bones]`, in the order of :func:`structloss.refine.bone_lengths`, from a JSON file.

    The file holds `{"units": "mm", "lengths": {"RHip": 132.9, "RKnee": 442.9, ...}}`: every bone by the name of its
    lower end, in "mm", "cm" or "m". The `bone_lengths` in `meta` of a prediction's npz are such lengths in metres.

    Raises:
        MissingFileError, DataError: no such file, no JSON, or not these lengths.
        UnknownNameError: an unknown skeleton.
    """
    content = read_json(path, "bone lengths")
    if not isinstance(content, Mapping) or not isinstance(content.get("lengths"), Mapping):
        raise DataError(f'{path} has no lengths, expected {{"units": "mm", "lengths": {{"RHip": 132.9, ...}}}}.')
    units, given = content.get("units"), content["lengths"]
    if not isinstance(units, str) or units not in _UNITS:
        raise DataError(f"units of {path} is {shown(units)}, expected 'mm', 'cm' or 'm'.")
    body = skeletons.get(skeleton)
    names = [body.joint_names[child] for child, _ in body.tree_bones]
    for name in given:
        if name not in names:
            raise DataError(f"lengths of {path} has {shown(name)}, expected joints of {skeleton}: {', '.join(names)}.")
    for name in names:
        value = given.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise DataError(f"the length of {name} in {path} is {shown(value)}, expected a number of {units}.")
    return np.array([float(given[name]) for name in names]) * _UNITS[units]
