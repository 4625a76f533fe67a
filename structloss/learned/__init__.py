"""A learned structural loss (SCoTL-pose / SEAL-pose): a loss network, trained beside the network that it judges."""

from .learned_loss import LearnedLoss
from .loss_net import VARIANTS, LossNet
from .negatives import CORRUPTIONS, corrupt

__all__ = ["CORRUPTIONS", "VARIANTS", "LearnedLoss", "LossNet", "corrupt"]
