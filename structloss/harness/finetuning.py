"""Fine-tuning by `repose-finetune`: what the recipe leaves to the network, so that any can be given."""

from __future__ import annotations

from typing import Any

from .recipe_files import recipe_settings

__all__ = ["RECIPE", "settings_of_network"]

RECIPE = "repose-finetune"
_OWN = ("flip_probability", "flip_test")  # of a recipe's model; its optimizer and objective are the fine-tuning's
_SLIDE = ("videopose3d", "lift")
_ROW = 27  # frames in a row that networks of the centre are trained on


def settings_of_network(backbone: str) -> dict[str, Any]:
    """Option, such as "data.window", -> what a network is fine-tuned with in place of the recipe's.

    Target, joints, mirroring and cut are those of the network's own recipe. L_T needs several frames in a row:
    networks of single frames keep the windows of the fine-tuning, those that slide over longer clips (VideoPose3D's and
    ours) get longer ones with context.

    Args:
        backbone: name of a variant, or of a family.

    Returns:
        Nothing for a network that has no recipe.

    Raises:
        UnknownNameError: an unknown backbone.
    """
    from .. import backbones  # arguments of other commands are read without torch

    info = backbones.info(backbone)
    model, data = recipe_settings(backbone)
    if not data:
        return {}
    if info.kind == "frame":
        data = {key: value for key, value in data.items() if key in ("target", "skeleton", "detections")}
    else:
        data = {"stride": None, **data}  # the recipe's is for windows of its own
    if info.kind == "centre" and info.family in _SLIDE:
        data |= {**info.cut_for(_ROW), "sampling": "windows", "stride": _ROW // 3}
        data |= {"batch_size": 32, "eval_batch_size": 32}
    own = {name: model[name] for name in _OWN if name in model}
    return {f"data.{key}": value for key, value in data.items()} | {f"model.{key}": value for key, value in own.items()}
