"""Building blocks that several backbones share.

Tokens are `[..., N, C]` or, for clips, `[B, T, J, C]` (batch, frames, joints, channels). That layout is kept through
the whole network: only attention over frames has to bring the frames next to the channels.
"""

from .attention import Attention, attend
from .checks import check_clip, check_rate, check_ratio, check_size, check_sizes
from .drop_path import DropPath, drop_path_rates
from .graph import graph_convolution, init_graph_weight, neighbours
from .initial import init_truncated_normal
from .mlp import MLP
from .transformer import TransformerBlock

__all__ = [
    "MLP",
    "Attention",
    "DropPath",
    "TransformerBlock",
    "attend",
    "check_clip",
    "check_rate",
    "check_ratio",
    "check_size",
    "check_sizes",
    "drop_path_rates",
    "graph_convolution",
    "init_graph_weight",
    "init_truncated_normal",
    "neighbours",
]
