"""2D-to-3D lifting networks: `create(name)` builds one, `names()` and `info(name)` tell what there is.

Every backbone is a plain `nn.Module` from `[B, T, J, C]` (C = 2 or 3: x, y, optional confidence) to `[B, T_out, J, 3]`,
and reads its published checkpoints without executing code (`load_published`). `predict_video` runs one over a video of
any length, `predict_stream` piece by piece; a `BackboneStream` takes frames as they come.
"""

from .base import KINDS, Backbone, Supervision
from .checkpoints import LoadReport, load_published, save_checkpoint
from .conversion import convert, save_published
from .official import to_official
from .pretrained import pretrained_file, pretrained_names
from .registry import BackboneInfo, create, info, names
from .streaming import BackboneStream, full_lag
from .video import predict_stream, predict_video

__all__ = [
    "KINDS",
    "Backbone",
    "BackboneInfo",
    "BackboneStream",
    "LoadReport",
    "Supervision",
    "convert",
    "create",
    "full_lag",
    "info",
    "load_published",
    "names",
    "predict_stream",
    "predict_video",
    "pretrained_file",
    "pretrained_names",
    "save_checkpoint",
    "save_published",
    "to_official",
]
