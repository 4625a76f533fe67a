"""Trained networks from images to poses, from checkpoints of `structloss fit` or published weights."""

from __future__ import annotations

import os
from typing import cast

from .. import images
from ..errors import ArgumentError, CheckpointError, check_choice
from .image_prediction import ImageNetwork
from .image_training import ImageModule
from .load import load_module, trained_arguments
from .systems import IMAGES

__all__ = ["COLOURS", "load_image_network"]

COLOURS = ("bgr", "rgb")
"""Orders of the channels that published weights were trained on."""


def load_image_network(
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    network: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    colours: str | None = None,
) -> ImageNetwork:
    """A trained network, from a training checkpoint or from published weights. Nothing in either is executed.

    Args:
        checkpoint: a file written by `structloss fit`.
        network: name in `structloss.images`, for `weights`.
        weights: published state dict or .safetensors file.
        colours: order of the channels that `weights` were trained on: "bgr", that of the authors' code, which None
            takes, or "rgb".

    Raises:
        ArgumentError: `colours` with a checkpoint, which is of "rgb", or others; neither or both of `checkpoint` and
            `network` with `weights`; a network that predicts no poses of SAP-Net's joints.
        UnknownNameError: an unknown network.
        MissingFileError, CheckpointError: the file is absent, unreadable, or of another network.
    """
    if (checkpoint is None) == (network is None) or (network is None) != (weights is None):
        raise ArgumentError("expected either a training checkpoint, or a network's name and its published weights.")
    if colours is not None:
        check_choice("colours", colours, COLOURS)
        if weights is None:
            raise ArgumentError(f"colours is {colours!r}, expected it with published weights only.")
    if checkpoint is not None:
        module = cast(ImageModule, load_module(checkpoint, IMAGES)[0])
        found = module.hparams
        return ImageNetwork(module.model, str(found["network"]), bool(found["flip_test"]), str(checkpoint))
    assert network is not None and weights is not None
    if _of_training(weights):  # whose colours and sizes it would not be read with
        raise ArgumentError(
            f"weights is {str(weights)!r}, a checkpoint of structloss fit, expected published weights; such a file is "
            "given as the checkpoint (--ckpt)."
        )
    model = images.create(network)
    if not isinstance(model, images.SAPNet):
        raise ArgumentError(f"network is {network!r}, expected one of SAP-Net: sapnet or sapnet-tiny.")
    images.load_published(model, weights)
    return ImageNetwork(model.eval(), network, False, str(weights), bgr=colours != "rgb")


def _of_training(path: str | os.PathLike[str]) -> bool:
    try:
        trained_arguments(path)
    except CheckpointError:
        return False
    return True
