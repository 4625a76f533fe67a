"""A learned structural loss (SCoTL-pose / SEAL-pose): a loss-net, trained by turns with the network that it judges."""

from .learned_loss import LearnedLoss
from .loss_net import VARIANTS, LossNet
from .negatives import CORRUPTIONS, corrupt

__all__ = ["CORRUPTIONS", "VARIANTS", "LearnedLoss", "LossNet", "corrupt"]
