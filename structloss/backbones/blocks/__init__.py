"""Building blocks that several backbones share.

Tokens are `[..., N, C]` or, for clips, `[B, T, J, C]` (batch, frames, joints, channels). That layout is kept through
the whole network: only attention over frames has to bring the frames next to the channels.
"""

from .attention import Attention, attend
from .checks import check_clip, check_rate, check_rates, check_ratio, check_size, check_sizes, has_length
from .dct import dct_matrix, inverse_dct_matrix
from .drop_path import DropPath, drop_path_rates
from .fusion import fuse
from .graph import graph_convolution, init_graph_weight, neighbours
from .initial import init_truncated_normal
from .joints import without_neck
from .levels import RunsLevels
from .mlp import MLP
from .norm import TokenBatchNorm, check_batch_statistics
from .representation import Representation
from .residual import ResidualUnit
from .std_norm import StdNorm
from .transformer import TransformerBlock

__all__ = [
    "MLP",
    "Attention",
    "DropPath",
    "Representation",
    "ResidualUnit",
    "RunsLevels",
    "StdNorm",
    "TokenBatchNorm",
    "TransformerBlock",
    "attend",
    "check_batch_statistics",
    "check_clip",
    "check_rate",
    "check_rates",
    "check_ratio",
    "check_size",
    "check_sizes",
    "dct_matrix",
    "drop_path_rates",
    "fuse",
    "graph_convolution",
    "has_length",
    "init_graph_weight",
    "init_truncated_normal",
    "inverse_dct_matrix",
    "neighbours",
    "without_neck",
]
