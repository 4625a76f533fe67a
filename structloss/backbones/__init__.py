"""2D-to-3D lifting networks: `create(name)` builds one, `names()` and `info(name)` tell what there is.

Every backbone is a plain `nn.Module` from `[B, T, J, C]` (C = 2 or 3: x, y, optional confidence) to `[B, T_out, J, 3]`,
with the parameter names of its published checkpoints, which `load_published` reads without executing code.
"""

from .checkpoints import LoadReport, convert, load_published, save_checkpoint
from .registry import BackboneInfo, create, info, names

__all__ = ["BackboneInfo", "LoadReport", "convert", "create", "info", "load_published", "names", "save_checkpoint"]
