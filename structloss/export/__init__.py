"""Trained networks as files that run without Python or without structloss: ONNX, and torch's own exported programs.

:func:`export` takes any network of `structloss.backbones`, `structloss.images` and `structloss.refine` that gives
poses. What goes in and out, its units and the order of the joints are written into the file.
"""

from .exporting import FORMATS, Exported, export
from .ports import Port

__all__ = ["FORMATS", "Exported", "Port", "export"]
